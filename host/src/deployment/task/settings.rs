//! What a task is given, and what it does with that whatever it is a task of.

use super::TaskEnd;
use crate::deployment::rebuild::Follow;
use crate::deployment::rollout::{Aside, Place, Probation};
use crate::deployment::spec::{DeploymentSpec, Replay};
use crate::deployment::status::{TaskState, TaskStatus};
use crate::deployment::usage::TaskUsage;
use crate::limits::FULL_WAIT;
use crate::secrets::GrantedSecrets;
use nodata_log::{Appended, Clock, Log, LogError, Offset, Pending, TaskKey, Tp, Transaction};
use nodata_runtime::{
    Deployment, GuestLog, GuestMetrics, HttpClient, Instance, InstanceSettings, Port, Program, Secret,
};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// What a task is given.
pub(crate) struct TaskSettings {
    pub(crate) spec: Arc<DeploymentSpec>,
    pub(crate) source: Tp,
    /// Where it begins if nothing was committed yet.
    pub(crate) start: Offset,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) program: Program,
    pub(crate) guest_log: Arc<GuestLog>,
    pub(crate) metrics: Arc<GuestMetrics>,
    pub(crate) http: Option<HttpClient>,
    pub(crate) secrets: GrantedSecrets,
    /// The dead letters that it should process again.
    pub(crate) replay: watch::Receiver<Option<Replay>>,
    /// Whom it follows, and commits nothing but its state until it is where that one ended.
    pub(crate) follow: Option<Follow>,
    /// A revision that is tried beside it.
    pub(crate) shadow: watch::Receiver<Option<Arc<Aside>>>,
    /// Its revision has just taken over.
    pub(crate) probation: Option<Arc<Probation>>,
    pub(crate) status: Arc<TaskStatus>,
    pub(crate) usage: Arc<TaskUsage>,
    pub(crate) stop: CancellationToken,
}

impl TaskSettings {
    /// What is known of the revision before, as long as it may come back.
    pub(crate) fn in_probation(&self) -> Option<&Arc<Probation>> {
        self.probation.as_ref().filter(|probation| !probation.over.is_cancelled())
    }

    /// Where instances are that are asked aside.
    pub(crate) fn place(&self) -> Place {
        Place { log: self.log.clone(), clock: self.clock.clone() }
    }

    /// Waits, and less long if asked to stop.
    pub(crate) async fn rest(&self, wait: Duration) {
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = self.stop.cancelled() => {}
        }
    }

    /// Says how much memory an instance has after a call.
    pub(crate) fn has_memory(&self, instance: &Instance) {
        let memory_bytes = instance.memory_bytes();
        self.status.update(|report| report.memory_bytes = memory_bytes);
        self.usage.has_memory(memory_bytes);
    }

    /// Says something about the component in its log.
    pub(crate) fn note(&self, text: &str) {
        self.guest_log.note(self.source.partition, text);
    }

    /// Puts a transaction in order. While the disk is full it waits: the call is done, and nothing of it is lost.
    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<Committed, TaskEnd> {
        let mut waited = false;
        loop {
            match self.log.commit(transaction.clone()) {
                Ok(pending) => {
                    if waited {
                        self.status.update(|report| {
                            report.state = TaskState::Running;
                            report.reason.clear();
                        });
                    }
                    return Ok(Committed::InOrder(pending));
                }
                Err(error @ LogError::DiskFull) => {
                    waited = true;
                    self.status.update(|report| {
                        report.state = TaskState::Retrying;
                        report.reason = error.to_string();
                    });
                    self.rest(FULL_WAIT).await;
                    if self.stop.is_cancelled() {
                        return Ok(Committed::Stopped);
                    }
                }
                Err(error @ LogError::TransactionTooLarge { .. }) => return Ok(Committed::TooLarge(error)),
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// For whom its instances work, and what they are granted.
    pub(crate) fn instance(&self, task: TaskKey, ports: &Arc<[Port]>) -> InstanceSettings {
        let (log, metrics, http) = (self.guest_log.clone(), self.metrics.clone(), self.http.clone());
        let deployment = granted(&self.spec, self.secrets.read(), ports.clone(), log, metrics, http);
        InstanceSettings { role: self.spec.role.of_component(), deployment, task, log: self.log.clone() }
    }

    /// Lets an instance go that is not needed any more.
    pub(crate) async fn let_go(&self, instance: Instance) {
        if let Err(error) = instance.let_go().await {
            self.note(&format!("closing an instance failed: {}", error.words()));
        }
    }
}

/// What a deployment grants to its instances.
pub(crate) fn granted(
    spec: &DeploymentSpec,
    secrets: BTreeMap<String, Secret>,
    ports: Arc<[Port]>,
    log: Arc<GuestLog>,
    metrics: Arc<GuestMetrics>,
    http: Option<HttpClient>,
) -> Arc<Deployment> {
    let (config, limits) = (spec.config.clone(), spec.budget.of_instance());
    Arc::new(Deployment { config, secrets, ports, log, metrics, http, limits })
}

/// What became of a transaction.
pub(crate) enum Committed {
    InOrder(Pending<Appended>),
    TooLarge(LogError),
    /// Asked to stop while waiting for room.
    Stopped,
}
