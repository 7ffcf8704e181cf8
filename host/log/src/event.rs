//! One event, and the checks that every event passes once, at the door.

use crate::limits::{EVENT_ID_BYTES_MAX, HEADER_NAME_BYTES_MAX, HEADERS_MAX};
use bytes::Bytes;
use std::fmt;
use thiserror::Error;

/// Microseconds since the Unix epoch, UTC.
pub type TimestampUs = i64;

/// An event that owns its bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Chosen by the producer, for deduplication and tracing.
    pub id: Option<String>,
    /// Decides the partition. An empty key is a key, `None` is not.
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    /// In order; no name twice.
    pub headers: Vec<(String, Bytes)>,
    /// `None`: the time at which the batch was built.
    pub timestamp_us: Option<TimestampUs>,
}

impl Event {
    /// An event with this value and nothing else.
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// The same event with this key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The same event with this id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// Bytes that count against limits: id, key, value and headers.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.id.as_ref().map_or(0, String::len)
            + self.key.as_ref().map_or(0, Bytes::len)
            + self.value.as_ref().map_or(0, Bytes::len)
            + headers
    }
}

/// An event inside a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventRef<'a> {
    pub(crate) id: Option<&'a [u8]>,
    /// Decides the partition.
    pub key: Option<&'a [u8]>,
    /// `None` is a tombstone.
    pub value: Option<&'a [u8]>,
    pub(crate) headers: &'a [u8],
    /// Given by the producer, or the time at which the batch was built.
    pub timestamp_us: TimestampUs,
}

impl<'a> EventRef<'a> {
    /// The id. It was checked to be UTF-8 when the batch was built.
    pub fn id(&self) -> Option<&'a str> {
        self.id.and_then(|id| std::str::from_utf8(id).ok())
    }

    /// The headers, in order.
    pub fn headers(&self) -> Headers<'a> {
        Headers::new(self.headers)
    }

    /// Bytes that count against limits: id, key, value and headers.
    pub fn size(&self) -> usize {
        let headers: usize = self.headers().map(|(name, value)| name.len() + value.len()).sum();
        self.id.map_or(0, <[u8]>::len) + self.key.map_or(0, <[u8]>::len) + self.value.map_or(0, <[u8]>::len) + headers
    }

    /// A copy that owns its bytes.
    pub fn to_event(&self) -> Event {
        Event {
            id: self.id().map(str::to_owned),
            key: self.key.map(Bytes::copy_from_slice),
            value: self.value.map(Bytes::copy_from_slice),
            headers: self.headers().map(|(name, value)| (name.to_owned(), Bytes::copy_from_slice(value))).collect(),
            timestamp_us: Some(self.timestamp_us),
        }
    }
}

/// The headers of one event: for each, the length of the name as a varint, the name, the length of the value as
/// a varint, the value.
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Headers<'a> {
    /// Of these bytes, as [`put_header`] made them.
    pub fn new(encoded: &'a [u8]) -> Self {
        Self { rest: encoded }
    }

    fn take(&mut self) -> Option<&'a [u8]> {
        let len = take_varint(&mut self.rest)? as usize;
        let (taken, rest) = self.rest.split_at_checked(len)?;
        self.rest = rest;
        Some(taken)
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let name = self.take()?;
        let value = self.take()?;
        Some((std::str::from_utf8(name).ok()?, value))
    }
}

/// Encodes one header at the end of the headers of its event; [`Headers`] reads them back.
pub fn put_header(out: &mut Vec<u8>, name: &str, value: &[u8]) {
    put_varint(out, name.len() as u32);
    out.extend_from_slice(name.as_bytes());
    put_varint(out, value.len() as u32);
    out.extend_from_slice(value);
}

fn put_varint(out: &mut Vec<u8>, mut value: u32) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn take_varint(bytes: &mut &[u8]) -> Option<u32> {
    let mut value = 0u32;
    for shift in [0, 7, 14, 21, 28] {
        let (&byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u32::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// What is wrong with one event.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum EventError {
    #[error("the id has {bytes} bytes, at most {EVENT_ID_BYTES_MAX} are allowed")]
    IdTooLong { bytes: usize },
    #[error("the id is empty; leave it out instead")]
    IdEmpty,
    #[error("the id is not UTF-8")]
    IdNotUtf8,
    #[error("a header has an empty name")]
    HeaderNameEmpty,
    #[error("header name `{name}…` has {bytes} bytes, at most {HEADER_NAME_BYTES_MAX} are allowed")]
    HeaderNameTooLong { name: String, bytes: usize },
    #[error("a header name is not UTF-8")]
    HeaderNameNotUtf8,
    #[error("header `{name}` is given twice; header names are unique in an event")]
    HeaderRepeated { name: String },
    #[error("{count} headers, at most {HEADERS_MAX} are allowed")]
    TooManyHeaders { count: usize },
    #[error("the value is not UTF-8, and the values of the topic are {values}")]
    ValueNotUtf8 { values: ValueType },
    #[error("the value is not JSON, and the values of the topic are: {what}")]
    ValueNotJson { what: String },
    #[error("{bytes} bytes (id, key, value and headers), at most {bytes_max} are allowed")]
    TooLarge { bytes: usize, bytes_max: u32 },
}

/// What the values of a topic are. Whoever reads the files of the topic finds a column of this type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ValueType {
    /// Anything.
    #[default]
    Bytes,
    /// UTF-8.
    Text,
    /// One JSON value.
    Json,
}

impl ValueType {
    /// Checks a value. `None` is a tombstone, which every topic takes.
    pub fn check(self, value: Option<&[u8]>) -> Result<(), EventError> {
        let Some(value) = value else { return Ok(()) };
        match self {
            ValueType::Bytes => Ok(()),
            ValueType::Text => {
                std::str::from_utf8(value).map(drop).map_err(|_| EventError::ValueNotUtf8 { values: self })
            }
            ValueType::Json => {
                let text = std::str::from_utf8(value).map_err(|_| EventError::ValueNotUtf8 { values: self })?;
                let json: Result<serde::de::IgnoredAny, _> = serde_json::from_str(text);
                json.map(drop).map_err(|error| EventError::ValueNotJson { what: error.to_string() })
            }
        }
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            ValueType::Bytes => "bytes",
            ValueType::Text => "text",
            ValueType::Json => "JSON",
        })
    }
}

