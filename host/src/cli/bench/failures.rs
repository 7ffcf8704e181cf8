//! `nodata bench failures`

use crate::cli::CliError;
use crate::cli::bench::BenchCommon;
use crate::cli::bench::report::{self, Figures, Latencies, Rows};
use crate::cli::bench::target::{Target, Usage};
use crate::cli::bench::transform::{component, deploy, upload};
use crate::cli::out::Out;
use clap::Args;
use nodata_client::proto::DescribeDeploymentRequest;
use nodata_client::proto::Transform;
use nodata_client::proto::deploy_request::Role;
use nodata_client::{Batch, PublisherOptions};
use serde_json::json;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Measure what failures of a component cost.
///
/// Batches of events go through a component one after the other, and each is waited for: published, processed and committed. One event
/// of each batch is a bad one, at another place each time; the first case has none, and the differences to it are what failures cost.
#[derive(Debug, Args)]
pub(crate) struct FailuresBench {
    /// A component that does as each event says.
    #[arg(long, value_name = "FILE", default_value = "target/components/does-as-told.wasm")]
    file: PathBuf,
    /// A component that fails when it is given a batch for the first time, if its configuration says so.
    #[arg(long, value_name = "FILE", default_value = "target/components/fails-at-first.wasm")]
    once: PathBuf,
    /// Events in a batch.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    batch: usize,
    /// Batches in each measurement.
    #[arg(long, default_value_t = 50, value_name = "N")]
    batches: usize,
    #[command(flatten)]
    pub(crate) common: BenchCommon,
}

/// What is measured.
struct Case {
    name: &'static str,
    /// How often the component that fails at first does so. `None`: it is the one that does as it is told.
    fails: Option<&'static str>,
    /// What the bad event of a batch says.
    bad: Option<&'static str>,
}

const CASES: &[Case] = &[
    Case { name: "nothing fails", fails: None, bad: None },
    Case { name: "one event is rejected", fails: None, bad: Some("aside") },
    Case { name: "one event is refused with an error", fails: None, bad: Some("refuse") },
    Case { name: "one event is a panic", fails: None, bad: Some("panic") },
    Case { name: "one event for each call, nothing fails", fails: Some("0"), bad: None },
    Case { name: "each call panics once, and is repeated", fails: Some("1"), bad: None },
];

pub(crate) async fn run(args: FailuresBench) -> Result<(), CliError> {
    args.common.check()?;
    if args.batch == 0 || args.batches == 0 {
        return Err(CliError::invalid("give at least one batch of one event"));
    }
    let out = Out::new(args.common.json);
    let mut rows: Vec<Rows> = Vec::new();
    for round in 0..args.common.rounds {
        for (at, case) in CASES.iter().enumerate() {
            out.say(&format!("round {} of {}: {}", round + 1, args.common.rounds, case.name));
            let target = Target::start(&args.common.dir)?;
            let figures = measure(&target, &args, case).await?;
            report::add(&mut rows, at, format!("{}, 100 B x {}", case.name, args.batch), figures);
        }
    }
    let json = json!({ "ack": "durable", "cases": report::to_json(&rows) });
    out.show(&json, || {
        let mut lines = vec![format!(
            "{} batches in turn, from publishing to the commit of what became of them, ack durable, medians of {} rounds",
            args.batches, args.common.rounds
        )];
        lines.extend(report::lines(&rows));
        lines
    })
}

async fn measure(target: &Target, args: &FailuresBench, case: &Case) -> Result<Figures, CliError> {
    let (file, config) = match case.fails {
        Some(times) => (&args.once, vec![("times", times)]),
        None => (&args.file, Vec::new()),
    };
    upload(target, component(file)?).await?;
    target.topic("in", 1).await?;
    target.topic("out", 1).await?;
    let outputs = [(String::new(), "out".to_owned())].into();
    deploy(target, "bench", Role::Transform(Transform { input: "in".to_owned(), outputs }), &config).await?;

    let client = target.connect().await?;
    let publisher = target.connect().await?.publisher("in", PublisherOptions::default());
    let value = "x".repeat(100);
    let mut latencies = Latencies::new();
    let (mut before, mut begun) = (Usage::default(), Instant::now());
    // A few before it counts: the first calls are small, until the task knows how long they take.
    let warm = 10;
    for number in 0..warm + args.batches {
        if number == warm {
            (before, begun) = (target.usage(), Instant::now());
        }
        let mut batch = Batch::new();
        // The places are spread over the batch by the golden ratio.
        let place = (number * 618 + 309) % 1000 * args.batch / 1000;
        for row in 0..args.batch {
            batch.push_parts(None, case.bad.filter(|_| row == place).unwrap_or(&value).as_bytes());
        }
        let sent = Instant::now();
        publisher.send_batch(batch).await?;
        publisher.flush().await?;
        let end = ((number + 1) * args.batch) as u64;
        loop {
            let request = DescribeDeploymentRequest { name: "bench".to_owned() };
            let described = client.deployments().describe_deployment(request).await?.into_inner();
            if described.tasks.first().is_some_and(|task| task.position >= end) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        if number >= warm {
            latencies.record(sent.elapsed());
        }
    }
    let events = (args.batch * args.batches) as f64;
    Ok(Figures {
        events_per_s: events / begun.elapsed().as_secs_f64(),
        event_bytes: value.len(),
        p50_us: Some(latencies.us(0.5)),
        p99_us: Some(latencies.us(0.99)),
        server_cpu: Some((target.usage().cpu_s - before.cpu_s) / (events / 1e6)),
        peak_memory_mb: Some(target.usage().peak_memory_bytes / 1e6),
        ..Figures::default()
    })
}
