//! The components that the server has: files by digest, and entries that name them.
//!
//! The file is durable before its entry is, so an entry always has its file. A file without an entry is what a crash between
//! the two leaves; it does no harm and is found again when the same component is uploaded.

use bytes::Bytes;
use nodata_log::fs::{self, Fs};
use nodata_log::{Clock, ErrorKind, Expect, LogError, MetadataStore, Name, TimestampUs};
use nodata_runtime::{AcceptError, ComponentInfo, Digest, Program, Runtime};
use serde::{Deserialize, Serialize};
use std::io;
use std::sync::Arc;
use thiserror::Error;

const DIR: &str = "components";
const ENTRIES: &str = "component/";

/// Digits of a digest that are enough to name it.
pub const DIGEST_DIGITS_MIN: usize = 6;

/// A component, as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentEntry {
    pub name: String,
    pub digest: String,
    pub bytes: u64,
    pub roles: Vec<String>,
    /// The interfaces that it exports beside its roles.
    #[serde(default)]
    pub extras: Vec<String>,
    pub imports: Vec<String>,
    pub uploaded_us: TimestampUs,
}

/// Why a component could not be taken or found.
#[derive(Debug, Error)]
pub enum RegistryError {
    #[error("{0}")]
    Accept(#[from] AcceptError),
    #[error("component `{name}` does not exist")]
    Unknown { name: Name },
    #[error("component `{name}` has no version that begins with `{digest}`")]
    UnknownVersion { name: Name, digest: String },
    #[error(
        "`{digest}` is no beginning of a digest: it has 64 hexadecimal digits, and at least {DIGEST_DIGITS_MIN} are needed"
    )]
    Digest { digest: String },
    #[error("component `{name}` has several versions that begin with `{digest}`; give more digits")]
    Ambiguous { name: Name, digest: String },
    #[error("the component could not be written: {0}")]
    Write(#[source] io::Error),
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the entry of component `{name}` cannot be read: {what}")]
    Entry { name: String, what: String },
}

impl RegistryError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            RegistryError::Accept(error) => error.kind(),
            RegistryError::Unknown { .. } | RegistryError::UnknownVersion { .. } => ErrorKind::NotFound,
            RegistryError::Digest { .. } | RegistryError::Ambiguous { .. } => ErrorKind::Invalid,
            RegistryError::Write(error) if error.kind() == io::ErrorKind::StorageFull => ErrorKind::Exhausted,
            RegistryError::Write(_) => ErrorKind::Unavailable,
            RegistryError::Log(error) => error.kind(),
            RegistryError::Entry { .. } => ErrorKind::Corrupt,
        }
    }

    /// A word that a program can match.
    pub fn reason(&self) -> &'static str {
        match self {
            RegistryError::Accept(_) => "COMPONENT_REFUSED",
            RegistryError::Unknown { .. } => "UNKNOWN_COMPONENT",
            RegistryError::UnknownVersion { .. } => "UNKNOWN_VERSION",
            RegistryError::Digest { .. } | RegistryError::Ambiguous { .. } => "DIGEST",
            RegistryError::Write(_) => "WRITE_FAILED",
            RegistryError::Log(error) => error.reason(),
            RegistryError::Entry { .. } => "DAMAGED",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            RegistryError::Accept(error) => error.hint(),
            RegistryError::Unknown { name } => {
                Some(format!("upload it with `nodata component push FILE --name {name}`"))
            }
            _ => None,
        }
    }
}

/// The registry. Cheap to clone.
#[derive(Clone)]
pub struct Registry {
    fs: Arc<dyn Fs>,
    meta: Arc<dyn MetadataStore>,
    runtime: Runtime,
    clock: Arc<dyn Clock>,
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
        Ok(Self { fs, meta, runtime, clock })
    }

    /// Takes a component: checks it, tries it, and keeps it for good.
    pub async fn put(&self, name: &Name, bytes: Bytes) -> Result<ComponentEntry, RegistryError> {
        let (info, _program) = self.runtime.accept(bytes.clone()).await?;
        let ComponentInfo { digest, roles, extras, imports, .. } = info;
        let entry = ComponentEntry {
            name: name.to_string(),
            digest: digest.to_string(),
            bytes: bytes.len() as u64,
            roles: roles.iter().map(|role| role.world().to_owned()).collect(),
            extras: extras.iter().map(|extra| extra.interface().to_owned()).collect(),
            imports,
            uploaded_us: self.clock.now_us(),
        };
        let key = format!("{ENTRIES}{name}/{digest}");
        if let Some(known) = self.meta.meta_get(&key).await? {
            return read_entry(&key, &known.value);
        }
        let fs = self.fs.clone();
        let write = move || fs::write_file(&*fs, DIR, &file_name(digest), &bytes);
        match tokio::task::spawn_blocking(write).await {
            Ok(written) => written.map_err(RegistryError::Write)?,
            Err(_) => return Err(LogError::Stopping.into()),
        }
        let value = serde_json::to_vec(&entry).map_err(|error| entry_error(&key, &error))?;
        self.meta.meta_put(&key, Expect::Any, Some(value.into()))?.await?;
        Ok(entry)
    }

    /// Every version of every component: by name, the latest first.
    pub async fn list(&self) -> Result<Vec<ComponentEntry>, RegistryError> {
        self.entries(ENTRIES).await
    }

    async fn entries(&self, prefix: &str) -> Result<Vec<ComponentEntry>, RegistryError> {
        let listed = self.meta.meta_list(prefix).await?;
        let mut entries: Vec<ComponentEntry> =
            listed.iter().map(|(key, entry)| read_entry(key, &entry.value)).collect::<Result<_, _>>()?;
        entries
            .sort_by(|a, b| a.name.cmp(&b.name).then(b.uploaded_us.cmp(&a.uploaded_us)).then(a.digest.cmp(&b.digest)));
        Ok(entries)
    }

    /// A version by the first digits of its digest, or the latest one.
    pub async fn find(&self, name: &Name, digest: Option<&str>) -> Result<ComponentEntry, RegistryError> {
        let mut versions = self.entries(&format!("{ENTRIES}{name}/")).await?;
        if versions.is_empty() {
            return Err(RegistryError::Unknown { name: name.clone() });
        }
        let Some(digest) = digest else { return Ok(versions.swap_remove(0)) };
        let is_digest =
            (DIGEST_DIGITS_MIN..=64).contains(&digest.len()) && digest.bytes().all(|b| b.is_ascii_hexdigit());
        if !is_digest {
            return Err(RegistryError::Digest { digest: digest.chars().take(80).collect() });
        }
        let digest = digest.to_ascii_lowercase();
        versions.retain(|version| version.digest.starts_with(&digest));
        match versions.len() {
            0 => Err(RegistryError::UnknownVersion { name: name.clone(), digest }),
            1 => Ok(versions.swap_remove(0)),
            _ => Err(RegistryError::Ambiguous { name: name.clone(), digest }),
        }
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

fn read_entry(key: &str, value: &[u8]) -> Result<ComponentEntry, RegistryError> {
    serde_json::from_slice(value).map_err(|error| entry_error(key, &error))
}

fn entry_error(key: &str, error: &serde_json::Error) -> RegistryError {
    let name = key.strip_prefix(ENTRIES).unwrap_or(key).to_owned();
    RegistryError::Entry { name, what: error.to_string() }
}
