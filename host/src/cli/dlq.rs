//! `nodata dlq`

use crate::cli::consume::Line;
use crate::cli::out::{count, count_of, one_line, table, time};
use crate::cli::{CliError, Common};
use clap::Subcommand;
use nodata_client::proto::{DeadLetters, DescribeDeploymentRequest, ListDeadLettersRequest, ReplayDeadLettersRequest};
use nodata_client::{From, Received, TailOptions};
use serde_json::{Value, json};
use std::io::{self, Write as _};

#[derive(Debug, Subcommand)]
pub(crate) enum DlqCommand {
    /// List the deployments that have dead letters.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Print the dead letters of a deployment, with what happened to them.
    Show {
        deployment: String,
        /// Begin at this letter.
        #[arg(long, value_name = "OFFSET")]
        from: Option<u64>,
        /// At most so many.
        #[arg(long, value_name = "N")]
        max: Option<u64>,
        #[command(flatten)]
        common: Common,
    },
    /// Process dead letters again, each once: with the component that is deployed now, or as events of another topic.
    Replay {
        deployment: String,
        /// Append them to this topic, as the events they were.
        #[arg(long, value_name = "TOPIC")]
        to: Option<String>,
        #[command(flatten)]
        common: Common,
    },
}

pub(crate) async fn run(command: DlqCommand) -> Result<(), CliError> {
    let common = match &command {
        DlqCommand::List { common } | DlqCommand::Show { common, .. } | DlqCommand::Replay { common, .. } => {
            common.clone()
        }
    };
    run_on(command, &common).await.map_err(|error| error.told_as_json(common.json))
}

async fn run_on(command: DlqCommand, common: &Common) -> Result<(), CliError> {
    let out = common.out();
    let client = common.connect().await?;
    let mut deployments = client.deployments();
    match command {
        DlqCommand::List { .. } => {
            let mut found = Vec::new();
            let mut request = ListDeadLettersRequest { page_size: 1000, ..Default::default() };
            loop {
                let page = deployments.list_dead_letters(request.clone()).await?.into_inner();
                found.extend(page.dead_letters);
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            out.show(&Value::Array(found.iter().map(to_json).collect()), || {
                let row = |found: &DeadLetters| {
                    vec![found.deployment.clone(), count(found.letters), count(found.waiting), found.topic.clone()]
                };
                table(&["DEPLOYMENT", "LETTERS", "NOT REPLAYED", "TOPIC"], &found.iter().map(row).collect::<Vec<_>>())
            })
        }
        DlqCommand::Show { deployment, from, max, .. } => {
            let topic = format!("{deployment}.dlq");
            let from = from.map_or(From::Earliest, From::Offset);
            let options = TailOptions { from, partitions: Vec::new(), follow: false };
            let mut tail = match client.tail(&topic, options).await {
                Ok(tail) => tail,
                Err(error) if error.reason() == "UNKNOWN_TOPIC" => {
                    // The topic is made for the first letter.
                    deployments.describe_deployment(DescribeDeploymentRequest { name: deployment.clone() }).await?;
                    out.say(&format!("there are no dead letters of {deployment}"));
                    return Ok(());
                }
                Err(error) => return Err(error.into()),
            };
            let mut out = io::stdout().lock();
            let mut left = max.unwrap_or(u64::MAX);
            while left > 0 {
                let Some(letter) = tail.next().await? else { break };
                left -= 1;
                if common.json {
                    serde_json::to_writer(&mut out, &Line::new(&topic, &letter)).map_err(io::Error::from)?;
                    writeln!(out)?;
                } else {
                    for line in describe(&letter)? {
                        writeln!(out, "{}", one_line(&line))?;
                    }
                }
            }
            Ok(out.flush()?)
        }
        DlqCommand::Replay { deployment, to, .. } => {
            let topic = to.clone().unwrap_or_default();
            let request = ReplayDeadLettersRequest { deployment: deployment.clone(), topic };
            let letters = deployments.replay_dead_letters(request).await?.into_inner().letters;
            let json = json!({ "deployment": deployment, "to": to, "letters": letters });
            out.show(&json, || match &to {
                Some(topic) => {
                    vec![format!("replayed {} of {deployment} into {topic}", count_of(letters, "dead letter"))]
                }
                None if letters == 0 => vec![format!("{deployment} has no dead letters that were not replayed")],
                None => vec![
                    format!("{deployment} processes {} again", count_of(letters, "dead letter")),
                    "see how it does: nodata dlq list".to_owned(),
                ],
            })
        }
    }
}

fn to_json(found: &DeadLetters) -> Value {
    json!({
        "deployment": found.deployment, "topic": found.topic, "letters": found.letters, "not_replayed": found.waiting,
    })
}

/// A letter for a person.
fn describe(letter: &Received) -> Result<Vec<String>, CliError> {
    let header = |wanted: &str| {
        let found = letter.event.headers.iter().find(|(name, _)| name == wanted);
        found.map_or_else(|| "-".into(), |(_, value)| String::from_utf8_lossy(value))
    };
    let line = serde_json::to_value(Line::new("", letter)).map_err(io::Error::from)?;
    let mut lines = vec![
        format!("letter {} of {}", letter.offset, time(letter.append_timestamp_us)),
        format!(
            "  event      offset {} of {}, partition {}",
            header("nodata-offset"),
            header("nodata-topic"),
            header("nodata-partition")
        ),
        format!("  reason     {}", header("nodata-reason")),
        format!("  component  {}, attempt {}", header("nodata-component"), header("nodata-attempt")),
        format!("  key        {}", line["key"]),
        format!("  value      {}", line["value"]),
    ];
    let printed = header("nodata-last-lines");
    if printed != "-" {
        lines.extend(printed.lines().map(|line| format!("  | {line}")));
    }
    lines.push(String::new());
    Ok(lines)
}
