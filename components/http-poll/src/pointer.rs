//! Places in JSON, as RFC 6901 writes them, without taking apart what is not on the way: what is found is as it was written.

use serde_json::value::RawValue;
use std::borrow::Cow;
use std::collections::HashMap;
use std::str::FromStr;

/// The steps from the outermost value to the one that is meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pointer(Vec<String>);

impl FromStr for Pointer {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            None if text.is_empty() => Ok(Self(Vec::new())),
            Some(("", steps)) => {
                Ok(Self(steps.split('/').map(|step| step.replace("~1", "/").replace("~0", "~")).collect()))
            }
            _ => Err("a JSON pointer is empty or begins with `/`, such as /data/items"),
        }
    }
}

impl Pointer {
    /// What is there. Null is nothing.
    pub(crate) fn find<'a>(&self, value: &'a RawValue) -> Option<&'a RawValue> {
        let mut found = value;
        for step in &self.0 {
            found = match found.get().as_bytes().first()? {
                b'{' => {
                    let fields: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(found.get()).ok()?;
                    fields.get(step.as_str()).copied()?
                }
                b'[' => {
                    let elements: Vec<&RawValue> = serde_json::from_str(found.get()).ok()?;
                    elements.get(step.parse::<usize>().ok()?).copied()?
                }
                _ => return None,
            };
        }
        (found.get() != "null").then_some(found)
    }

    /// What is there, as text: of a text what it says, of anything else how it is written.
    pub(crate) fn text(&self, value: &RawValue) -> Option<String> {
        let found = self.find(value)?.get();
        Some(serde_json::from_str(found).unwrap_or_else(|_| found.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_found_is_as_it_was_written() {
        let value: &RawValue =
            serde_json::from_str(r#"{"a":{"b/c~":[1.10,"x\u0041",null,{"d": 1}]},"":true}"#).unwrap();
        let text = |pointer: &str| pointer.parse::<Pointer>().unwrap().text(value);
        assert_eq!(text("/a/b~1c~0/0").as_deref(), Some("1.10"));
        assert_eq!(text("/a/b~1c~0/1").as_deref(), Some("xA"));
        assert_eq!(text("/a/b~1c~0/3").as_deref(), Some(r#"{"d": 1}"#));
        assert_eq!(text("/").as_deref(), Some("true"));
        for nothing in ["/a/b~1c~0/2", "/a/b~1c~0/4", "/a/b~1c~0/x", "/b", "//x"] {
            assert_eq!(text(nothing), None, "{nothing}");
        }
        assert!(text("").is_some() && "a".parse::<Pointer>().is_err());
    }
}
