//! `nodata topic`

use crate::cli::out::{bytes, count, count_of, table, time};
use crate::cli::{CliError, Common};
use clap::{Args, Subcommand, ValueEnum};
use nodata_client::proto::{
    Column, ColumnType, CreateTopicRequest, DeleteTopicRequest, DescribeTopicRequest, FlushTopicRequest,
    ListTopicsRequest, Topic, UpdateTopicRequest, ValueType,
};
use serde_json::{Value, json};
use std::str::FromStr;

#[derive(Debug, Subcommand)]
pub(crate) enum TopicCommand {
    /// Make a topic.
    Create {
        /// Letters, digits, `_`, `.` and `-`, at most 200.
        name: String,
        /// How many partitions. They can be added later, never removed.
        #[arg(long, default_value_t = 1)]
        partitions: u32,
        /// The largest event the topic takes, in bytes [default: 16 MiB].
        #[arg(long, value_name = "BYTES")]
        event_bytes_max: Option<u32>,
        /// What its values are. Other values are refused, and the files have a column of this type. It cannot be changed.
        /// [default: bytes; json with --column]
        #[arg(long, value_name = "TYPE")]
        values: Option<ValuesArg>,
        /// A part of the values, which are JSON, that the files have as a column: `carrier:string`, `city=/address/city:string`.
        /// Types are boolean, int64, float64, string, timestamp and date. To be repeated; it cannot be changed later.
        #[arg(long = "column", value_name = "COLUMN")]
        columns: Vec<ColumnArg>,
        #[command(flatten)]
        retention: RetentionArgs,
        #[command(flatten)]
        common: Common,
    },
    /// List topics.
    List {
        /// Only names that begin so.
        #[arg(long, default_value = "", hide_default_value = true)]
        prefix: String,
        #[command(flatten)]
        common: Common,
    },
    /// Show a topic, the offsets of its partitions, and their files.
    Describe {
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Change a topic: add partitions (which moves keys), set the largest event, how long events are kept.
    Update {
        name: String,
        /// How many partitions there should be.
        #[arg(long)]
        partitions: Option<u32>,
        /// The largest event the topic takes, in bytes.
        #[arg(long, value_name = "BYTES")]
        event_bytes_max: Option<u32>,
        #[command(flatten)]
        retention: RetentionArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Put what is durable into Parquet files now, without waiting until it is time.
    Flush {
        /// The topic; all topics if it is left out.
        name: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// Delete a topic and all of its events.
    Delete {
        name: String,
        #[command(flatten)]
        common: Common,
    },
}

/// How long events are kept, and their ids remembered.
#[derive(Clone, Debug, Args)]
pub(crate) struct RetentionArgs {
    /// Remove events this long after they were appended, file by file: `7d`, `36h`, `90m`; `forever` keeps them.
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    retention: Option<u64>,
    /// Remove the oldest files of a partition while its files have more bytes: `500MB`, `20GiB`; `unlimited` keeps them.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    retention_size: Option<u64>,
    /// For how long an event that is published with the id of another is not appended again: `2m`, `1h`, or `off`
    /// [default: 2m].
    #[arg(long, value_name = "TIME", value_parser = parse_deduplicate)]
    deduplicate: Option<u64>,
}

/// Microseconds; 0 stands for not at all.
fn parse_deduplicate(text: &str) -> Result<u64, String> {
    if text == "off" { Ok(0) } else { parse_length(text, "write it as `2m`, `1h`, or `off`") }
}

/// Microseconds; 0 stands for ever.
fn parse_time(text: &str) -> Result<u64, String> {
    if text == "forever" {
        return Ok(0);
    }
    parse_length(text, "write it as `7d`, `36h`, `90m`, or `forever`")
}

pub(crate) fn parse_length(text: &str, example: &str) -> Result<u64, String> {
    let span: jiff::Span = text.parse().map_err(|_| format!("not a length of time; {example}"))?;
    let time = span.to_duration(jiff::SpanRelativeTo::days_are_24_hours());
    let time = time.map_err(|_| format!("months and years differ in length; {example}"))?;
    u64::try_from(time.as_micros()).ok().filter(|us| *us > 0).ok_or_else(|| format!("it must be positive; {example}"))
}

/// Bytes; 0 stands for no limit.
fn parse_size(text: &str) -> Result<u64, String> {
    if text == "unlimited" {
        return Ok(0);
    }
    let size: bytesize::ByteSize =
        text.parse().map_err(|_| "not a size; write it as `500MB`, `20GiB`, or `unlimited`".to_owned())?;
    Some(size.as_u64()).filter(|bytes| *bytes > 0).ok_or_else(|| "it must be positive".to_owned())
}

pub(crate) async fn run(command: TopicCommand) -> Result<(), CliError> {
    let common = match &command {
        TopicCommand::Create { common, .. }
        | TopicCommand::List { common, .. }
        | TopicCommand::Describe { common, .. }
        | TopicCommand::Update { common, .. }
        | TopicCommand::Flush { common, .. }
        | TopicCommand::Delete { common, .. } => common.clone(),
    };
    run_on(command, &common).await.map_err(|error| error.told_as_json(common.json))
}

async fn run_on(command: TopicCommand, common: &Common) -> Result<(), CliError> {
    let out = common.out();
    let mut topics = common.connect().await?.topics();
    match command {
        TopicCommand::Create { name, partitions, event_bytes_max, values, columns, retention, .. } => {
            let default_values = if columns.is_empty() { ValuesArg::Bytes } else { ValuesArg::Json };
            let request = CreateTopicRequest {
                name,
                partitions,
                event_bytes_max: event_bytes_max.unwrap_or_default(),
                value_type: ValueType::from(values.unwrap_or(default_values)).into(),
                retention_us: retention.retention.unwrap_or_default(),
                retention_bytes: retention.retention_size.unwrap_or_default(),
                deduplicate_us: retention.deduplicate,
                columns: columns.into_iter().map(|ColumnArg(column)| column).collect(),
            };
            let topic = topics.create_topic(request).await?.into_inner().topic.unwrap_or_default();
            out.show(&to_json(&topic), || vec![format!("created topic {} with {}", topic.name, partitions_of(&topic))])
        }
        TopicCommand::List { prefix, .. } => {
            let mut found = Vec::new();
            let mut request = ListTopicsRequest { name_prefix: prefix, page_size: 1000, ..Default::default() };
            loop {
                let page = topics.list_topics(request.clone()).await?.into_inner();
                found.extend(page.topics);
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            let json = Value::Array(found.iter().map(to_json).collect());
            out.show(&json, || {
                let row = |topic: &Topic| {
                    let created = time(topic.created_timestamp_us);
                    vec![topic.name.clone(), topic.partitions.to_string(), bytes(topic.event_bytes_max.into()), created]
                };
                table(&["NAME", "PARTITIONS", "LARGEST EVENT", "CREATED"], &found.iter().map(row).collect::<Vec<_>>())
            })
        }
        TopicCommand::Describe { name, .. } => {
            let described = topics.describe_topic(DescribeTopicRequest { name }).await?.into_inner();
            let topic = described.topic.unwrap_or_default();
            let mut json = to_json(&topic);
            json["partition_offsets"] = described
                .partitions
                .iter()
                .map(|at| {
                    json!({
                        "partition": at.partition,
                        "earliest": at.earliest_offset,
                        "archived_end": at.archived_end_offset,
                        "end": at.end_offset,
                        "files": at.files,
                        "file_bytes": at.file_bytes,
                        "payload_bytes": at.payload_bytes,
                    })
                })
                .collect();
            out.show(&json, || {
                let mut lines = vec![
                    format!("topic {}, created {}", topic.name, time(topic.created_timestamp_us)),
                    format!("largest event {}", bytes(topic.event_bytes_max.into())),
                    match columns_of(&topic).as_slice() {
                        [] => format!("values are {}", values_of(&topic)),
                        columns => format!("values are {}, with columns {}", values_of(&topic), columns.join(", ")),
                    },
                    format!("events are kept {}", kept(&topic)),
                    format!("ids of events are remembered {}", remembered(&topic)),
                ];
                let rows: Vec<Vec<String>> = described
                    .partitions
                    .iter()
                    .map(|at| {
                        let offsets = [at.earliest_offset, at.archived_end_offset, at.end_offset].map(count);
                        let sizes = [count(at.files), bytes(at.file_bytes), bytes(at.payload_bytes)];
                        [at.partition.to_string()].into_iter().chain(offsets).chain(sizes).collect()
                    })
                    .collect();
                let head = ["PARTITION", "EARLIEST", "ARCHIVED TO", "END", "FILES", "ON DISK", "OF EVENTS"];
                lines.extend(table(&head, &rows));
                lines
            })
        }
        TopicCommand::Update { name, partitions, event_bytes_max, retention, .. } => {
            let RetentionArgs { retention: retention_us, retention_size: retention_bytes, deduplicate } = retention;
            let request = UpdateTopicRequest {
                name,
                partitions,
                event_bytes_max,
                retention_us,
                retention_bytes,
                deduplicate_us: deduplicate,
            };
            if request == (UpdateTopicRequest { name: request.name.clone(), ..Default::default() }) {
                let options = "give --partitions, --event-bytes-max, --retention, --retention-size or --deduplicate";
                return Err(CliError::invalid("nothing to change").hint(options));
            }
            let topic = topics.update_topic(request).await?.into_inner().topic.unwrap_or_default();
            out.show(&to_json(&topic), || {
                let largest = bytes(topic.event_bytes_max.into());
                let (name, partitions, kept) = (&topic.name, partitions_of(&topic), kept(&topic));
                vec![format!("topic {name} has {partitions} now, largest event {largest}, events are kept {kept}")]
            })
        }
        TopicCommand::Flush { name, .. } => {
            let name = name.unwrap_or_default();
            let flushed = topics.flush_topic(FlushTopicRequest { name }).await?.into_inner();
            out.show(&json!({ "files": flushed.files, "events": flushed.events }), || {
                let (events, files) = (count_of(flushed.events, "event"), count_of(flushed.files, "file"));
                vec![if flushed.events == 0 {
                    "everything was in files already".to_owned()
                } else {
                    format!("put {events} into {files}")
                }]
            })
        }
        TopicCommand::Delete { name, .. } => {
            topics.delete_topic(DeleteTopicRequest { name: name.clone() }).await?;
            out.show(&json!({ "deleted": name }), || vec![format!("deleted topic {name}")])
        }
    }
}

fn partitions_of(topic: &Topic) -> String {
    match topic.partitions {
        1 => "1 partition".to_owned(),
        more => format!("{more} partitions"),
    }
}

/// What the values of a topic are.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ValuesArg {
    Bytes,
    Text,
    Json,
}

impl From<ValuesArg> for ValueType {
    fn from(values: ValuesArg) -> Self {
        match values {
            ValuesArg::Bytes => ValueType::Bytes,
            ValuesArg::Text => ValueType::Text,
            ValuesArg::Json => ValueType::Json,
        }
    }
}

fn values_of(topic: &Topic) -> &'static str {
    match topic.value_type() {
        ValueType::Unspecified | ValueType::Bytes => "bytes",
        ValueType::Text => "text",
        ValueType::Json => "json",
    }
}

/// A declared column, as it is written.
#[derive(Clone, Debug)]
pub(crate) struct ColumnArg(Column);

impl FromStr for ColumnArg {
    type Err = nodata_log::ColumnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let nodata_log::Column { name, path, column_type } = text.parse()?;
        let column_type = match column_type {
            nodata_log::ColumnType::Boolean => ColumnType::Boolean,
            nodata_log::ColumnType::Int64 => ColumnType::Int64,
            nodata_log::ColumnType::Float64 => ColumnType::Float64,
            nodata_log::ColumnType::String => ColumnType::String,
            nodata_log::ColumnType::Timestamp => ColumnType::Timestamp,
            nodata_log::ColumnType::Date => ColumnType::Date,
        };
        Ok(Self(Column { name, path, r#type: column_type.into() }))
    }
}

/// Declared columns, as they are written.
fn columns_of(topic: &Topic) -> Vec<String> {
    let of = |column: &Column| {
        let Column { name, path, .. } = column;
        let column_type = column.r#type().as_str_name().trim_start_matches("COLUMN_TYPE_").to_lowercase();
        let place = if *path == format!("/{name}") { name.clone() } else { format!("{name}={path}") };
        format!("{place}:{column_type}")
    };
    topic.columns.iter().map(of).collect()
}

/// A length of time as it is read; `None` for none.
fn length(us: u64) -> Option<String> {
    let round = jiff::SpanRound::new().largest(jiff::Unit::Day).days_are_24_hours();
    let span = jiff::Span::new().try_microseconds(us as i64).and_then(|span| span.round(round));
    span.ok().filter(|_| us > 0).map(|span| format!("for {span:#}"))
}

fn remembered(topic: &Topic) -> String {
    length(topic.deduplicate_us).unwrap_or_else(|| "not at all".to_owned())
}

fn kept(topic: &Topic) -> String {
    let time = length(topic.retention_us);
    let size = (topic.retention_bytes > 0).then(|| format!("up to {} a partition", bytes(topic.retention_bytes)));
    match (time, size) {
        (Some(time), Some(size)) => format!("{time} and {size}"),
        (Some(one), None) | (None, Some(one)) => one,
        (None, None) => "for ever".to_owned(),
    }
}

fn to_json(topic: &Topic) -> Value {
    json!({
        "name": topic.name,
        "partitions": topic.partitions,
        "event_bytes_max": topic.event_bytes_max,
        "created": time(topic.created_timestamp_us),
        "values": values_of(topic),
        "columns": columns_of(topic),
        "retention_seconds": (topic.retention_us > 0).then(|| topic.retention_us as f64 / 1e6),
        "deduplicate_seconds": (topic.deduplicate_us > 0).then(|| topic.deduplicate_us as f64 / 1e6),
        "retention_bytes": (topic.retention_bytes > 0).then_some(topic.retention_bytes),
    })
}
