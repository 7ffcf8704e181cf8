//! `nodata bench idle`

use crate::cli::CliError;
use crate::cli::bench::BenchCommon;
use crate::cli::bench::report::{Spread, cell, spread, spread_json};
use crate::cli::bench::target::Target;
use crate::cli::bench::transform::{component, deploy, upload};
use crate::cli::out::{Out, table};
use bytes::Bytes;
use clap::Args;
use nodata_client::proto::deploy_request::Role;
use nodata_client::proto::{Deployment, DeploymentState, DescribeDeploymentRequest, ListDeploymentsRequest, Transform};
use nodata_client::{Ack, Batch, Client};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Measure what deployments cost that have nothing to do.
///
/// Deploys a component again and again, and shows the memory and the processor time of the server while nothing happens: before there
/// was any event, and after each has processed one and waits for the next.
#[derive(Debug, Args)]
pub(crate) struct IdleBench {
    /// The component. It should emit something for an event of text.
    #[arg(long, value_name = "FILE", default_value = "target/components/shout.wasm")]
    file: PathBuf,
    /// How many deployments there are: one case each.
    #[arg(long, default_value = "1,100,500", value_delimiter = ',', value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    deployments: Vec<u32>,
    /// Each has topics of its own. Without it, all read one topic and write to another.
    #[arg(long)]
    own_topics: bool,
    #[command(flatten)]
    pub(crate) common: BenchCommon,
}

/// How often it is looked whether all of them are as they should be.
const LOOK: Duration = Duration::from_millis(20);

/// What nobody counts as idle: the end of what was done last.
const SETTLE: Duration = Duration::from_secs(1);

/// What one round found.
struct Round {
    deploy_s: f64,
    /// Milliseconds for each of the first and of the last tenth of them.
    first_ms: f64,
    last_ms: f64,
    /// From the last answer until all of them run.
    started_ms: f64,
    /// Processor time of the server until then, for each.
    deploy_cpu_ms: f64,
    empty_bytes: f64,
    quiet: Idle,
    /// From publishing one event until the last of them has processed it.
    event_ms: f64,
    used: Idle,
}

/// The server while nothing happens.
#[derive(Clone, Copy)]
struct Idle {
    memory_bytes: f64,
    /// Part of a core.
    cpu: f64,
    wakes_per_s: f64,
}

struct Case {
    deployments: u32,
    rounds: Vec<Round>,
}

impl Case {
    fn of(&self, figure: impl Fn(&Round) -> f64) -> Option<Spread> {
        spread(self.rounds.iter().map(figure))
    }

    /// Bytes that each deployment adds to an empty server.
    fn each(&self, idle: impl Fn(&Round) -> Idle) -> Option<Spread> {
        self.of(|round| (idle(round).memory_bytes - round.empty_bytes) / f64::from(self.deployments))
    }

    fn cells(&self) -> Vec<[String; 3]> {
        let mut rows = vec![
            ["deploying them, s".to_owned(), cell(self.of(|round| round.deploy_s), 2)],
            ["deploying one of the first tenth, ms".to_owned(), cell(self.of(|round| round.first_ms), 2)],
            ["deploying one of the last tenth, ms".to_owned(), cell(self.of(|round| round.last_ms), 2)],
            ["from the last answer until all run, ms".to_owned(), cell(self.of(|round| round.started_ms), 1)],
            ["processor time of deploying one, ms".to_owned(), cell(self.of(|round| round.deploy_cpu_ms), 2)],
            ["memory of an empty server, MB".to_owned(), cell(self.of(|round| round.empty_bytes / 1e6), 1)],
        ];
        for (state, is_used) in [("before any event", false), ("after an event", true)] {
            let idle = |round: &Round| if is_used { round.used } else { round.quiet };
            rows.extend([
                [format!("memory {state}, MB"), cell(self.of(|round| idle(round).memory_bytes / 1e6), 1)],
                [format!("memory of each {state}, kB"), cell(self.each(idle).map(|each| each.scaled(1e-3)), 1)],
                [format!("processor time {state}, % of a core"), cell(self.of(|round| idle(round).cpu * 100.0), 2)],
                [format!("wake-ups {state}, in a second"), cell(self.of(|round| idle(round).wakes_per_s), 0)],
            ]);
        }
        rows.push(["an event until all have processed it, ms".to_owned(), cell(self.of(|round| round.event_ms), 1)]);
        let count = self.deployments.to_string();
        rows.into_iter().map(|[what, figure]| [count.clone(), what, figure]).collect()
    }

