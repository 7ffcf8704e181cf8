//! What the deployment tells the component: text by key, fixed while an instance lives.
//!
//! ```
//! use nodata_component::{Result, config};
//!
//! fn threshold() -> Result<f64> {
//!     config::get_or("threshold", 0.5)
//! }
//! ```

use crate::error::{Error, Result};
use crate::host;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// The text of this key.
pub fn get(key: &str) -> Option<String> {
    host::config::get(key)
}

/// Every key with its text, ordered by key.
pub fn all() -> Vec<(String, String)> {
    host::config::all()
}

/// The secret of this name, if the deployment was granted one. Secrets are not in [`all`].
pub fn secret(name: &str) -> Option<Vec<u8>> {
    host::config::secret(name)
}

/// The value of this key. An error if there is none, or if it does not parse.
pub fn require<T: FromStr<Err: Display>>(key: &str) -> Result<T> {
    parse(key)?.ok_or_else(|| Error::permanent(format_args!("config `{key}` is missing")))
}

/// The value of this key, or `default` if there is none. An error if it does not parse.
pub fn get_or<T: FromStr<Err: Display>>(key: &str, default: T) -> Result<T> {
    Ok(parse(key)?.unwrap_or(default))
}

/// The value of this key, or `default` if there is none. An error if it does not parse, or is not within these bounds.
pub fn within<T>(key: &str, default: T, bounds: RangeInclusive<T>) -> Result<T>
where
    T: FromStr<Err: Display> + PartialOrd + Display,
{
    let value = get_or(key, default)?;
    if bounds.contains(&value) {
        return Ok(value);
    }
    let (least, most) = bounds.into_inner();
    Err(Error::permanent(format_args!("config `{key}` is {value}; it is {least} to {most}")))
}

/// The value of this key, if there is one. An error if it does not parse.
pub fn parse<T: FromStr<Err: Display>>(key: &str) -> Result<Option<T>> {
    let Some(text) = get(key) else { return Ok(None) };
    text.parse()
        .map(Some)
        .map_err(|error| Error::permanent(format_args!("config `{key}` is `{text}`, which does not parse: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Harness;

    #[test]
    fn a_value_is_there_is_missing_or_does_not_parse() {
        let mut harness = Harness::new(|_, _| {
            assert_eq!(get("minutes").as_deref(), Some("90"));
            assert_eq!(require::<u32>("minutes")?, 90);
            assert_eq!(get_or("hours", 2)?, 2);
            assert_eq!(parse::<f64>("hours")?, None);
            assert_eq!((within("minutes", 1, 1..=90)?, within("hours", 2, 1..=24)?), (90, 2));
            let beyond = within("minutes", 1, 1..=60).unwrap_err();
            assert_eq!(beyond.message(), "config `minutes` is 90; it is 1 to 60");
            assert_eq!(require::<u32>("hours").unwrap_err().message(), "config `hours` is missing");
            assert_eq!(
                get_or("mark", 1u32).unwrap_err().message(),
                "config `mark` is `!`, which does not parse: invalid digit found in string"
            );
            assert_eq!(all(), [("mark", "!"), ("minutes", "90")].map(|(key, text)| (key.into(), text.into())));
            assert_eq!((secret("token"), secret("mark")), (Some(b"t0k3n".to_vec()), None));
            Ok(())
        })
        .config("minutes", 90)
        .config("mark", '!')
        .secret("token", "t0k3n");
        harness.call(["x"]).ok();
    }
}
