//! `DeploymentService`.

use crate::api::status::{self, Refusal};
use crate::deployment::{
    Aggregation, Altered, Begin, Budget, Called, Change, Changed, DeadLetters, DeployRequest, DeployedAs,
    DeploymentError, DeploymentRole, DeploymentSpec, DeploymentView, Deployments, Difference, ErrorPolicy,
    KeepOrForget, Moved, OnPoison, Rebuild, ResetRequest, Rollout, Shadow, ShadowReport, SharedUsage, StartAt,
    TaskState, TaskView, UpdateRequest, Usage, Window,
};
use crate::limits::{LOG_LOOK, LOG_MESSAGES, REASON_BYTES_MAX};
use crate::registry::{ComponentRef, Labels, RegistryError};
use nodata_log::LogError;
use nodata_proto::server as wire;
use nodata_proto::server::aggregate::Window as AskedWindow;
use nodata_proto::server::deploy_request::Role as AskedRole;
use nodata_proto::server::deployment::Role;
use nodata_proto::server::difference::Call as AskedOfBoth;
use nodata_proto::server::start_position::Position;
use nodata_runtime::{GuestLog, LogLine, LogSource, MetricSeries, MetricValue};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

pub(crate) struct DeploymentApi {
    pub(crate) deployments: Deployments,
    pub(crate) stop: CancellationToken,
}

impl DeploymentApi {
    async fn labels(&self) -> Result<Labels, Refusal> {
        Ok(self.deployments.labels().await?)
    }

    async fn shown(&self, view: &DeploymentView) -> Result<Option<wire::Deployment>, Refusal> {
        Ok(Some(deployment_to_wire(view, &self.labels().await?)))
    }
}

impl From<DeploymentError> for Refusal {
    fn from(error: DeploymentError) -> Self {
        match error {
            DeploymentError::Log(error) => error.into(),
            DeploymentError::Registry(error) => error.into(),
            DeploymentError::Secret(error) => error.into(),
            error => {
                let refusal = Refusal::new(error.kind(), error.reason(), error.to_string());
                match error {
                    DeploymentError::ResetParts { name } => refusal.hint(format!(
                        "delete it, `nodata deployment delete {name}`, and deploy it again with `--from`"
                    )),
                    DeploymentError::Sessions { topic, .. } => refusal.hint(format!(
                        "if each group is in one partition, because it follows from the key, say `--keyed`; otherwise make another topic of `{topic}` whose keys are the groups, with a transform"
                    )),
                    DeploymentError::Exists { name } => refusal
                        .code(Code::AlreadyExists)
                        .hint(format!("give another name, or delete it first: `nodata deployment delete {name}`")),
                    DeploymentError::Kept { name } => refusal.hint(format!(
                        "go on from there: `nodata add-component --name {name} --from kept`, or forget it: `nodata deployment \
                         delete {name}`"
                    )),
                    DeploymentError::NothingKept { .. } => {
                        refusal.hint("see what is kept: `nodata deployment list --kept`")
                    }
                    DeploymentError::Misfit { name, .. } => refusal
                        .hint(format!("give another name, or forget what is kept: `nodata deployment delete {name}`")),
                    DeploymentError::Updating { name, .. } => refusal.hint(format!(
                        "wait until that is over, `nodata deployment describe {name}`, or undo it: `nodata deployment rollback {name}`"
                    )),
                    DeploymentError::Unreadable { name, .. } => refusal.hint(format!(
                        "have the new version read it, by what it was saved by, or have it make its state anew: \
                         `nodata deployment update {name} --rebuild`"
                    )),
                    DeploymentError::NoWayBack { .. } => refusal.hint("say --no-way-back to go without one"),
                    DeploymentError::NoTopic { topic } => refusal.hint(format!(
                        "create it with `nodata topic create {topic}`, or have it made with --create-topics"
                    )),
                    DeploymentError::UnwiredPort { port, .. } if port.is_empty() => {
                        refusal.hint("give its topic behind a colon: IN:OUT")
                    }
                    DeploymentError::UnwiredPort { port, .. } => {
                        refusal.hint(format!("give its topic with --port {port}=TOPIC"))
                    }
                    _ => refusal,
                }
            }
        }
    }
}

