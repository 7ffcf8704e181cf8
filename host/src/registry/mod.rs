//! The components that the server has: files by digest, entries that name them, and labels.
//!
//! The file is durable before its entry is, so an entry always has its file. A file without an entry is what a crash between
//! the two leaves; it does no harm and is found again when the same component is uploaded.

mod delete; // a version that nobody needs goes
mod entry; // what is known of a component
mod error; // why one is refused
mod holds; // what is being deployed is not deleted
mod intake; // taking one
mod labels; // what versions are called
mod policy; // which are taken
mod pull; // one that is an image elsewhere
mod reference; // which version is meant

pub use entry::{ComponentEntry, ComponentSource, NewComponent};
pub use error::RegistryError;
pub use holds::Hold;
pub use intake::{IntakeRoom, Progress, Stage};
pub use labels::Labels;
pub use policy::{Policy, PolicyError, PolicyRefusal};
pub use pull::PullRequest;
pub use reference::{ComponentRef, ReferenceError, VersionRef, label};

use crate::images::Images;
use bytes::Bytes;
use holds::Holds;
use intake::Intakes;
use nodata_log::fs::{self, Fs};
use nodata_log::{Clock, Expect, LogError, MetadataStore, Name};
use nodata_runtime::{AcceptError, ComponentInfo, Digest, Program, Runtime};
use semver::Version;
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;

const DIR: &str = "components";
const ENTRIES: &str = "component/";
/// Keys of labels. They are never removed: a label names the same version for ever.
const LABELS: &str = "component-label/";

/// What a label names.
#[derive(Debug, Serialize, Deserialize)]
struct Labelled {
    digest: String,
}

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    fs: Arc<dyn Fs>,
    meta: Arc<dyn MetadataStore>,
    runtime: Runtime,
    clock: Arc<dyn Clock>,
    /// What is kept is changed by one at a time.
    changing: Arc<tokio::sync::Mutex<()>>,
    holds: Holds,
    intakes: Intakes,
    /// `None`: images are not pulled.
    images: Option<Images>,
    policy: Policy,
}

impl Registry {
    /// The registry of a store.
    pub fn open(
        fs: Arc<dyn Fs>,
        meta: Arc<dyn MetadataStore>,
        runtime: Runtime,
        clock: Arc<dyn Clock>,
    ) -> io::Result<Self> {
        fs.create_dir(DIR)?;
        fs.sync_dir("", fs::SyncSite::WholeFileName)?;
        Ok(Self {
            fs,
            meta,
            runtime,
            clock,
            changing: Arc::default(),
            holds: Holds::default(),
            intakes: Intakes::new(),
            images: None,
            policy: Policy::default(),
        })
    }

    /// The same, which can pull images.
    pub fn with_images(self, images: Images) -> Self {
        Self { images: Some(images), ..self }
    }

    /// The same, which takes only what an operator agrees to.
    pub fn with_policy(self, policy: Policy) -> Self {
        Self { policy, ..self }
    }

    /// Keeps what was accepted.
    async fn keep(
        &self,
        new: NewComponent,
        signed_by: Option<String>,
        info: ComponentInfo,
        bytes: Bytes,
    ) -> Result<ComponentEntry, RegistryError> {
        let _alone = self.changing.lock().await;
        let ComponentInfo { digest, roles, extras, imports, .. } = info;
        let has_label = self.has_label(&new, digest).await?;
        let NewComponent { name, label, by, from, source, .. } = new;
        let key = format!("{ENTRIES}{name}/{digest}");
        if self.meta.meta_get(&key).await?.is_none() {
            let entry = ComponentEntry {
                name: name.to_string(),
                digest: digest.to_string(),
                labels: Vec::new(),
                bytes: bytes.len() as u64,
                roles: roles.iter().map(|role| role.world().to_owned()).collect(),
                extras: extras.iter().map(|extra| extra.interface().to_owned()).collect(),
                imports,
                uploaded_us: self.clock.now_us(),
                uploaded_by: by,
                uploaded_from: from,
                source,
                signed_by,
            };
            let fs = self.fs.clone();
            let write = move || fs::write_file(&*fs, DIR, &file_name(digest), &bytes);
            match tokio::task::spawn_blocking(write).await {
                Ok(written) => written.map_err(RegistryError::Write)?,
                Err(_) => return Err(LogError::Stopping.into()),
            }
            self.write(&key, &entry).await?;
        }
        if let Some(label) = label.filter(|_| !has_label) {
            self.write(&label_key(&name, &label), &Labelled { digest: digest.to_string() }).await?;
        }
        let kept = VersionRef::Digest(digest.to_string());
        self.find(&ComponentRef { name, version: kept }).await
    }

    async fn write(&self, key: &str, value: &impl Serialize) -> Result<(), RegistryError> {
        let value = serde_json::to_vec(value).map_err(|error| entry_error(key, &error))?;
        self.meta.meta_put(key, Expect::Any, Some(value.into()))?.await?;
        Ok(())
    }

