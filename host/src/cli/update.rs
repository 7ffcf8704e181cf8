//! `nodata deployment update` and `rollback`

use crate::cli::add_component::{PolicyParts, grant, pair, policy, position, secret, tick, unique};
use crate::cli::budget::BudgetArgs;
use crate::cli::component::{self, AboutArgs, read, split, upload};
use crate::cli::deployment::{history_line, to_json};
use crate::cli::out::{Out, count, one_line};
use crate::cli::{CliError, Common};
use crate::limits::WAIT_LOOK;
use clap::Args;
use nodata_client::proto::start_position::Position;
use nodata_client::proto::{
    ChangeKind, Deployment, DeploymentState, DescribeDeploymentRequest, DescribeDeploymentResponse,
    RollBackDeploymentRequest, StartPosition, UpdateDeploymentRequest,
};
use nodata_client::{Client, Error as ClientError, ErrorKind};
use std::path::PathBuf;

/// Have another version of the component take over, or give it other things.
///
/// The new version is compiled and tried with the state there is before it takes over, and it takes over between two batches. If it
/// fails in its probation where the one before does not, that one works again, from the last commit. Waits until that is decided.
#[derive(Debug, Args)]
pub(crate) struct UpdateArgs {
    name: String,
    /// The component, such as `NAME`, `NAME@2` or `NAME@sha256:27b3cf` [default: as before]
    #[arg(long, value_name = "NAME[@VERSION]")]
    component: Option<String>,
    /// Upload this file first, as the component that the deployment has.
    #[arg(long, value_name = "FILE", conflicts_with = "component")]
    file: Option<PathBuf>,
    #[command(flatten)]
    about: AboutArgs,
    /// Add or replace configuration. Can be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    config: Vec<(String, String)>,
    /// Remove configuration. Can be given several times.
    #[arg(long, value_name = "KEY")]
    unset_config: Vec<String>,
    /// Let it read a secret, as in `add-component`. Can be given several times.
    #[arg(long, value_name = "NAME[=SECRET]", value_parser = secret)]
    secret: Vec<(String, String)>,
    /// Let it not read a secret any more, by what the component calls it. Can be given several times.
    #[arg(long, value_name = "NAME")]
    unset_secret: Vec<String>,
    /// Let it send HTTP requests, as in `add-component`. Can be given several times.
    #[arg(long, value_name = "GRANT", value_parser = grant)]
    allow_http: Vec<String>,
    /// Take a grant back. Can be given several times.
    #[arg(long, value_name = "GRANT", value_parser = grant)]
    deny_http: Vec<String>,
    #[command(flatten)]
    budget: BudgetArgs,
    /// What to do when the component fails, as in `add-component`: retry=N, then=WHAT, or both [default: each as before]
    #[arg(long, value_name = "POLICY", value_parser = policy)]
    on_error: Option<PolicyParts>,
    /// How often a component ticks that does [default: as before]
    #[arg(long, value_name = "TIME", value_parser = tick)]
    tick: Option<u64>,
    /// Do not take over: it is given the same input, commits nothing, and `deployment shadow` shows where it differs.
    #[arg(long, conflicts_with_all = ["canary", "probation", "no_way_back"])]
    shadow: bool,
    /// Make its state anew from this place, with the events that are still there, while the version before works, and take over when it
    /// is where that one is.
    #[arg(long, value_name = "POSITION", value_parser = position, num_args = 0..=1, default_missing_value = "earliest", conflicts_with_all = ["canary", "probation", "shadow"])]
    rebuild: Option<Position>,
    /// Take over on the first N partitions, and on the others when that has gone well.
    #[arg(long, value_name = "N")]
    canary: Option<u32>,
    /// How long it has to go well: `30s`, `10m`; `0s` for no probation [default: 30s]
    #[arg(long, value_name = "TIME", value_parser = tick)]
    probation: Option<u64>,
    /// Although the version of before could not go on from what this one remembers.
    #[arg(long)]
    no_way_back: bool,
    /// For the history.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Do not wait until it has proved itself.
    #[arg(long)]
    detach: bool,
    #[command(flatten)]
    pub(crate) common: Common,
}

