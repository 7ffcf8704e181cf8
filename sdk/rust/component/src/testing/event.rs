//! An event that owns its bytes.

/// One event, as a test gives it to a component or gets it from one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Its name.
    pub id: Option<String>,
    /// What decides its partition.
    pub key: Option<Vec<u8>>,
    /// Its content. `None` is a tombstone.
    pub value: Option<Vec<u8>>,
    /// In order.
    pub headers: Vec<(String, Vec<u8>)>,
    /// On output, `None` is "assigned on append". An input without one is given 0.
    pub timestamp_us: Option<i64>,
}

impl Event {
    /// An event with this value and nothing else.
    pub fn new(value: impl AsRef<[u8]>) -> Self {
        Self { value: Some(value.as_ref().to_vec()), ..Self::default() }
    }

    /// An event with this value in JSON and nothing else.
    #[cfg(feature = "json")]
    pub fn from_json<T: serde::Serialize + ?Sized>(value: &T) -> Self {
        match serde_json::to_vec(value) {
            Ok(json) => Self::new(json),
            Err(error) => panic!("the value of the event cannot be written as JSON: {error}"),
        }
    }

    /// An event without a value.
    pub fn tombstone() -> Self {
        Self::default()
    }

    /// The same event with this name.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The same event with this key.
    #[must_use]
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.key = Some(key.as_ref().to_vec());
        self
    }

    /// The same event with one header more.
    #[must_use]
    pub fn header(mut self, name: impl Into<String>, value: impl AsRef<[u8]>) -> Self {
        self.headers.push((name.into(), value.as_ref().to_vec()));
        self
    }

    /// The same event at this time, in microseconds since the Unix epoch.
    #[must_use]
    pub fn timestamp_us(mut self, timestamp_us: i64) -> Self {
        self.timestamp_us = Some(timestamp_us);
        self
    }

    /// The value as text; what is not UTF-8 is replaced, and a tombstone is empty.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(self.value.as_deref().unwrap_or_default()).into_owned()
    }

    /// The value from JSON. Panics where it is none, as a test should.
    #[cfg(feature = "json")]
    pub fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        match serde_json::from_slice(self.value.as_deref().unwrap_or_default()) {
            Ok(value) => value,
            Err(error) => panic!("the event `{}` is not the JSON that was expected: {error}", self.text()),
        }
    }

    /// Bytes of id, key, value and headers.
    pub fn byte_size(&self) -> usize {
        self.id.as_ref().map_or(0, String::len)
            + self.key.as_ref().map_or(0, Vec::len)
            + self.value.as_ref().map_or(0, Vec::len)
            + self.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
    }
}

impl From<&str> for Event {
    fn from(value: &str) -> Self {
        Self::new(value)
    }
}

impl From<String> for Event {
    fn from(value: String) -> Self {
        Self::new(value)
    }
}

impl From<&[u8]> for Event {
    fn from(value: &[u8]) -> Self {
        Self::new(value)
    }
}

impl From<Vec<u8>> for Event {
    fn from(value: Vec<u8>) -> Self {
        Self::new(value)
    }
}
