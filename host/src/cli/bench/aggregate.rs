//! `nodata bench aggregate`

use crate::cli::CliError;
use crate::cli::bench::BenchCommon;
use crate::cli::bench::payload;
use crate::cli::bench::report::{self, Figures, Rows};
use crate::cli::bench::target::{Target, Usage};
use crate::cli::bench::transform::{component, deploy, upload, wait_until_done};
use crate::cli::out::Out;
use bytes::Bytes;
use clap::Args;
use nodata_client::proto::aggregate::Window;
use nodata_client::proto::deploy_request::Role;
use nodata_client::proto::{Aggregate, TumblingWindow};
use nodata_client::{Batch, Event, PublisherOptions};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Measure events on their way into an aggregate.
///
/// A producer publishes, the component counts them by key; everything is durable, and every event is counted once.
#[derive(Debug, Args)]
pub(crate) struct AggregateBench {
    /// The component.
    #[arg(long, value_name = "FILE", default_value = "target/components/aggregate-fields.wasm")]
    file: PathBuf,
    /// How many groups there are: one case each.
    #[arg(long, default_value = "10,10000,1000000", value_delimiter = ',', value_name = "N")]
    groups: Vec<u64>,
    /// Windows of a second in which so many thousand events happen; without it there are no windows.
    #[arg(long, value_name = "N")]
    window_thousands: Option<u64>,
    /// Partitions of the topic.
    #[arg(long, default_value_t = 4, value_name = "N")]
    partitions: u32,
    #[command(flatten)]
    pub(crate) common: BenchCommon,
}

/// Bytes of an event.
const EVENT_BYTES: usize = 100;
/// Events in a request.
const BATCH: usize = 1000;

pub(crate) async fn run(args: AggregateBench) -> Result<(), CliError> {
    args.common.check()?;
    let component = component(&args.file)?;
    let out = Out::new(args.common.json);
    let mut rows: Vec<Rows> = Vec::new();
    for round in 0..args.common.rounds {
        for (at, groups) in args.groups.iter().enumerate() {
            let windows = if args.window_thousands.is_some() { ", in windows" } else { "" };
            let name = format!("count by {groups} groups{windows}, {EVENT_BYTES} B x {BATCH}");
            out.say(&format!("round {} of {}: {name}", round + 1, args.common.rounds));
            let target = Target::start(&args.common.dir)?;
            let mut figures = measure(&target, &args, component.clone(), (*groups).max(1)).await?;
            figures.state_mb = Some(target.stop_and_measure_state() as f64 / 1e6);
            report::add(&mut rows, at, name, figures);
        }
    }
    let json = json!({ "ack": "durable", "cases": report::to_json(&rows) });
    out.show(&json, || {
        let mut lines = vec![format!(
            "through {}, {} partitions, ack durable, each counted once, medians of {} rounds",
            args.file.display(),
            args.partitions,
            args.common.rounds
        )];
        lines.extend(report::lines(&rows));
        lines
    })
}

async fn measure(target: &Target, args: &AggregateBench, component: Bytes, groups: u64) -> Result<Figures, CliError> {
    upload(target, component).await?;
    target.topic("in", args.partitions).await?;
    target.topic("out", args.partitions).await?;
    let role = Role::Aggregate(Aggregate {
        input: "in".to_owned(),
        outputs: [(String::new(), "out".to_owned())].into(),
        window: args.window_thousands.map(|_| Window::Tumbling(TumblingWindow { size_us: 1_000_000 })),
        ..Aggregate::default()
    });
    deploy(target, "bench", role, &[("compute", "n=count")]).await?;

    let payload = payload::events(EVENT_BYTES);
    let publisher = {
        let options = PublisherOptions { in_flight_requests_max: 4, ..PublisherOptions::default() };
        target.connect().await?.publisher("in", options)
    };
    let before = (target.usage(), Usage::own());
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(args.common.seconds);
    let mut events = 0u64;
    while Instant::now() < end {
        let mut batch = Batch::new();
        for at in events..events + BATCH as u64 {
            let group = at.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
            let event = Event::new(payload[at as usize % payload.len()].clone()).with_key((group % groups).to_string());
            let time_us = args.window_thousands.map_or(0, |thousands| at * 1000 / thousands.max(1));
            batch.push(&event.with_timestamp_us(time_us as i64));
        }
        publisher.send_batch(batch).await?;
        events += BATCH as u64;
    }
    publisher.flush().await?;
    wait_until_done(target, "bench").await?;
    let elapsed = begun.elapsed().as_secs_f64();
    let after = (target.usage(), Usage::own());
    let millions = events as f64 / 1e6;
    Ok(Figures {
        events_per_s: events as f64 / elapsed,
        event_bytes: EVENT_BYTES,
        server_cpu: Some((after.0.cpu_s - before.0.cpu_s) / millions),
        client_cpu: Some((after.1.cpu_s - before.1.cpu_s) / millions),
        peak_memory_mb: Some(after.0.peak_memory_bytes / 1e6),
        written: Some((after.0.written_bytes - before.0.written_bytes) / (events as usize * EVENT_BYTES) as f64),
        ..Figures::default()
    })
}