fn deployment_to_wire(view: &DeploymentView, labels: &Labels) -> wire::Deployment {
    let spec = &view.spec;
    wire::Deployment {
        name: spec.name.clone(),
        component: spec.component.clone(),
        digest: spec.digest.clone(),
        label: labels.highest(&spec.component, &spec.digest),
        role: Some(match spec.role {
            DeploymentRole::Transform => {
                Role::Transform(wire::Transform { input: spec.input.clone(), outputs: spec.outputs.clone() })
            }
            DeploymentRole::Aggregate => Role::Aggregate(aggregate_to_wire(spec)),
            DeploymentRole::Sink => Role::Sink(wire::Sink { input: spec.input.clone() }),
            DeploymentRole::Source => Role::Source(wire::Source { outputs: spec.outputs.clone() }),
        }),
        config: spec.config.clone(),
        secrets: spec.secrets.clone(),
        allow_http: spec.allow_http.clone(),
        created_timestamp_us: spec.created_us,
        state: state(view).into(),
        lag: view.tasks.iter().map(TaskView::lag).sum(),
        on_error: Some(policy_to_wire(spec.on_error)),
        kept_timestamp_us: spec.kept_us,
        tick_us: spec.tick_us,
        revision: spec.revision,
        rollout: spec.rollout.as_ref().map(|rollout| rollout_to_wire(rollout, labels)),
        shadow: spec.shadow.as_ref().map(|shadow| shadow_to_wire(shadow, labels)),
        rebuild: rebuild_to_wire(view, labels),
        budget: Some(budget_to_wire(spec.budget.in_force())),
        budget_asked: Some(budget_to_wire(spec.budget)),
        usage: Some(usage_to_wire(view.usage_of_tasks(), view.usage)),
    }
}

fn rollout_to_wire(rollout: &Rollout, labels: &Labels) -> wire::Rollout {
    wire::Rollout {
        from_revision: rollout.from.number,
        from_component: rollout.from.component.clone(),
        from_digest: rollout.from.digest.clone(),
        from_label: labels.highest(&rollout.from.component, &rollout.from.digest),
        canary_partitions: rollout.canary,
        probation_us: rollout.probation_us,
        began_timestamp_us: rollout.began_us,
    }
}

/// A revision that makes its state anew, or that goes on to where the one before ended.
fn rebuild_to_wire(view: &DeploymentView, labels: &Labels) -> Option<wire::Rebuild> {
    let spec = &view.spec;
    let (revision, component, digest, since_us) = match (&spec.rebuild, &spec.follows) {
        (Some(Rebuild { revision, since_us, .. }), _) => {
            (revision.number, &revision.component, &revision.digest, *since_us)
        }
        (None, Some(followed)) => (spec.revision, &spec.component, &spec.digest, followed.since_us),
        (None, None) => return None,
    };
    Some(wire::Rebuild {
        revision,
        component: component.clone(),
        digest: digest.clone(),
        label: labels.highest(component, digest),
        since_timestamp_us: since_us,
        events_left: view.left_to_rebuild,
        reason: view.trouble_of_rebuild.clone(),
    })
}

fn shadow_to_wire(shadow: &Shadow, labels: &Labels) -> wire::Shadow {
    wire::Shadow {
        revision: shadow.revision.number,
        component: shadow.revision.component.clone(),
        digest: shadow.revision.digest.clone(),
        label: labels.highest(&shadow.revision.component, &shadow.revision.digest),
        since_timestamp_us: shadow.since_us,
    }
}

fn shadow_report_to_wire(report: &ShadowReport) -> wire::ShadowReport {
    let difference = |difference: &Difference| wire::Difference {
        call: Some(match difference.call {
            Called::Events { first, last } => {
                AskedOfBoth::Events(wire::EventRange { first_offset: first, last_offset: last })
            }
            Called::Close { groups } => AskedOfBoth::ClosedGroups(groups as u64),
            Called::Tick { now_us, .. } => AskedOfBoth::TickTimestampUs(now_us),
        }),
        what: difference.what.clone(),
    };
    wire::ShadowReport {
        calls: report.calls,
        events: report.events,
        calls_not_compared: report.not_compared,
        calls_with_other_outputs: report.differ_in_outputs,
        calls_with_other_rejects: report.differ_in_rejects,
        calls_with_other_state: report.differ_in_state,
        calls_failed: report.failed,
        differences: report.differences.iter().map(difference).collect(),
        ended: report.ended.clone().unwrap_or_default(),
    }
}

