//! `nodata bench neighbours`

use crate::cli::CliError;
use crate::cli::bench::BenchCommon;
use crate::cli::bench::payload;
use crate::cli::bench::report::{Spread, cell, short, spread, spread_json};
use crate::cli::bench::target::Target;
use crate::cli::bench::transform::{component, deploy, request, upload, wait_until_done};
use crate::cli::bench::upload::upload_as;
use crate::cli::out::{Out, table};
use bytes::Bytes;
use clap::Args;
use nodata_client::proto::deploy_request::Role;
use nodata_client::proto::{
    Budget, DeployRequest, DescribeDeploymentRequest, ErrorPolicy, OnPoison, PauseDeploymentRequest,
    ResumeDeploymentRequest, TailLogsRequest, Transform, Usage,
};
use nodata_client::{Batch, Client, PublisherOptions};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Measure what a component costs others that computes all the time, and how soon one is ended.
///
/// Events wait in a topic, and a component processes all of them: alone, and beside another deployment that has as many tasks as there
/// are processors, each in a call that never ends, within a budget that lasts. Then the call of such a component has a small budget, and
/// is ended again and again, and the deployment is paused in the middle of calls.
#[derive(Debug, Args)]
pub(crate) struct NeighboursBench {
    /// The component that has work to do.
    #[arg(long, value_name = "FILE", default_value = "target/components/filter-rewrite.wasm")]
    file: PathBuf,
    /// The component that computes for ever.
    #[arg(long, value_name = "FILE", default_value = "target/components/spins.wasm")]
    spins: PathBuf,
    /// Events that wait, 100 B each.
    #[arg(long, default_value_t = 4_000_000, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    events: u64,
    /// Partitions of the topic that they wait in.
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    partitions: u32,
    /// Tasks that compute for ever [default: one for each processor]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    spinners: Option<u32>,
    /// Milliseconds of processor time of a call that is ended.
    #[arg(long, default_value_t = 100, value_name = "MS", value_parser = clap::value_parser!(u64).range(10..))]
    call_cpu: u64,
    /// Calls that are ended in each round, at least.
    #[arg(long, default_value_t = 20, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=60))]
    calls: u32,
    /// How often the deployment is paused in each round while it computes.
    #[arg(long, default_value_t = 10, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pauses: u32,
    #[command(flatten)]
    pub(crate) common: BenchCommon,
}

/// How the component with work to do shares the processors: its weight, and that of its neighbour if it has one.
const SHARES: [(u64, Option<u64>); 3] = [(100, None), (100, Some(100)), (1000, Some(100))];

/// How often it is looked whether something has begun.
const LOOK: Duration = Duration::from_millis(2);

/// What one round found about one way of sharing.
struct Shared {
    events_per_s: f64,
    /// Processors that the neighbour had meanwhile.
    spun: f64,
}

struct Case {
    name: String,
    rounds: Vec<Shared>,
}

impl Case {
    fn rate(&self) -> Option<Spread> {
        spread(self.rounds.iter().map(|round| round.events_per_s))
    }

    fn spun(&self) -> Option<Spread> {
        spread(self.rounds.iter().map(|round| round.spun))
    }

    fn to(&self, alone: &Self) -> Option<f64> {
        Some(self.rate()?.median / alone.rate()?.median)
    }
}

/// What ending calls takes, in milliseconds.
#[derive(Default)]
struct Ended {
    /// How much longer than its budget a call took, with the start of the next instance.
    longer: Vec<f64>,
    /// How long a pause took.
    pauses: Vec<f64>,
}

pub(crate) async fn run(args: NeighboursBench) -> Result<(), CliError> {
    args.common.check()?;
    let (victim, spins) = (component(&args.file)?, component(&args.spins)?);
    let out = Out::new(args.common.json);
    let name = |(weight, neighbour): (u64, Option<u64>)| match neighbour {
        None => "alone".to_owned(),
        Some(neighbour) => format!("beside one that spins, weights {weight} to {neighbour}"),
    };
    let mut cases: Vec<Case> = SHARES.map(|share| Case { name: name(share), rounds: Vec::new() }).into();
    let mut ended = Ended::default();
    for round in 0..args.common.rounds {
        for (share, case) in SHARES.into_iter().zip(&mut cases) {
            out.say(&format!("round {} of {}: {}", round + 1, args.common.rounds, case.name));
            let target = Target::start(&args.common.dir)?;
            case.rounds.push(measure(&target, &args, (&victim, &spins), share).await?);
            target.kill();
        }
        out.say(&format!("round {} of {}: calls that are ended", round + 1, args.common.rounds));
        let target = Target::start(&args.common.dir)?;
        end_calls(&target, &args, &spins, &mut ended).await?;
        target.kill();
    }
    show(&out, &args, &cases, &ended)
}

