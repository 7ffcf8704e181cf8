//! `nodata publish`

use crate::cli::out::{Out, bytes, count, count_of, has_terminal};
use crate::cli::{CliError, Common};
use crate::limits::{LINE_BYTES_MAX, PUBLISH_BYTES, PUBLISH_READ_AHEAD, READ_BYTES};
use clap::{Args, ValueEnum};
use futures::StreamExt as _;
use futures::stream::FuturesOrdered;
use indicatif::{ProgressBar, ProgressStyle};
use nodata_client::{Ack, Batch, Error, Event, PublisherOptions};
use serde_json::{Map, Value, json};
use std::cell::Cell;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Publish events from a file or standard input, each line or row one event.
///
/// Every event is appended once, also when the connection breaks or the server restarts in between.
#[derive(Debug, Args)]
pub(crate) struct PublishArgs {
    /// The topic to publish to.
    topic: String,
    /// The file to read; `-` is standard input.
    #[arg(long, default_value = "-", value_name = "FILE")]
    file: PathBuf,
    /// What is in it [default: csv for a name that ends in .csv, else ndjson].
    #[arg(long)]
    format: Option<Format>,
    /// Use this field as the key. Events with equal keys keep their order.
    #[arg(long, value_name = "FIELD")]
    key_field: Option<String>,
    /// Use this field as the id.
    #[arg(long, value_name = "FIELD")]
    id_field: Option<String>,
    /// Use this field as the timestamp: a time as in RFC 3339, a date, or seconds since 1970. Events without it get the time at
    /// which the server takes them.
    #[arg(long, value_name = "FIELD")]
    time_field: Option<String>,
    /// When an event counts as published.
    #[arg(long, default_value = "durable")]
    ack: AckArg,
    /// Events in one request.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    batch: usize,
    #[command(flatten)]
    common: Common,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A JSON value on each line. The event is the line as it is.
    Ndjson,
    /// A head with the names of the columns, then rows. The event is a JSON object: numbers, true and false as such, an
    /// empty cell as null, all else as text.
    Csv,
    /// Text: the event is the line as it is.
    Text,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum AckArg {
    /// After the sync: it survives the loss of power.
    Durable,
    /// After the write: it survives the end of the server.
    Written,
    /// At once: it may be lost.
    None,
}

impl From<AckArg> for Ack {
    fn from(ack: AckArg) -> Self {
        match ack {
            AckArg::Durable => Ack::Durable,
            AckArg::Written => Ack::Written,
            AckArg::None => Ack::None,
        }
    }
}

/// Events of one request, and what to say about them.
struct Part {
    batch: Batch,
    /// The lines of the first and of the last event.
    lines: RangeInclusive<u64>,
    /// Bytes of the input.
    input_bytes: u64,
}

pub(crate) async fn run(args: PublishArgs) -> Result<(), CliError> {
    let json = args.common.json;
    publish(args).await.map_err(|error| error.told_as_json(json))
}

async fn publish(args: PublishArgs) -> Result<(), CliError> {
    let out = args.common.out();
    if args.batch == 0 {
        return Err(CliError::invalid("--batch 0: a request holds at least one event"));
    }
    let (input, input_bytes, name) = open(&args.file)?;
    let format = args.format.unwrap_or_else(|| {
        let is_csv = args.file.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
        if is_csv { Format::Csv } else { Format::Ndjson }
    });
    if format == Format::Text && (args.key_field.is_some() || args.id_field.is_some() || args.time_field.is_some()) {
        return Err(CliError::invalid("text has no fields, so --key-field and --id-field mean nothing"));
    }
    let client = args.common.connect().await?;
    // A topic that is not there is told before anything is read.
    client.offsets(&args.topic).await?;
    let options = PublisherOptions { ack: args.ack.into(), ..PublisherOptions::default() };
    let publisher = client.publisher(&args.topic, options);

    let fields = Fields { key: args.key_field, id: args.id_field, time: args.time_field };
    let (parts, mut read) = mpsc::channel(PUBLISH_READ_AHEAD);
    let batch_max = args.batch;
    let reader = tokio::task::spawn_blocking(move || {
        let collector = Collector::new(parts, batch_max);
        let input = Eager { input, collector: &collector };
        let done = match format {
            Format::Csv => read_csv(input, &fields, &collector),
            Format::Ndjson => read_lines(input, &collector, |line| fields.of_json(line)),
            Format::Text => read_lines(input, &collector, |line| Ok(Event::new(line.to_vec()))),
        };
        collector.flush();
        done
    });

    let progress = Progress::new(input_bytes, &out);
    let begun = Instant::now();
    let mut acked = Acked::default();
    // The publisher bounds what is on its way.
    let mut waiting = FuturesOrdered::new();
    let mut ended = false;
    while !ended || !waiting.is_empty() {
        tokio::select! {
            part = read.recv(), if !ended => match part {
                Some(Part { batch, lines, input_bytes }) => {
                    let events = batch.len();
                    let receipt = publisher.send_batch(batch).await?;
                    waiting.push_back(async move { (receipt.wait().await, lines, events, input_bytes) });
                }
                None => ended = true,
            },
            Some((answer, lines, events, input_bytes)) = waiting.next() => {
                let published = answer.map_err(|error| acked.refused(&error, &name, &lines))?;
                let duplicates = published.duplicate_events.len();
                acked.events += (events - duplicates) as u64;
                acked.duplicates += duplicates as u64;
                progress.advance(input_bytes, acked.events + acked.duplicates);
            }
        }
    }
    let read = reader.await.map_err(|error| CliError::failed(format!("reading {name} failed: {error}")))?;
    progress.finish();
    let Acked { events, duplicates } = acked;
    read.map_err(|error| error.context(&name).hint(format!("published before it: {}", count_of(events, "event"))))?;

    let seconds = begun.elapsed().as_secs_f64();
    let ack = format!("{:?}", args.ack).to_lowercase();
    let summary = json!({
        "topic": args.topic, "events": events, "ack": ack, "seconds": seconds, "duplicates": duplicates,
    });
    let rate = count((events as f64 / seconds.max(1e-9)) as u64);
    out.show(&summary, || {
        let mut lines = vec![format!(
            "published {} to {} in {seconds:.2} s ({rate} events/s, ack {ack})",
            count_of(events, "event"),
            args.topic
        )];
        if duplicates > 0 {
            lines.push(format!("left out {}, whose ids the topic remembers", count_of(duplicates, "event")));
        }
        lines
    })
}

/// What is acknowledged so far.
#[derive(Default)]
struct Acked {
    events: u64,
    /// Events that were not appended, because the topic remembers their ids.
    duplicates: u64,
}

impl Acked {
    fn refused(&self, error: &Error, name: &str, lines: &RangeInclusive<u64>) -> CliError {
        let so_far = match error.outcome() {
            nodata_client::Outcome::NotApplied => "nothing of these lines was published",
            nodata_client::Outcome::Unknown => "it is not known whether these lines were published",
        };
        let hint = format!("published before it: {}; {so_far}", count_of(self.events, "event"));
        let (first, last) = (lines.start(), lines.end());
        let place = if first == last { format!("line {first}") } else { format!("lines {first} to {last}") };
        CliError::from(error.clone()).context(format!("{name}, {place}")).hint(hint)
    }
}

type Input = Box<dyn Read + Send>;

fn open(path: &Path) -> Result<(Input, Option<u64>, String), CliError> {
    if path == Path::new("-") {
        return Ok((Box::new(io::stdin()), None, "standard input".to_owned()));
    }
    let name = path.display().to_string();
    let failed = |error: io::Error| CliError::failed(format!("cannot read {name}: {error}"));
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_dir() {
        return Err(CliError::invalid(format!("{name} is a directory")));
    }
    let bytes = metadata.is_file().then_some(metadata.len());
    Ok((Box::new(file), bytes, name))
}

/// Puts events into requests.
struct Collector {
    parts: mpsc::Sender<Part>,
    batch_max: usize,
    building: Cell<Option<Part>>,
}

impl Collector {
    fn new(parts: mpsc::Sender<Part>, batch_max: usize) -> Self {
        Self { parts, batch_max, building: Cell::new(None) }
    }

