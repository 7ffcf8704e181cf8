//! Blackens e-mail addresses.
//!
//! What goes in and comes out is in README.md. It is written against the contract itself, without the SDK: `cargo component` makes the
//! bindings from `wit/streaming`, and events come and go as records.

// Tests run on this machine, where there is no host to bind to.
#[cfg(target_family = "wasm")]
#[allow(warnings, reason = "generated")]
#[rustfmt::skip]
mod bindings;

#[cfg(target_family = "wasm")]
mod component {
    use super::bindings::{
        self,
        exports::nodata::streaming::transformer::{Batch, Collector, Error, Guest},
    };

    struct Redact;

    impl Guest for Redact {
        fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
            let mut redacted = Vec::new();
            for (row, mut event) in input.events().into_iter().enumerate() {
                match event.value.take().map(String::from_utf8) {
                    Some(Ok(text)) => event.value = Some(super::redact(&text).into_bytes()),
                    Some(Err(error)) => {
                        out.reject(row as u32, &format!("the value is not text: {error}"));
                        continue;
                    }
                    None => {}
                }
                redacted.push(event);
            }
            out.emit("", &redacted).map_err(|error| Error::Permanent(error.to_string()))
        }
    }

    bindings::export!(Redact with_types_in bindings);
}

/// The text, with what could be an e-mail address replaced.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code, reason = "only a component calls it"))]
fn redact(text: &str) -> String {
    let words = text.split_inclusive(char::is_whitespace);
    let redacted = words.map(|word| {
        let space = &word[word.trim_end().len()..];
        if word.contains('@') { format!("[redacted]{space}") } else { word.to_owned() }
    });
    redacted.collect()
}

#[cfg(test)]
mod tests {
    use super::redact;

    #[test]
    fn addresses_are_blackened_and_the_rest_stays() {
        assert_eq!(redact("write to ada@example.com,\n or not\t"), "write to [redacted]\n or not\t");
        assert_eq!(redact("a@b c@d "), "[redacted] [redacted] ");
        assert_eq!(redact("größe\u{2003}x@y"), "größe\u{2003}[redacted]");
        assert_eq!(redact(""), "");
    }
}
