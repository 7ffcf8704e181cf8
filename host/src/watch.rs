//! For authors: components in a directory are taken when their files change, and deployments of them go on with what they are now.

use crate::deployment::{DeploymentError, Deployments, UpdateRequest};
use crate::limits::WATCH_LOOK;
use crate::registry::{ComponentRef, NewComponent, Registry, VersionRef};
use bytes::Bytes;
use nodata_log::Name;
use nodata_runtime::limits::COMPONENT_BYTES_MAX;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;
use tokio_util::sync::CancellationToken;

/// What can be seen of a file without reading it.
type Look = (SystemTime, u64);

/// Watches a directory until it is asked to stop. It is looked at again and again: that works wherever a directory can be, and nobody
/// notices half a second.
pub(crate) struct Watch {
    dir: PathBuf,
    registry: Registry,
    deployments: Deployments,
    /// As each file was when it was taken.
    taken: BTreeMap<PathBuf, Look>,
    /// As each file was a look ago: one that is being written is another one by the next look.
    seen: BTreeMap<PathBuf, Look>,
    /// What was taken of files, where deployments are in the middle of another update.
    later: BTreeMap<PathBuf, ComponentRef>,
}

impl Watch {
    pub(crate) fn new(dir: PathBuf, registry: Registry, deployments: Deployments) -> Self {
        Self { dir, registry, deployments, taken: BTreeMap::new(), seen: BTreeMap::new(), later: BTreeMap::new() }
    }

    /// Whether this is a directory that can be read.
    pub(crate) fn check(dir: &Path) -> io::Result<()> {
        std::fs::read_dir(dir).map(drop)
    }

    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut was_readable = true;
        loop {
            match look(self.dir.clone()).await {
                Ok(now) => {
                    was_readable = true;
                    let steady = |(file, look): (&PathBuf, &Look)| {
                        let is_new = self.taken.get(file) != Some(look) && self.seen.get(file) == Some(look);
                        is_new.then(|| (file.clone(), *look))
                    };
                    let changed: Vec<(PathBuf, Look)> = now.iter().filter_map(steady).collect();
                    self.seen = now;
                    for (file, look) in changed {
                        self.taken.insert(file.clone(), look);
                        self.later.remove(&file);
                        self.take(&file).await;
                    }
                    for (file, reference) in std::mem::take(&mut self.later) {
                        self.update(reference, &file, false).await;
                    }
                }
                Err(error) if was_readable => {
                    was_readable = false;
                    tracing::error!(dir = %self.dir.display(), %error, "the directory of components cannot be read; trying again");
                }
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(WATCH_LOOK) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Takes a component, and says what became of it.
    async fn take(&mut self, file: &Path) {
        let place = file.display().to_string();
        let name = file.file_stem().and_then(OsStr::to_str).unwrap_or_default().to_owned();
        match self.accept(file, &name).await {
            Ok(reference) => {
                tracing::info!(file = place, component = %reference, "took the component");
                self.update(reference, file, true).await;
            }
            Err(error) => tracing::error!(file = place, "the component is not taken: {error}"),
        }
    }

    async fn accept(&self, file: &Path, name: &str) -> Result<ComponentRef, String> {
        let name = Name::new(name).map_err(|error| error.to_string())?;
        let place = file.to_owned();
        let read = tokio::task::spawn_blocking(move || read(&place)).await;
        let (bytes, signature) = read.unwrap_or_else(|error| Err(error.to_string()))?;
        let new = NewComponent { by: "--watch".to_owned(), signature, ..NewComponent::named(name.clone()) };
        match self.registry.put(new, bytes).await {
            Ok(entry) => Ok(ComponentRef { name, version: VersionRef::Digest(entry.digest.clone()) }),
            Err(error) => Err(match error.hint() {
                Some(hint) => format!("{error}; {hint}"),
                None => error.to_string(),
            }),
        }
    }

    /// Has every deployment of the component go on with this version of it. One that is in the middle of another update does so when
    /// that is over, unless the file changes again.
    async fn update(&mut self, reference: ComponentRef, file: &Path, is_first: bool) {
        let deployments = match self.deployments.list().await {
            Ok(deployments) => deployments,
            Err(error) => return tracing::error!(%error, "the deployments of a component cannot be found"),
        };
        for spec in deployments.into_iter().map(|view| view.spec) {
            let is_it = matches!(&reference.version, VersionRef::Digest(digest) if *digest == spec.digest);
            if spec.component != reference.name.as_str() || is_it {
                continue;
            }
            let request = UpdateRequest {
                name: spec.name.clone(),
                component: Some(reference.clone()),
                probation_us: Some(0),
                why: format!("{} changed", file.display()),
                ..UpdateRequest::default()
            };
            match self.deployments.update(request).await {
                Ok(view) => {
                    tracing::info!(deployment = spec.name, revision = view.spec.revision, "runs what the file is now")
                }
                Err(error @ (DeploymentError::Updating { .. } | DeploymentError::Changing { .. })) => {
                    if is_first {
                        tracing::warn!(
                            deployment = spec.name,
                            "goes on with what the file is when that is over: {error}"
                        );
                    }
                    self.later.insert(file.to_owned(), reference.clone());
                }
                Err(error) => tracing::error!(deployment = spec.name, "goes on with what it was: {error}"),
            }
        }
    }
}

/// A component, and the signature beside it. Without one it is refused where one is asked for.
fn read(file: &Path) -> Result<(Bytes, String), String> {
    let bytes = std::fs::metadata(file).map_err(|error| error.to_string())?.len();
    if bytes > COMPONENT_BYTES_MAX as u64 {
        return Err(format!("it has {bytes} bytes; at most {COMPONENT_BYTES_MAX} are allowed"));
    }
    let signature = std::fs::read_to_string(format!("{}.minisig", file.display())).unwrap_or_default();
    Ok((std::fs::read(file).map_err(|error| error.to_string())?.into(), signature))
}

/// The components in a directory.
async fn look(dir: PathBuf) -> io::Result<BTreeMap<PathBuf, Look>> {
    let look = move || {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension() != Some(OsStr::new("wasm")) {
                continue;
            }
            // What is gone between two looks is not there.
            if let Ok(metadata) = std::fs::metadata(&path)
                && metadata.is_file()
            {
                found.insert(path, (metadata.modified()?, metadata.len()));
            }
        }
        Ok(found)
    };
    tokio::task::spawn_blocking(look).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