/// Checks an id.
pub fn check_id(id: &[u8]) -> Result<&str, EventError> {
    if id.is_empty() {
        return Err(EventError::IdEmpty);
    }
    if id.len() > EVENT_ID_BYTES_MAX {
        return Err(EventError::IdTooLong { bytes: id.len() });
    }
    std::str::from_utf8(id).map_err(|_| EventError::IdNotUtf8)
}

/// Checks the header names of one event. Quadratic in their number, which is bounded and usually under ten.
pub fn check_header_names<'a>(names: impl ExactSizeIterator<Item = &'a [u8]> + Clone) -> Result<(), EventError> {
    let count = names.len();
    if count > HEADERS_MAX {
        return Err(EventError::TooManyHeaders { count });
    }
    for (at, name) in names.clone().enumerate() {
        if name.is_empty() {
            return Err(EventError::HeaderNameEmpty);
        }
        let text = std::str::from_utf8(name).map_err(|_| EventError::HeaderNameNotUtf8)?;
        if name.len() > HEADER_NAME_BYTES_MAX {
            return Err(EventError::HeaderNameTooLong { name: text.chars().take(32).collect(), bytes: name.len() });
        }
        if names.clone().take(at).any(|earlier| earlier == name) {
            return Err(EventError::HeaderRepeated { name: text.to_owned() });
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Result<(), String> {
        check_header_names(names.iter().map(|name| name.as_bytes())).map_err(|error| error.to_string())
    }

    #[test]
    fn header_names_are_unique_bounded_and_not_empty() {
        assert_eq!(names(&[]), Ok(()));
        assert_eq!(names(&["a", "b"]), Ok(()));
        assert_eq!(
            names(&["a", "b", "a"]),
            Err("header `a` is given twice; header names are unique in an event".to_owned())
        );
        assert_eq!(names(&["a", ""]), Err("a header has an empty name".to_owned()));
        let long = "n".repeat(257);
        assert_eq!(
            names(&[&long]),
            Err(format!("header name `{}…` has 257 bytes, at most 256 are allowed", "n".repeat(32)))
        );
        let many: Vec<String> = (0..257).map(|n| n.to_string()).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert_eq!(names(&many), Err("257 headers, at most 256 are allowed".to_owned()));
    }

    #[test]
    fn values_are_what_the_topic_says() {
        let check = |values: ValueType, value: &[u8]| values.check(Some(value)).map_err(|error| error.to_string());
        assert_eq!(check(ValueType::Bytes, &[0xff]), Ok(()));
        assert_eq!(check(ValueType::Text, "naïve".as_bytes()), Ok(()));
        assert_eq!(
            check(ValueType::Text, &[0xff]).unwrap_err(),
            "the value is not UTF-8, and the values of the topic are text"
        );
        assert_eq!(check(ValueType::Json, br#" {"a":[1,null,"\u00e4"]} "#), Ok(()));
        assert_eq!(
            check(ValueType::Json, b"{\"a\":}").unwrap_err(),
            "the value is not JSON, and the values of the topic are: expected value at line 1 column 6"
        );
        assert!(check(ValueType::Json, b"").is_err() && check(ValueType::Json, b"1 2").is_err());
        assert!(check(ValueType::Json, b"\"\xff\"").is_err());
        for values in [ValueType::Bytes, ValueType::Text, ValueType::Json] {
            assert_eq!(values.check(None), Ok(()));
        }
    }

    #[test]
    fn ids_are_bounded_utf8() {
        assert_eq!(check_id(b"F000001"), Ok("F000001"));
        assert_eq!(check_id(b""), Err(EventError::IdEmpty));
        assert_eq!(check_id(&[b'x'; 257]), Err(EventError::IdTooLong { bytes: 257 }));
        assert_eq!(check_id(&[0xff]), Err(EventError::IdNotUtf8));
    }

    #[test]
    fn varints_come_back() {
        for value in [0, 1, 127, 128, 16_383, 16_384, u32::MAX - 1, u32::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            let mut rest = bytes.as_slice();
            assert_eq!(take_varint(&mut rest), Some(value));
            assert!(rest.is_empty());
        }
        assert_eq!(take_varint(&mut [0x80u8, 0x80].as_slice()), None);
    }
}
