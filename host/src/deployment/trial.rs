//! What a component has to say before it is deployed: an instance is started with what the deployment would grant, asked, and thrown
//! away. Whoever deploys hears what is wrong, and not whoever reads a log later.

use crate::deployment::control::Deployments;
use crate::deployment::error::DeploymentError;
use crate::deployment::spec::DeploymentSpec;
use crate::deployment::task::granted;
use crate::registry::{ComponentRef, RegistryError};
use crate::secrets::GrantedSecrets;
use nodata_log::{ErrorKind, LogError};
use nodata_runtime::{Deployment, DescribedPort, Digest, Extra, GuestLog, GuestMetrics, HttpClient, Program, Share};
use std::sync::Arc;

impl Deployments {
    /// Loads the component of a deployment.
    pub(crate) async fn load(&self, spec: &DeploymentSpec) -> Result<Program, DeploymentError> {
        let damaged = |what: String| RegistryError::Entry { name: spec.component.clone(), what };
        let digest: Digest = spec.digest.parse().map_err(|error| damaged(format!("{error}")))?;
        Ok(self.parts.registry.load(digest).await?)
    }

    /// What the component of a deployment imports; nothing if it is not known any more.
    pub async fn imports(&self, spec: &DeploymentSpec) -> Result<Vec<String>, DeploymentError> {
        match self
            .parts
            .registry
            .find(&ComponentRef::new(&spec.component, &spec.digest).map_err(RegistryError::from)?)
            .await
        {
            Ok(component) => Ok(component.imports),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error.into()),
        }
    }

    /// What an instance is granted that works for no task.
    pub(crate) fn granted_aside(
        &self,
        spec: &DeploymentSpec,
        log: Arc<GuestLog>,
        metrics: Arc<GuestMetrics>,
        http: Option<HttpClient>,
    ) -> Arc<Deployment> {
        let secrets = GrantedSecrets::new(self.parts.secrets.clone(), spec.secrets.clone()).read();
        granted(spec, secrets, Arc::new([]), log, metrics, http)
    }

    /// Finds out whether the component opens with the configuration of this deployment, and what it says of its ports, if anything.
    pub(crate) async fn try_out(
        &self,
        program: &Program,
        spec: &DeploymentSpec,
    ) -> Result<Option<Vec<DescribedPort>>, DeploymentError> {
        // One with less memory than usual may not even begin.
        let is_poor = spec.budget.memory_bytes.is_some();
        if !program.has(Extra::Lifecycle) && !program.has(Extra::Ports) && !is_poor {
            return Ok(None);
        }
        let log = Arc::new(GuestLog::new(self.parts.clock.clone()));
        let http = self.parts.runtime.http_client(&spec.http_grants());
        let deployment = self.granted_aside(spec, log, Arc::default(), http);
        let (program, role) = (program.clone(), spec.role.of_component());
        let share = Share::default();
        match self.parts.runtime.spawn(&share, async move { program.try_out(role, deployment).await }).await {
            Ok(tried) => tried.map_err(|error| DeploymentError::Trial { component: spec.component.clone(), error }),
            Err(_) => Err(LogError::Stopping.into()),
        }
    }
}
