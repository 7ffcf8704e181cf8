//! Components that are images of other registries.

use crate::images::{Found, ImageError, ImageRef};
use crate::registry::{ComponentSource, NewComponent, Progress, Registry, RegistryError, Stage, label};
use bytes::Bytes;
use nodata_log::{LogError, Name};
use semver::Version;
use std::sync::Arc;
use tokio::sync::watch;

/// What to pull.
#[derive(Clone, Debug)]
pub struct PullRequest {
    pub image: ImageRef,
    pub name: Name,
    /// `None`: the tag, if it is one.
    pub label: Option<Version>,
    pub by: String,
    pub from: String,
    /// Of the component. Empty: none.
    pub signature: String,
}

impl Registry {
    /// Begins to take the component of an image, whether anybody waits for it or not. What the image means is decided now: the
    /// component is its bytes, and a tag that is moved later changes nothing.
    pub async fn pull(&self, request: PullRequest) -> Result<watch::Receiver<Progress>, RegistryError> {
        let PullRequest { image, name, label, by, from, signature } = request;
        let label = label.or_else(|| image.tag.as_deref().and_then(|tag| self::label(tag).ok()));
        let new = NewComponent { name, label, by, from, source: ComponentSource::Upload, signature };
        new.check()?;
        let images = self.images.clone().ok_or_else(|| ImageError::NotListed { registry: image.registry.clone() })?;
        let (tell, told) = watch::channel(Progress::At(Stage::Asking));
        let registry = self.clone();
        tokio::spawn(async move {
            let done = |error: RegistryError| drop(tell.send_replace(Progress::Done(Err(Arc::new(error)))));
            let fetch = async {
                let found: Found = images.find(&image).await?;
                registry.policy.check_image(&image, found.manifest_digest).await?;
                let (manifest_digest, of) = (found.manifest_digest, found.bytes());
                let room = registry.room().await?;
                let at = |bytes| drop(tell.send_replace(Progress::At(Stage::Downloading { bytes, of })));
                let bytes: Bytes = images.fetch(found, at).await?;
                let manifest_digest = format!("sha256:{manifest_digest}");
                let source = ComponentSource::Image { reference: image.to_string(), manifest_digest };
                registry.take(NewComponent { source, ..new }, bytes, room).await
            };
            let mut taken = match fetch.await {
                Ok(taken) => taken,
                Err(error) => return done(error),
            };
            loop {
                let progress = taken.borrow_and_update().clone();
                let is_last = matches!(progress, Progress::Done(_));
                tell.send_replace(progress);
                if is_last {
                    return;
                }
                if taken.changed().await.is_err() {
                    return done(LogError::Stopping.into());
                }
            }
        });
        Ok(told)
    }
}