fn show(out: &Out, args: &NeighboursBench, cases: &[Case], ended: &Ended) -> Result<(), CliError> {
    let case = |case: &Case| {
        json!({
            "case": case.name,
            "events_per_s": spread_json(case.rate()),
            "to_alone": cases.first().and_then(|alone| case.to(alone)),
            "neighbour_cpus": spread_json(case.spun()),
        })
    };
    let of = |values: &[f64]| spread(values.iter().copied());
    let (longer, pauses) = (of(&ended.longer), of(&ended.pauses));
    let json = json!({
        "ack": "durable",
        "cases": cases.iter().map(case).collect::<Vec<Value>>(),
        "call_cpu_ms": args.call_cpu,
        "calls_ended": ended.longer.len(),
        "longer_than_budget_ms": spread_json(longer),
        "pauses": ended.pauses.len(),
        "pause_ms": spread_json(pauses),
    });
    out.show(&json, || {
        let mut lines = vec![format!(
            "{} events of 100 B that waited, {} partitions, ack durable, each once, medians of {} rounds",
            args.events, args.partitions, args.common.rounds
        )];
        let row = |case: &Case| {
            let rate = case.rate().map_or("-".to_owned(), |rate| {
                format!("{} ({} to {})", short(rate.median), short(rate.least), short(rate.most))
            });
            let to = cases.first().and_then(|alone| case.to(alone)).map_or("-".to_owned(), |to| format!("{to:.2}"));
            vec![case.name.clone(), rate, to, cell(case.spun(), 2)]
        };
        let head = ["CASE", "EVENTS/S", "TO ALONE", "PROCESSORS THAT THE OTHER HAD"];
        lines.extend(table(&head, &cases.iter().map(row).collect::<Vec<_>>()));
        lines.push(format!(
            "a call that may have {} ms of processor time is ended {} ms later, and another instance begins the next one ({} calls)",
            args.call_cpu,
            cell(longer, 1),
            ended.longer.len()
        ));
        lines.push(format!(
            "a pause in the middle of such a call takes {} ms ({} pauses)",
            cell(pauses, 1),
            ended.pauses.len()
        ));
        lines
    })
}

fn transform(input: &str) -> Role {
    let outputs = [(String::new(), "out".to_owned())].into();
    Role::Transform(Transform { input: input.to_owned(), outputs })
}

async fn measure(
    target: &Target,
    args: &NeighboursBench,
    (victim, spins): (&Bytes, &Bytes),
    (weight, neighbour): (u64, Option<u64>),
) -> Result<Shared, CliError> {
    let client = target.connect().await?;
    upload(target, victim.clone()).await?;
    target.topic("in", args.partitions).await?;
    target.topic("out", args.partitions).await?;
    // Its code is warm, and its memory is there, before it counts.
    target.topic("warm", 1).await?;
    fill(&client, "warm", 1, 1000).await?;
    deploy(target, "warm", transform("warm"), &[]).await?;
    wait_until_done(target, "warm").await?;
    fill(&client, "in", args.partitions, args.events).await?;
    target.settle().await;
    if neighbour.is_some() {
        upload_as(&client, "spins", spins.clone()).await?;
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
        let tasks = args.spinners.unwrap_or(processors);
        // Much longer than this is measured.
        let budget = Budget { call_cpu_us: Some(600_000_000), call_wall_us: Some(3_600_000_000), ..Budget::default() };
        spin(target, &client, tasks, 1, Budget { cpu_weight: neighbour, ..budget }).await?;
        wait_until_it_spins(&client, u64::from(tasks) * 20_000).await?;
    }
    let before = spun(&client, neighbour.is_some()).await?;
    let begun = Instant::now();
    let budget = Budget { cpu_weight: Some(weight), ..Budget::default() };
    let request = DeployRequest { budget: Some(budget), ..request("bench", "bench", transform("in")) };
    client.deployments().deploy(request).await?;
    wait_until_done(target, "bench").await?;
    let elapsed = begun.elapsed().as_secs_f64();
    let spun = (spun(&client, neighbour.is_some()).await? - before) / elapsed;
    if neighbour.is_some() && spun <= 0.0 {
        return Err(CliError::failed("the neighbour did not compute meanwhile"));
    }
    Ok(Shared { events_per_s: args.events as f64 / elapsed, spun })
}

