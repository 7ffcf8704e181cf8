//! `nodata bench replace`

use crate::cli::CliError;
use crate::cli::bench::BenchCommon;
use crate::cli::bench::payload;
use crate::cli::bench::report::{Spread, cell, spread, spread_json};
use crate::cli::bench::target::Target;
use crate::cli::bench::transform::{component, deploy, upload, wait_until_done};
use crate::cli::bench::version::another_version;
use crate::cli::out::{Out, table};
use crate::limits::WAIT_LOOK;
use bytes::Bytes;
use clap::Args;
use nodata_client::proto::deploy_request::Role;
use nodata_client::proto::{DescribeDeploymentRequest, Transform, UpdateDeploymentRequest};
use nodata_client::{Batch, Client, From, Publisher, PublisherOptions, Tail, TailOptions};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Measure how long events wait while a component is replaced.
///
/// Events are published at a fixed rate, go through a component, and are read. The longest time between two batches that the reader
/// gets of a partition is measured in stretches in which another version takes over, and in as many in which nothing happens.
#[derive(Debug, Args)]
pub(crate) struct ReplaceBench {
    /// The component. It should emit something for each event.
    #[arg(long, value_name = "FILE", default_value = "target/components/copies.wasm")]
    file: PathBuf,
    /// Partitions of both topics: one case each.
    #[arg(long, default_value = "1,4", value_delimiter = ',', value_name = "N")]
    partitions: Vec<u32>,
    /// Batches in a second, to each partition.
    #[arg(long, default_value_t = 200, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Events in a batch.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    batch: u32,
    /// How often it is replaced in each round. `--seconds` is how long each stretch takes.
    #[arg(long, default_value_t = 5, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    replacements: u32,
    #[command(flatten)]
    pub(crate) common: BenchCommon,
}

/// How long a new version has to go well: it need not be long, but it is there as in any update.
const PROBATION_US: u64 = 50_000;

/// What was found, in milliseconds.
struct Case {
    name: String,
    usual: Vec<f64>,
    replaced: Vec<f64>,
    /// How long the answer to the update took: the version is tried before it takes over.
    update: Vec<f64>,
}

impl Case {
    fn more(&self) -> Option<f64> {
        let median = |of: &[f64]| spread(of.iter().copied()).map(|spread| spread.median);
        Some(median(&self.replaced)? / median(&self.usual)?)
    }

    fn cells(&self) -> Vec<String> {
        let of = |values: &[f64]| cell(spread(values.iter().copied()), 1);
        let more = self.more().map_or("-".to_owned(), |more| format!("{more:.2}"));
        let replacements = self.replaced.len().to_string();
        vec![self.name.clone(), replacements, of(&self.usual), of(&self.replaced), more, of(&self.update)]
    }

    fn json(&self) -> Value {
        let of = |values: &[f64]| -> Option<Spread> { spread(values.iter().copied()) };
        json!({
            "case": self.name,
            "replacements": self.replaced.len(),
            "usual_gap_ms": spread_json(of(&self.usual)),
            "replaced_gap_ms": spread_json(of(&self.replaced)),
            "replaced_to_usual": self.more(),
            "update_ms": spread_json(of(&self.update)),
        })
    }
}

pub(crate) async fn run(args: ReplaceBench) -> Result<(), CliError> {
    args.common.check()?;
    let component = component(&args.file)?;
    let out = Out::new(args.common.json);
    let name = |partitions: &u32| format!("{partitions} partitions, {} x {} events/s each", args.rate, args.batch);
    let case = |partitions| Case { name: name(partitions), usual: vec![], replaced: vec![], update: vec![] };
    let mut cases: Vec<Case> = args.partitions.iter().map(case).collect();
    for round in 0..args.common.rounds {
        for (partitions, case) in args.partitions.iter().zip(&mut cases) {
            out.say(&format!("round {} of {}: {}", round + 1, args.common.rounds, case.name));
            let target = Target::start(&args.common.dir)?;
            measure(&target, &args, &component, *partitions, case).await?;
        }
    }
    let json = json!({ "ack": "durable", "cases": cases.iter().map(Case::json).collect::<Vec<_>>() });
    out.show(&json, || {
        let head =
            ["CASE", "REPLACED", "LONGEST GAP MS", "AT A REPLACEMENT MS", "TIMES AS LONG", "ANSWER TO THE UPDATE MS"];
        let title = format!(
            "the longest gap between two batches of a partition in {} s, ack durable, each event once, medians and worst",
            args.common.seconds
        );
        [vec![title], table(&head, &cases.iter().map(Case::cells).collect::<Vec<_>>())].concat()
    })
}

