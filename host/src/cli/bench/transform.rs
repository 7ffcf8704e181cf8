//! `nodata bench transform`

use crate::cli::CliError;
use crate::cli::bench::BenchCommon;
use crate::cli::bench::payload;
use crate::cli::bench::report::{self, Figures, Rows};
use crate::cli::bench::target::{Target, Usage};
use crate::cli::bench::upload::upload_as;
use crate::cli::component::read;
use crate::cli::out::Out;
use bytes::Bytes;
use clap::Args;
use nodata_client::proto::deploy_request::Role;
use nodata_client::proto::start_position::{Earliest, Position};
use nodata_client::proto::{DeployRequest, DescribeDeploymentRequest, StartPosition, Transform};
use nodata_client::{Batch, Client, From, PublisherOptions, TailOptions};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Measure events on their way through a component.
///
/// A producer publishes, a component transforms, a consumer reads what comes out, all at the same time in one server; everything
/// is durable, and every event is processed once.
#[derive(Debug, Args)]
pub(crate) struct TransformBench {
    /// The component. It should emit something for most events. Several, with commas between, are measured in turn.
    #[arg(long, value_name = "FILE", default_value = "target/components/filter-rewrite.wasm", value_delimiter = ',')]
    file: Vec<PathBuf>,
    /// Sizes of events in bytes.
    #[arg(long, default_value = "100,1024", value_delimiter = ',', value_name = "BYTES")]
    bytes: Vec<usize>,
    /// Publish so many events, however long that takes: for a component that is much slower than the publisher.
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// Partitions of both topics.
    #[arg(long, default_value_t = 4, value_name = "N")]
    partitions: u32,
    /// Events in a request.
    #[arg(long, default_value_t = 1000, value_name = "N")]
    batch: usize,
    /// How often it is deployed, one behind the other.
    #[arg(long, default_value_t = 1, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20))]
    stages: u32,
    #[command(flatten)]
    pub(crate) common: BenchCommon,
}

pub(crate) async fn run(args: TransformBench) -> Result<(), CliError> {
    args.common.check()?;
    let components: Vec<Bytes> = args.file.iter().map(|file| component(file)).collect::<Result<_, _>>()?;
    let out = Out::new(args.common.json);
    let mut rows: Vec<Rows> = Vec::new();
    for round in 0..args.common.rounds {
        let cases = args.bytes.iter().flat_map(|bytes| args.file.iter().zip(&components).map(move |of| (*bytes, of)));
        for (at, (bytes, (file, component))) in cases.enumerate() {
            let file = file.file_stem().unwrap_or_default().display();
            let through = if args.stages == 1 { file.to_string() } else { format!("{} x {file}", args.stages) };
            let name = format!("produce, {through}, consume, {bytes} B x {}", args.batch);
            out.say(&format!("round {} of {}: {name}", round + 1, args.common.rounds));
            let target = Target::start(&args.common.dir)?;
            let figures = measure(&target, &args, component.clone(), bytes).await?;
            report::add(&mut rows, at, name, figures);
        }
    }
    let json = json!({ "ack": "durable", "cases": report::to_json(&rows) });
    out.show(&json, || {
        let mut lines = vec![format!(
            "{} partitions, ack durable, exactly once, medians of {} rounds; events/s are those that went in",
            args.partitions, args.common.rounds
        )];
        lines.extend(report::lines(&rows));
        lines
    })
}

