//! `nodata bench upload`

use crate::cli::CliError;
use crate::cli::bench::BenchCommon;
use crate::cli::bench::report::{Spread, cell, spread, spread_json};
use crate::cli::bench::target::Target;
use crate::cli::bench::transform::{component, deploy_component};
use crate::cli::bench::version::another_version;
use crate::cli::component::upload_parts;
use crate::cli::out::{Out, bytes, table};
use bytes::Bytes;
use clap::Args;
use nodata_client::proto::deploy_request::Role;
use nodata_client::proto::upload_component_response::Answer;
use nodata_client::proto::{ComponentStage, DeleteDeploymentRequest, Transform, UploadComponentStart};
use nodata_client::{Ack, Batch, Client, From, TailOptions};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Instant;

/// Measure the time from an upload to the first event.
///
/// An event waits in a topic. A component is uploaded and deployed on it, and the time stops when a reader has what comes out. Each
/// round does this with a version that the server has never seen, once more with the same bytes under another name, and once more
/// after the server was started again.
#[derive(Debug, Args)]
pub(crate) struct UploadBench {
    /// The components, with commas between. They should emit something for an event of text.
    #[arg(
        long,
        visible_alias = "component",
        value_name = "FILE",
        default_value = "target/components/shout.wasm,target/components/python-shout.wasm,target/components/javascript-shout.wasm",
        value_delimiter = ','
    )]
    file: Vec<PathBuf>,
    #[command(flatten)]
    pub(crate) common: BenchCommon,
}

/// What the server has of the component before.
#[derive(Clone, Copy, Debug)]
enum Known {
    Nothing,
    /// It runs in this server under another name.
    Loaded,
    /// Its compiled code is on the disk.
    OnDisk,
}

impl Known {
    /// The name of the component, and of its deployment.
    fn name(self) -> String {
        format!("bench-{}", self as usize)
    }
}

const KNOWN: [(Known, &str); 3] =
    [(Known::Nothing, "cold"), (Known::Loaded, "again, another name"), (Known::OnDisk, "again, after a restart")];

/// How long each part took, in milliseconds.
#[derive(Clone, Copy, Debug)]
struct Took {
    /// Until all bytes were there.
    upload: f64,
    /// Until it was checked, compiled, tried and kept.
    acceptance: f64,
    /// Until the deployment was there for good.
    deploy: f64,
    /// Until a reader had the first event.
    event: f64,
    /// The server said that it compiled.
    compiled: bool,
}

impl Took {
    fn all(&self) -> f64 {
        self.upload + self.acceptance + self.deploy + self.event
    }
}

/// The rounds of one case.
struct Case {
    name: String,
    rounds: Vec<Took>,
}

impl Case {
    fn of(&self, part: impl Fn(&Took) -> f64) -> Option<Spread> {
        spread(self.rounds.iter().map(part))
    }

    fn cells(&self) -> Vec<String> {
        let part =
            |part: fn(&Took) -> f64| self.of(part).map_or("-".to_owned(), |spread| format!("{:.1}", spread.median));
        vec![
            self.name.clone(),
            part(|took| took.upload),
            part(|took| took.acceptance),
            part(|took| took.deploy),
            part(|took| took.event),
            cell(self.of(Took::all), 1),
        ]
    }

    fn json(&self) -> Value {
        json!({
            "case": self.name,
            "compiled": self.rounds.iter().filter(|took| took.compiled).count(),
            "upload_ms": spread_json(self.of(|took| took.upload)),
            "acceptance_ms": spread_json(self.of(|took| took.acceptance)),
            "deploy_ms": spread_json(self.of(|took| took.deploy)),
            "first_event_ms": spread_json(self.of(|took| took.event)),
            "together_ms": spread_json(self.of(Took::all)),
        })
    }
}

