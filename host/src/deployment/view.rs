//! How deployments are doing, for whoever asks.

use crate::deployment::account::StateAccount;
use crate::deployment::control::Deployments;
use crate::deployment::error::DeploymentError;
use crate::deployment::live::Live;
use crate::deployment::revision::Revision;
use crate::deployment::spec::{DeploymentRole, DeploymentSpec};
use crate::deployment::status::{TaskReport, TaskState};
use crate::deployment::usage::{SharedUsage, Usage};
use crate::registry::Labels;
use nodata_log::{LogError, Offset, TaskKey, Tp};
use nodata_runtime::MetricSeries;
use std::sync::Arc;

/// A deployment, as it is and as it does.
#[derive(Clone, Debug)]
pub struct DeploymentView {
    pub spec: Arc<DeploymentSpec>,
    pub tasks: Vec<TaskView>,
    pub usage: SharedUsage,
    pub metrics: Vec<MetricSeries>,
    /// Of a rebuild: events until it is where the one is that works, and what is tried again there.
    pub left_to_rebuild: u64,
    pub trouble_of_rebuild: String,
}

/// A task, as it does.
#[derive(Clone, Debug)]
pub struct TaskView {
    pub partition: u32,
    /// It reads a partition of the parts of groups, and not of the input.
    pub puts_together: bool,
    pub end: Offset,
    /// What works for it, or would.
    pub revision: u32,
    pub report: TaskReport,
    pub usage: Usage,
}

impl DeploymentView {
    /// What its tasks have used, all together.
    pub fn usage_of_tasks(&self) -> Usage {
        self.tasks.iter().map(|task| task.usage).fold(Usage::default(), Usage::and)
    }
}

impl TaskView {
    /// Events that are not processed yet.
    pub fn lag(&self) -> u64 {
        self.end.saturating_sub(self.report.position)
    }
}

impl Deployments {
    /// Every deployment, by name.
    pub async fn list(&self) -> Result<Vec<DeploymentView>, DeploymentError> {
        let mut views = Vec::new();
        for spec in self.specs().await? {
            views.push(self.view(spec).await?);
        }
        Ok(views)
    }

    /// One deployment, or what is kept of one.
    pub async fn describe(&self, name: &str) -> Result<DeploymentView, DeploymentError> {
        match self.entry(name).await? {
            Some((spec, _)) => self.view(Arc::new(spec)).await,
            None => Err(DeploymentError::Unknown { name: name.to_owned() }),
        }
    }

