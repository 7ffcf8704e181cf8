//! What is kept of a deployment that was deleted: its entry, and with it its positions and state, for one of its name that goes on
//! from there.

use crate::deployment::control::Deployments;
use crate::deployment::error::DeploymentError;
use crate::deployment::spec::{DeploymentRole, DeploymentSpec, failure_prefix};
use crate::deployment::view::DeploymentView;
use nodata_log::{Expect, LogError};

impl Deployments {
    /// What is kept under a name, and its version. A deployment that has the name now is an error.
    pub(crate) async fn kept(&self, name: &str) -> Result<Option<(DeploymentSpec, u64)>, DeploymentError> {
        match self.entry(name).await? {
            Some((spec, _)) if spec.deleting => Err(DeploymentError::Deleting { name: spec.name }),
            Some((spec, _)) if !spec.is_kept() => Err(DeploymentError::Exists { name: spec.name }),
            kept => Ok(kept),
        }
    }

    /// Has a deployment that is being made go on where the kept one was.
    pub(crate) async fn take_over(
        &self,
        new: &mut DeploymentSpec,
        kept: &DeploymentSpec,
        version: u64,
        groups_in_several: bool,
    ) -> Result<(), DeploymentError> {
        let misfit = |what: String| DeploymentError::Misfit { name: new.name.clone(), what };
        if let Some(what) = new.misfit(kept) {
            return Err(misfit(what));
        }
        if groups_in_several != kept.parts.is_some() {
            return Err(misfit("its groups were found in other partitions".to_owned()));
        }
        if kept.parts.is_some_and(|parts| self.parts.log.topic_by_id(parts.id()).is_err()) {
            return Err(misfit(format!("topic `{}` was deleted since", kept.parts_topic())));
        }
        self.wait_until_idle(&kept.name, version).await;
        // What it failed at is another one's now.
        self.forget_failures(&kept.name).await?;
        (new.owner, new.start, new.parts) = (kept.owner, kept.start.clone(), kept.parts);
        Ok(())
    }

    pub(crate) async fn forget_failures(&self, name: &str) -> Result<(), LogError> {
        for (key, _) in self.parts.meta.meta_list(&failure_prefix(name)).await? {
            self.parts.meta.meta_put(&key, Expect::Any, None)?.await?;
        }
        Ok(())
    }

    /// What is kept of deployments that were deleted, by name.
    pub async fn list_kept(&self) -> Result<Vec<DeploymentView>, DeploymentError> {
        let mut views = Vec::new();
        for spec in self.entries().await?.into_iter().filter(|spec| spec.is_kept()) {
            views.push(self.view(spec).await?);
        }
        Ok(views)
    }
}

impl DeploymentSpec {
    /// Why this one cannot go on with the positions and the state of that one.
    fn misfit(&self, kept: &Self) -> Option<String> {
        let role = |spec: &Self| spec.role.of_component().world();
        let did = if self.role == DeploymentRole::Source { "wrote to" } else { "read" };
        if self.role != kept.role {
            return Some(format!("it was a {}, and this is a {}", role(kept), role(self)));
        }
        if self.input != kept.input {
            return Some(format!("it {did} topic `{}`, and not `{}`", kept.input, self.input));
        }
        if self.input_id != kept.input_id {
            return Some(format!("topic `{}` was deleted since, and made anew", kept.input));
        }
        // State is by window, and a watermark that went back would open windows that were closed.
        let windows = |spec: &Self| spec.aggregation.map(|how| (how.window, how.lateness_us));
        (windows(self) != windows(kept)).then(|| "its window or its lateness was another one".to_owned())
    }
}