pub(crate) async fn run(args: UploadBench) -> Result<(), CliError> {
    args.common.check()?;
    let components: Vec<Bytes> = args.file.iter().map(|file| component(file)).collect::<Result<_, _>>()?;
    let out = Out::new(args.common.json);
    let mut cases: Vec<Case> = Vec::new();
    for (file, component) in args.file.iter().zip(&components) {
        let file = file.file_stem().unwrap_or_default().display();
        let size = bytes(component.len() as u64);
        cases.extend(KNOWN.map(|(_, known)| Case { name: format!("{file} ({size}), {known}"), rounds: Vec::new() }));
    }
    for round in 0..args.common.rounds {
        for (component, cases) in components.iter().zip(cases.chunks_mut(KNOWN.len())) {
            let new = another_version(component, round);
            let mut target = Target::start(&args.common.dir)?;
            prepare(&target).await?;
            for ((known, _), case) in KNOWN.into_iter().zip(cases) {
                out.say(&format!("round {} of {}: {}", round + 1, args.common.rounds, case.name));
                if matches!(known, Known::OnDisk) {
                    // What runs would be loaded at the start.
                    for earlier in [Known::Nothing, Known::Loaded] {
                        let request = DeleteDeploymentRequest { name: earlier.name(), keep_position: false };
                        target.connect().await?.deployments().delete_deployment(request).await?;
                    }
                    target.restart(&[])?;
                }
                case.rounds.push(measure(&target, &known.name(), new.clone()).await?);
            }
        }
    }
    let json = json!({ "ack": "durable", "cases": cases.iter().map(Case::json).collect::<Vec<_>>() });
    out.show(&json, || {
        let head = ["CASE", "UPLOAD MS", "ACCEPTANCE MS", "DEPLOY MS", "FIRST EVENT MS", "TOGETHER MS"];
        let title = format!(
            "from the first byte of an upload to the first event of the component, ack durable, medians of {} rounds",
            args.common.rounds
        );
        [vec![title], table(&head, &cases.iter().map(Case::cells).collect::<Vec<_>>())].concat()
    })
}

/// Topics, and the event that waits.
async fn prepare(target: &Target) -> Result<(), CliError> {
    target.topic("in", 1).await?;
    target.topic("out", 1).await?;
    let mut batch = Batch::new();
    batch.push_parts(None, b"info host=web-1 user=u1 path=/ agent=an event that waits");
    target.connect().await?.publish_with("in", batch, Ack::Durable).await?;
    Ok(())
}

async fn measure(target: &Target, name: &str, file: Bytes) -> Result<Took, CliError> {
    let client = target.connect().await?;
    let mut tail =
        client.tail("out", TailOptions { from: From::Latest, follow: true, ..TailOptions::default() }).await?;
    let first = tokio::spawn(async move {
        let event = tail.next_batch().await;
        event.map(|_| Instant::now())
    });
    let begun = Instant::now();
    let Uploaded { received, compiled } = upload_as(&client, name, file).await?;
    let accepted = Instant::now();
    let outputs = [(String::new(), "out".to_owned())].into();
    let role = Role::Transform(Transform { input: "in".to_owned(), outputs });
    deploy_component(&client, name, name, role, &[]).await?;
    let deployed = Instant::now();
    let done = first.await.map_err(|error| CliError::failed(format!("the reader failed: {error}")))??;
    let ms = |from: Instant, to: Instant| (to - from).as_secs_f64() * 1e3;
    Ok(Took {
        upload: ms(begun, received),
        acceptance: ms(received, accepted),
        deploy: ms(accepted, deployed),
        event: ms(deployed, done),
        compiled,
    })
}

/// How an upload went.
pub(crate) struct Uploaded {
    /// When the server said that it had all of it.
    received: Instant,
    /// It said that it compiled.
    compiled: bool,
}

/// Uploads a component.
pub(crate) async fn upload_as(client: &Client, name: &str, file: Bytes) -> Result<Uploaded, CliError> {
    let parts = upload_parts(UploadComponentStart { name: name.to_owned(), ..Default::default() }, &file);
    let mut answers = client.components().upload_component(parts).await?.into_inner();
    let (mut first, mut compiled) = (None, false);
    while let Some(answer) = answers.message().await? {
        // The first answer comes when all of it is here, whatever stage it tells.
        let received = *first.get_or_insert_with(Instant::now);
        match answer.answer {
            Some(Answer::Component(_)) => return Ok(Uploaded { received, compiled }),
            // Who waits for the compiler will compile.
            Some(Answer::Progress(progress)) => {
                compiled |= matches!(progress.stage(), ComponentStage::Waiting | ComponentStage::Compiling);
            }
            None => {}
        }
    }
    Err(CliError::failed(format!("the server said nothing of component {name} at the end")))
}