    /// Whether the label of a new component is that of its digest already. One that names another digest is refused.
    async fn has_label(&self, new: &NewComponent, digest: Digest) -> Result<bool, RegistryError> {
        let Some(label) = &new.label else { return Ok(false) };
        let key = label_key(&new.name, label);
        let Some(known) = self.meta.meta_get(&key).await? else { return Ok(false) };
        let Labelled { digest: known } = read_entry(&key, &known.value)?;
        if known == digest.to_string() {
            return Ok(true);
        }
        Err(RegistryError::LabelTaken { name: new.name.clone(), label: label.clone(), digest: known })
    }

    /// Every version of every component: by name, the latest first.
    pub async fn list(&self) -> Result<Vec<ComponentEntry>, RegistryError> {
        self.entries("").await
    }

    /// The versions of a component, the latest first.
    pub async fn versions(&self, name: &Name) -> Result<Vec<ComponentEntry>, RegistryError> {
        let versions = self.entries(&format!("{name}/")).await?;
        if versions.is_empty() { Err(RegistryError::Unknown { name: name.clone() }) } else { Ok(versions) }
    }

    async fn entries(&self, prefix: &str) -> Result<Vec<ComponentEntry>, RegistryError> {
        let labels = self.labels_below(prefix).await?;
        let mut entries = Vec::new();
        for (key, entry) in self.meta.meta_list(&format!("{ENTRIES}{prefix}")).await? {
            let mut entry: ComponentEntry = read_entry(&key, &entry.value)?;
            entry.labels = labels.of(&entry.name, &entry.digest).to_vec();
            entries.push(entry);
        }
        entries
            .sort_by(|a, b| a.name.cmp(&b.name).then(b.uploaded_us.cmp(&a.uploaded_us)).then(a.digest.cmp(&b.digest)));
        Ok(entries)
    }

    /// The version that is meant.
    pub async fn find(&self, reference: &ComponentRef) -> Result<ComponentEntry, RegistryError> {
        let mut versions = self.versions(&reference.name).await?;
        let unknown = || RegistryError::UnknownVersion { reference: reference.clone() };
        match &reference.version {
            VersionRef::Latest => Ok(versions.swap_remove(0)),
            VersionRef::Digest(digits) => {
                versions.retain(|version| version.digest.starts_with(digits));
                match versions.len() {
                    0 => Err(unknown()),
                    1 => Ok(versions.swap_remove(0)),
                    _ => Err(RegistryError::Ambiguous { reference: reference.clone() }),
                }
            }
            wanted => {
                let highest = |entry: &ComponentEntry| entry.labels.iter().find(|label| wanted.fits(label)).cloned();
                let fitting = versions.into_iter().filter_map(|entry| Some((highest(&entry)?, entry)));
                fitting.max_by(|(a, _), (b, _)| a.cmp(b)).map(|(_, entry)| entry).ok_or_else(unknown)
            }
        }
    }

    /// The version that is meant, for somebody who will need it: it stays as long as it is held.
    pub async fn hold(&self, reference: &ComponentRef) -> Result<(ComponentEntry, Hold), RegistryError> {
        let entry = self.find(reference).await?;
        let unknown = || RegistryError::UnknownVersion { reference: reference.clone() };
        let hold = self.holds.hold(&entry.name, &entry.digest).ok_or_else(unknown)?;
        // It may have gone between the two.
        let is_there = self.meta.meta_get(&format!("{ENTRIES}{}/{}", entry.name, entry.digest)).await?.is_some();
        if is_there { Ok((entry, hold)) } else { Err(unknown()) }
    }

    /// Loads a component that is in the registry.
    pub async fn load(&self, digest: Digest) -> Result<Program, RegistryError> {
        let fs = self.fs.clone();
        let read = move || fs::read_file(&*fs, &format!("{DIR}/{}", file_name(digest))).map(Bytes::from);
        Ok(self.runtime.load(digest, read).await?)
    }

    /// The file of a component.
    pub async fn bytes(&self, digest: Digest) -> Result<Bytes, RegistryError> {
        let fs = self.fs.clone();
        let read = move || fs::read_file(&*fs, &format!("{DIR}/{}", file_name(digest)));
        match tokio::task::spawn_blocking(read).await {
            Ok(bytes) => Ok(bytes.map_err(AcceptError::Read)?.into()),
            Err(_) => Err(LogError::Stopping.into()),
        }
    }
}

fn file_name(digest: Digest) -> String {
    format!("{digest}.wasm")
}

fn label_key(name: &Name, label: &Version) -> String {
    format!("{LABELS}{name}/{label}")
}

fn read_entry<T: for<'a> Deserialize<'a>>(key: &str, value: &[u8]) -> Result<T, RegistryError> {
    serde_json::from_slice(value).map_err(|error| entry_error(key, &error))
}

fn entry_error(key: &str, error: &serde_json::Error) -> RegistryError {
    let name = key.strip_prefix(ENTRIES).unwrap_or(key).to_owned();
    RegistryError::Entry { name, what: error.to_string() }
}
