//! Drops debug lines, and hides who did it in the others.
//!
//! What goes in and comes out is in README.md. It works on bytes, and does so little for each that crossing is what it costs.

use nodata_component::{Events, Output, Result, Transform, component, config};

/// The component, with its configuration read once.
#[derive(Debug)]
pub struct FilterRewrite {
    keep_debug: bool,
}

#[component]
impl Transform for FilterRewrite {
    fn new() -> Result<Self> {
        Ok(Self { keep_debug: config::get_or("keep-debug", false)? })
    }

    fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
        for event in events {
            let line = event.bytes()?;
            if line.starts_with(b"debug ") && !self.keep_debug {
                continue;
            }
            let mut value = out.like(&event).writer();
            let (level, mut rest) = line.split_at(end_of_word(line));
            value.extend(level);
            value.as_mut().make_ascii_uppercase();
            if let Some(at) = find(rest, b" user=") {
                let (before, user) = rest.split_at(at + b" user=".len());
                value.extend(before);
                value.extend(b"***");
                rest = &user[end_of_word(user)..];
            }
            value.extend(rest);
            value.finish()?;
        }
        Ok(())
    }
}

fn end_of_word(text: &[u8]) -> usize {
    text.iter().position(|&byte| byte == b' ').unwrap_or(text.len())
}

fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    // Most bytes are told apart by the first one, which is cheaper than a comparison at every place.
    let first = part.first()?;
    text.iter().enumerate().position(|(at, byte)| byte == first && text[at..].starts_with(part))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_component::testing::{Event, Harness};

    fn rewritten(harness: Harness, lines: &[&str]) -> Vec<String> {
        let mut harness = harness;
        harness.call(lines.iter().copied()).ok().events().iter().map(Event::text).collect()
    }

    #[test]
    fn a_line_is_rewritten() {
        let lines = [
            "info host=web-17 user=ada path=/orders/4711 status=200",
            "warn user=grace",
            "error no one did it",
            "user=first-word-is-no-field user=",
            "",
        ];
        let expected = [
            "INFO host=web-17 user=*** path=/orders/4711 status=200",
            "WARN user=***",
            "ERROR no one did it",
            "USER=FIRST-WORD-IS-NO-FIELD user=***",
            "",
        ];
        assert_eq!(rewritten(Harness::of::<FilterRewrite>(), &lines), expected);
    }

    #[test]
    fn debug_lines_are_dropped_unless_they_are_kept() {
        let lines = ["debug user=ada", "debugging user=ada", "info x"];
        assert_eq!(rewritten(Harness::of::<FilterRewrite>(), &lines), ["DEBUGGING user=***", "INFO x"]);
        let all = rewritten(Harness::of::<FilterRewrite>().config("keep-debug", true), &lines);
        assert_eq!(all, ["DEBUG user=***", "DEBUGGING user=***", "INFO x"]);
    }

    #[test]
    fn key_and_timestamp_stay() {
        let call = Harness::of::<FilterRewrite>().call([Event::new("info x").key("k").timestamp_us(5)]).ok();
        assert_eq!(call.events(), [Event::new("INFO x").key("k").timestamp_us(5)]);
    }
}
