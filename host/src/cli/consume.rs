//! `nodata consume`

use crate::cli::out::time;
use crate::cli::{CliError, Common};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use clap::Args;
use nodata_client::{Event, From, Received, TailOptions};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};
use std::io::{self, BufWriter, Write};

/// Print the events of a topic, one JSON object on each line.
///
/// Without --follow it ends at the end that the topic has when it begins.
#[derive(Debug, Args)]
pub(crate) struct ConsumeArgs {
    /// The topic to read.
    topic: String,
    /// Where to begin: earliest, latest, an offset, or the time of an event, such as 2013-06-01T00:00:00Z [default: earliest, or
    /// latest with --follow].
    #[arg(long, value_name = "POSITION", value_parser = from)]
    from: Option<From>,
    /// Only these partitions.
    #[arg(long, value_name = "N")]
    partition: Vec<u32>,
    /// Go on with new events.
    #[arg(long)]
    follow: bool,
    /// Stop after so many events.
    #[arg(long, value_name = "N")]
    max: Option<u64>,
    /// Print values only, each followed by a line break.
    #[arg(long)]
    raw: bool,
    #[command(flatten)]
    common: Common,
}

fn from(text: &str) -> Result<From, String> {
    match text {
        "earliest" => Ok(From::Earliest),
        "latest" => Ok(From::Latest),
        _ => match text.parse() {
            Ok(offset) => Ok(From::Offset(offset)),
            Err(_) => {
                let example = "give earliest, latest, an offset, or a time such as 2013-06-01T00:00:00Z";
                time_us(text).map(From::Time).ok_or_else(|| example.to_owned())
            }
        },
    }
}

/// A time in microseconds since the Unix epoch. A time without a zone is in UTC, and a date is its midnight.
pub(crate) fn time_us(text: &str) -> Option<i64> {
    let in_utc = |time: jiff::civil::DateTime| time.to_zoned(jiff::tz::TimeZone::UTC).map(|time| time.timestamp());
    let time = text.parse::<jiff::Timestamp>().or_else(|_| text.parse().and_then(in_utc));
    time.ok().map(jiff::Timestamp::as_microsecond)
}

pub(crate) async fn run(args: ConsumeArgs) -> Result<(), CliError> {
    let json = args.common.json;
    consume(args).await.map_err(|error| error.told_as_json(json))
}

async fn consume(args: ConsumeArgs) -> Result<(), CliError> {
    let client = args.common.connect().await?;
    let from = args.from.unwrap_or(if args.follow { From::Latest } else { From::Earliest });
    let options = TailOptions { from, partitions: args.partition, follow: args.follow };
    let mut tail = client.tail(&args.topic, options).await?;
    let mut out = BufWriter::with_capacity(1 << 16, io::stdout());
    let mut left = args.max.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(batch) = tail.next_batch().await? else { break };
        for received in batch.events() {
            if left == 0 {
                break;
            }
            left -= 1;
            let received = received?;
            if args.raw {
                out.write_all(received.event.value.as_deref().unwrap_or_default())?;
            } else {
                serde_json::to_writer(&mut out, &Line::new(&args.topic, &received)).map_err(io::Error::from)?;
            }
            out.write_all(b"\n")?;
        }
        out.flush()?;
    }
    Ok(out.flush()?)
}

/// An event as it is printed.
#[derive(Serialize)]
pub(crate) struct Line<'a> {
    topic: &'a str,
    partition: u32,
    offset: u64,
    timestamp: String,
    id: Option<&'a str>,
    key: Option<String>,
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
    /// JSON that was written on several lines, on one.
    Rewritten(Value),
    Text(&'a str),
    Base64(String),
    None,
}

const BASE64_NAME: &str = "base64";

