//! `nodata topic`

use crate::cli::out::{bytes, count, table, time};
use crate::cli::{CliError, Common};
use clap::Subcommand;
use nodata_client::proto::{
    CreateTopicRequest, DeleteTopicRequest, DescribeTopicRequest, ListTopicsRequest, Topic, UpdateTopicRequest,
};
use serde_json::{Value, json};

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
    /// Show a topic and the offsets of its partitions.
    Describe {
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Change a topic: add partitions (which moves keys), set the largest event.
    Update {
        name: String,
        /// How many partitions there should be.
        #[arg(long)]
        partitions: Option<u32>,
        /// The largest event the topic takes, in bytes.
        #[arg(long, value_name = "BYTES")]
        event_bytes_max: Option<u32>,
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

pub(crate) async fn run(command: TopicCommand) -> Result<(), CliError> {
    let common = match &command {
        TopicCommand::Create { common, .. }
        | TopicCommand::List { common, .. }
        | TopicCommand::Describe { common, .. }
        | TopicCommand::Update { common, .. }
        | TopicCommand::Delete { common, .. } => common.clone(),
    };
    run_on(command, &common).await.map_err(|error| error.told_as_json(common.json))
}

async fn run_on(command: TopicCommand, common: &Common) -> Result<(), CliError> {
    let out = common.out();
    let mut topics = common.connect().await?.topics();
    match command {
        TopicCommand::Create { name, partitions, event_bytes_max, .. } => {
            let event_bytes_max = event_bytes_max.unwrap_or_default();
            let request = CreateTopicRequest { name, partitions, event_bytes_max };
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
                .map(|at| json!({ "partition": at.partition, "earliest": at.earliest_offset, "end": at.end_offset }))
                .collect();
            out.show(&json, || {
                let mut lines = vec![
                    format!("topic {}, created {}", topic.name, time(topic.created_timestamp_us)),
                    format!("largest event {}", bytes(topic.event_bytes_max.into())),
                ];
                let rows: Vec<Vec<String>> = described
                    .partitions
                    .iter()
                    .map(|at| vec![at.partition.to_string(), count(at.earliest_offset), count(at.end_offset)])
                    .collect();
                lines.extend(table(&["PARTITION", "EARLIEST", "END"], &rows));
                lines
            })
        }
        TopicCommand::Update { name, partitions, event_bytes_max, .. } => {
            if partitions.is_none() && event_bytes_max.is_none() {
                return Err(CliError::invalid("nothing to change").hint("give --partitions or --event-bytes-max"));
            }
            let request = UpdateTopicRequest { name, partitions, event_bytes_max };
            let topic = topics.update_topic(request).await?.into_inner().topic.unwrap_or_default();
            out.show(&to_json(&topic), || {
                let largest = bytes(topic.event_bytes_max.into());
                vec![format!("topic {} has {} now, largest event {largest}", topic.name, partitions_of(&topic))]
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

fn to_json(topic: &Topic) -> Value {
    json!({
        "name": topic.name,
        "partitions": topic.partitions,
        "event_bytes_max": topic.event_bytes_max,
        "created": time(topic.created_timestamp_us),
    })
}