/// Have an earlier revision take over again.
///
/// During an update that is the one before it, otherwise the last other one. `deployment describe` has their numbers.
#[derive(Debug, Args)]
pub(crate) struct RollbackArgs {
    name: String,
    /// The number of a revision.
    #[arg(long, value_name = "REVISION")]
    to: Option<u32>,
    /// Although the revision of now could not go on from what that one will remember.
    #[arg(long)]
    no_way_back: bool,
    /// For the history.
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    #[command(flatten)]
    pub(crate) common: Common,
}

pub(crate) async fn update(args: UpdateArgs) -> Result<(), CliError> {
    if let Some(option) = args.about.given().filter(|_| args.file.is_none()) {
        let error = CliError::invalid(format!("{option} is about a file that is uploaded, and there is none"));
        return Err(error.hint("give one with --file; --component NAME@VERSION names a version that the server has"));
    }
    let client = args.common.connect().await?;
    let (mut component, mut version) = (String::new(), String::new());
    if let Some(place) = &args.file {
        let (file, about) = (read(place)?, args.about.beside(place));
        let now = described(&client, &args.name).await?.deployment.unwrap_or_default();
        let uploaded = upload(&client, &now.component, file, about, &args.common).await?;
        (component, version) = (uploaded.name, uploaded.digest);
    } else if let Some(asked) = &args.component {
        (component, version) = split(asked)?;
    }
    let on_error = match args.on_error {
        None => None,
        Some(said) => {
            let now = described(&client, &args.name).await?.deployment.unwrap_or_default();
            Some(said.over(now.on_error.unwrap_or_default()))
        }
    };
    let request = UpdateDeploymentRequest {
        name: args.name.clone(),
        component,
        version,
        config: unique("--config", args.config)?,
        unset_config: args.unset_config,
        secrets: unique("--secret", args.secret)?,
        unset_secrets: args.unset_secret,
        allow_http: args.allow_http,
        deny_http: args.deny_http,
        budget: Some(args.budget.budget()),
        on_error,
        tick_us: args.tick,
        canary_partitions: args.canary,
        shadow: args.shadow,
        rebuild: args.rebuild.map(|position| StartPosition { position: Some(position) }),
        probation_us: args.probation,
        no_way_back: args.no_way_back,
        reason: args.reason,
    };
    let updated = client.deployments().update_deployment(request).await?.into_inner();
    let deployment = updated.deployment.unwrap_or_default();
    if let Some(shadow) = deployment.shadow.as_ref().filter(|_| args.shadow) {
        return args.common.out().show(&to_json(&deployment), || {
            let component = component::called(&shadow.component, &shadow.label, &shadow.digest);
            vec![
                format!("{}: revision {} is tried beside it, {component}", deployment.name, shadow.revision),
                format!("see where it differs: nodata deployment shadow {}", deployment.name),
            ]
        });
    }
    let waits = (deployment.rollout.is_some() || deployment.rebuild.is_some()) && !is_paused(&deployment);
    if args.detach || !waits {
        return args.common.out().show(&to_json(&deployment), || begun(&deployment));
    }
    let revision = deployment.rebuild.as_ref().map_or(deployment.revision, |rebuild| rebuild.revision);
    let outcome = wait(&client, &args.name, revision, args.common.out()).await?;
    let now = outcome.deployment.clone().unwrap_or_default();
    // Somebody has paused it meanwhile.
    if is_under_way(&now, revision) {
        return args.common.out().show(&to_json(&now), || begun(&now));
    }
    let last = outcome.history.iter().rev().find(|change| change.kind() != ChangeKind::Updated);
    if now.revision != revision {
        let reason = last.map(history_line).unwrap_or_default();
        let error = CliError::failed(format!("the update of {} was undone: {}", now.name, one_line(&reason)));
        return Err(error.hint(format!("see what it said: nodata deployment logs {}", now.name)));
    }
    args.common
        .out()
        .show(&to_json(&now), || vec![format!("{}: revision {} runs, {}", now.name, now.revision, component_of(&now))])
}

pub(crate) async fn rollback(args: RollbackArgs) -> Result<(), CliError> {
    let client = args.common.connect().await?;
    let RollbackArgs { name, to, no_way_back, reason, common } = args;
    let request = RollBackDeploymentRequest { name, revision: to, no_way_back, reason };
    let rolled_back = client.deployments().roll_back_deployment(request).await?.into_inner();
    let deployment = rolled_back.deployment.unwrap_or_default();
    common.out().show(&to_json(&deployment), || {
        vec![format!("{}: revision {} runs again, {}", deployment.name, deployment.revision, component_of(&deployment))]
    })
}

