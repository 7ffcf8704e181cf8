//! Deleting a version that nobody needs.

use crate::registry::{ComponentEntry, ComponentRef, DIR, ENTRIES, Registry, RegistryError, VersionRef, file_name};
use nodata_log::{Expect, LogError, fs};
use nodata_runtime::{AcceptError, Digest};

impl Registry {
    /// Deletes a version, unless `needed_by` names somebody. What is begun is finished, whether anybody waits for it or not.
    ///
    /// The entry goes first: a crash after that leaves a file that nobody knows, which is found again when the same bytes are uploaded.
    /// Labels stay: they never name other bytes.
    pub async fn delete(
        &self,
        reference: &ComponentRef,
        needed_by: impl AsyncFnOnce(&ComponentEntry) -> Result<Vec<String>, LogError>,
    ) -> Result<ComponentEntry, RegistryError> {
        if reference.version == VersionRef::Latest {
            return Err(RegistryError::WhichVersion { name: reference.name.clone() });
        }
        let entry = self.find(reference).await?;
        let busy = || RegistryError::Busy { reference: reference.clone() };
        let going = self.holds.release(&entry.name, &entry.digest).ok_or_else(busy)?;
        let deployments = needed_by(&entry).await?;
        if !deployments.is_empty() {
            let (name, digest) = (entry.name, entry.digest);
            return Err(RegistryError::InUse { name, digest, deployments });
        }
        let (registry, gone) = (self.clone(), entry.clone());
        let deleting = tokio::spawn(async move {
            let deleted = registry.remove(&gone).await;
            drop(going);
            deleted
        });
        match deleting.await {
            Ok(deleted) => deleted.map(|()| entry),
            Err(_) => Err(LogError::Stopping.into()),
        }
    }

    async fn remove(&self, entry: &ComponentEntry) -> Result<(), RegistryError> {
        let _alone = self.changing.lock().await;
        let ComponentEntry { name, digest, .. } = entry;
        let key = format!("{ENTRIES}{name}/{digest}");
        self.meta.meta_put(&key, Expect::Any, None)?.await?;
        if self.list().await?.iter().any(|other| other.digest == *digest) {
            return Ok(());
        }
        let digest: Digest =
            digest.parse().map_err(|error| RegistryError::Entry { name: name.clone(), what: format!("{error}") })?;
        let fs = self.fs.clone();
        let remove = move || fs::remove_if_there(&*fs, &format!("{DIR}/{}", file_name(digest)));
        match tokio::task::spawn_blocking(remove).await {
            Ok(removed) => removed.map_err(RegistryError::Write)?,
            Err(_) => return Err(LogError::Stopping.into()),
        }
        match self.runtime.forget(digest).await {
            // Code that is not used harms nobody.
            Err(AcceptError::Cache(error)) => tracing::warn!(%digest, %error, "compiled code could not be removed"),
            forgotten => forgotten?,
        }
        Ok(())
    }
}