    fn json(&self) -> Value {
        let idle = |of: fn(&Round) -> Idle| {
            json!({
                "memory_bytes": spread_json(self.of(|round| of(round).memory_bytes)),
                "memory_of_each_bytes": spread_json(self.each(of)),
                "cpu_of_a_core": spread_json(self.of(|round| of(round).cpu)),
                "wakes_per_s": spread_json(self.of(|round| of(round).wakes_per_s)),
            })
        };
        json!({
            "deployments": self.deployments,
            "deploy_s": spread_json(self.of(|round| round.deploy_s)),
            "deploy_first_ms": spread_json(self.of(|round| round.first_ms)),
            "deploy_last_ms": spread_json(self.of(|round| round.last_ms)),
            "started_ms": spread_json(self.of(|round| round.started_ms)),
            "deploy_cpu_ms": spread_json(self.of(|round| round.deploy_cpu_ms)),
            "memory_empty_bytes": spread_json(self.of(|round| round.empty_bytes)),
            "before_any_event": idle(|round| round.quiet),
            "event_ms": spread_json(self.of(|round| round.event_ms)),
            "after_an_event": idle(|round| round.used),
        })
    }
}

pub(crate) async fn run(args: IdleBench) -> Result<(), CliError> {
    args.common.check()?;
    let component = component(&args.file)?;
    let out = Out::new(args.common.json);
    let mut cases: Vec<Case> =
        args.deployments.iter().map(|deployments| Case { deployments: *deployments, rounds: Vec::new() }).collect();
    for round in 0..args.common.rounds {
        for case in &mut cases {
            out.say(&format!("round {} of {}: {} deployments", round + 1, args.common.rounds, case.deployments));
            let target = Target::start(&args.common.dir)?;
            case.rounds.push(measure(&target, &args, component.clone(), case.deployments).await?);
        }
    }
    let json = json!({
        "ack": "durable", "own_topics": args.own_topics, "cases": cases.iter().map(Case::json).collect::<Vec<_>>(),
    });
    out.show(&json, || {
        let topics = if args.own_topics { "each with topics of its own" } else { "all on one topic" };
        let title = format!(
            "deployments of {}, {topics}, 1 partition, ack durable, medians of {} rounds",
            args.file.display(),
            args.common.rounds
        );
        let rows: Vec<Vec<String>> = cases.iter().flat_map(Case::cells).map(Vec::from).collect();
        [vec![title], table(&["DEPLOYMENTS", "FIGURE", "MEDIAN"], &rows)].concat()
    })
}