fn change_to_wire(change: &Change, labels: &Labels) -> wire::Change {
    let kind = match change.what {
        Changed::Deployed => wire::ChangeKind::Deployed,
        Changed::Updated => wire::ChangeKind::Updated,
        Changed::CanaryPassed => wire::ChangeKind::CanaryPassed,
        Changed::Passed => wire::ChangeKind::Passed,
        Changed::Failed => wire::ChangeKind::Failed,
        Changed::RolledBack => wire::ChangeKind::RolledBack,
        Changed::Shadowed => wire::ChangeKind::Shadowed,
        Changed::ShadowEnded => wire::ChangeKind::ShadowEnded,
        Changed::Rebuilding => wire::ChangeKind::Rebuilding,
        Changed::Rebuilt => wire::ChangeKind::Rebuilt,
        Changed::RebuildEnded => wire::ChangeKind::RebuildEnded,
    };
    wire::Change {
        timestamp_us: change.at_us,
        kind: kind.into(),
        revision: change.revision,
        component: change.component.clone(),
        digest: change.digest.clone(),
        label: labels.highest(&change.component, &change.digest),
        reason: change.why.clone(),
    }
}

fn usage_to_wire(tasks: Usage, shared: SharedUsage) -> wire::Usage {
    let Usage { cpu, memory_bytes, memory_bytes_peak, events_in, bytes_in, bytes_out, state_bytes } = tasks;
    let SharedUsage { log_lines, log_lines_dropped, metrics_dropped, http_requests } = shared;
    wire::Usage {
        cpu_us: cpu.as_micros() as u64,
        memory_bytes,
        memory_bytes_peak,
        events_in,
        bytes_in,
        bytes_out,
        state_bytes,
        log_lines,
        log_lines_dropped,
        metrics_dropped,
        http_requests,
    }
}

fn budget_to_wire(budget: Budget) -> wire::Budget {
    let Budget {
        memory_bytes,
        call_cpu_us,
        call_wall_us,
        cpu_weight,
        output_bytes,
        state_bytes,
        log_lines_per_second,
        metric_series,
    } = budget;
    wire::Budget {
        memory_bytes,
        call_cpu_us,
        call_wall_us,
        cpu_weight,
        output_bytes,
        state_bytes,
        log_lines_per_second,
        metric_series,
    }
}

fn budget_from_wire(budget: wire::Budget) -> Budget {
    let wire::Budget {
        memory_bytes,
        call_cpu_us,
        call_wall_us,
        cpu_weight,
        output_bytes,
        state_bytes,
        log_lines_per_second,
        metric_series,
    } = budget;
    Budget {
        memory_bytes,
        call_cpu_us,
        call_wall_us,
        cpu_weight,
        output_bytes,
        state_bytes,
        log_lines_per_second,
        metric_series,
    }
}

fn aggregate_to_wire(spec: &DeploymentSpec) -> wire::Aggregate {
    let (input, outputs) = (spec.input.clone(), spec.outputs.clone());
    let Some(Aggregation { window, lateness_us, idle_us, keyed }) = spec.aggregation else {
        return wire::Aggregate { input, outputs, ..Default::default() };
    };
    let window = match window {
        Window::None => None,
        Window::Sliding { size_us, slide_us } if size_us == slide_us => {
            Some(AskedWindow::Tumbling(wire::TumblingWindow { size_us }))
        }
        Window::Sliding { size_us, slide_us } => Some(AskedWindow::Sliding(wire::SlidingWindow { size_us, slide_us })),
        Window::Session { gap_us } => Some(AskedWindow::Session(wire::SessionWindow { gap_us })),
    };
    wire::Aggregate { input, outputs, window, lateness_us, idle_us, keyed }
}

fn policy_to_wire(policy: ErrorPolicy) -> wire::ErrorPolicy {
    let then = match policy.then {
        OnPoison::DeadLetter => wire::OnPoison::DeadLetter,
        OnPoison::Skip => wire::OnPoison::Skip,
        OnPoison::Pause => wire::OnPoison::Pause,
    };
    wire::ErrorPolicy { retries: policy.retries, then: then.into() }
}

