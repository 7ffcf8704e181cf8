//! Makes true what should run: compares the entries in the log with the tasks there are, whenever either changes.

use crate::deployment::control::{Deployments, DeploymentsParts};
use crate::deployment::live::{Live, LiveTask};
use crate::deployment::revision::Changed;
use crate::deployment::source::SourceTask;
use crate::deployment::spec::{DeploymentRole, DeploymentSpec, TOGETHER, TaskFailure, failure_key};
use crate::deployment::status::TaskStatus;
use crate::deployment::task::{Task, TaskEnd, TaskSettings};
use crate::deployment::usage::TaskUsage;
use crate::limits::RESTART_WAIT;
use crate::secrets::GrantedSecrets;
use nodata_log::{Change, Expect, LogError, Offset, OwnerId, TaskKey, Topic, Tp};
use nodata_runtime::{Digest, GuestLog, GuestMetrics, Share, WorkEnded};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Names a running task.
type Running = (u64, u32);

/// A running task: what it works for, and how it is asked to stop.
struct RunningTask {
    spec: Arc<DeploymentSpec>,
    stop: CancellationToken,
}

/// The supervisor. Tasks run as long as it does.
pub struct Supervisor {
    deployments: Deployments,
    running: HashMap<Running, RunningTask>,
    /// When updates are looked at again.
    look_at: Option<Instant>,
    tasks: JoinSet<(String, Running, TaskEnd)>,
}

impl Supervisor {
    /// A supervisor, and the handle for whoever asks for deployments.
    pub fn new(parts: DeploymentsParts) -> (Self, Deployments) {
        let deployments = Deployments::new(parts);
        let supervisor =
            Self { deployments: deployments.clone(), running: HashMap::new(), look_at: None, tasks: JoinSet::new() };
        (supervisor, deployments)
    }

