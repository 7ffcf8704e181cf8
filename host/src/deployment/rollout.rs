//! How an update goes on. A new revision proves itself by working for some time without failing where the one before does not; then
//! it works everywhere, and the update is over. Otherwise the one before works again, from the last commit.

use crate::deployment::control::Deployments;
use crate::deployment::error::DeploymentError;
use crate::deployment::live::Live;
use crate::deployment::revision::Rollout;
use crate::deployment::spec::DeploymentSpec;
use crate::deployment::status::TaskState;
use crate::deployment::task::granted;
use crate::limits::PROBATION_LOOK;
use crate::secrets::GrantedSecrets;
use bytes::Bytes;
use nodata_log::{Clock, Log, LogError, TaskKey, Topic};
use nodata_runtime::{CallError, Extra, GuestLog, HttpClient, HttpGrant, Instance, InstanceSettings, Port, Program};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A revision that works for nobody: it is asked what it would do.
pub(crate) struct Aside {
    pub(crate) spec: DeploymentSpec,
    pub(crate) program: Program,
    pub(crate) secrets: GrantedSecrets,
    /// For the requests that it may send.
    pub(crate) http: Option<HttpClient>,
}

/// What instances read, and what time it is there.
pub(crate) struct Place {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Aside {
    /// Starts an instance that has the state of a task, and writes none. What it prints is heard by nobody.
    pub(crate) async fn start(
        &self,
        place: Place,
        task: TaskKey,
        ports: &Arc<[Port]>,
        memory: Option<(Bytes, &str)>,
    ) -> Result<Instance, CallError> {
        let Place { log, clock } = place;
        let said = Arc::new(GuestLog::new(clock));
        let (secrets, ports) = (self.secrets.read(), ports.clone());
        let deployment = granted(&self.spec, secrets, ports, said, Arc::default(), self.http.clone());
        let role = self.spec.role.of_component();
        let mut instance = self.program.instantiate(InstanceSettings { role, deployment, task, log }).await?;
        if let Some((saved, saved_by)) = memory.filter(|_| self.program.has(Extra::Snapshot)) {
            instance.restore(saved, saved_by).await?;
        }
        Ok(instance)
    }
}

/// What a task is told whose revision has just taken over.
pub(crate) struct Probation {
    pub(crate) before: Aside,
    /// What the one before does is seen nowhere but in its outputs, so it may be asked what it would have done.
    pub(crate) may_ask: bool,
    pub(crate) was_well: bool,
    /// Cancelled when the update is over.
    pub(crate) over: CancellationToken,
}

impl Deployments {
    /// A revision that works for nobody, of a deployment. It may send requests that change nothing.
    pub(crate) async fn aside(&self, spec: DeploymentSpec) -> Result<Aside, DeploymentError> {
        let program = self.load(&spec).await?;
        let secrets = GrantedSecrets::new(self.parts.secrets.clone(), spec.secrets.clone());
        let reading: Vec<HttpGrant> = spec.http_grants().iter().filter_map(HttpGrant::reading).collect();
        let http = self.parts.runtime.http_client(&reading);
        Ok(Aside { spec, program, secrets, http })
    }

    /// What a task is told whose revision is in probation.
    pub(crate) async fn probation(
        &self,
        spec: &DeploymentSpec,
        over: CancellationToken,
    ) -> Result<Option<Arc<Probation>>, DeploymentError> {
        let Some(rollout) = &spec.rollout else { return Ok(None) };
        let before = self.aside(spec.as_run().with(rollout.from.clone())).await?;
        let has_effects = before.spec.http_grants().iter().any(|grant| grant.reading().as_ref() != Some(grant));
        let may_ask = spec.role.is_seen() && !has_effects;
        Ok(Some(Arc::new(Probation { before, may_ask, was_well: rollout.was_well, over })))
    }

    /// Looks at an update. It answers with how long nobody need look again, or nothing if it went on.
    pub(crate) async fn look_after(&self, spec: &DeploymentSpec, topic: &Topic) -> Result<Option<Duration>, LogError> {
        let Some(rollout) = &spec.rollout else { return Ok(None) };
        let left = match self.live().get(&spec.name).filter(|live| live.owner == spec.owner) {
            Some(live) => left_of(rollout, live, spec, topic),
            None => None,
        };
        if left == Some(Duration::ZERO) {
            self.go_on(&spec.name, rollout, spec.revision).await?;
            return Ok(None);
        }
        Ok(left.or(Some(PROBATION_LOOK)))
    }
}

/// How much of the probation is left, if all is well.
fn left_of(rollout: &Rollout, live: &Live, spec: &DeploymentSpec, topic: &Topic) -> Option<Duration> {
    let mut since: Option<Instant> = None;
    for number in spec.sources(topic).map(|tp| spec.number(tp)).filter(|number| rollout.covers(*number)) {
        let task = live.tasks.get(&number).filter(|task| task.is_running && task.revision == spec.revision)?;
        let report = task.status.report();
        if !matches!(report.state, TaskState::Running | TaskState::Finished) || report.attempts > 0 {
            return None;
        }
        since = since.max(Some(task.since));
    }
    let since = since?;
    Some(Duration::from_micros(rollout.probation_us).saturating_sub(since.elapsed()))
}
