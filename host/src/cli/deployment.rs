//! `nodata deployment`

use crate::cli::add_component::{policy_text, position};
use crate::cli::budget;
use crate::cli::component::called;
use crate::cli::out::{bytes, count, one_line, table, time};
use crate::cli::shadow::{self, ShadowArgs};
use crate::cli::update::{self, RollbackArgs, UpdateArgs};
use crate::cli::{CliError, Common, grants, usage};
use clap::{Subcommand, ValueEnum};
use nodata_client::proto::aggregate::Window;
use nodata_client::proto::deployment::Role;
use nodata_client::proto::metric::Value as MetricValue;
use nodata_client::proto::start_position::Position;
use nodata_client::proto::{
    Change, ChangeKind, DeleteDeploymentRequest, Deployment, DeploymentState, DescribeDeploymentRequest,
    DescribeDeploymentResponse, ListDeploymentsRequest, LogLine, LogStream, Metric, OnReset, PauseDeploymentRequest,
    ResetDeploymentRequest, ResetDeploymentResponse, ResumeDeploymentRequest, StartPosition, TailLogsRequest, Task,
    TaskReset, TaskState,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{self, Write as _};

#[derive(Debug, Subcommand)]
pub(crate) enum DeploymentCommand {
    /// List deployments.
    List {
        /// List what is kept of deployments that were deleted with --keep-position.
        #[arg(long)]
        kept: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Show a deployment: its tasks, how far they are, why one is paused.
    Describe {
        name: String,
        #[command(flatten)]
        common: Common,
    },
    Update(Box<UpdateArgs>),
    Rollback(RollbackArgs),
    Shadow(ShadowArgs),
    /// Stop all tasks between two batches. Positions and state are kept.
    Pause {
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Go on where it was paused. Tasks that failed try again.
    Resume {
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Go on elsewhere: process events again, or pass over some.
    ///
    /// What was written to topics stays, and nothing of a call that began before is added. Says what becomes of each partition.
    Reset {
        name: String,
        /// Where to go on: earliest, latest, an offset, or a time such as 2013-06-01T00:00:00Z. A source can only begin at its
        /// beginning: earliest.
        #[arg(long, value_name = "POSITION", value_parser = position)]
        from: Position,
        /// Only this partition. Can be given several times.
        #[arg(long = "partition", value_name = "P")]
        partitions: Vec<u32>,
        /// What becomes of what was remembered [default: an aggregate forgets it for partitions that go back, all else is kept]
        #[arg(long, value_name = "STATE")]
        state: Option<StateArg>,
        /// Only say what would be.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Stop all tasks and forget positions and state. What was written to topics stays.
    ///
    /// With the name of a deployment that was deleted with --keep-position, what is kept of it is forgotten.
    Delete {
        name: String,
        /// Keep positions and state, for a deployment of this name with `--from kept`.
        #[arg(long)]
        keep_position: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Print what the component wrote to standard output and standard error.
    Logs {
        name: String,
        /// Only the last lines.
        #[arg(long, value_name = "N")]
        tail: Option<u32>,
        /// Go on with new lines.
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        common: Common,
    },
}

/// What becomes of state.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum StateArg {
    Keep,
    Forget,
}

pub(crate) async fn run(command: DeploymentCommand) -> Result<(), CliError> {
    let common = match &command {
        DeploymentCommand::Update(args) => args.common.clone(),
        DeploymentCommand::Rollback(args) => args.common.clone(),
        DeploymentCommand::Shadow(args) => args.common.clone(),
        DeploymentCommand::List { common, .. }
        | DeploymentCommand::Describe { common, .. }
        | DeploymentCommand::Pause { common, .. }
        | DeploymentCommand::Resume { common, .. }
        | DeploymentCommand::Reset { common, .. }
        | DeploymentCommand::Delete { common, .. }
        | DeploymentCommand::Logs { common, .. } => common.clone(),
    };
    run_on(command, &common).await.map_err(|error| error.told_as_json(common.json))
}

async fn run_on(command: DeploymentCommand, common: &Common) -> Result<(), CliError> {
    let out = common.out();
    let command = match command {
        DeploymentCommand::Update(args) => return update::update(*args).await,
        DeploymentCommand::Rollback(args) => return update::rollback(args).await,
        DeploymentCommand::Shadow(args) => return shadow::shadow(args).await,
        command => command,
    };
    let mut deployments = common.connect().await?.deployments();
    let said = |deployment: Option<Deployment>, what: &str| {
        let deployment = deployment.unwrap_or_default();
        out.show(&to_json(&deployment), || vec![format!("{what} {}", deployment.name)])
    };
    match command {
        DeploymentCommand::Update(_) | DeploymentCommand::Rollback(_) | DeploymentCommand::Shadow(_) => Ok(()),
        DeploymentCommand::List { kept, .. } => {
            let mut found = Vec::new();
            let mut request = ListDeploymentsRequest { page_size: 1000, kept, ..Default::default() };
            loop {
                let page = deployments.list_deployments(request.clone()).await?.into_inner();
                found.extend(page.deployments);
                if page.next_page_token.is_empty() {
                    break;
                }
                request.page_token = page.next_page_token;
            }
            out.show(&Value::Array(found.iter().map(to_json).collect()), || {
                let row = |deployment: &Deployment| {
                    let mut row = vec![
                        deployment.name.clone(),
                        deployment.kept_timestamp_us.map_or_else(|| state(deployment.state()).to_owned(), time),
                        count(deployment.lag),
                    ];
                    // What is kept uses nothing.
                    row.extend((!kept).then(|| usage::cpu(&deployment.usage.unwrap_or_default())));
                    row.push(wiring(deployment));
                    row.push(called(&deployment.component, &deployment.label, &deployment.digest));
                    row
                };
                let head: &[&str] = match kept {
                    true => &["NAME", "KEPT SINCE", "LAG", "TOPICS", "COMPONENT"],
                    false => &["NAME", "STATE", "LAG", "CPU", "TOPICS", "COMPONENT"],
                };
                table(head, &found.iter().map(row).collect::<Vec<_>>())
            })
        }
        DeploymentCommand::Describe { name, .. } => {
            let described = deployments.describe_deployment(DescribeDeploymentRequest { name }).await?.into_inner();
            let mut json = to_json(&described.deployment.clone().unwrap_or_default());
            json["tasks"] = described.tasks.iter().map(task_to_json).collect();
            json["asks"] = grants::to_json(&described.imports, &described.deployment.clone().unwrap_or_default());
            json["metrics"] = described.metrics.iter().map(metric_to_json).collect();
            json["history"] = described.history.iter().map(change_to_json).collect();
            out.show(&json, || describe(&described))
        }
        DeploymentCommand::Pause { name, .. } => {
            let paused = deployments.pause_deployment(PauseDeploymentRequest { name }).await?;
            said(paused.into_inner().deployment, "paused")
        }
        DeploymentCommand::Resume { name, .. } => {
            let resumed = deployments.resume_deployment(ResumeDeploymentRequest { name }).await?;
            said(resumed.into_inner().deployment, "resumed")
        }
        DeploymentCommand::Reset { name, from, partitions, state, dry_run, .. } => {
            let state = match state {
                None => OnReset::Unspecified,
                Some(StateArg::Keep) => OnReset::Keep,
                Some(StateArg::Forget) => OnReset::Forget,
            };
            let from = Some(StartPosition { position: Some(from) });
            let request = ResetDeploymentRequest { name, from, partitions, state: state.into(), dry_run };
            let reset = deployments.reset_deployment(request).await?.into_inner();
            let mut json = to_json(&reset.deployment.clone().unwrap_or_default());
            json["dry_run"] = dry_run.into();
            json["reset"] = reset.tasks.iter().map(reset_to_json).collect();
            out.show(&json, || said_of_reset(&reset, dry_run))
        }
        DeploymentCommand::Delete { name, keep_position, .. } => {
            let request = DeleteDeploymentRequest { name: name.clone(), keep_position };
            deployments.delete_deployment(request).await?;
            out.show(&json!({ "deleted": name, "kept": keep_position }), || {
                let mut lines = vec![format!("deleted deployment {name}")];
                if keep_position {
                    lines.push(format!(
                        "its positions and state are kept; go on from there: nodata add-component --name {name} --from kept"
                    ));
                }
                lines
            })
        }
        DeploymentCommand::Logs { name, tail, follow, .. } => {
            let request = TailLogsRequest { name, lines_max: tail.unwrap_or_default(), follow };
            let mut lines = deployments.tail_logs(request).await?.into_inner();
            let mut out = io::stdout();
            while let Some(some) = lines.message().await? {
                for line in &some.lines {
                    if common.json {
                        writeln!(out, "{}", line_to_json(line))?;
                    } else {
                        let stream = stream(line.stream());
                        let (at, text) = (time(line.timestamp_us), one_line(&line.text));
                        writeln!(out, "{at} {:>3} {stream:<6} {text}", line.partition)?;
                    }
                }
                out.flush()?;
            }
            Ok(())
        }
    }
}

fn describe(described: &DescribeDeploymentResponse) -> Vec<String> {
    let deployment = described.deployment.clone().unwrap_or_default();
    let mut lines = vec![
        format!("deployment {}: {}, lag {}", deployment.name, state(deployment.state()), count(deployment.lag)),
        format!("component  {}", called(&deployment.component, &deployment.label, &deployment.digest)),
        format!("revision   {}{}", deployment.revision, rollout(&deployment)),
        format!("topics     {}", wiring(&deployment)),
        format!("on error   {}", policy_text(&deployment.on_error.unwrap_or_default())),
        format!("created    {}", time(deployment.created_timestamp_us)),
    ];
    lines.extend(deployment.kept_timestamp_us.map(|kept_us| format!("deleted    {}", time(kept_us))));
    if let Some(tick_us) = deployment.tick_us {
        let tick = jiff::SignedDuration::from_micros(i64::try_from(tick_us).unwrap_or(i64::MAX));
        lines.push(format!("ticks      every {tick:#}"));
    }
    lines.extend(deployment.config.iter().map(|(key, value)| format!("config     {key} = {value}")));
    lines.extend(deployment.secrets.iter().map(|(inside, name)| match inside == name {
        true => format!("secret     {name}"),
        false => format!("secret     {inside} = secret {name}"),
    }));
    lines.extend(deployment.allow_http.iter().map(|grant| format!("http       {grant}")));
    lines.extend(grants::lines(&described.imports, &deployment).into_iter().map(|line| format!("asks to    {line}")));
    lines.extend(budget::lines(&deployment).into_iter().map(|line| format!("budget     {line}")));
    if let Some(rebuild) = &deployment.rebuild {
        let component = called(&rebuild.component, &rebuild.label, &rebuild.digest);
        let left = count(rebuild.events_left);
        lines.push(format!("rebuild    revision {}, {component}, {left} events are left", rebuild.revision));
    }
    if let Some(shadow) = &deployment.shadow {
        let component = called(&shadow.component, &shadow.label, &shadow.digest);
        lines.push(format!("shadow     revision {}, {component}", shadow.revision));
    }
    lines.push(String::new());
    let row = |task: &Task| {
        vec![
            if task.puts_together { format!("parts/{}", task.partition) } else { task.partition.to_string() },
            task_state(task.state()).to_owned(),
            task.revision.to_string(),
            count(task.position),
            count(task.lag),
            count(task.events_in),
            count(task.events_out),
            count(task.events_rejected),
            count(task.events_skipped),
            bytes(task.memory_bytes),
            usage::cpu(&task.usage.unwrap_or_default()),
        ]
    };
    let head =
        ["PARTITION", "STATE", "REVISION", "POSITION", "LAG", "IN", "OUT", "REJECTED", "SKIPPED", "MEMORY", "CPU"];
    lines.extend(table(&head, &described.tasks.iter().map(row).collect::<Vec<_>>()));
    for task in described.tasks.iter().filter(|task| !task.reason.is_empty()) {
        lines.push(String::new());
        let attempts = match task.attempts {
            0 => String::new(),
            1 => " after 1 attempt".to_owned(),
            more => format!(" after {more} attempts"),
        };
        lines.push(format!("partition {} is {}{attempts}: {}", task.partition, task_state(task.state()), task.reason));
        lines.extend(task.last_lines.iter().map(|line| format!("  | {line}")));
    }
    for task in described.tasks.iter().filter(|task| task.ticks_left_out > 0) {
        lines.push(format!("partition {} left out {} ticks", task.partition, count(task.ticks_left_out)));
    }
    if deployment.state() == DeploymentState::Failed {
        lines.push(String::new());
        lines.push(format!("nothing is lost; try again with `nodata deployment resume {}`", deployment.name));
    }
    lines.push(String::new());
    let used = usage::lines(&deployment.usage.unwrap_or_default());
    lines.extend(used.into_iter().map(|line| format!("used       {line}")));
    if !described.metrics.is_empty() {
        lines.push(String::new());
        lines.extend(described.metrics.iter().map(metric));
    }
    if described.history.len() > 1 {
        lines.push(String::new());
        lines.extend(described.history.iter().map(history_line));
    }
    lines
}

/// How an update goes on, behind the number of the revision.
fn rollout(deployment: &Deployment) -> String {
    let Some(rollout) = &deployment.rollout else { return String::new() };
    let component = called(&rollout.from_component, &rollout.from_label, &rollout.from_digest);
    let on = match rollout.canary_partitions {
        Some(1) => " on the first partition".to_owned(),
        Some(canary) => format!(" on the first {canary} partitions"),
        None => String::new(),
    };
    let probation = jiff::SignedDuration::from_micros(i64::try_from(rollout.probation_us).unwrap_or(i64::MAX));
    format!(", which takes over from {} ({component}){on} and has to go well for {probation:#}", rollout.from_revision)
}

/// What happened, for a person.
pub(crate) fn history_line(change: &Change) -> String {
    let what = match change.kind() {
        ChangeKind::Unspecified => "changed",
        ChangeKind::Deployed => "deployed",
        ChangeKind::Updated => "takes over",
        ChangeKind::CanaryPassed => "went well on the canary, and takes over everywhere",
        ChangeKind::Passed => "went well",
        ChangeKind::Failed => "works again",
        ChangeKind::RolledBack => "works again, as an operator said",
        ChangeKind::Shadowed => "works, and another one is tried beside it",
        ChangeKind::ShadowEnded => "works, and no other one is tried any more",
        ChangeKind::Rebuilding => "works, and another one makes its state anew",
        ChangeKind::Rebuilt => "has made its state anew, and takes over",
        ChangeKind::RebuildEnded => "works, and no other one makes its state anew any more",
    };
    let reason = if change.reason.is_empty() { String::new() } else { format!(": {}", change.reason) };
    let component = called(&change.component, &change.label, &change.digest);
    format!("{}  revision {} {what}, {component}{reason}", time(change.timestamp_us), change.revision)
}

fn change_to_json(change: &Change) -> Value {
    let kind = match change.kind() {
        ChangeKind::Unspecified => "unknown",
        ChangeKind::Deployed => "deployed",
        ChangeKind::Updated => "updated",
        ChangeKind::CanaryPassed => "canary_passed",
        ChangeKind::Passed => "passed",
        ChangeKind::Failed => "failed",
        ChangeKind::RolledBack => "rolled_back",
        ChangeKind::Shadowed => "shadowed",
        ChangeKind::ShadowEnded => "shadow_ended",
        ChangeKind::Rebuilding => "rebuilding",
        ChangeKind::Rebuilt => "rebuilt",
        ChangeKind::RebuildEnded => "rebuild_ended",
    };
    json!({
        "timestamp": time(change.timestamp_us),
        "kind": kind,
        "revision": change.revision,
        "component": change.component,
        "digest": change.digest,
        "label": change.label,
        "reason": change.reason,
    })
}

fn said_of_reset(reset: &ResetDeploymentResponse, dry_run: bool) -> Vec<String> {
    let deployment = reset.deployment.clone().unwrap_or_default();
    let mut lines = vec![match dry_run {
        true => format!("{} is as it was; this is what a reset would do", deployment.name),
        false => format!("reset {}", deployment.name),
    }];
    let is_source = matches!(deployment.role, Some(Role::Source(_)));
    let row = |task: &TaskReset| {
        let state = if task.state_forgotten { "forgotten" } else { "kept" };
        let moved = [task.old_position, task.new_position, task.events_again, task.events_passed_over].map(count);
        let state = if is_source { format!("{state}, without its checkpoint") } else { state.to_owned() };
        std::iter::once(task.partition.to_string()).chain(moved).chain([state]).collect()
    };
    let head = ["PARTITION", "OLD POSITION", "NEW POSITION", "AGAIN", "PASSED OVER", "STATE"];
    lines.extend(table(&head, &reset.tasks.iter().map(row).collect::<Vec<_>>()));
    if deployment.state() == DeploymentState::Paused && !dry_run {
        lines.push(format!("it is paused; go on there with `nodata deployment resume {}`", deployment.name));
    }
    lines
}

fn wiring(deployment: &Deployment) -> String {
    let ports = |outputs: &BTreeMap<String, String>| {
        let port =
            |(port, topic): (&String, &String)| if port.is_empty() { topic.clone() } else { format!("{port}={topic}") };
        let outputs: Vec<String> = outputs.iter().map(port).collect();
        if outputs.is_empty() { "-".to_owned() } else { outputs.join(" ") }
    };
    match &deployment.role {
        Some(Role::Transform(transform)) => format!("{} -> {}", transform.input, ports(&transform.outputs)),
        Some(Role::Sink(sink)) => format!("{} -> outside", sink.input),
        Some(Role::Aggregate(aggregate)) => format!("{} -> groups {}", aggregate.input, ports(&aggregate.outputs)),
        Some(Role::Source(source)) => format!("outside -> {}", ports(&source.outputs)),
        None => String::new(),
    }
}

fn state(state: DeploymentState) -> &'static str {
    match state {
        DeploymentState::Unspecified => "unknown",
        DeploymentState::Starting => "starting",
        DeploymentState::Running => "running",
        DeploymentState::Paused => "paused",
        DeploymentState::Failed => "failed",
        DeploymentState::Retrying => "retrying",
        DeploymentState::Finished => "finished",
        DeploymentState::Kept => "kept",
    }
}

fn task_state(state: TaskState) -> &'static str {
    match state {
        TaskState::Unspecified => "unknown",
        TaskState::Starting => "starting",
        TaskState::Running => "running",
        TaskState::Retrying => "retrying",
        TaskState::Paused => "paused",
        TaskState::Failed => "failed",
        TaskState::Finished => "finished",
    }
}

fn stream(stream: LogStream) -> &'static str {
    match stream {
        LogStream::Stdout => "stdout",
        LogStream::Stderr => "stderr",
        LogStream::Host => "host",
        LogStream::Unspecified => "unknown",
    }
}

fn metric(metric: &Metric) -> String {
    let attributes: Vec<String> = metric.attributes.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let attributes = if attributes.is_empty() { String::new() } else { format!("{{{}}}", attributes.join(",")) };
    let value = match &metric.value {
        Some(MetricValue::Counter(value)) => count(*value),
        Some(MetricValue::Gauge(value)) => value.to_string(),
        Some(MetricValue::Summary(summary)) => {
            format!("count {} sum {} min {} max {}", summary.count, summary.sum, summary.min, summary.max)
        }
        None => String::new(),
    };
    format!("{}{attributes}  {value}", metric.name)
}

pub(crate) fn to_json(deployment: &Deployment) -> Value {
    let (role, wiring) = match &deployment.role {
        Some(Role::Transform(transform)) => {
            ("transform", json!({ "input": transform.input, "outputs": transform.outputs }))
        }
        Some(Role::Sink(sink)) => ("sink", json!({ "input": sink.input })),
        Some(Role::Aggregate(aggregate)) => {
            let window = match &aggregate.window {
                None => Value::Null,
                Some(Window::Tumbling(window)) => json!({ "tumbling_us": window.size_us }),
                Some(Window::Sliding(window)) => json!({ "sliding_us": window.size_us, "slide_us": window.slide_us }),
                Some(Window::Session(window)) => json!({ "session_us": window.gap_us }),
            };
            let json = json!({
                "input": aggregate.input, "outputs": aggregate.outputs, "window": window,
                "lateness_us": aggregate.lateness_us, "idle_us": aggregate.idle_us, "keyed": aggregate.keyed,
            });
            ("aggregate", json)
        }
        Some(Role::Source(source)) => ("source", json!({ "outputs": source.outputs })),
        None => ("role", Value::Null),
    };
    let mut json = json!({
        "name": deployment.name,
        "state": state(deployment.state()),
        "lag": deployment.lag,
        "component": deployment.component,
        "digest": deployment.digest,
        "label": deployment.label,
        role: wiring,
        "config": deployment.config,
        "secrets": deployment.secrets,
        "allow_http": deployment.allow_http,
        "budget": budget::to_json(&deployment.budget.unwrap_or_default()),
        "usage": usage::to_json(&deployment.usage.unwrap_or_default()),
        "budget_asked": budget::to_json(&deployment.budget_asked.unwrap_or_default()),
        "on_error": policy_text(&deployment.on_error.unwrap_or_default()),
        "created": time(deployment.created_timestamp_us),
        "revision": deployment.revision,
    });
    if let Some(rebuild) = &deployment.rebuild {
        json["rebuild"] = json!({
            "revision": rebuild.revision, "component": rebuild.component, "digest": rebuild.digest,
            "label": rebuild.label,            "events_left": rebuild.events_left, "reason": rebuild.reason,
        });
    }
    if let Some(shadow) = &deployment.shadow {
        json["shadow"] = json!({
            "revision": shadow.revision, "component": shadow.component, "digest": shadow.digest, "label": shadow.label,
        });
    }
    if let Some(rollout) = &deployment.rollout {
        json["rollout"] = json!({
            "from_revision": rollout.from_revision,
            "from_component": rollout.from_component,
            "from_digest": rollout.from_digest,
            "from_label": rollout.from_label,
            "canary_partitions": rollout.canary_partitions,
            "probation_us": rollout.probation_us,
            "began": time(rollout.began_timestamp_us),
        });
    }
    if let Some(kept_us) = deployment.kept_timestamp_us {
        json["kept"] = time(kept_us).into();
    }
    if let Some(tick_us) = deployment.tick_us {
        json["tick_us"] = tick_us.into();
    }
    json
}

fn reset_to_json(task: &TaskReset) -> Value {
    json!({
        "partition": task.partition,
        "old_position": task.old_position,
        "new_position": task.new_position,
        "events_again": task.events_again,
        "events_passed_over": task.events_passed_over,
        "state_forgotten": task.state_forgotten,
    })
}

fn task_to_json(task: &Task) -> Value {
    json!({
        "partition": task.partition,
        "puts_together": task.puts_together,
        "state": task_state(task.state()),
        "position": task.position,
        "end": task.end_offset,
        "lag": task.lag,
        "attempts": task.attempts,
        "reason": task.reason,
        "last_lines": task.last_lines,
        "events_in": task.events_in,
        "events_out": task.events_out,
        "events_rejected": task.events_rejected,
        "events_skipped": task.events_skipped,
        "events_late": task.events_late,
        "ticks": task.ticks,
        "ticks_left_out": task.ticks_left_out,
        "memory_bytes": task.memory_bytes,
        "revision": task.revision,
        "usage": usage::to_json(&task.usage.unwrap_or_default()),
    })
}

fn metric_to_json(metric: &Metric) -> Value {
    let mut json = json!({ "name": metric.name, "attributes": metric.attributes });
    match &metric.value {
        Some(MetricValue::Counter(value)) => json["counter"] = (*value).into(),
        Some(MetricValue::Gauge(value)) => json["gauge"] = (*value).into(),
        Some(MetricValue::Summary(summary)) => {
            json["summary"] =
                json!({ "count": summary.count, "sum": summary.sum, "min": summary.min, "max": summary.max });
        }
        None => {}
    }
    json
}

fn line_to_json(line: &LogLine) -> Value {
    json!({
        "timestamp": time(line.timestamp_us),
        "partition": line.partition,
        "stream": stream(line.stream()),
        "text": line.text,
    })
}