    /// Supervises until it is asked to stop, and then waits until every task has finished the batch in hand.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut version = self.deployments.parts.meta.meta_version();
        let mut changes = self.deployments.parts.log.changes();
        version.mark_changed();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Tasks that ended first: an entry may wait for them.
                Some(ended) = self.tasks.join_next() => self.ended(ended).await,
                changed = version.changed() => if changed.is_err() { break },
                () = self.deployments.look.notified() => {}
                () = until(self.look_at) => {}
                changed = changes.recv() => match changed {
                    Ok(changes) if !changes.iter().any(|change| matches!(change, Change::Topic(_))) => continue,
                    Err(broadcast::error::RecvError::Closed) => break,
                    _ => {}
                },
            }
            if let Err(error) = self.reconcile().await {
                if matches!(error, LogError::Stopping | LogError::Failed { .. }) {
                    break;
                }
                tracing::error!(%error, "the deployments could not be brought up to date; trying again");
                tokio::time::sleep(RESTART_WAIT).await;
                version.mark_changed();
            }
        }
        self.running.values().for_each(|task| task.stop.cancel());
        while let Some(ended) = self.tasks.join_next().await {
            self.ended(ended).await;
        }
        // Nobody needs to wait for more.
        self.deployments.has_seen(u64::MAX);
    }

    async fn reconcile(&mut self) -> Result<(), LogError> {
        let version = *self.deployments.parts.meta.meta_version().borrow();
        let specs = self.deployments.entries().await?;
        let failures = self.deployments.failures().await?;
        self.forget_deleted(&specs);
        self.look_at = None;
        for spec in specs {
            if spec.is_kept() && !spec.deleting {
                self.stop_tasks(&spec);
                self.forget_owners(&spec).await?;
                continue;
            }
            self.introduce(&spec);
            self.shadow(&spec);
            if spec.deleting {
                if self.stop_tasks(&spec) {
                    self.bury(&spec).await?;
                }
                continue;
            }
            if spec.paused {
                self.stop_tasks(&spec);
                continue;
            }
            self.forget_owners(&spec).await?;
            let Ok(topic) = self.deployments.parts.log.topic_by_id(spec.input_id()) else { continue };
            self.rebuild(&spec, &topic);
            let followed = spec.follows.as_ref().map(|followed| followed.owner);
            if let Some(owner) = followed {
                self.stop_owner(owner);
            }
            let new = Arc::new(spec.as_run());
            let old = spec.rollout.as_ref().map(|rollout| Arc::new(spec.as_run().with(rollout.from.clone())));
            for tp in spec.sources(&topic) {
                let number = spec.number(tp);
                let is_new = spec.rollout.as_ref().is_none_or(|rollout| rollout.covers(number));
                let as_run = old.as_ref().filter(|_| !is_new).unwrap_or(&new);
                if let Some(running) = self.running.get(&(spec.owner, number)) {
                    // One that took over from another, or is another by now, begins when the tasks of that have ended.
                    if running.spec != *as_run {
                        running.stop.cancel();
                    }
                    continue;
                }
                // It begins where that one ends.
                if followed.is_some_and(|owner| self.running.contains_key(&(owner, number))) {
                    continue;
                }
                let task = TaskKey { owner: spec.owner(), source: tp };
                let failure = failures.get(&(spec.name.clone(), number));
                if failure.is_none_or(|failure| !self.deployments.stands(failure, task)) {
                    self.start(&spec, as_run, tp);
                }
            }
            let is_running = |owner: u64| self.running.keys().any(|(of, _)| *of == owner);
            let rebuild = self.deployments.look_after_rebuild(&spec, &topic, is_running).await?;
            let rollout = self.deployments.look_after(&spec, &topic).await?;
            for wait in rebuild.into_iter().chain(rollout) {
                let at = Instant::now() + wait;
                self.look_at = Some(self.look_at.map_or(at, |other| other.min(at)));
            }
        }
        self.deployments.has_seen(version);
        Ok(())
    }

    /// Makes a deployment known.
    fn introduce(&self, spec: &DeploymentSpec) {
        let mut live = self.deployments.live();
        let followed = spec.follows.as_ref().map(|followed| followed.owner);
        if let Some(known) = live.get_mut(&spec.name).filter(|live| Some(live.owner) == followed) {
            // Those that made its state anew are its tasks now.
            known.owner = spec.owner;
            let before = std::mem::replace(&mut known.tasks, std::mem::take(&mut known.rebuilding));
            for (task, before) in known.tasks.iter().filter_map(|(number, task)| Some((task, before.get(number)?))) {
                let before = before.status.report();
                task.status.update(|report| report.count_on(&before));
            }
        }
        if let Some(known) = live.get_mut(&spec.name).filter(|live| live.owner == spec.owner) {
            known.replay.send_if_modified(|replay| std::mem::replace(replay, spec.replay) != spec.replay);
            known.is_in_probation(spec);
            known.allow(&spec.budget);
            return;
        }
        let guest_log = Arc::new(GuestLog::new(self.deployments.parts.clock.clone()));
        let mut known = Live {
            owner: spec.owner,
            guest_log,
            metrics: Arc::new(GuestMetrics::default()),
            share: Share::default(),
            http: Default::default(),
            replay: watch::Sender::new(spec.replay),
            probation: None,
            shadow: watch::Sender::new(None),
            warm: None,
            tasks: Default::default(),
            rebuilding: Default::default(),
        };
        known.is_in_probation(spec);
        known.allow(&spec.budget);
        live.insert(spec.name.clone(), known);
        drop(live);
        self.deployments.has_moved();
    }

    /// Has tasks try another revision beside theirs, or none any more.
    fn shadow(&self, spec: &Arc<DeploymentSpec>) {
        let Some(wanted) = &spec.shadow else {
            if let Some(live) = self.deployments.live().get(&spec.name) {
                live.shadow.send_if_modified(|shadow| shadow.take().is_some());
            }
            return;
        };
        let is_known = |live: &Live| {
            live.shadow.borrow().as_ref().is_some_and(|known| known.spec.revision == wanted.revision.number)
        };
        if self.deployments.live().get(&spec.name).is_some_and(is_known) {
            return;
        }
        // It was loaded a moment ago, or when the server started, where nothing should wait for it.
        let (deployments, spec, wanted) = (self.deployments.clone(), spec.clone(), wanted.revision.clone());
        tokio::spawn(async move {
            let number = wanted.number;
            let aside = match deployments.aside(spec.as_run().with(wanted)).await {
                Ok(aside) => Arc::new(aside),
                Err(error) => {
                    tracing::warn!(deployment = spec.name, %error, "a shadow could not be started");
                    return;
                }
            };
            let live = deployments.live();
            let Some(live) = live.get(&spec.name).filter(|live| live.owner == spec.owner) else { return };
            live.shadow.send_if_modified(|known| {
                let is_new = known.as_ref().is_none_or(|known| known.spec.revision < number);
                if is_new {
                    *known = Some(aside);
                }
                is_new
            });
            // It may not be wanted any more.
            deployments.look.notify_one();
        });
    }

    fn forget_deleted(&self, specs: &[Arc<DeploymentSpec>]) {
        let mut live = self.deployments.live();
        let before = live.len();
        let running: HashSet<u64> = self.running.keys().map(|(owner, _)| *owner).collect();
        let is_there = |spec: &&Arc<DeploymentSpec>| !spec.is_kept() || spec.owners().any(|of| running.contains(&of));
        let there: HashSet<u64> = specs.iter().filter(is_there).flat_map(|spec| spec.owners()).collect();
        live.retain(|_, live| there.contains(&live.owner));
        let has_moved = live.len() != before;
        drop(live);
        if has_moved {
            self.deployments.has_moved();
        }
    }

    /// Asks the tasks of a deployment to stop; true when none is left.
    fn stop_tasks(&self, spec: &DeploymentSpec) -> bool {
        // Each is asked, whatever the others do.
        spec.owners().filter(|owner| !self.stop_owner(*owner)).count() == 0
    }

    fn stop_owner(&self, owner: u64) -> bool {
        let mut none = true;
        for ((of, _), task) in &self.running {
            if *of == owner {
                task.stop.cancel();
                none = false;
            }
        }
        none
    }

    /// Forgets those who work for nobody any more, when their tasks have ended.
    async fn forget_owners(&self, spec: &DeploymentSpec) -> Result<(), LogError> {
        for owner in &spec.forgotten {
            if self.stop_owner(*owner) {
                self.deployments.has_forgotten(&spec.name, *owner).await?;
            }
        }
        Ok(())
    }

    /// Starts the tasks that make state anew.
    fn rebuild(&mut self, spec: &Arc<DeploymentSpec>, topic: &Topic) {
        let Some(as_run) = spec.as_rebuild().map(Arc::new) else { return };
        for tp in spec.sources(topic) {
            if !self.running.contains_key(&(as_run.owner, spec.number(tp))) {
                self.start(spec, &as_run, tp);
            }
        }
    }

    /// The last steps of a deletion. Each can be repeated, so a crash between them does no harm.
    async fn bury(&self, spec: &DeploymentSpec) -> Result<(), LogError> {
        let DeploymentsParts { log, meta, .. } = &self.deployments.parts;
        for owner in spec.owners() {
            log.forget_owner(OwnerId(owner))?.await?;
        }
        if let Some(parts) = spec.parts
            && let Ok(topic) = log.topic_by_id(parts.id())
        {
            log.delete_topic(&topic.name)?.await?;
        }
        self.deployments.forget_failures(&spec.name).await?;
        self.deployments.forget_all_revisions(&spec.name).await?;
        meta.meta_put(&spec.key(), Expect::Any, None)?.await?;
        Ok(())
    }

    fn start(&mut self, spec: &Arc<DeploymentSpec>, as_run: &Arc<DeploymentSpec>, source: Tp) {
        let parts = self.deployments.parts.clone();
        let stop = CancellationToken::new();
        let mut live = self.deployments.live();
        let Some(known) = live.get_mut(&spec.name) else { return };
        if known.http.0 != as_run.allow_http {
            // It is new, or another revision.
            known.http = (as_run.allow_http.clone(), parts.runtime.http_client(&as_run.http_grants()));
        }
        let (guest_log, metrics, http) = (known.guest_log.clone(), known.metrics.clone(), known.http.1.clone());
        let (replay, shadow) = (known.replay.subscribe(), known.shadow.subscribe());
        let number = spec.number(source);
        let is_rebuilding = as_run.owner != spec.owner;
        // Also who makes its state anew uses what the task may use.
        let usage = known.tasks.get(&number).map(|task| task.usage.clone());
        let usage = usage.unwrap_or_else(|| Arc::new(TaskUsage::new(&known.share)));
        let tasks = if is_rebuilding { &mut known.rebuilding } else { &mut known.tasks };
        let status = tasks.get(&number).map(|task| TaskStatus::after(&task.status));
        let status = Arc::new(status.unwrap_or_default());
        let task = LiveTask {
            owner: as_run.owner,
            status: status.clone(),
            usage: usage.clone(),
            stop: stop.clone(),
            is_running: true,
            revision: as_run.revision,
            since: Instant::now(),
        };
        tasks.insert(number, task);
        let over = known.probation.as_ref().filter(|(revision, _)| *revision == as_run.revision);
        let over = over.map(|(_, over)| over.clone());
        drop(live);
        let running = RunningTask { spec: as_run.clone(), stop: stop.clone() };
        self.running.insert((as_run.owner, number), running);

        let start = match &spec.rebuild {
            Some(rebuild) if is_rebuilding => rebuild.start.get(number as usize).copied().unwrap_or(0),
            _ => spec.start_of(number),
        };
        let follow = spec.followed_by(as_run.owner, source);
        let (whole, spec) = (spec.clone(), as_run.clone());
        let name = spec.name.clone();
        let id = (spec.owner, number);
        let deployments = self.deployments.clone();
        self.tasks.spawn(async move {
            let load = Loading { parts: &parts, spec: &spec, status: &status, stop: &stop, guest_log: &guest_log };
            let Some(program) = load.program(source.partition).await else { return (name, id, TaskEnd::Stopped) };
            let probation = match over {
                Some(over) => deployments.probation(&whole, over).await,
                None => Ok(None),
            };
            let probation = probation.unwrap_or_else(|error| {
                guest_log.note(source.partition, &format!("the revision before cannot be asked: {error}"));
                None
            });
            let settings = TaskSettings {
                spec: spec.clone(),
                source,
                start,
                log: parts.log.clone(),
                clock: parts.clock.clone(),
                program,
                guest_log: guest_log.clone(),
                metrics,
                http,
                secrets: GrantedSecrets::new(parts.secrets.clone(), spec.secrets.clone()),
                replay,
                follow,
                shadow,
                probation,
                status: status.clone(),
                usage: usage.clone(),
                stop: stop.clone(),
            };
            let work = match spec.role {
                DeploymentRole::Source => parts.runtime.spawn(&usage.share, SourceTask::run(settings)),
                DeploymentRole::Transform | DeploymentRole::Sink | DeploymentRole::Aggregate => {
                    parts.runtime.spawn(&usage.share, Task::run(settings))
                }
            };
            let end = match work.await {
                Ok(end) => end,
                Err(WorkEnded::Panicked) => {
                    let reason = "the host failed while it worked for this task; please report it".to_owned();
                    let report = status.report();
                    TaskEnd::Failed(TaskFailure {
                        position: report.position,
                        attempts: report.attempts,
                        reason,
                        last_lines: Vec::new(),
                        time_us: parts.clock.now_us(),
                        epoch: Some(parts.log.task_position(TaskKey { owner: spec.owner(), source }).epoch),
                    })
                }
                Err(WorkEnded::Stopped) => TaskEnd::Stopped,
            };
            if matches!(end, TaskEnd::Superseded | TaskEnd::Log(_)) {
                tokio::select! {
                    () = tokio::time::sleep(RESTART_WAIT) => {}
                    () = stop.cancelled() => {}
                }
            }
            (name, id, end)
        });
        self.deployments.has_moved();
    }

    async fn ended(&mut self, ended: Result<(String, Running, TaskEnd), tokio::task::JoinError>) {
        let Ok((name, id, end)) = ended else {
            tracing::error!("a task ended without a word");
            return;
        };
        let (owner, partition) = id;
        let revision = self.running.remove(&id).map_or(0, |task| task.spec.revision);
        let end = match end {
            TaskEnd::Failed(TaskFailure { reason, .. }) | TaskEnd::Unfit(reason)
                if self.is_rebuilding(&name, owner) =>
            {
                self.rebuild_failed(&name, id, &reason).await;
                TaskEnd::Stopped
            }
            end => end,
        };
        match end {
            TaskEnd::Stopped => {}
            TaskEnd::Superseded => {
                tracing::info!(deployment = name, partition, "someone else works for a task; it starts again")
            }
            TaskEnd::Log(error) => {
                tracing::warn!(deployment = name, partition, %error, "the log refused a task; it starts again");
            }
            TaskEnd::Failed(failure) => self.failed(&name, partition, failure).await,
            TaskEnd::Unfit(reason) => self.unfit(&name, (owner, partition), revision, &reason).await,
        }
        if let Some(live) = self.deployments.live().get_mut(&name) {
            let Live { tasks, rebuilding, .. } = live;
            for task in tasks.get_mut(&partition).into_iter().chain(rebuilding.get_mut(&partition)) {
                task.is_running &= task.owner != owner;
            }
        }
        self.deployments.has_moved();
    }

    fn is_rebuilding(&self, name: &str, owner: u64) -> bool {
        self.deployments.live().get(name).is_some_and(|live| live.owner != owner)
    }

    /// The one that works goes on as if nothing was.
    async fn rebuild_failed(&self, name: &str, (owner, partition): Running, reason: &str) {
        tracing::warn!(
            deployment = name,
            partition,
            reason,
            "state could not be made anew because the component failed"
        );
        while let Err(error) = self.deployments.drop_rebuild(name, owner, Changed::RebuildEnded, reason).await {
            if !tries_again(name, "the end of a rebuild", error).await {
                return;
            }
        }
    }

    /// Has the revision before work again.
    async fn unfit(&self, name: &str, (owner, partition): Running, revision: u32, reason: &str) {
        tracing::warn!(
            deployment = name,
            partition,
            revision,
            reason,
            "an update is undone because its component failed"
        );
        if let Some(live) = self.deployments.live().get(name) {
            let note = format!("revision {revision} failed, and the one before works again: {reason}");
            live.guest_log.note(partition & !TOGETHER, &note);
        }
        while let Err(error) = self.deployments.fall_back(name, owner, revision, reason).await {
            if !tries_again(name, "the end of an update", error).await {
                return;
            }
        }
    }

    /// Writes down why a task is paused, so that it stays paused after a restart and everyone can see why.
    async fn failed(&self, name: &str, partition: u32, failure: TaskFailure) {
        tracing::warn!(
            deployment = name,
            partition,
            reason = failure.reason,
            "a task is paused because its component failed"
        );
        if let Some(live) = self.deployments.live().get(name) {
            live.guest_log.note(partition & !TOGETHER, &format!("the task is paused: {}", failure.reason));
        }
        let key = failure_key(name, partition);
        while let Err(error) = self.put_failure(&key, &failure).await {
            if !tries_again(name, "a failure", error).await {
                return;
            }
        }
    }

    async fn put_failure(&self, key: &str, failure: &TaskFailure) -> Result<(), LogError> {
        let bytes = failure.to_bytes(key)?;
        self.deployments.parts.meta.meta_put(key, Expect::Any, Some(bytes))?.await.map(drop)
    }
}

