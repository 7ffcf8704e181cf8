//! `nodata bench topics`

use crate::cli::CliError;
use crate::cli::bench::BenchCommon;
use crate::cli::bench::payload;
use crate::cli::bench::target::{Target, Usage};
use crate::cli::out::{Out, bytes};
use clap::Args;
use nodata_client::{Ack, Batch};
use serde_json::json;
use std::time::{Duration, Instant};

/// Measure what many topics cost.
///
/// Makes topics, publishes to a few of them in turn, and shows the memory and the processor time of the server, and how long it
/// takes to start again.
#[derive(Debug, Args)]
pub(crate) struct TopicsBench {
    /// How many topics there are.
    #[arg(long, default_value_t = 10_000, value_name = "N")]
    topics: u32,
    /// How many of them get events.
    #[arg(long, default_value_t = 100, value_name = "N")]
    active: u32,
    #[command(flatten)]
    pub(crate) common: BenchCommon,
}

/// Requests that make topics, and are on their way at the same time.
const REQUESTS: usize = 32;

pub(crate) async fn run(args: TopicsBench) -> Result<(), CliError> {
    args.common.check()?;
    if !(1..=args.topics).contains(&args.active) {
        return Err(CliError::invalid(format!("{} active topics of {}", args.active, args.topics)));
    }
    let out = Out::new(args.common.json);
    let mut target = Target::start(&args.common.dir)?;
    let empty = target.usage();
    out.say(&format!("making {} topics", args.topics));
    let begun = Instant::now();
    let names: Vec<String> = (0..args.topics).map(|number| format!("topic-{number}")).collect();
    for names in names.chunks(REQUESTS) {
        futures::future::try_join_all(names.iter().map(|name| target.topic(name, 1))).await?;
    }
    let made = begun.elapsed();
    let quiet = target.usage();
    tokio::time::sleep(Duration::from_secs_f64(args.common.seconds)).await;
    let idle_cpu = (target.usage().cpu_s - quiet.cpu_s) / args.common.seconds;

    out.say(&format!("publishing to {} of them", args.active));
    let client = target.connect().await?;
    let events = payload::events(100);
    let begun = Instant::now();
    let before = target.usage();
    let mut published = 0u64;
    while begun.elapsed().as_secs_f64() < args.common.seconds {
        for name in names.iter().step_by((args.topics / args.active) as usize).take(args.active as usize) {
            let mut batch = Batch::new();
            events.iter().take(10).for_each(|event| batch.push_parts(None, event));
            published += batch.len() as u64;
            client.publish_with(name, batch, Ack::Durable).await?;
        }
    }
    let rate = published as f64 / begun.elapsed().as_secs_f64();
    let active: Usage = target.usage();
    let cpu = (active.cpu_s - before.cpu_s) / (published as f64 / 1e6);
    let ready = target.restart(&[])?;
    let again = target.usage();

    let json = json!({
        "topics": args.topics, "active": args.active, "made_seconds": made.as_secs_f64(),
        "memory_empty_bytes": empty.memory_bytes, "memory_quiet_bytes": quiet.memory_bytes,
        "memory_active_bytes": active.memory_bytes, "memory_peak_bytes": active.peak_memory_bytes,
        "memory_restarted_bytes": again.memory_bytes, "idle_cpu_seconds_per_second": idle_cpu,
        "events_per_second": rate, "server_cpu_seconds_per_million": cpu, "ready_after_restart_ms": ready.as_secs_f64() * 1e3,
    });
    out.show(&json, || {
        let memory = |of: f64| bytes(of as u64);
        vec![
            format!("{} topics were made in {:.1} s", args.topics, made.as_secs_f64()),
            format!(
                "memory of the server: {} without topics, {} with them, {} while {} were published to ({} at most)",
                memory(empty.memory_bytes),
                memory(quiet.memory_bytes),
                memory(active.memory_bytes),
                args.active,
                memory(active.peak_memory_bytes)
            ),
            format!("processor time while nothing happens: {:.1} % of a core", idle_cpu * 100.0),
            format!(
                "published {rate:.0} events/s, one request at a time, ack durable; server CPU {cpu:.2} s a million"
            ),
            format!(
                "a restart, with everything put into files before, was ready after {:.0} ms and uses {}",
                ready.as_secs_f64() * 1e3,
                memory(again.memory_bytes)
            ),
        ]
    })
}