async fn measure(
    target: &Target,
    args: &TransformBench,
    component: Bytes,
    event_bytes: usize,
) -> Result<Figures, CliError> {
    upload(target, component).await?;
    target.topic("in", args.partitions).await?;
    let mut input = "in".to_owned();
    for stage in 1..=args.stages {
        let output = if stage == args.stages { "out".to_owned() } else { format!("stage-{stage}") };
        target.topic(&output, args.partitions).await?;
        let outputs = [(String::new(), output.clone())].into();
        deploy(target, &format!("bench-{stage}"), Role::Transform(Transform { input, outputs }), &[]).await?;
        input = output;
    }
    let reader = target.connect().await?;
    let mut tail =
        reader.tail("out", TailOptions { from: From::Earliest, follow: true, ..TailOptions::default() }).await?;
    let consuming = tokio::spawn(async move {
        let mut events = 0u64;
        loop {
            match tail.next_batch().await {
                Ok(Some(batch)) => events += batch.rows().count() as u64,
                Ok(None) | Err(_) => return events,
            }
        }
    });

    let payload = payload::lines(event_bytes);
    let before = (target.usage(), Usage::own());
    let begun = Instant::now();
    let end = begun + Duration::from_secs_f64(args.common.seconds);
    let mut publishers = Vec::new();
    for partition in 0..args.partitions {
        let options =
            PublisherOptions { partition: Some(partition), in_flight_requests_max: 4, ..PublisherOptions::default() };
        publishers.push(target.connect().await?.publisher("in", options));
    }
    let mut next = (0..payload.len()).cycle();
    let mut events = 0;
    while args.events.map_or_else(|| Instant::now() < end, |most| events < most) {
        for publisher in &publishers {
            let mut batch = Batch::new();
            for at in next.by_ref().take(args.batch) {
                batch.push_parts(None, &payload[at]);
            }
            publisher.send_batch(batch).await?;
            events += args.batch as u64;
        }
    }
    for publisher in &publishers {
        publisher.flush().await?;
    }
    // Each waits for those before it.
    for stage in 1..=args.stages {
        wait_until_done(target, &format!("bench-{stage}")).await?;
    }
    let elapsed = begun.elapsed().as_secs_f64();
    let after = (target.usage(), Usage::own());
    consuming.abort();
    let millions = events as f64 / 1e6;
    Ok(Figures {
        events_per_s: events as f64 / elapsed,
        event_bytes,
        server_cpu: Some((after.0.cpu_s - before.0.cpu_s) / millions),
        client_cpu: Some((after.1.cpu_s - before.1.cpu_s) / millions),
        peak_memory_mb: Some(after.0.peak_memory_bytes / 1e6),
        written: Some((after.0.written_bytes - before.0.written_bytes) / (events * event_bytes as u64) as f64),
        ..Figures::default()
    })
}

/// The file of a component.
pub(crate) fn component(file: &Path) -> Result<Bytes, CliError> {
    read(file).map_err(|error| error.hint("`cargo xtask components` builds the examples; name another one with --file"))
}

/// Uploads a component under the name `bench`.
pub(crate) async fn upload(target: &Target, component: Bytes) -> Result<(), CliError> {
    upload_as(&target.connect().await?, "bench", component).await?;
    Ok(())
}

/// Deploys it.
pub(crate) async fn deploy(target: &Target, name: &str, role: Role, config: &[(&str, &str)]) -> Result<(), CliError> {
    deploy_component(&target.connect().await?, name, "bench", role, config).await
}

/// Deploys a component on events from the earliest on.
pub(crate) async fn deploy_component(
    client: &Client,
    name: &str,
    component: &str,
    role: Role,
    config: &[(&str, &str)],
) -> Result<(), CliError> {
    let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let request = DeployRequest { config, ..request(name, component, role) };
    client.deployments().deploy(request).await?;
    Ok(())
}

/// Asks for a deployment on events from the earliest on.
pub(crate) fn request(name: &str, component: &str, role: Role) -> DeployRequest {
    DeployRequest {
        name: name.to_owned(),
        component: component.to_owned(),
        role: Some(role),
        from: Some(StartPosition { position: Some(Position::Earliest(Earliest {})) }),
        ..DeployRequest::default()
    }
}

/// Waits until every event has been processed and committed.
pub(crate) async fn wait_until_done(target: &Target, name: &str) -> Result<(), CliError> {
    let client = target.connect().await?;
    loop {
        let request = DescribeDeploymentRequest { name: name.to_owned() };
        let described = client.deployments().describe_deployment(request).await?.into_inner();
        let failed = described.tasks.iter().find(|task| !task.reason.is_empty());
        if let Some(task) = failed {
            return Err(CliError::failed(format!("the component failed: {}", task.reason)));
        }
        if described.deployment.is_some_and(|deployment| deployment.lag == 0) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
