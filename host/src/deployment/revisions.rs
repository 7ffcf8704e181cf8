//! Earlier revisions of deployments, to be gone back to.

use crate::deployment::control::Deployments;
use crate::deployment::error::DeploymentError;
use crate::deployment::revision::{REVISIONS, Revision, revision_key, revisions_prefix};
use crate::deployment::spec::DeploymentSpec;
use crate::limits::REVISIONS_MAX;
use nodata_log::{Expect, LogError};
use std::collections::BTreeMap;

impl Deployments {
    /// Keeps a revision to be gone back to.
    pub(crate) async fn keep_revision(&self, deployment: &str, revision: &Revision) -> Result<(), LogError> {
        let key = revision_key(deployment, revision.number);
        self.parts.meta.meta_put(&key, Expect::Any, Some(revision.to_bytes(&key)?))?.await.map(drop)
    }

    /// The earlier revisions of a deployment, by number.
    pub(crate) async fn revisions(&self, deployment: &str) -> Result<BTreeMap<u32, Revision>, LogError> {
        let listed = self.parts.meta.meta_list(&revisions_prefix(deployment)).await?;
        let read = listed.iter().map(|(key, entry)| Revision::read(key, entry).map(|found| (found.number, found)));
        read.collect()
    }

    /// The earlier revisions of all deployments, with their names.
    pub(crate) async fn all_revisions(&self) -> Result<Vec<(String, Revision)>, LogError> {
        let mut all = Vec::new();
        for (key, entry) in self.parts.meta.meta_list(REVISIONS).await? {
            let name = key.strip_prefix(REVISIONS).and_then(|path| path.rsplit_once('/')).map(|(name, _)| name);
            all.push((name.unwrap_or_default().to_owned(), Revision::read(&key, &entry)?));
        }
        Ok(all)
    }

    pub(crate) async fn earlier_revision(
        &self,
        spec: &DeploymentSpec,
        to: Option<u32>,
    ) -> Result<Revision, DeploymentError> {
        let mut known = self.revisions(&spec.name).await?;
        known.remove(&spec.revision);
        let wanted = to.or_else(|| {
            let earlier = spec.history.iter().rev().map(|change| change.revision);
            earlier.into_iter().find(|number| known.contains_key(number))
        });
        if let Some(revision) = wanted.and_then(|number| known.remove(&number)) {
            if revision.number < spec.state_since {
                return Err(DeploymentError::Unreadable {
                    name: spec.name.clone(),
                    component: revision.component,
                    what: format!(
                        "revision {} made that anew since revision {} worked",
                        spec.state_since, revision.number
                    ),
                });
            }
            return Ok(revision);
        }
        let known: Vec<String> = known.keys().map(u32::to_string).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let what = to.map_or("earlier revision".to_owned(), |number| format!("revision {number}"));
        Err(DeploymentError::NoRevision { name: spec.name.clone(), what, known })
    }

    /// Forgets the oldest revisions, when there are too many.
    pub(crate) async fn forget_revisions(&self, spec: &DeploymentSpec) -> Result<(), LogError> {
        let known = self.revisions(&spec.name).await?;
        let excess = known.len().saturating_sub(REVISIONS_MAX);
        for number in known.keys().filter(|number| **number != spec.revision).take(excess) {
            self.parts.meta.meta_put(&revision_key(&spec.name, *number), Expect::Any, None)?.await?;
        }
        Ok(())
    }

    /// Forgets all revisions of a deployment.
    pub(crate) async fn forget_all_revisions(&self, name: &str) -> Result<(), LogError> {
        for number in self.revisions(name).await?.into_keys() {
            self.parts.meta.meta_put(&revision_key(name, number), Expect::Any, None)?.await?;
        }
        Ok(())
    }
}