fn policy_from_wire(policy: wire::ErrorPolicy) -> Result<ErrorPolicy, Refusal> {
    let then = match wire::OnPoison::try_from(policy.then) {
        Ok(wire::OnPoison::Unspecified | wire::OnPoison::DeadLetter) => OnPoison::DeadLetter,
        Ok(wire::OnPoison::Skip) => OnPoison::Skip,
        Ok(wire::OnPoison::Pause) => OnPoison::Pause,
        Err(_) => return Err(Refusal::invalid("ON_ERROR", format!("on_error.then {} is not known", policy.then))),
    };
    Ok(ErrorPolicy { retries: policy.retries, then })
}

fn state(view: &DeploymentView) -> wire::DeploymentState {
    let any = |state: TaskState| view.tasks.iter().any(|task| task.report.state == state);
    if view.spec.is_kept() {
        wire::DeploymentState::Kept
    } else if view.spec.paused {
        wire::DeploymentState::Paused
    } else if any(TaskState::Failed) {
        wire::DeploymentState::Failed
    } else if any(TaskState::Starting) {
        wire::DeploymentState::Starting
    } else if any(TaskState::Retrying) {
        wire::DeploymentState::Retrying
    } else if any(TaskState::Finished) {
        wire::DeploymentState::Finished
    } else {
        wire::DeploymentState::Running
    }
}

fn task_to_wire(task: &TaskView) -> wire::Task {
    let report = &task.report;
    let state = match report.state {
        TaskState::Starting => wire::TaskState::Starting,
        TaskState::Running => wire::TaskState::Running,
        TaskState::Retrying => wire::TaskState::Retrying,
        TaskState::Paused => wire::TaskState::Paused,
        TaskState::Failed => wire::TaskState::Failed,
        TaskState::Finished => wire::TaskState::Finished,
    };
    wire::Task {
        partition: task.partition,
        puts_together: task.puts_together,
        state: state.into(),
        position: report.position,
        end_offset: task.end,
        lag: task.lag(),
        attempts: report.attempts,
        reason: report.reason.clone(),
        last_lines: report.last_lines.clone(),
        events_in: report.events_in,
        events_out: report.events_out,
        events_rejected: report.events_rejected,
        events_skipped: report.events_skipped,
        events_late: report.events_late,
        ticks: report.ticks,
        ticks_left_out: report.ticks_left_out,
        memory_bytes: report.memory_bytes,
        revision: task.revision,
        shadow: report.shadow.as_ref().map(shadow_report_to_wire),
        usage: Some(usage_to_wire(task.usage, SharedUsage::default())),
    }
}

fn metric_to_wire(series: MetricSeries) -> wire::Metric {
    use wire::metric::{Summary, Value};
    let value = match series.value {
        MetricValue::Counter(count) => Value::Counter(count),
        MetricValue::Gauge(value) => Value::Gauge(value),
        MetricValue::Summary { count, sum, min, max } => Value::Summary(Summary { count, sum, min, max }),
    };
    wire::Metric { name: series.name, attributes: series.attributes.into_iter().collect(), value: Some(value) }
}

fn line_to_wire(line: LogLine) -> wire::LogLine {
    let stream = match line.source {
        LogSource::Stdout => wire::LogStream::Stdout,
        LogSource::Stderr => wire::LogStream::Stderr,
        LogSource::Host => wire::LogStream::Host,
    };
    wire::LogLine { timestamp_us: line.time_us, partition: line.partition, stream: stream.into(), text: line.text }
}