fn is_paused(deployment: &Deployment) -> bool {
    deployment.state() == DeploymentState::Paused
}

fn is_under_way(deployment: &Deployment, revision: u32) -> bool {
    let rebuilds = deployment.rebuild.as_ref().is_some_and(|rebuild| rebuild.revision == revision);
    rebuilds || (deployment.rollout.is_some() && deployment.revision == revision)
}

/// What an update that nobody waits for has begun. One of a deployment that is paused begins when it is resumed.
fn begun(deployment: &Deployment) -> Vec<String> {
    let is_paused = is_paused(deployment);
    let (revision, does) = match (&deployment.rollout, &deployment.rebuild) {
        (_, Some(rebuild)) => (rebuild.revision, "makes its state anew"),
        (Some(_), None) => (deployment.revision, "takes over"),
        (None, None) if is_paused => (deployment.revision, "takes over"),
        (None, None) => (deployment.revision, "runs"),
    };
    let (when, next) = match is_paused {
        true => (" when it is resumed", "it is paused; resume it: nodata deployment resume"),
        false => ("", "see how it goes: nodata deployment describe"),
    };
    vec![
        format!("{}: revision {revision} {does}{when}, {}", deployment.name, component_of(deployment)),
        format!("{next} {}", deployment.name),
    ]
}

/// What runs, or what is about to.
fn component_of(deployment: &Deployment) -> String {
    match &deployment.rebuild {
        Some(rebuild) => component::called(&rebuild.component, &rebuild.label, &rebuild.digest),
        None => component::called(&deployment.component, &deployment.label, &deployment.digest),
    }
}

async fn described(client: &Client, name: &str) -> Result<DescribeDeploymentResponse, CliError> {
    let request = DescribeDeploymentRequest { name: name.to_owned() };
    Ok(client.deployments().describe_deployment(request).await?.into_inner())
}

/// Waits until an update is over or its deployment is paused, and says on standard error how it goes.
async fn wait(client: &Client, name: &str, revision: u32, out: Out) -> Result<DescribeDeploymentResponse, CliError> {
    let mut said = String::new();
    loop {
        let request = DescribeDeploymentRequest { name: name.to_owned() };
        let now = match client.deployments().describe_deployment(request).await.map_err(ClientError::from) {
            Ok(now) => now.into_inner(),
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                return Err(CliError::from(error).hint(format!(
                    "the update goes on when the server does; see how it went: nodata deployment describe {name}"
                )));
            }
            Err(error) => return Err(error.into()),
        };
        let deployment = now.deployment.clone().unwrap_or_default();
        if is_paused(&deployment) {
            return Ok(now);
        }
        if let Some(rebuild) = deployment.rebuild.filter(|rebuild| rebuild.revision == revision) {
            let trouble = if rebuild.reason.is_empty() { String::new() } else { format!("; {}", rebuild.reason) };
            let left = count(rebuild.events_left);
            let says = format!("{name}: revision {revision} makes its state anew, {left} events are left{trouble}");
            if says != said {
                out.say(&says);
                said = says;
            }
            tokio::time::sleep(WAIT_LOOK).await;
            continue;
        }
        let Some(rollout) = deployment.rollout.filter(|_| deployment.revision == revision) else { return Ok(now) };
        let there = now.tasks.iter().filter(|task| task.revision == revision).count();
        let seconds = rollout.probation_us as f64 / 1e6;
        let canary = rollout.canary_partitions.map(|canary| format!(", a canary of {canary}")).unwrap_or_default();
        let trouble = now.tasks.iter().find(|task| task.revision == revision && task.attempts > 0);
        let trouble =
            trouble.map(|task| format!("; partition {}: {}", task.partition, task.reason)).unwrap_or_default();
        let says = format!(
            "{name}: revision {revision} runs on {there} of {} tasks{canary}, and has to go well for {seconds} s{trouble}",
            now.tasks.len()
        );
        if says != said {
            out.say(&says);
            said = says;
        }
        tokio::time::sleep(WAIT_LOOK).await;
    }
}