    /// False: nobody wants more.
    fn push(&self, event: &Event, line: u64, input_bytes: u64) -> bool {
        let new = || Part { batch: Batch::new(), lines: line..=line, input_bytes: 0 };
        let mut part = self.building.take().unwrap_or_else(new);
        part.batch.push(event);
        part.lines = *part.lines.start()..=line;
        part.input_bytes += input_bytes;
        let is_full = part.batch.len() >= self.batch_max || part.batch.bytes() >= PUBLISH_BYTES;
        self.building.set(Some(part));
        !is_full || self.flush()
    }

    fn flush(&self) -> bool {
        match self.building.take() {
            Some(part) => self.parts.blocking_send(part).is_ok(),
            None => true,
        }
    }
}

/// Sends what was collected before it reads more. Reading may take for ever, as behind `tail -f`, and an event that was
/// written is not held up by the next one.
struct Eager<'a> {
    input: Input,
    collector: &'a Collector,
}

impl Read for Eager<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.collector.flush();
        self.input.read(buffer)
    }
}

/// Which fields mean something.
struct Fields {
    key: Option<String>,
    id: Option<String>,
    time: Option<String>,
}

impl Fields {
    fn of_json(&self, line: &[u8]) -> Result<Event, String> {
        let mut event = Event::new(line.to_vec());
        if self.key.is_none() && self.id.is_none() && self.time.is_none() {
            // Only whether it is JSON at all.
            serde_json::from_slice::<serde::de::IgnoredAny>(line).map_err(|error| not_json(&error))?;
            return Ok(event);
        }
        let value: Map<String, Value> = serde_json::from_slice(line).map_err(|error| {
            if error.is_data() { "it is no JSON object, so it has no fields".to_owned() } else { not_json(&error) }
        })?;
        self.apply(&value, &mut event)?;
        Ok(event)
    }

