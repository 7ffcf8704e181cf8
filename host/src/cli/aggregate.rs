//! `nodata aggregate`

use crate::cli::out::{table, time};
use crate::cli::{CliError, Common};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use clap::Subcommand;
use nodata_client::proto::{Group, ScanGroupsRequest};
use serde_json::{Value, json};

#[derive(Debug, Subcommand)]
pub(crate) enum AggregateCommand {
    /// Print the groups of an aggregate, as its component shows them. Windows that are closed are not among them.
    Scan {
        deployment: String,
        /// Only the group of this key.
        #[arg(long)]
        key: Option<String>,
        /// At most so many.
        #[arg(long, value_name = "N")]
        max: Option<usize>,
        #[command(flatten)]
        common: Common,
    },
}

pub(crate) async fn run(command: AggregateCommand) -> Result<(), CliError> {
    let AggregateCommand::Scan { deployment, key, max, common } = command;
    scan(deployment, key, max.unwrap_or(usize::MAX), &common).await.map_err(|error| error.told_as_json(common.json))
}

async fn scan(deployment: String, key: Option<String>, max: usize, common: &Common) -> Result<(), CliError> {
    let mut aggregates = common.connect().await?.aggregates();
    let mut request = ScanGroupsRequest {
        deployment,
        key: key.map(|key| key.into_bytes().into()),
        page_size: max.min(1000) as u32,
        ..Default::default()
    };
    let mut groups = Vec::new();
    while groups.len() < max {
        let page = aggregates.scan_groups(request.clone()).await?.into_inner();
        groups.extend(page.groups);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    groups.truncate(max);
    common.out().show(&Value::Array(groups.iter().map(to_json).collect()), || {
        let has_windows = groups.iter().any(|group| group.window_start_us.is_some());
        let row = |group: &Group| {
            let mut row = vec![text(&group.key)];
            if has_windows {
                row.extend([group.window_start_us, group.window_end_us].map(|at| at.map(time).unwrap_or_default()));
            }
            row.push(text(&group.value));
            row
        };
        let head: &[&str] = if has_windows { &["KEY", "FROM", "TO", "VALUE"] } else { &["KEY", "VALUE"] };
        table(head, &groups.iter().map(row).collect::<Vec<_>>())
    })
}

/// Bytes for a person.
fn text(bytes: &[u8]) -> String {
    std::str::from_utf8(bytes).map_or_else(|_| format!("base64:{}", BASE64.encode(bytes)), str::to_owned)
}

fn to_json(group: &Group) -> Value {
    let value = serde_json::from_slice(&group.value).unwrap_or_else(|_| Value::from(text(&group.value)));
    let mut json = json!({ "key": text(&group.key), "value": value });
    if let (Some(start), Some(end)) = (group.window_start_us, group.window_end_us) {
        json["from"] = time(start).into();
        json["to"] = time(end).into();
    }
    json
}