/// Publishes so many events, to each partition in turn.
async fn fill(client: &Client, topic: &str, partitions: u32, events: u64) -> Result<(), CliError> {
    let payload = payload::lines(100);
    let to = |partition| PublisherOptions { partition: Some(partition), ..PublisherOptions::default() };
    let publishers: Vec<_> = (0..partitions).map(|partition| client.publisher(topic, to(partition))).collect();
    let mut next = (0..payload.len()).cycle();
    let mut left = events;
    for publisher in publishers.iter().cycle() {
        if left == 0 {
            break;
        }
        let mut batch = Batch::new();
        next.by_ref().take(left.min(1000) as usize).for_each(|at| batch.push_parts(None, &payload[at]));
        left -= batch.len() as u64;
        publisher.send_batch(batch).await?;
    }
    for publisher in &publishers {
        publisher.flush().await?;
    }
    Ok(())
}

/// Has a component compute for ever on so many events in each of so many partitions.
async fn spin(target: &Target, client: &Client, tasks: u32, events: u64, budget: Budget) -> Result<(), CliError> {
    target.topic("spin", tasks).await?;
    let mut batch = Batch::new();
    (0..events).for_each(|_| batch.push_parts(None, b"around"));
    for partition in 0..tasks {
        let options = PublisherOptions { partition: Some(partition), ..PublisherOptions::default() };
        let publisher = client.publisher("spin", options);
        publisher.send_batch(batch.clone()).await?;
        publisher.flush().await?;
    }
    let on_error = ErrorPolicy { retries: None, then: OnPoison::Skip.into() };
    let request = DeployRequest {
        budget: Some(budget),
        on_error: Some(on_error),
        ..request("spins", "spins", transform("spin"))
    };
    client.deployments().deploy(request).await?;
    Ok(())
}

async fn usage(client: &Client) -> Result<Usage, CliError> {
    let request = DescribeDeploymentRequest { name: "spins".to_owned() };
    let described = client.deployments().describe_deployment(request).await?.into_inner();
    Ok(described.deployment.and_then(|deployment| deployment.usage).unwrap_or_default())
}

/// Seconds of processor time of what computes for ever.
async fn spun(client: &Client, is_there: bool) -> Result<f64, CliError> {
    Ok(if is_there { usage(client).await?.cpu_us as f64 / 1e6 } else { 0.0 })
}

/// Waits until it has had so much processor time, in microseconds.
async fn wait_until_it_spins(client: &Client, cpu_us: u64) -> Result<(), CliError> {
    while usage(client).await?.cpu_us < cpu_us {
        tokio::time::sleep(LOOK).await;
    }
    Ok(())
}

async fn end_calls(target: &Target, args: &NeighboursBench, spins: &Bytes, ended: &mut Ended) -> Result<(), CliError> {
    let client = target.connect().await?;
    upload_as(&client, "spins", spins.clone()).await?;
    target.topic("out", 1).await?;
    let budget = Budget { call_cpu_us: Some(args.call_cpu * 1000), ..Budget::default() };
    // More than are looked at: each costs two calls.
    let events = u64::from(args.calls + args.pauses) * 10;
    spin(target, &client, 1, events, budget).await?;
    let budget_us = args.call_cpu as i64 * 1000;
    loop {
        let took = calls(&client).await?;
        if took.len() >= args.calls as usize {
            ended.longer.extend(took.into_iter().map(|took_us| (took_us - budget_us) as f64 / 1e3));
            break;
        }
        tokio::time::sleep(Duration::from_millis(args.call_cpu)).await;
    }
    let name = || "spins".to_owned();
    for number in 0..args.pauses {
        let had = usage(&client).await?.cpu_us;
        wait_until_it_spins(&client, had + 1).await?;
        // In another part of a call each time, spread over it by the golden ratio.
        let part = f64::from(number) * 0.618 % 1.0;
        tokio::time::sleep(Duration::from_secs_f64(args.call_cpu as f64 / 1e3 * part)).await;
        let asked = Instant::now();
        client.deployments().pause_deployment(PauseDeploymentRequest { name: name() }).await?;
        ended.pauses.push(asked.elapsed().as_secs_f64() * 1e3);
        client.deployments().resume_deployment(ResumeDeploymentRequest { name: name() }).await?;
    }
    Ok(())
}

/// How long calls took that were ended, in microseconds: from the end of the one before, which the host tells in the log of the
/// deployment, with the start of an instance and without anything else in between.
async fn calls(client: &Client) -> Result<Vec<i64>, CliError> {
    let request = TailLogsRequest { name: "spins".to_owned(), lines_max: 0, follow: false };
    let mut answers = client.deployments().tail_logs(request).await?.into_inner();
    let mut lines = Vec::new();
    while let Some(answer) = answers.message().await? {
        lines.extend(answer.lines);
    }
    let is_end = |text: &str| text.starts_with("attempt ") && text.contains("of processor time");
    let pairs = lines.windows(2).filter(|pair| pair.iter().all(|line| is_end(&line.text)));
    Ok(pairs.map(|pair| pair[1].timestamp_us - pair[0].timestamp_us).collect())
}