fn deploy_request(request: wire::DeployRequest) -> Result<DeployRequest, Refusal> {
    let role = match request.role {
        Some(AskedRole::Transform(wire::Transform { input, outputs })) => DeployedAs::Transform { input, outputs },
        Some(AskedRole::Sink(wire::Sink { input })) => DeployedAs::Sink { input },
        Some(AskedRole::Source(wire::Source { outputs })) => DeployedAs::Source { outputs },
        Some(AskedRole::Aggregate(wire::Aggregate { input, outputs, window, lateness_us, idle_us, keyed })) => {
            let window = match window {
                None => Window::None,
                Some(AskedWindow::Tumbling(wire::TumblingWindow { size_us })) => {
                    Window::Sliding { size_us, slide_us: size_us }
                }
                Some(AskedWindow::Sliding(wire::SlidingWindow { size_us, slide_us })) => {
                    Window::Sliding { size_us, slide_us }
                }
                Some(AskedWindow::Session(wire::SessionWindow { gap_us })) => Window::Session { gap_us },
            };
            DeployedAs::Aggregate { input, outputs, how: Aggregation { window, lateness_us, idle_us, keyed } }
        }
        None => {
            let what = "the request says nothing about what the component is deployed as";
            return Err(Refusal::invalid("NO_ROLE", what));
        }
    };
    let begin = match (request.from.and_then(|from| from.position), request.from_kept) {
        (Some(_), true) => {
            let what = "the request says where to begin, and to go on where a deployment of its name was";
            return Err(Refusal::invalid("FROM_KEPT", what));
        }
        (None, true) => Begin::Kept,
        (position, false) => Begin::At(position.map_or(StartAt::Latest, start_at)),
    };
    Ok(DeployRequest {
        name: request.name,
        component: ComponentRef::new(&request.component, &request.version).map_err(RegistryError::from)?,
        role,
        begin,
        config: request.config,
        secrets: request.secrets,
        allow_http: request.allow_http,
        on_error: request.on_error.map(policy_from_wire).transpose()?.unwrap_or_default(),
        tick_us: request.tick_us,
        budget: request.budget.map(budget_from_wire).unwrap_or_default(),
        create_topics: request.create_topics,
    })
}

fn update_request(request: wire::UpdateDeploymentRequest) -> Result<UpdateRequest, Refusal> {
    check_reason(&request.reason)?;
    let component = match (request.component.is_empty(), request.version.is_empty()) {
        (true, true) => None,
        (true, false) => {
            return Err(Refusal::invalid("NO_COMPONENT", "the request names a version, and not of which component"));
        }
        _ => Some(ComponentRef::new(&request.component, &request.version).map_err(RegistryError::from)?),
    };
    Ok(UpdateRequest {
        name: request.name,
        component,
        config: Altered { set: request.config, unset: request.unset_config },
        secrets: Altered { set: request.secrets, unset: request.unset_secrets },
        allow_http: request.allow_http,
        deny_http: request.deny_http,
        budget: request.budget.map(budget_from_wire).unwrap_or_default(),
        on_error: request.on_error.map(policy_from_wire).transpose()?,
        tick_us: request.tick_us,
        shadow: request.shadow,
        rebuild: request.rebuild.and_then(|from| from.position).map(start_at),
        canary: request.canary_partitions,
        probation_us: request.probation_us,
        no_way_back: request.no_way_back,
        why: request.reason,
    })
}

fn check_reason(reason: &str) -> Result<(), Refusal> {
    if reason.len() > REASON_BYTES_MAX {
        let what = format!("a reason of {} bytes; at most {REASON_BYTES_MAX} are allowed", reason.len());
        return Err(Refusal::invalid("REASON", what));
    }
    Ok(())
}

fn start_at(position: Position) -> StartAt {
    match position {
        Position::Latest(_) => StartAt::Latest,
        Position::Earliest(_) => StartAt::Earliest,
        Position::Offset(offset) => StartAt::Offset(offset),
        Position::TimestampUs(time) => StartAt::Time(time),
    }
}

fn reset_request(request: wire::ResetDeploymentRequest) -> Result<ResetRequest, Refusal> {
    let Some(position) = request.from.and_then(|from| from.position) else {
        return Err(Refusal::invalid("NO_POSITION", "the request does not say where the tasks should go on"));
    };
    let state = match wire::OnReset::try_from(request.state) {
        Ok(wire::OnReset::Unspecified) => None,
        Ok(wire::OnReset::Keep) => Some(KeepOrForget::Keep),
        Ok(wire::OnReset::Forget) => Some(KeepOrForget::Forget),
        Err(_) => return Err(Refusal::invalid("ON_RESET", format!("state {} is not known", request.state))),
    };
    let partitions = request.partitions.into_iter().collect();
    Ok(ResetRequest { name: request.name, to: start_at(position), partitions, state, dry_run: request.dry_run })
}

fn moved_to_wire(moved: Moved) -> wire::TaskReset {
    let Moved { partition, from, to, again, passed_over, state } = moved;
    wire::TaskReset {
        partition,
        old_position: from,
        new_position: to,
        events_again: again,
        events_passed_over: passed_over,
        state_forgotten: state == KeepOrForget::Forget,
    }
}

