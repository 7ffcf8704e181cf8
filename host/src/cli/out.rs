//! How a command prints: tables for people, JSON for programs.

use crate::cli::CliError;
use serde_json::Value;
use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write};

/// Standard output.
pub(crate) struct Out {
    json: bool,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        Self { json }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// The JSON for a program, or the lines for a person. Each stays one line, whatever is in it.
    pub(crate) fn show(&self, json: &Value, lines: impl FnOnce() -> Vec<String>) -> Result<(), CliError> {
        let mut out = io::stdout().lock();
        if self.json {
            serde_json::to_writer_pretty(&mut out, json).map_err(io::Error::from)?;
            writeln!(out)?;
        } else {
            for line in lines() {
                writeln!(out, "{}", one_line(&line))?;
            }
        }
        Ok(out.flush()?)
    }

    /// Says something that is not data, on one line.
    pub(crate) fn say(&self, text: &str) {
        // A closed standard error is no reason to fail.
        let _ = writeln!(io::stderr(), "{}", one_line(text));
    }
}

/// Text that a terminal can show: what a component says must not move the cursor, or write over what others say.
pub(crate) fn readable(text: &str) -> Cow<'_, str> {
    let moves = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    if text.contains(moves) { text.replace(moves, "\u{fffd}").into() } else { text.into() }
}

/// The same on one line: what others said must not look like a line that this program says.
pub(crate) fn one_line(text: &str) -> Cow<'_, str> {
    let text = readable(text);
    if text.contains('\n') { text.replace('\n', " ").into() } else { text }
}

/// Whether a person is watching.
pub(crate) fn has_terminal() -> bool {
    io::stderr().is_terminal()
}

/// Whether a person is typing.
pub(crate) fn has_input_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Columns are at most so wide.
const WIDTH_MAX: usize = 1000;

/// Columns as wide as what is in them.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        // Wider ones stand out: nobody has such a screen, and no formatter such a width.
        cells.chain([head[column].chars().count()]).max().unwrap_or(0).min(WIDTH_MAX)
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(head.to_vec())];
    lines.extend(rows.iter().map(|row| line(row.iter().map(String::as_str).collect())));
    lines
}

/// A moment for people and programs: RFC 3339 in UTC, with microseconds.
pub(crate) fn time(timestamp_us: i64) -> String {
    match jiff::Timestamp::from_microsecond(timestamp_us) {
        Ok(timestamp) => format!("{timestamp:.6}"),
        // Outside of the years that RFC 3339 knows.
        Err(_) => timestamp_us.to_string(),
    }
}

/// A number of bytes for people.
pub(crate) fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

/// A count of things, with the right word.
pub(crate) fn count_of(number: u64, thing: &str) -> String {
    format!("{} {thing}{}", count(number), if number == 1 { "" } else { "s" })
}

/// A count for people, in groups of three digits.
pub(crate) fn count(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!([0, 999, 1000, 336_776, 1_000_000].map(count), ["0", "999", "1 000", "336 776", "1 000 000"]);
        assert_eq!([0, 1023, 1024, 1536, 64 << 20].map(bytes), ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "64.0 MiB"]);
        assert_eq!(time(1_357_034_400_000_001), "2013-01-01T10:00:00.000001Z");
        assert_eq!(time(i64::MAX), i64::MAX.to_string());
    }

    #[test]
    fn columns_are_as_wide_as_what_is_in_them() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["longer".to_owned(), String::new()]];
        assert_eq!(table(&["NAME", "N"], &rows), ["NAME    N", "a       1", "longer"]);
        let huge = "x".repeat(100_000);
        let lines = table(&["NAME", "N"], &[vec![huge.clone(), "1".to_owned()]]);
        assert_eq!((lines[0].len(), &lines[1]), (WIDTH_MAX + 3, &format!("{huge}  1")));
    }

    #[test]
    fn nothing_moves_the_cursor() {
        assert_eq!(readable("a\tb\nc é"), "a\tb\nc é");
        assert_eq!(readable("\u{1b}[2J\rall is well\u{8}\u{9b}"), "\u{fffd}[2J\u{fffd}all is well\u{fffd}\u{fffd}");
    }

    #[test]
    fn a_line_stays_a_line() {
        assert_eq!(one_line("a\tb"), "a\tb");
        assert_eq!(one_line("late\nrevision   9\r\n\u{1b}[A"), "late revision   9\u{fffd} \u{fffd}[A");
    }
}