/// Whether something that must be written down is to be written once more, which it is a while after it could not be.
async fn tries_again(deployment: &str, what: &str, error: LogError) -> bool {
    if matches!(error, LogError::Stopping | LogError::Failed { .. }) {
        return false;
    }
    tracing::warn!(deployment, %error, "{what} could not be written down; trying again");
    tokio::time::sleep(RESTART_WAIT).await;
    true
}

/// Until some moment; for ever, if there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Loads the program of a task, and tries again as long as it cannot be loaded.
struct Loading<'a> {
    parts: &'a DeploymentsParts,
    spec: &'a DeploymentSpec,
    status: &'a TaskStatus,
    stop: &'a CancellationToken,
    guest_log: &'a GuestLog,
}

impl Loading<'_> {
    async fn program(&self, partition: u32) -> Option<nodata_runtime::Program> {
        loop {
            let loaded = match self.spec.digest.parse::<Digest>() {
                Ok(digest) => self.parts.registry.load(digest).await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            let reason = match loaded {
                Ok(program) => return Some(program),
                Err(reason) => format!("component `{}` cannot be loaded: {reason}", self.spec.component),
            };
            self.guest_log.note(partition, &reason);
            self.status.update(|report| report.reason = reason);
            tokio::select! {
                () = tokio::time::sleep(RESTART_WAIT * 10) => {}
                () = self.stop.cancelled() => return None,
            }
        }
    }
}

impl DeploymentSpec {
    /// Where a partition begins.
    pub(crate) fn start_of(&self, partition: u32) -> Offset {
        self.start.get(partition as usize).copied().unwrap_or(0)
    }
}