impl<'a> Line<'a> {
    pub(crate) fn new(topic: &'a str, received: &'a Received) -> Self {
        let Event { id, key, value, headers, timestamp_us } = &received.event;
        let (key, key_encoding) = match key.as_deref().map(std::str::from_utf8) {
            None => (None, None),
            Some(Ok(text)) => (Some(text.to_owned()), None),
            Some(Err(_)) => (key.as_ref().map(|key| BASE64.encode(key)), Some(BASE64_NAME)),
        };
        let headers = headers.iter().map(|(name, value)| {
            let shown = match std::str::from_utf8(value) {
                Ok(text) => Value::from(text),
                Err(_) => json!({ BASE64_NAME: BASE64.encode(value) }),
            };
            (name.clone(), shown)
        });
        let value = value.as_deref().map_or(Shown::None, shown);
        let encoding = matches!(value, Shown::Base64(_)).then_some(BASE64_NAME);
        Self {
            topic,
            partition: received.partition,
            offset: received.offset,
            timestamp: time(timestamp_us.unwrap_or_default()),
            id: id.as_deref(),
            key,
            key_encoding,
            headers: headers.collect(),
            value,
            encoding,
        }
    }
}

fn shown(value: &[u8]) -> Shown<'_> {
    let Ok(text) = std::str::from_utf8(value) else { return Shown::Base64(BASE64.encode(value)) };
    match serde_json::from_str::<&RawValue>(text) {
        Ok(json) if !json.get().contains('\n') && !json.get().contains('\r') => Shown::Json(json),
        Ok(json) => serde_json::from_str(json.get()).map_or(Shown::Text(text), Shown::Rewritten),
        Err(_) => Shown::Text(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(event: Event) -> String {
        let received = Received { partition: 2, offset: 7, append_timestamp_us: 0, event };
        serde_json::to_string(&Line::new("t", &received)).unwrap()
    }

    fn value(value: &'static [u8]) -> String {
        let line = check(Event { timestamp_us: Some(0), ..Event::new(value) });
        line.split_once("\"headers\":{},").unwrap().1.trim_end_matches('}').to_owned()
    }

    #[test]
    fn an_event_is_one_line_of_json() {
        let event = Event::new("{\"a\":1}").with_key("k").with_id("i").with_header("h", "1");
        let line = check(event.with_timestamp_us(1));
        assert_eq!(
            line,
            r#"{"topic":"t","partition":2,"offset":7,"timestamp":"1970-01-01T00:00:00.000001Z","id":"i","key":"k","headers":{"h":"1"},"value":{"a":1}}"#
        );
    }

    #[test]
    fn a_value_is_json_or_text_or_base64() {
        assert_eq!(value(b"12345678901234567890.123"), "\"value\":12345678901234567890.123");
        assert_eq!(value(b"plain"), "\"value\":\"plain\"");
        assert_eq!(value(b""), "\"value\":\"\"");
        assert_eq!(value(b"{\n \"a\": 1\n"), "\"value\":\"{\\n \\\"a\\\": 1\\n\"");
        assert_eq!(value(b"[1,\n2]"), "\"value\":[1,2]");
        assert_eq!(value(b"\xff\x00"), "\"value\":\"/wA=\",\"encoding\":\"base64\"");
        let tombstone = check(Event { key: Some(vec![0xff].into()), ..Event::default() });
        assert!(
            tombstone.ends_with(r#""key":"/w==","key_encoding":"base64","headers":{},"value":null}"#),
            "{tombstone}"
        );
    }

    #[test]
    fn a_position_is_a_word_an_offset_or_a_time() {
        assert_eq!(from("earliest"), Ok(From::Earliest));
        assert_eq!(from("17"), Ok(From::Offset(17)));
        assert_eq!(from("2013-06-01T00:00:00.000001Z"), Ok(From::Time(1_370_044_800_000_001)));
        assert_eq!(from("2013-06-01"), Ok(From::Time(1_370_044_800_000_000)));
        assert_eq!(
            from("yesterday").unwrap_err(),
            "give earliest, latest, an offset, or a time such as 2013-06-01T00:00:00Z"
        );
    }
}
