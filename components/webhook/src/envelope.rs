//! An event with all that belongs to it, in JSON: as `nodata consume` prints it.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use nodata_component::{Event, Events, Result};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::borrow::Cow;

const BASE64_NAME: &str = "base64";

#[derive(Serialize)]
struct Envelope<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
    timestamp: String,
    id: Option<&'a str>,
    key: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key_encoding: Option<&'static str>,
    headers: Map<String, Value>,
    value: Shown<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
}

/// A value: JSON as it is, else text, else base64.
#[derive(Serialize)]
#[serde(untagged)]
enum Shown<'a> {
    Json(&'a RawValue),
    Text(Cow<'a, str>),
    Tombstone,
}

pub(crate) fn write(events: Events<'_>, event: &Event<'_>, body: &mut Vec<u8>) -> Result<()> {
    let key = event.key().map(text);
    let header = |(name, value): (&str, _)| match text(value) {
        (text, None) => (name.to_owned(), Value::from(text)),
        (text, Some(encoding)) => (name.to_owned(), json!({ encoding: text })),
    };
    let (value, encoding) = match event.value().map(|value| (serde_json::from_slice(value), value)) {
        None => (Shown::Tombstone, None),
        Some((Ok(json), _)) => (Shown::Json(json), None),
        Some((Err(_), value)) => {
            let (text, encoding) = text(value);
            (Shown::Text(text), encoding)
        }
    };
    let start = body.len();
    serde_json::to_writer(
        &mut *body,
        &Envelope {
            topic: events.topic(),
            partition: events.partition(),
            offset: event.offset(),
            timestamp: time(event.timestamp_us()),
            id: event.id(),
            key_encoding: key.as_ref().and_then(|(_, encoding)| *encoding),
            key: key.map(|(text, _)| text),
            headers: event.headers().map(header).collect(),
            value,
            encoding,
        },
    )?;
    on_one_line(&mut body[start..]);
    Ok(())
}

/// A value that is JSON, as it is.
pub(crate) fn write_json(value: &RawValue, body: &mut Vec<u8>) {
    let start = body.len();
    body.extend_from_slice(value.get().as_bytes());
    on_one_line(&mut body[start..]);
}

/// Line breaks of JSON are white space between its tokens: within texts they are escaped.
fn on_one_line(json: &mut [u8]) {
    json.iter_mut().filter(|byte| matches!(byte, b'\n' | b'\r')).for_each(|byte| *byte = b' ');
}

/// Text as it is, and what is none in base64.
fn text(bytes: &[u8]) -> (Cow<'_, str>, Option<&'static str>) {
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.into(), None),
        Err(_) => (BASE64.encode(bytes).into(), Some(BASE64_NAME)),
    }
}

/// RFC 3339 in UTC, with microseconds.
fn time(timestamp_us: i64) -> String {
    match jiff::Timestamp::from_microsecond(timestamp_us) {
        Ok(timestamp) => format!("{timestamp:.6}"),
        // Outside of the years that RFC 3339 knows.
        Err(_) => timestamp_us.to_string(),
    }
}