    pub(crate) async fn view(&self, spec: Arc<DeploymentSpec>) -> Result<DeploymentView, DeploymentError> {
        let partitions: Vec<Tp> = match self.parts.log.topic_by_id(spec.input_id()) {
            Ok(topic) => spec.sources(&topic).collect(),
            Err(_) => Vec::new(),
        };
        let failures = self.failures().await?;
        let live = self.live();
        let known = live.get(&spec.name).filter(|live| live.owner == spec.owner);
        let tasks = partitions.into_iter().map(|tp| {
            let number = spec.number(tp);
            let task = known.and_then(|live| live.tasks.get(&number));
            let mut report = task.map(|task| task.status.report()).unwrap_or_default();
            // A task begins with another shadow at its next batch.
            let shadow = spec.shadow.as_ref().map(|shadow| shadow.revision.number);
            report.shadow = report.shadow.filter(|report| Some(report.revision) == shadow);
            // One that is asked to stop has nothing to say any more: it may be elsewhere by now.
            let is_running = task.is_some_and(|task| task.is_running && !task.stop.is_cancelled());
            if !is_running {
                let task = TaskKey { owner: spec.owner(), source: tp };
                let failure = failures.get(&(spec.name.clone(), number));
                match failure.filter(|failure| !spec.is_kept() && self.stands(failure, task)) {
                    Some(failure) => report.fail(failure),
                    None if spec.paused || spec.is_kept() => report.state = TaskState::Paused,
                    None => report.state = TaskState::Starting,
                }
            }
            // Of a task that works, position and counts are of one moment. Of another, the log knows best how far it has come.
            if !is_running || report.state == TaskState::Starting {
                let committed = self.parts.log.task_position(TaskKey { owner: spec.owner(), source: tp }).next;
                report.position = committed.unwrap_or_else(|| spec.start_of(number));
            }
            let end = match spec.role {
                // It has done what there is.
                DeploymentRole::Source => report.position,
                _ => self.parts.log.bounds(tp).map_or(report.position, |bounds| bounds.end),
            };
            let meant = match &spec.rollout {
                Some(rollout) if !rollout.covers(number) => rollout.from.number,
                _ => spec.revision,
            };
            let revision = task.filter(|_| is_running).map_or(meant, |task| task.revision);
            if !is_running {
                report.memory_bytes = 0;
            }
            let key = TaskKey { owner: spec.owner(), source: tp };
            // Everything else is told also when the tables cannot be read, which the task says best.
            let state_bytes = StateAccount::of(&*self.parts.log, key).map_or(0, |account| account.bytes);
            let usage = match task {
                Some(task) => task.usage.of_now(report.memory_bytes, state_bytes),
                None => Usage { state_bytes, ..Usage::default() },
            };
            TaskView { partition: tp.partition, puts_together: number != tp.partition, end, revision, report, usage }
        });
        let tasks = tasks.collect();
        let usage = known.map(Live::usage).unwrap_or_default();
        let metrics = known.map(|live| live.metrics.snapshot().series).unwrap_or_default();
        let mut troubles =
            known.into_iter().flat_map(|live| live.rebuilding.values()).map(|task| task.status.report().reason);
        let trouble_of_rebuild = troubles.find(|reason| !reason.is_empty()).unwrap_or_default();
        drop(live);
        let topic = self.parts.log.topic_by_id(spec.input_id());
        let left_to_rebuild = topic.map_or(0, |topic| self.left_to_rebuild(&spec, &topic));
        Ok(DeploymentView { spec: spec.clone(), tasks, usage, metrics, left_to_rebuild, trouble_of_rebuild })
    }

    /// What versions of components are called.
    pub async fn labels(&self) -> Result<Labels, DeploymentError> {
        Ok(self.parts.registry.labels().await?)
    }

    /// The deployments that need a version of a component: those that run it, also paused or on their way out, and what is kept of some.
    pub async fn needing(&self, component: &str, digest: &str) -> Result<Vec<String>, LogError> {
        self.with_revision(|revision| revision.is_of(component, digest)).await
    }

    /// The deployments that are granted a secret, like those that need a version.
    pub async fn granted(&self, secret: &str) -> Result<Vec<String>, LogError> {
        self.with_revision(|revision| revision.secrets.values().any(|granted| granted == secret)).await
    }

    /// The deployments that work with such a revision or can go back to one, and what is kept of some.
    async fn with_revision(&self, is_such: impl Fn(&Revision) -> bool) -> Result<Vec<String>, LogError> {
        // What is on its way to the disk counts already.
        self.parts.log.barrier()?.await?;
        let mut found = Vec::new();
        let earlier = self.all_revisions().await?;
        for spec in self.entries().await? {
            let is_it = |of: &str, revision: &Revision| of == spec.name && is_such(revision);
            match earlier.iter().find(|(of, revision)| is_it(of, revision)).map(|(_, revision)| revision) {
                _ if spec.works_with(&is_such) && spec.is_kept() => found.push(format!("{} (kept)", spec.name)),
                _ if spec.works_with(&is_such) => found.push(spec.name.clone()),
                Some(earlier) => found.push(format!("{} (revision {}, to go back to)", spec.name, earlier.number)),
                None => {}
            }
        }
        Ok(found)
    }

    /// The names of the deployments that read from a topic or write to it.
    pub async fn users_of(&self, topic: &str) -> Result<Vec<String>, LogError> {
        let specs = self.specs().await?;
        Ok(specs.iter().filter(|spec| spec.uses(topic)).map(|spec| spec.name.clone()).collect())
    }
}