    fn apply(&self, fields: &Map<String, Value>, event: &mut Event) -> Result<(), String> {
        let text = |field: &Option<String>| match fields.get(field.as_ref()?)? {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            other => Some(other.to_string()),
        };
        event.key = text(&self.key).map(Into::into);
        event.id = text(&self.id).filter(|id| !id.is_empty());
        if let Some(time) = text(&self.time).filter(|time| !time.is_empty()) {
            event.timestamp_us = Some(time_of(&time)?);
        }
        Ok(())
    }
}

/// Microseconds since the Unix epoch.
fn time_of(text: &str) -> Result<i64, String> {
    if let Ok(seconds) = text.parse::<f64>() {
        return Ok((seconds * 1e6) as i64);
    }
    crate::cli::consume::time_us(text).ok_or_else(|| {
        let text: String = text.chars().take(40).collect();
        format!("`{text}` is no time; a time is written as 2013-06-01T00:00:00Z, or as seconds since 1970")
    })
}

fn not_json(error: &serde_json::Error) -> String {
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    format!("it is no JSON: {message} at column {}; for plain lines use --format text", error.column())
}

fn read_lines(
    input: impl Read,
    collector: &Collector,
    event_of: impl Fn(&[u8]) -> Result<Event, String>,
) -> Result<(), CliError> {
    let mut input = BufReader::with_capacity(READ_BYTES, input);
    let mut line = Vec::new();
    let mut number = 0;
    loop {
        line.clear();
        let read = (&mut input).take(LINE_BYTES_MAX).read_until(b'\n', &mut line);
        let count = read.map_err(|error| CliError::failed(format!("line {}: {error}", number + 1)))?;
        if count == 0 {
            return Ok(());
        }
        number += 1;
        let text = line.strip_suffix(b"\n").unwrap_or(&line);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.len() as u64 + 1 >= LINE_BYTES_MAX {
            let max = bytes(LINE_BYTES_MAX);
            return Err(CliError::invalid(format!("line {number} is longer than {max}")));
        }
        if text.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        let event = event_of(text).map_err(|what| CliError::invalid(format!("line {number}: {what}")))?;
        if !collector.push(&event, number, count as u64) {
            return Ok(());
        }
    }
}

fn read_csv(input: impl Read, fields: &Fields, collector: &Collector) -> Result<(), CliError> {
    let wrong = |error: csv::Error| CliError::invalid(format!("no well-formed CSV: {error}"));
    let mut reader = csv::ReaderBuilder::new().trim(csv::Trim::Headers).buffer_capacity(READ_BYTES).from_reader(input);
    let head = reader.headers().map_err(wrong)?.clone();
    for (what, field) in [("--key-field", &fields.key), ("--id-field", &fields.id), ("--time-field", &fields.time)] {
        if let Some(missing) = field.as_deref().filter(|field| head.iter().all(|name| name != *field)) {
            let names = head.iter().collect::<Vec<_>>().join(", ");
            return Err(CliError::invalid(format!("{what} {missing}: the columns are {names}")));
        }
    }
    let mut before = reader.position().byte();
    let mut record = csv::StringRecord::new();
    while reader.read_record(&mut record).map_err(wrong)? {
        let line = record.position().map_or(0, csv::Position::line);
        let row: Map<String, Value> =
            head.iter().zip(&record).map(|(name, cell)| (name.to_owned(), cell_value(cell))).collect();
        let mut event = Event::default();
        fields.apply(&row, &mut event).map_err(|what| CliError::invalid(format!("line {line}: {what}")))?;
        event.value = Some(Value::Object(row).to_string().into());
        let at = reader.position().byte();
        if !collector.push(&event, line, at - before) {
            return Ok(());
        }
        before = at;
    }
    Ok(())
}

