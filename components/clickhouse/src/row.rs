//! An event as a row of `JSONEachRow`.

use nodata_component::{Event, Events, Result};
use serde_json::value::RawValue;
use std::io::Write as _;
use std::str::FromStr;

/// A column for something that belongs to an event and is not in its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Column {
    Topic,
    Partition,
    Offset,
    Id,
    Key,
    Timestamp,
}

impl Column {
    pub(crate) const ALL: [Self; 6] =
        [Self::Topic, Self::Partition, Self::Offset, Self::Id, Self::Key, Self::Timestamp];

    fn name(self) -> &'static str {
        match self {
            Self::Topic => "_topic",
            Self::Partition => "_partition",
            Self::Offset => "_offset",
            Self::Id => "_id",
            Self::Key => "_key",
            Self::Timestamp => "_timestamp",
        }
    }
}

impl FromStr for Column {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let found = Self::ALL.into_iter().find(|column| column.name() == name.trim());
        found.ok_or_else(|| format!("`{name}` is none of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

/// Writes the fields of the value, which must be an object, with the columns before them.
pub(crate) fn write(
    events: Events<'_>,
    event: &Event<'_>,
    columns: &[Column],
    rows: &mut Vec<u8>,
) -> Result<(), String> {
    let value: &RawValue = event.json().map_err(|error| error.to_string())?;
    let Some(fields) = value.get().strip_prefix('{') else {
        return Err(format!("the event at offset {} is not a JSON object", event.offset()));
    };
    let has_fields = !fields.trim_start().starts_with('}');
    rows.push(b'{');
    for (number, column) in columns.iter().enumerate() {
        if number > 0 {
            rows.push(b',');
        }
        // Writing to memory does not fail.
        let _ = write!(rows, "\"{}\":", column.name());
        match column {
            Column::Topic => text(events.topic().as_bytes(), rows),
            Column::Partition => drop(write!(rows, "{}", events.partition())),
            Column::Offset => drop(write!(rows, "{}", event.offset())),
            Column::Id => text_or_null(event.id().map(str::as_bytes), rows),
            Column::Key => text_or_null(event.key(), rows),
            Column::Timestamp => match jiff::Timestamp::from_microsecond(event.timestamp_us()) {
                Ok(timestamp) => drop(write!(rows, "\"{timestamp:.6}\"")),
                Err(error) => return Err(format!("the event at offset {}: its timestamp: {error}", event.offset())),
            },
        }
    }
    if has_fields && !columns.is_empty() {
        rows.push(b',');
    }
    rows.extend_from_slice(fields.as_bytes());
    rows.push(b'\n');
    Ok(())
}

fn text_or_null(bytes: Option<&[u8]>, rows: &mut Vec<u8>) {
    match bytes {
        Some(bytes) => text(bytes, rows),
        None => rows.extend_from_slice(b"null"),
    }
}

/// A text of JSON, of any bytes: ClickHouse takes them as they are.
fn text(bytes: &[u8], rows: &mut Vec<u8>) {
    rows.push(b'"');
    for byte in bytes {
        match byte {
            b'"' | b'\\' => rows.extend_from_slice(&[b'\\', *byte]),
            0..0x20 => drop(write!(rows, "\\u{byte:04x}")),
            _ => rows.push(*byte),
        }
    }
    rows.push(b'"');
}