async fn measure(
    target: &Target,
    args: &ReplaceBench,
    component: &Bytes,
    partitions: u32,
    case: &mut Case,
) -> Result<(), CliError> {
    upload(target, component.clone()).await?;
    target.topic("in", partitions).await?;
    target.topic("out", partitions).await?;
    let outputs = [(String::new(), "out".to_owned())].into();
    deploy(target, "bench", Role::Transform(Transform { input: "in".to_owned(), outputs }), &[]).await?;
    let client = target.connect().await?;
    let tail = client.tail("out", TailOptions { from: From::Earliest, follow: true, ..TailOptions::default() }).await?;
    let arrivals = Arrivals::of(tail, partitions);
    let load = Load::start(target, args, partitions).await?;

    let stretch = Duration::from_secs_f64(args.common.seconds);
    let mut stretches = Vec::new();
    for number in 0..args.replacements {
        // Compiling it is no part of this.
        upload(target, another_version(component, number as usize)).await?;
        tokio::time::sleep(stretch / 4).await;
        // Each goes first as often as the other.
        for is_replaced in if number % 2 == 0 { [false, true] } else { [true, false] } {
            let begun = Instant::now();
            tokio::time::sleep(stretch / 4).await;
            if is_replaced {
                let asked = Instant::now();
                replace(&client).await?;
                case.update.push(asked.elapsed().as_secs_f64() * 1e3);
            }
            tokio::time::sleep(stretch.saturating_sub(begun.elapsed())).await;
            stretches.push((is_replaced, begun, Instant::now()));
            if is_replaced {
                passed(&client, number + 2).await?;
            }
        }
    }
    let published = load.stop().await?;
    wait_until_done(target, "bench").await?;
    let came = client.offsets("out").await?.iter().map(|(_, _, end)| end).sum::<u64>();
    if came != published {
        return Err(CliError::failed(format!("{published} events went in and {came} came out")));
    }
    arrivals.wait_for(published).await;
    for (is_replaced, from, to) in stretches {
        let gap = arrivals.longest_gap(from, to).ok_or_else(|| {
            CliError::failed(format!("too few events in {} s to see a gap between them", args.common.seconds))
        })?;
        let to = if is_replaced { &mut case.replaced } else { &mut case.usual };
        to.push(gap.as_secs_f64() * 1e3);
    }
    Ok(())
}

/// Has the version that was uploaded last take over.
async fn replace(client: &Client) -> Result<(), CliError> {
    let request = UpdateDeploymentRequest {
        name: "bench".to_owned(),
        component: "bench".to_owned(),
        probation_us: Some(PROBATION_US),
        ..UpdateDeploymentRequest::default()
    };
    client.deployments().update_deployment(request).await?;
    Ok(())
}

/// Waits until a revision has proved itself.
async fn passed(client: &Client, revision: u32) -> Result<(), CliError> {
    loop {
        let request = DescribeDeploymentRequest { name: "bench".to_owned() };
        let described = client.deployments().describe_deployment(request).await?.into_inner();
        let deployment = described.deployment.unwrap_or_default();
        if deployment.revision != revision {
            let why = described.history.last().map(|change| change.reason.clone()).unwrap_or_default();
            return Err(CliError::failed(format!("revision {revision} was undone: {why}")));
        }
        let all = described.tasks.iter().all(|task| task.revision == revision);
        if deployment.rollout.is_none() && all {
            return Ok(());
        }
        tokio::time::sleep(WAIT_LOOK).await;
    }
}

/// Publishes at a fixed rate until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    sending: JoinHandle<nodata_client::Result<u64>>,
}