#[tonic::async_trait]
impl wire::deployment_service_server::DeploymentService for DeploymentApi {
    async fn deploy(&self, request: Request<wire::DeployRequest>) -> Result<Response<wire::DeployResponse>, Status> {
        let request = deploy_request(request.into_inner())?;
        let view = self.deployments.deploy(request).await.map_err(Refusal::from)?;
        Ok(Response::new(wire::DeployResponse { deployment: self.shown(&view).await? }))
    }

    async fn list_deployments(
        &self,
        request: Request<wire::ListDeploymentsRequest>,
    ) -> Result<Response<wire::ListDeploymentsResponse>, Status> {
        let request = request.into_inner();
        let listed = if request.kept { self.deployments.list_kept().await } else { self.deployments.list().await };
        let views = listed.map_err(Refusal::from)?;
        let (page, next_page_token) =
            status::page(views, request.page_size, &request.page_token, |view| view.spec.name.clone());
        let labels = self.labels().await?;
        let deployments = page.iter().map(|view| deployment_to_wire(view, &labels)).collect();
        Ok(Response::new(wire::ListDeploymentsResponse { deployments, next_page_token }))
    }

    async fn describe_deployment(
        &self,
        request: Request<wire::DescribeDeploymentRequest>,
    ) -> Result<Response<wire::DescribeDeploymentResponse>, Status> {
        let view = self.deployments.describe(&request.into_inner().name).await.map_err(Refusal::from)?;
        let imports = self.deployments.imports(&view.spec).await.map_err(Refusal::from)?;
        let labels = self.labels().await?;
        Ok(Response::new(wire::DescribeDeploymentResponse {
            imports,
            deployment: Some(deployment_to_wire(&view, &labels)),
            tasks: view.tasks.iter().map(task_to_wire).collect(),
            metrics: view.metrics.into_iter().map(metric_to_wire).collect(),
            history: view.spec.history.iter().map(|change| change_to_wire(change, &labels)).collect(),
        }))
    }

    async fn update_deployment(
        &self,
        request: Request<wire::UpdateDeploymentRequest>,
    ) -> Result<Response<wire::UpdateDeploymentResponse>, Status> {
        let request = update_request(request.into_inner())?;
        let view = self.deployments.update(request).await.map_err(Refusal::from)?;
        Ok(Response::new(wire::UpdateDeploymentResponse { deployment: self.shown(&view).await? }))
    }

    async fn end_shadow(
        &self,
        request: Request<wire::EndShadowRequest>,
    ) -> Result<Response<wire::EndShadowResponse>, Status> {
        let view = self.deployments.end_shadow(&request.into_inner().name).await.map_err(Refusal::from)?;
        Ok(Response::new(wire::EndShadowResponse {
            deployment: self.shown(&view).await?,
            tasks: view.tasks.iter().map(task_to_wire).collect(),
        }))
    }

    async fn roll_back_deployment(
        &self,
        request: Request<wire::RollBackDeploymentRequest>,
    ) -> Result<Response<wire::RollBackDeploymentResponse>, Status> {
        let wire::RollBackDeploymentRequest { name, revision, no_way_back, reason } = request.into_inner();
        check_reason(&reason)?;
        let rolled_back = self.deployments.roll_back(&name, revision, no_way_back, &reason).await;
        let view = rolled_back.map_err(Refusal::from)?;
        Ok(Response::new(wire::RollBackDeploymentResponse { deployment: self.shown(&view).await? }))
    }

    async fn pause_deployment(
        &self,
        request: Request<wire::PauseDeploymentRequest>,
    ) -> Result<Response<wire::PauseDeploymentResponse>, Status> {
        let view = self.deployments.pause(&request.into_inner().name).await.map_err(Refusal::from)?;
        Ok(Response::new(wire::PauseDeploymentResponse { deployment: self.shown(&view).await? }))
    }

    async fn resume_deployment(
        &self,
        request: Request<wire::ResumeDeploymentRequest>,
    ) -> Result<Response<wire::ResumeDeploymentResponse>, Status> {
        let view = self.deployments.resume(&request.into_inner().name).await.map_err(Refusal::from)?;
        Ok(Response::new(wire::ResumeDeploymentResponse { deployment: self.shown(&view).await? }))
    }

