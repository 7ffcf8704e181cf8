//! `nodata bench publish`

use crate::cli::CliError;
use crate::cli::bench::BenchCommon;
use crate::cli::bench::limits::Limits;
use crate::cli::bench::payload;
use crate::cli::bench::report::{self, Figures, Latencies, Rows};
use crate::cli::bench::target::{Target, Usage};
use crate::cli::out::Out;
use crate::cli::publish::AckArg;
use bytes::Bytes;
use clap::Args;
use nodata_client::{Ack, Batch, Client, PublisherOptions, Receipt};
use serde_json::json;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Measure publishing.
///
/// Without the options below, the usual cases are measured one after the other.
#[derive(Debug, Args)]
pub(crate) struct PublishBench {
    /// When an event counts as published.
    #[arg(long, default_value = "durable")]
    ack: AckArg,
    /// Bytes of an event: one case of your own.
    #[arg(long, value_name = "BYTES")]
    size: Option<usize>,
    /// Events in a request.
    #[arg(long, default_value_t = 1, value_name = "N")]
    batch: usize,
    /// Producers, each with its own connection and partition.
    #[arg(long, default_value_t = 1, value_name = "N")]
    producers: u32,
    /// Requests of one producer that may be on their way.
    #[arg(long, default_value_t = 1, value_name = "N")]
    in_flight: usize,
    /// Leave out the limits of disk and network.
    #[arg(long)]
    no_limits: bool,
    #[command(flatten)]
    pub(crate) common: BenchCommon,
}

/// A load.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Case {
    pub(crate) event_bytes: usize,
    pub(crate) batch: usize,
    pub(crate) producers: u32,
    pub(crate) in_flight: usize,
    pub(crate) ack: Ack,
}

impl Case {
    pub(crate) fn name(&self, prefix: &str) -> String {
        let Self { event_bytes, batch, producers, in_flight, .. } = self;
        let batch = if *batch == 1 { String::new() } else { format!(" x {batch}") };
        format!("{prefix} {event_bytes} B{batch}, {producers} producers, {in_flight} in flight")
    }
}

fn usual(ack: Ack) -> Vec<Case> {
    let case = |event_bytes, batch, producers, in_flight| Case { event_bytes, batch, producers, in_flight, ack };
    vec![
        case(100, 1, 1, 1),
        case(100, 1, 4, 1),
        case(100, 1, 1, 1000),
        case(1024, 1, 1, 1000),
        case(100, 1000, 4, 1),
        case(100, 1000, 4, 4),
        case(1024, 1000, 4, 1),
        case(1024, 1000, 4, 4),
    ]
}

pub(crate) async fn run(args: PublishBench) -> Result<(), CliError> {
    args.common.check()?;
    let ack = Ack::from(args.ack);
    let cases = match args.size {
        None => usual(ack),
        Some(event_bytes) => {
            let PublishBench { batch, producers, in_flight, .. } = args;
            if event_bytes == 0 || batch == 0 || producers == 0 || in_flight == 0 {
                return Err(CliError::invalid("--size, --batch, --producers and --in-flight are at least 1"));
            }
            vec![Case { event_bytes, batch, producers, in_flight, ack }]
        }
    };
    let out = Out::new(args.common.json);
    let word = format!("{ack:?}").to_lowercase();
    let mut rows: Vec<Rows> = cases.iter().map(|case| Rows { name: case.name(&word), rounds: Vec::new() }).collect();
    for round in 0..args.common.rounds {
        for (case, rows) in cases.iter().zip(&mut rows) {
            out.say(&format!("round {} of {}: {}", round + 1, args.common.rounds, rows.name));
            let target = Target::start(&args.common.dir)?;
            rows.rounds.push(measure(&target, case, args.common.seconds).await?);
        }
    }
    let limits = if args.no_limits {
        None
    } else {
        out.say("limits of disk and network");
        Some(Limits::measure(&args.common.dir, &cases, args.common.rounds, args.common.seconds).await?)
    };
    let json = json!({
        "ack": word, "cases": report::to_json(&rows), "limits": limits.as_ref().map(Limits::json),
    });
    out.show(&json, || {
        let mut lines = vec![format!(
            "publish, ack {word}, medians of {} rounds of {} s; processor seconds for a million events; bytes written for one of payload",
            args.common.rounds, args.common.seconds
        )];
        let mut all = rows;
        let said = limits.as_ref().map(Limits::lines).unwrap_or_default();
        all.extend(limits.into_iter().flat_map(|limits| limits.grpc));
        lines.extend(report::lines(&all));
        lines.extend(said);
        lines
    })
}

/// Puts a load on a server, for so long.
pub(crate) async fn measure(target: &Target, case: &Case, seconds: f64) -> Result<Figures, CliError> {
    // A server that throws everything away has no topics, and needs none.
    let _ = target.topic("bench", case.producers).await;
    let payload = Arc::new(payload::events(case.event_bytes));
    let before = (target.usage(), Usage::own());
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(seconds);
    let mut producers = Vec::new();
    for partition in 0..case.producers {
        let client = target.connect().await?;
        producers.push(tokio::spawn(produce(client, *case, partition, payload.clone(), end)));
    }
    let mut events = 0;
    let mut latencies = Latencies::new();
    for producer in producers {
        let (count, some) =
            producer.await.map_err(|error| CliError::failed(format!("a producer failed: {error}")))??;
        events += count;
        latencies.merge(&some);
    }
    let elapsed = begun.elapsed().as_secs_f64();
    // What the server still does for these events belongs to them.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let after = (target.usage(), Usage::own());
    let millions = events as f64 / 1e6;
    let payload_bytes = (events * case.event_bytes as u64) as f64;
    Ok(Figures {
        events_per_s: events as f64 / elapsed,
        event_bytes: case.event_bytes,
        p50_us: Some(latencies.us(0.5)),
        p99_us: Some(latencies.us(0.99)),
        p999_us: Some(latencies.us(0.999)),
        server_cpu: Some((after.0.cpu_s - before.0.cpu_s) / millions),
        client_cpu: Some((after.1.cpu_s - before.1.cpu_s) / millions),
        peak_memory_mb: Some(after.0.peak_memory_bytes / 1e6),
        written: Some((after.0.written_bytes - before.0.written_bytes) / payload_bytes),
        state_mb: None,
    })
}

async fn produce(
    client: Client,
    case: Case,
    partition: u32,
    payload: Arc<Vec<Bytes>>,
    end: Instant,
) -> Result<(u64, Latencies), CliError> {
    let options = PublisherOptions {
        ack: case.ack,
        in_flight_requests_max: case.in_flight,
        in_flight_bytes_max: 256 << 20,
        partition: Some(partition),
        ..PublisherOptions::default()
    };
    let publisher = client.publisher("bench", options);
    let mut next = (0..payload.len()).cycle();
    let mut waiting: VecDeque<(Instant, Receipt)> = VecDeque::new();
    let mut latencies = Latencies::new();
    let mut events = 0;
    let mut is_over = false;
    while !is_over || !waiting.is_empty() {
        if !is_over && waiting.len() < case.in_flight {
            let mut batch = Batch::new();
            for at in next.by_ref().take(case.batch) {
                batch.push_parts(None, &payload[at]);
            }
            waiting.push_back((Instant::now(), publisher.send_batch(batch).await?));
            is_over = Instant::now() >= end;
            continue;
        }
        let Some((sent, receipt)) = waiting.pop_front() else { break };
        receipt.wait().await?;
        latencies.record(sent.elapsed());
        events += case.batch as u64;
    }
    Ok((events, latencies))
}
