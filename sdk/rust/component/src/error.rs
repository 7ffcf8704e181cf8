//! What a component says when it could not do its work.

use std::fmt::{self, Display, Write};

/// What most functions here give back.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a call failed. The host keeps nothing of a failed call: no output, no state, no rejected event.
///
/// Any [`std::error::Error`] becomes a permanent one with `?`:
///
/// ```
/// # use nodata_component::Result;
/// fn parse(text: &str) -> Result<u32> {
///     Ok(text.parse()?)
/// }
/// assert_eq!(parse("x").unwrap_err().to_string(), "invalid digit found in string");
/// ```
///
/// What may work later is said so:
///
/// ```
/// # use nodata_component::{Error, Result};
/// # fn look_up() -> std::result::Result<u32, std::io::Error> { Err(std::io::ErrorKind::TimedOut.into()) }
/// fn enrich() -> Result<u32> {
///     look_up().map_err(Error::transient)
/// }
/// assert!(enrich().unwrap_err().is_transient());
/// ```
// It does not implement `std::error::Error`: then the conversion below would be in conflict with the one of the
// standard library from each type to itself, and `?` is worth more to an author than a `dyn Error`.
#[derive(Clone, PartialEq, Eq)]
pub struct Error {
    is_transient: bool,
    message: String,
}

impl Error {
    /// Trying the same events again later may work. The host waits longer each time.
    pub fn transient(message: impl Display) -> Self {
        Self { is_transient: true, message: message.to_string() }
    }

    /// Trying again cannot help. The host tries once more on a fresh instance, then applies what the deployment
    /// says: usually it looks for the one event in the batch that cannot be processed and puts it aside.
    pub fn permanent(message: impl Display) -> Self {
        Self { is_transient: false, message: message.to_string() }
    }

    /// The same error, with what was being done in front of it.
    #[must_use]
    pub fn context(mut self, doing: impl Display) -> Self {
        self.message = format!("{doing}: {}", self.message);
        self
    }

    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        self.is_transient
    }

    /// In words.
    pub fn message(&self) -> &str {
        &self.message
    }

    #[cfg(target_family = "wasm")]
    pub(crate) fn into_message(self) -> String {
        self.message
    }
}

impl Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.is_transient { "transient" } else { "permanent" };
        write!(f, "{kind}({:?})", self.message)
    }
}

impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            // Many errors repeat their source in their own text.
            if !message.contains(&cause_text) {
                // Writing to a string does not fail.
                let _ = write!(message, ": {cause_text}");
            }
            source = cause.source();
        }
        Self::permanent(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Outer {
        text: &'static str,
        source: std::num::ParseIntError,
    }

    impl Display for Outer {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(self.text)
        }
    }

    impl std::error::Error for Outer {
        fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
            Some(&self.source)
        }
    }

    fn converted(text: &'static str) -> Error {
        Outer { text, source: "x".parse::<u8>().unwrap_err() }.into()
    }

    #[test]
    fn an_error_brings_its_sources() {
        assert_eq!(converted("no port").message(), "no port: invalid digit found in string");
        assert!(!converted("no port").is_transient());
    }

    #[test]
    fn a_source_that_is_in_the_text_is_not_repeated() {
        let text = "no port: invalid digit found in string";
        assert_eq!(converted(text).message(), text);
    }

    #[test]
    fn context_stands_in_front_and_keeps_the_kind() {
        let error = Error::transient("timed out").context("asking for rates");
        assert_eq!(format!("{error:?}"), r#"transient("asking for rates: timed out")"#);
        let error = Error::permanent("no such thing");
        assert_eq!(format!("{error:?}"), r#"permanent("no such thing")"#);
    }
}