    async fn reset_deployment(
        &self,
        request: Request<wire::ResetDeploymentRequest>,
    ) -> Result<Response<wire::ResetDeploymentResponse>, Status> {
        let request = reset_request(request.into_inner())?;
        let (view, moved) = self.deployments.reset(&request).await.map_err(Refusal::from)?;
        Ok(Response::new(wire::ResetDeploymentResponse {
            deployment: self.shown(&view).await?,
            tasks: moved.into_iter().map(moved_to_wire).collect(),
        }))
    }

    async fn delete_deployment(
        &self,
        request: Request<wire::DeleteDeploymentRequest>,
    ) -> Result<Response<wire::DeleteDeploymentResponse>, Status> {
        let wire::DeleteDeploymentRequest { name, keep_position } = request.into_inner();
        let deleted = match keep_position {
            true => self.deployments.delete_and_keep(&name).await,
            false => self.deployments.delete(&name).await,
        };
        deleted.map_err(Refusal::from)?;
        Ok(Response::new(wire::DeleteDeploymentResponse {}))
    }

    async fn list_dead_letters(
        &self,
        request: Request<wire::ListDeadLettersRequest>,
    ) -> Result<Response<wire::ListDeadLettersResponse>, Status> {
        let request = request.into_inner();
        let found = self.deployments.dead_letters().await.map_err(Refusal::from)?;
        let (page, next_page_token) =
            status::page(found, request.page_size, &request.page_token, |found| found.deployment.clone());
        let dead_letters = page.into_iter().map(|found| {
            let DeadLetters { deployment, topic, letters, waiting } = found;
            wire::DeadLetters { deployment, topic, letters, waiting }
        });
        Ok(Response::new(wire::ListDeadLettersResponse { dead_letters: dead_letters.collect(), next_page_token }))
    }

    async fn replay_dead_letters(
        &self,
        request: Request<wire::ReplayDeadLettersRequest>,
    ) -> Result<Response<wire::ReplayDeadLettersResponse>, Status> {
        let wire::ReplayDeadLettersRequest { deployment, topic } = request.into_inner();
        let replayed = match topic.as_str() {
            "" => self.deployments.replay(&deployment).await,
            topic => self.deployments.replay_into(&deployment, topic).await,
        };
        let letters = replayed.map_err(Refusal::from)?;
        Ok(Response::new(wire::ReplayDeadLettersResponse { letters }))
    }

    type TailLogsStream = ReceiverStream<Result<wire::TailLogsResponse, Status>>;

    async fn tail_logs(
        &self,
        request: Request<wire::TailLogsRequest>,
    ) -> Result<Response<Self::TailLogsStream>, Status> {
        let request = request.into_inner();
        let log = self.deployments.log_of(&request.name).await.map_err(Refusal::from)?;
        let (messages, outgoing) = mpsc::channel(LOG_MESSAGES);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = tail_lines(&log, request.lines_max, request.follow, &messages) => {}
                () = messages.closed() => {}
                () = stop.cancelled() => {
                    let _ = messages.send(Err(Refusal::from(LogError::Stopping).into())).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

async fn tail_lines(
    log: &Arc<GuestLog>,
    lines_max: u32,
    follow: bool,
    messages: &mpsc::Sender<Result<wire::TailLogsResponse, Status>>,
) {
    let mut last = log.follow();
    let mut number = 0;
    let mut skip_to = lines_max as usize;
    loop {
        last.mark_unchanged();
        let mut lines = log.since(number);
        if skip_to > 0 && lines.len() > skip_to {
            lines.drain(..lines.len() - skip_to);
        }
        skip_to = 0;
        number = lines.last().map_or(number, |line| line.number);
        if !lines.is_empty() {
            let lines = lines.into_iter().map(line_to_wire).collect();
            if messages.send(Ok(wire::TailLogsResponse { lines })).await.is_err() {
                return;
            }
        }
        if !follow {
            return;
        }
        tokio::select! {
            moved = last.changed() => {
                if moved.is_err() {
                    return;
                }
            }
            // Lines that were dropped move nothing, and are told too.
            () = tokio::time::sleep(LOG_LOOK) => {}
        }
    }
}