/// A number only if it is written as JSON writes numbers: `007` is text.
fn cell_value(cell: &str) -> Value {
    match cell {
        "" => Value::Null,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ if cell.starts_with(|c: char| c == '-' || c.is_ascii_digit()) => {
            let number: Option<serde_json::Number> = serde_json::from_str(cell).ok();
            // A number that would not come back as it was is text too.
            match number.filter(|number| number.to_string() == cell) {
                Some(number) => Value::Number(number),
                None => Value::String(cell.to_owned()),
            }
        }
        _ => Value::String(cell.to_owned()),
    }
}

/// A bar on a terminal, nothing elsewhere.
struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    fn new(input_bytes: Option<u64>, out: &Out) -> Self {
        if !has_terminal() || out.is_json() {
            return Self { bar: None };
        }
        let (bar, template) = match input_bytes {
            Some(bytes) => {
                (ProgressBar::new(bytes), "{bar:30} {percent:>3} %  {msg}  {binary_bytes_per_sec}  {eta} left")
            }
            None => (ProgressBar::new_spinner(), "{spinner} {msg}  {elapsed}"),
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_millis(100));
        Self { bar: Some(bar) }
    }

    fn advance(&self, bytes: u64, events: u64) {
        if let Some(bar) = &self.bar {
            bar.inc(bytes);
            bar.set_message(format!("{} acked", count_of(events, "event")));
        }
    }

    fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The events that a file becomes: id, key and value of each.
    fn check(format: Format, text: &str) -> Result<Vec<String>, String> {
        let (parts, mut read) = mpsc::channel(100);
        let fields = Fields { key: Some("carrier".to_owned()), id: Some("id".to_owned()), time: None };
        let input = io::Cursor::new(text.to_owned());
        let collector = Collector::new(parts, 2);
        let done = match format {
            Format::Csv => read_csv(input, &fields, &collector),
            Format::Ndjson => read_lines(input, &collector, |line| fields.of_json(line)),
            Format::Text => read_lines(input, &collector, |line| Ok(Event::new(line.to_vec()))),
        };
        collector.flush();
        drop(collector);
        done.map_err(|error| format!("{error:?}").split('"').nth(1).unwrap_or_default().to_owned())?;
        let mut events = Vec::new();
        while let Ok(part) = read.try_recv() {
            let wire = part.batch.as_wire().to_vec();
            for event in nodata_proto::events::read(&wire) {
                let event = event.unwrap();
                let text =
                    |part: Option<&[u8]>| part.map_or("-".into(), |part| String::from_utf8_lossy(part).into_owned());
                events.push(format!("{} {} {}", text(event.id), text(event.key), text(event.value)));
            }
        }
        Ok(events)
    }

    #[test]
    fn a_line_of_json_is_an_event_as_it_is() {
        let text = "{\"id\":\"F1\", \"carrier\":\"UA\"}\r\n\n{\"carrier\":7,\"id\":null}\n{\"x\": 1.50}";
        assert_eq!(
            check(Format::Ndjson, text).unwrap(),
            ["F1 UA {\"id\":\"F1\", \"carrier\":\"UA\"}", "- 7 {\"carrier\":7,\"id\":null}", "- - {\"x\": 1.50}"]
        );
        assert_eq!(check(Format::Ndjson, "").unwrap(), Vec::<String>::new());
        let wrong = check(Format::Ndjson, "{}\n{\"a\":}").unwrap_err();
        assert!(wrong.starts_with("line 2: it is no JSON: expected value at column 6"), "{wrong}");
        assert_eq!(check(Format::Ndjson, "[1]").unwrap_err(), "line 1: it is no JSON object, so it has no fields");
    }

    #[test]
    fn a_row_of_csv_is_an_object() {
        let text = "id,carrier,delay,late\nF1,UA,-2.5,true\nF2,AA,,false\n007,\"B,6\",1e3,x\n";
        assert_eq!(
            check(Format::Csv, text).unwrap(),
            [
                r#"F1 UA {"id":"F1","carrier":"UA","delay":-2.5,"late":true}"#,
                r#"F2 AA {"id":"F2","carrier":"AA","delay":null,"late":false}"#,
                r#"007 B,6 {"id":"007","carrier":"B,6","delay":"1e3","late":"x"}"#,
            ]
        );
        assert_eq!(check(Format::Csv, "id,x\n1,2\n").unwrap_err(), "--key-field carrier: the columns are id, x");
        assert!(check(Format::Csv, "id,carrier\n1\n").unwrap_err().starts_with("no well-formed CSV"));
    }

    #[test]
    fn text_is_taken_as_it_is() {
        assert_eq!(check(Format::Text, "a b\nc").unwrap(), ["- - a b", "- - c"]);
    }
}
