//! Bodies of requests: which events go into one, and how they are written.

use crate::envelope;
use nodata_component::{Event, Events, Rejects, Result};
use std::ops::Range;
use std::str::FromStr;

/// How several events are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Json,
    Ndjson,
    /// One event, and nothing but its value.
    Raw,
}

/// What is sent of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Envelope,
    Value,
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "ndjson" => Ok(Self::Ndjson),
            "raw" => Ok(Self::Raw),
            _ => Err("give json, ndjson or raw"),
        }
    }
}

impl FromStr for Part {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "envelope" => Ok(Self::Envelope),
            "value" => Ok(Self::Value),
            _ => Err("give envelope or value"),
        }
    }
}

/// How events become bodies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) format: Format,
    pub(crate) part: Part,
    /// Events of one body; `None`: each is a body of its own.
    pub(crate) events_max: Option<usize>,
    pub(crate) bytes_max: usize,
}

/// One body.
#[derive(Debug)]
pub(crate) struct Body {
    pub(crate) bytes: Vec<u8>,
    /// What is in it, and between: what cannot be sent was put aside.
    pub(crate) rows: Range<usize>,
    /// The first and the last that is in it; `None`: nothing is.
    pub(crate) sent: Option<(usize, usize)>,
    /// Whether no event that may come would have found room.
    pub(crate) is_full: bool,
}

impl Shape {
    /// The body that begins with this row. Where it ends depends on nothing but the events, so it is the same each time.
    pub(crate) fn body(self, events: Events<'_>, from: usize, rejects: &mut Rejects<'_>) -> Body {
        let Self { format, events_max, bytes_max, .. } = self;
        let is_array = format == Format::Json && events_max.is_some();
        let mut body = Body { bytes: Vec::new(), rows: from..from, sent: None, is_full: false };
        let mut count = 0;
        while let Some(event) = events.get(body.rows.end) {
            let before = body.bytes.len();
            if is_array {
                body.bytes.push(if count == 0 { b'[' } else { b',' });
            }
            let written = self.write(events, &event, &mut body.bytes);
            if format == Format::Ndjson {
                body.bytes.push(b'\n');
            }
            let bytes = body.bytes.len() + usize::from(is_array);
            if written.is_ok() && bytes <= bytes_max {
                count += 1;
                body.sent = Some((body.sent.map_or(body.rows.end, |(first, _)| first), body.rows.end));
                body.rows.end += 1;
            } else {
                body.bytes.truncate(before);
                match written {
                    Err(why) => rejects.reject(&event, why),
                    Ok(()) if count > 0 => {
                        body.is_full = true;
                        break;
                    }
                    Ok(()) => {
                        let what =
                            format!("it makes a body of {bytes} bytes; config `request-bytes` allows {bytes_max}");
                        rejects.reject(&event, what);
                    }
                }
                body.rows.end += 1;
            }
            if count == events_max.unwrap_or(1) {
                body.is_full = true;
                break;
            }
        }
        if is_array && count > 0 {
            body.bytes.push(b']');
        }
        body
    }

    fn write(self, events: Events<'_>, event: &Event<'_>, body: &mut Vec<u8>) -> Result<()> {
        match (self.format, self.part) {
            (Format::Raw, _) => body.extend_from_slice(event.bytes()?),
            (_, Part::Envelope) => envelope::write(events, event, body)?,
            (_, Part::Value) => envelope::write_json(event.json()?, body),
        }
        Ok(())
    }
}
