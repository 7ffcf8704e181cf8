//! What runs for a deployment, as the supervisor knows it.

use crate::deployment::budget::Budget;
use crate::deployment::rollout::Aside;
use crate::deployment::spec::{DeploymentSpec, Replay};
use crate::deployment::status::TaskStatus;
use crate::deployment::usage::{SharedUsage, TaskUsage};
use nodata_runtime::{GuestLog, GuestMetrics, HttpClient, Program, Share};
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A deployment that the supervisor knows.
pub(crate) struct Live {
    pub(crate) owner: u64,
    pub(crate) guest_log: Arc<GuestLog>,
    pub(crate) metrics: Arc<GuestMetrics>,
    /// Of the time of guests.
    pub(crate) share: Share,
    /// What sends its requests, and what that was granted.
    pub(crate) http: (Vec<String>, Option<HttpClient>),
    pub(crate) replay: watch::Sender<Option<Replay>>,
    /// Cancelled when the update is over that tasks are in probation for.
    pub(crate) probation: Option<(u32, CancellationToken)>,
    /// What is tried beside it.
    pub(crate) shadow: watch::Sender<Option<Arc<Aside>>>,
    /// What takes over soon, so that it need not be loaded then.
    pub(crate) warm: Option<Program>,
    pub(crate) tasks: BTreeMap<u32, LiveTask>,
    /// Those that make state anew.
    pub(crate) rebuilding: BTreeMap<u32, LiveTask>,
}

impl Live {
    /// Tells tasks whether their revision is in probation still.
    pub(crate) fn is_in_probation(&mut self, spec: &DeploymentSpec) {
        let of = spec.rollout.is_some().then_some(spec.revision);
        if self.probation.as_ref().map(|(revision, _)| *revision) == of {
            return;
        }
        // One that is undone stays in probation until its tasks have ended: whatever they fail at is not the fault of events.
        if let Some((revision, over)) = self.probation.take()
            && revision == spec.revision
        {
            over.cancel();
        }
        self.probation = of.map(|revision| (revision, CancellationToken::new()));
    }

    /// What is counted for all of its tasks together.
    pub(crate) fn usage(&self) -> SharedUsage {
        let lines = self.guest_log.counts();
        SharedUsage {
            log_lines: lines.written,
            log_lines_dropped: lines.dropped,
            metrics_dropped: self.metrics.dropped(),
            http_requests: self.http.1.as_ref().map_or(0, HttpClient::requests),
        }
    }

    /// What holds for all of its tasks together, from now on.
    pub(crate) fn allow(&self, budget: &Budget) {
        self.share.set_weight(budget.cpu_weight());
        self.guest_log.set_lines_per_second(budget.log_lines_per_second());
        self.metrics.set_series_max(budget.metric_series());
    }
}

pub(crate) struct LiveTask {
    pub(crate) owner: u64,
    pub(crate) status: Arc<TaskStatus>,
    pub(crate) usage: Arc<TaskUsage>,
    pub(crate) stop: CancellationToken,
    pub(crate) is_running: bool,
    /// What it runs.
    pub(crate) revision: u32,
    pub(crate) since: Instant,
}