impl Load {
    async fn start(target: &Target, args: &ReplaceBench, partitions: u32) -> Result<Self, CliError> {
        let client = target.connect().await?;
        let to = |partition| PublisherOptions { partition: Some(partition), ..PublisherOptions::default() };
        let publishers: Vec<Publisher> =
            (0..partitions).map(|partition| client.publisher("in", to(partition))).collect();
        let payload = payload::lines(100);
        let (rate, events) = (args.rate * partitions, args.batch as usize);
        let stop = Arc::new(AtomicBool::new(false));
        let handle = tokio::runtime::Handle::current();
        let sending = tokio::task::spawn_blocking({
            let stop = stop.clone();
            move || {
                let begun = Instant::now();
                let mut next = (0..payload.len()).cycle();
                let mut batches = 0u64;
                // The partitions take turns.
                for publisher in publishers.iter().cycle() {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let due = begun + Duration::from_secs_f64(batches as f64 / f64::from(rate));
                    // The timers of tokio tick in milliseconds, and that would be measured too.
                    std::thread::sleep(due.saturating_duration_since(Instant::now()));
                    let mut batch = Batch::new();
                    next.by_ref().take(events).for_each(|at| batch.push_parts(None, &payload[at]));
                    handle.block_on(publisher.send_batch(batch))?;
                    batches += 1;
                }
                for publisher in &publishers {
                    handle.block_on(publisher.flush())?;
                }
                Ok(batches * events as u64)
            }
        });
        Ok(Self { stop, sending })
    }

    /// How many events there were.
    async fn stop(self) -> Result<u64, CliError> {
        self.stop.store(true, Ordering::Relaxed);
        Ok(self.sending.await.map_err(|error| CliError::failed(format!("the sender failed: {error}")))??)
    }
}

/// When batches came, of each partition.
struct Arrivals {
    came: Arc<Mutex<Vec<Vec<Instant>>>>,
    events: tokio::sync::watch::Receiver<u64>,
    reading: JoinHandle<()>,
}

impl Arrivals {
    fn of(mut tail: Tail, partitions: u32) -> Self {
        let came = Arc::new(Mutex::new(vec![Vec::new(); partitions as usize]));
        let (count, events) = tokio::sync::watch::channel(0);
        let reading = tokio::spawn({
            let came = came.clone();
            async move {
                while let Ok(Some(batch)) = tail.next_batch().await {
                    let now = Instant::now();
                    let mut came = came.lock().unwrap_or_else(PoisonError::into_inner);
                    if let Some(came) = came.get_mut(batch.partition() as usize) {
                        came.push(now);
                    }
                    count.send_modify(|events| *events += batch.rows().count() as u64);
                }
            }
        });
        Self { came, events, reading }
    }

    async fn wait_for(&self, events: u64) {
        // A reader that ended has said all it had.
        let _ = self.events.clone().wait_for(|came| *came >= events).await;
    }

    /// The longest time without a batch of a partition that has some of itself in this stretch.
    fn longest_gap(&self, from: Instant, to: Instant) -> Option<Duration> {
        let came = self.came.lock().unwrap_or_else(PoisonError::into_inner);
        let gaps = came.iter().flat_map(|came| came.windows(2)).filter(|gap| gap[1] > from && gap[0] < to);
        gaps.map(|gap| gap[1] - gap[0]).max()
    }
}

impl Drop for Arrivals {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_gap_counts_where_any_of_it_is() {
        let begun = Instant::now();
        let at = |ms: u64| begun + Duration::from_millis(ms);
        let came = Arc::new(Mutex::new(vec![vec![at(0), at(10), at(40)], vec![at(5), at(6), at(26), at(27)]]));
        let (_, events) = tokio::sync::watch::channel(0);
        let arrivals = Arrivals { came, events, reading: tokio::spawn(async {}) };
        let longest = |from, to| arrivals.longest_gap(at(from), at(to)).map(|gap| gap.as_millis());
        assert_eq!(
            [longest(0, 5), longest(7, 9), longest(11, 12), longest(30, 35)],
            [Some(10), Some(20), Some(30), Some(30)]
        );
        assert_eq!(longest(41, 50), None);
    }
}