async fn measure(target: &Target, args: &IdleBench, component: Bytes, count: u32) -> Result<Round, CliError> {
    let seconds = args.common.seconds;
    upload(target, component).await?;
    let topics: Vec<[String; 2]> = match args.own_topics {
        true => (0..count).map(|number| [format!("in-{number}"), format!("out-{number}")]).collect(),
        false => vec![["in".to_owned(), "out".to_owned()]],
    };
    for topic in topics.iter().flatten() {
        target.topic(topic, 1).await?;
    }
    let client = target.connect().await?;
    tokio::time::sleep(SETTLE).await;
    let empty_bytes = target.usage().memory_bytes;

    let (before, begun) = (target.threads(), Instant::now());
    let mut took = Vec::new();
    for (number, [input, output]) in (0..count).zip(topics.iter().cycle()) {
        let one = Instant::now();
        let outputs = [(String::new(), output.clone())].into();
        let role = Role::Transform(Transform { input: input.clone(), outputs });
        deploy(target, &format!("bench-{number}"), role, &[]).await?;
        took.push(one.elapsed().as_secs_f64() * 1e3);
    }
    let deploy_s = begun.elapsed().as_secs_f64();
    wait_for_all(&client, count, |deployment| deployment.state() == DeploymentState::Running).await?;
    let started_ms = (begun.elapsed().as_secs_f64() - deploy_s) * 1e3;
    let deploy_cpu_ms = target.threads().since(&before).cpu_s * 1e3 / f64::from(count);
    let tenth = (count as usize).div_ceil(10);
    let median = |of: &[f64]| spread(of.iter().copied()).map_or(0.0, |spread| spread.median);
    let (first_ms, last_ms) = (median(&took[..tenth]), median(&took[took.len() - tenth..]));
    let quiet = idle(target, seconds).await;

    let begun = Instant::now();
    for [input, _] in &topics {
        let mut batch = Batch::new();
        batch.push_parts(None, b"info host=web-1 user=u1 path=/ agent=the one event");
        client.publish_with(input, batch, Ack::Durable).await?;
    }
    let has_worked = |deployment: &Deployment| deployment.usage.as_ref().is_some_and(|usage| usage.events_in == 1);
    wait_for_all(&client, count, has_worked).await?;
    let event_ms = begun.elapsed().as_secs_f64() * 1e3;
    let mut came = 0;
    for [_, output] in &topics {
        came += client.offsets(output).await?.iter().map(|(_, _, end)| end).sum::<u64>();
    }
    if came != u64::from(count) {
        return Err(CliError::failed(format!("{count} deployments had one event each, and {came} came out")));
    }
    let used = idle(target, seconds).await;
    Ok(Round { deploy_s, first_ms, last_ms, started_ms, deploy_cpu_ms, empty_bytes, quiet, event_ms, used })
}

/// Looks at the server while nothing happens.
async fn idle(target: &Target, seconds: f64) -> Idle {
    tokio::time::sleep(SETTLE).await;
    let (before, begun) = (target.threads(), Instant::now());
    tokio::time::sleep(Duration::from_secs_f64(seconds)).await;
    let (used, elapsed) = (target.threads().since(&before), begun.elapsed().as_secs_f64());
    Idle { memory_bytes: target.usage().memory_bytes, cpu: used.cpu_s / elapsed, wakes_per_s: used.wakes / elapsed }
}

/// What is wrong with a deployment.
async fn why(client: &Client, deployment: &Deployment) -> Result<String, CliError> {
    let request = DescribeDeploymentRequest { name: deployment.name.clone() };
    let described = client.deployments().describe_deployment(request).await?.into_inner();
    let reason = described.tasks.into_iter().map(|task| task.reason).find(|reason| !reason.is_empty());
    Ok(reason.unwrap_or_else(|| "it is over by now".to_owned()))
}

/// Waits until all deployments are so.
async fn wait_for_all(client: &Client, count: u32, is_so: impl Fn(&Deployment) -> bool) -> Result<(), CliError> {
    loop {
        let (mut there, mut so) = (0, 0);
        let mut request = ListDeploymentsRequest { page_size: 1000, ..Default::default() };
        loop {
            let page = client.deployments().list_deployments(request.clone()).await?.into_inner();
            // All instances together have a bound on their memory: beyond it, the rest would be tried again for ever.
            let is_in_trouble =
                |known: &&Deployment| matches!(known.state(), DeploymentState::Failed | DeploymentState::Retrying);
            if let Some(troubled) = page.deployments.iter().find(is_in_trouble) {
                return Err(CliError::failed(format!(
                    "deployment {}: {}",
                    troubled.name,
                    why(client, troubled).await?
                )));
            }
            there += page.deployments.len();
            so += page.deployments.iter().filter(|deployment| is_so(deployment)).count();
            if page.next_page_token.is_empty() {
                break;
            }
            request.page_token = page.next_page_token;
        }
        if there == count as usize && so == there {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}
