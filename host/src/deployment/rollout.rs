//! How an update goes on. A new revision proves itself by working for some time without failing where the one before does not; then
//! it works everywhere, and the update is over. Otherwise the one before works again, from the last commit.

use crate::deployment::control::{Deployments, Live};
use crate::deployment::error::DeploymentError;
use crate::deployment::revision::Rollout;
use crate::deployment::spec::{DeploymentRole, DeploymentSpec};
use crate::deployment::status::TaskState;
use crate::limits::PROBATION_LOOK;
use crate::secrets::GrantedSecrets;
use nodata_log::{LogError, Topic};
use nodata_runtime::{HttpClient, HttpGrant, Program};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// A revision that works for nobody: it is asked what it would do.
pub(crate) struct Aside {
    pub(crate) spec: DeploymentSpec,
    pub(crate) program: Program,
    pub(crate) secrets: GrantedSecrets,
    /// For requests that change nothing.
    pub(crate) http: Option<HttpClient>,
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
    /// A revision that works for nobody, of a deployment.
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
        let answers = matches!(spec.role, DeploymentRole::Transform | DeploymentRole::Aggregate);
        let may_ask = answers && !has_effects;
        Ok(Some(Arc::new(Probation { before, may_ask, was_well: rollout.was_well, over })))
    }

    /// Looks at an update. It answers with how long nobody need look again, or nothing if it went on.
    pub(crate) async fn look_after(&self, spec: &DeploymentSpec, topic: &Topic) -> Result<Option<Duration>, LogError> {
        let Some(rollout) = &spec.rollout else { return Ok(None) };
        let left = match self.live().get(&spec.name).filter(|live| live.owner == spec.owner) {
            Some(live) => left_of(rollout, live, spec, topic),
            None => None,
        };
        match left {
            Some(Duration::ZERO) => {
                match self.go_on(&spec.name, rollout, spec.revision).await {
                    Ok(()) => Ok(None),
                    Err(DeploymentError::Log(error)) => Err(error),
                    // It is gone, or on its way out.
                    Err(_) => Ok(None),
                }
            }
            Some(left) => Ok(Some(left)),
            None => Ok(Some(PROBATION_LOOK)),
        }
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
