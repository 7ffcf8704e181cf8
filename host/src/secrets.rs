//! What components need to know and nobody should read: encrypted in the log, with a key that is in a file of its own.
//!
//! A value comes in and is never given out again, except to the instances of the deployments that are granted it.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use nodata_log::{Clock, ErrorKind, Expect, LogError, MetadataStore, Name, TimestampUs};
use nodata_runtime::Secret;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use thiserror::Error;
use zeroize::Zeroizing;

const ENTRIES: &str = "secret/";
/// Where the key is unless it is said otherwise, beside the store.
const KEY_FILE: &str = "secrets.key";
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;

/// Bytes of a secret.
pub const SECRET_BYTES_MAX: usize = 64 << 10;
/// Secrets of a store. All are in memory.
pub const SECRETS_MAX: usize = 1000;

/// Why a secret could not be kept or found.
#[derive(Debug, Error)]
pub enum SecretError {
    #[error("secret `{name}` does not exist")]
    Unknown { name: Name },
    #[error("secret `{name}` has no bytes")]
    Empty { name: Name },
    #[error("secret `{name}` has {bytes} bytes; at most {SECRET_BYTES_MAX} are allowed")]
    TooLarge { name: Name, bytes: usize },
    #[error("there are {SECRETS_MAX} secrets, which is the most there can be")]
    TooMany,
    #[error("secret `{name}` is granted to {}", deployments.join(", "))]
    InUse { name: Name, deployments: Vec<String> },
    #[error("the key of the secrets in {} is not the one that they were encrypted with", place.display())]
    OtherKey { place: PathBuf },
    #[error("the key of the secrets is not in {}", place.display())]
    NoKey { place: PathBuf },
    #[error("{} is no key: it has 64 hexadecimal digits", place.display())]
    BadKey { place: PathBuf },
    #[error("the key of the secrets in {} cannot be used: {source}", place.display())]
    Key { place: PathBuf, source: io::Error },
    #[error("the entry of secret `{name}` cannot be read: {what}")]
    Entry { name: String, what: String },
    #[error(transparent)]
    Log(#[from] LogError),
}

impl SecretError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            SecretError::Unknown { .. } => ErrorKind::NotFound,
            SecretError::Empty { .. } | SecretError::TooLarge { .. } => ErrorKind::Invalid,
            SecretError::TooMany => ErrorKind::Exhausted,
            SecretError::InUse { .. } => ErrorKind::Conflict,
            SecretError::OtherKey { .. }
            | SecretError::NoKey { .. }
            | SecretError::BadKey { .. }
            | SecretError::Key { .. } => ErrorKind::Unavailable,
            SecretError::Entry { .. } => ErrorKind::Corrupt,
            SecretError::Log(error) => error.kind(),
        }
    }

    /// A word that a program can match.
    pub fn reason(&self) -> &'static str {
        match self {
            SecretError::Unknown { .. } => "UNKNOWN_SECRET",
            SecretError::Empty { .. } | SecretError::TooLarge { .. } => "SECRET",
            SecretError::TooMany => "TOO_MANY_SECRETS",
            SecretError::InUse { .. } => "IN_USE",
            SecretError::OtherKey { .. }
            | SecretError::NoKey { .. }
            | SecretError::BadKey { .. }
            | SecretError::Key { .. } => "SECRETS_KEY",
            SecretError::Entry { .. } => "DAMAGED",
            SecretError::Log(error) => error.reason(),
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            SecretError::Unknown { name } => Some(format!("put it there with `nodata secret put {name}`")),
            SecretError::NoKey { .. } | SecretError::OtherKey { .. } => {
                Some("bring the file back, or name its place with `--secrets-key`".to_owned())
            }
            _ => None,
        }
    }
}

/// What may be known of a secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretView {
    pub name: String,
    pub updated_us: TimestampUs,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    updated_us: TimestampUs,
    /// Nonce and ciphertext.
    sealed: String,
}

/// The secrets of a store. Cheap to clone.
#[derive(Clone)]
pub struct Secrets {
    inner: Arc<Inner>,
}

struct Inner {
    meta: Arc<dyn MetadataStore>,
    clock: Arc<dyn Clock>,
    place: PathBuf,
    known: Mutex<Known>,
    /// One at a time makes the key.
    putting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Known {
    /// `None` until there is one.
    key: Option<Zeroizing<[u8; KEY_BYTES]>>,
    secrets: BTreeMap<String, (Secret, TimestampUs)>,
    /// Moves with every change.
    version: u64,
}

impl Secrets {
    /// Reads the secrets of a store. The key is in `place`, or beside the store.
    pub async fn open(
        data: &Path,
        place: Option<PathBuf>,
        meta: Arc<dyn MetadataStore>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, SecretError> {
        let place = place.unwrap_or_else(|| data.join(KEY_FILE));
        let key = read_key(&place)?;
        let mut known = Known { key, ..Known::default() };
        for (at, entry) in meta.meta_list(ENTRIES).await? {
            let Some(key) = &known.key else { return Err(SecretError::NoKey { place }) };
            let name = at.strip_prefix(ENTRIES).unwrap_or(&at).to_owned();
            let damaged = |what: String| SecretError::Entry { name: name.clone(), what };
            let entry: Entry = serde_json::from_slice(&entry.value).map_err(|error| damaged(error.to_string()))?;
            let sealed = BASE64_STANDARD.decode(&entry.sealed).map_err(|error| damaged(error.to_string()))?;
            let Some(value) = unseal(key, &name, &sealed) else { return Err(SecretError::OtherKey { place }) };
            known.secrets.insert(name, (value, entry.updated_us));
        }
        Ok(Self::of(place, known, meta, clock))
    }

    /// Those of a store that has none, whose key would be in `place`.
    pub fn none(place: PathBuf, meta: Arc<dyn MetadataStore>, clock: Arc<dyn Clock>) -> Self {
        Self::of(place, Known::default(), meta, clock)
    }

    fn of(place: PathBuf, known: Known, meta: Arc<dyn MetadataStore>, clock: Arc<dyn Clock>) -> Self {
        let known = Mutex::new(known);
        Self { inner: Arc::new(Inner { meta, clock, place, known, putting: tokio::sync::Mutex::default() }) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.inner.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a secret for good. Instances that are granted it are replaced before their next call.
    pub async fn put(&self, name: &Name, value: Secret) -> Result<SecretView, SecretError> {
        let bytes = value.bytes().len();
        match bytes {
            0 => return Err(SecretError::Empty { name: name.clone() }),
            1..=SECRET_BYTES_MAX => {}
            _ => return Err(SecretError::TooLarge { name: name.clone(), bytes }),
        }
        let _alone = self.inner.putting.lock().await;
        let key = {
            let mut known = self.known();
            if !known.secrets.contains_key(name.as_str()) && known.secrets.len() >= SECRETS_MAX {
                return Err(SecretError::TooMany);
            }
            match &known.key {
                Some(key) => key.clone(),
                None => known.key.insert(make_key(&self.inner.place)?).clone(),
            }
        };
        let updated_us = self.inner.clock.now_us();
        let sealed = seal(&key, name.as_str(), value.bytes()).map_err(|source| self.key_error(source))?;
        let entry = Entry { updated_us, sealed: BASE64_STANDARD.encode(sealed) };
        let entry = serde_json::to_vec(&entry)
            .map_err(|error| SecretError::Entry { name: name.to_string(), what: error.to_string() })?;
        self.inner.meta.meta_put(&format!("{ENTRIES}{name}"), Expect::Any, Some(entry.into()))?.await?;
        let mut known = self.known();
        known.secrets.insert(name.to_string(), (value, updated_us));
        known.version += 1;
        Ok(SecretView { name: name.to_string(), updated_us })
    }

    fn key_error(&self, source: io::Error) -> SecretError {
        SecretError::Key { place: self.inner.place.clone(), source }
    }

    /// Every secret, by name, without its value.
    pub fn list(&self) -> Vec<SecretView> {
        let view = |(name, (_, updated_us)): (&String, &(Secret, TimestampUs))| SecretView {
            name: name.clone(),
            updated_us: *updated_us,
        };
        self.known().secrets.iter().map(view).collect()
    }

    /// Whether there is one.
    pub fn check(&self, name: &Name) -> Result<(), SecretError> {
        match self.known().secrets.contains_key(name.as_str()) {
            true => Ok(()),
            false => Err(SecretError::Unknown { name: name.clone() }),
        }
    }

    /// Forgets a secret that nobody is granted.
    pub async fn delete(&self, name: &Name, granted_to: Vec<String>) -> Result<(), SecretError> {
        let _alone = self.inner.putting.lock().await;
        self.check(name)?;
        if !granted_to.is_empty() {
            return Err(SecretError::InUse { name: name.clone(), deployments: granted_to });
        }
        self.inner.meta.meta_put(&format!("{ENTRIES}{name}"), Expect::Any, None)?.await?;
        let mut known = self.known();
        known.secrets.remove(name.as_str());
        known.version += 1;
        Ok(())
    }

    /// Moves with every change.
    pub(crate) fn version(&self) -> u64 {
        self.known().version
    }
}

/// The secrets of a deployment: what its component calls them, and what they are called here.
pub(crate) struct GrantedSecrets {
    secrets: Secrets,
    names: BTreeMap<String, String>,
    /// The version that was read last.
    seen: AtomicU64,
}

impl GrantedSecrets {
    pub(crate) fn new(secrets: Secrets, names: BTreeMap<String, String>) -> Self {
        Self { secrets, names, seen: AtomicU64::new(0) }
    }

    /// Their values, for an instance that is made now.
    pub(crate) fn read(&self) -> BTreeMap<String, Secret> {
        let known = self.secrets.known();
        self.seen.store(known.version, Ordering::Relaxed);
        let value = |(inside, name): (&String, &String)| Some((inside.clone(), known.secrets.get(name)?.0.clone()));
        self.names.iter().filter_map(value).collect()
    }

    /// Whether what was read may be old.
    pub(crate) fn have_moved(&self) -> bool {
        !self.names.is_empty() && self.seen.load(Ordering::Relaxed) != self.secrets.version()
    }
}

fn read_key(place: &Path) -> Result<Option<Zeroizing<[u8; KEY_BYTES]>>, SecretError> {
    let text = match fs::read_to_string(place) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SecretError::Key { place: place.to_owned(), source }),
    };
    let digits = text.trim();
    let mut key = Zeroizing::new([0; KEY_BYTES]);
    let is_key = digits.len() == 2 * KEY_BYTES
        && digits.is_ascii()
        && key
            .iter_mut()
            .enumerate()
            .all(|(at, byte)| u8::from_str_radix(&digits[2 * at..2 * at + 2], 16).map(|read| *byte = read).is_ok());
    if is_key { Ok(Some(key)) } else { Err(SecretError::BadKey { place: place.to_owned() }) }
}

/// Makes a key that nobody else may read. It is durable before anything is encrypted with it.
fn make_key(place: &Path) -> Result<Zeroizing<[u8; KEY_BYTES]>, SecretError> {
    let make = || {
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        getrandom::fill(&mut *key).map_err(io::Error::other)?;
        let mut digits = Zeroizing::new(String::with_capacity(2 * KEY_BYTES + 1));
        for byte in key.iter() {
            *digits += &format!("{byte:02x}");
        }
        *digits += "\n";
        // Written under another name first: half a key is no key.
        let unfinished = place.with_extension("new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(digits.as_bytes())?;
        file.sync_all()?;
        fs::rename(&unfinished, place)?;
        let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
        Ok(key)
    };
    make().map_err(|source| SecretError::Key { place: place.to_owned(), source })
}

/// Nonce and ciphertext. The name is part of what is authenticated: a value cannot be passed off as another one.
fn seal(key: &[u8; KEY_BYTES], name: &str, value: &[u8]) -> io::Result<Vec<u8>> {
    let mut nonce = [0; NONCE_BYTES];
    getrandom::fill(&mut nonce).map_err(io::Error::other)?;
    let payload = Payload { msg: value, aad: name.as_bytes() };
    let sealed = XChaCha20Poly1305::new(key.into()).encrypt(&XNonce::from(nonce), payload);
    let sealed = sealed.map_err(|_| io::Error::other("the value could not be encrypted"))?;
    Ok([&nonce[..], &sealed].concat())
}

fn unseal(key: &[u8; KEY_BYTES], name: &str, sealed: &[u8]) -> Option<Secret> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE_BYTES>()?;
    let payload = Payload { msg: sealed, aad: name.as_bytes() };
    let value = XChaCha20Poly1305::new(key.into()).decrypt(&XNonce::from(*nonce), payload).ok()?;
    Some(value.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_log::SystemClock;
    use nodata_log::model::ModelLog;
    use std::os::unix::fs::PermissionsExt as _;

    fn name(text: &str) -> Name {
        Name::new(text).unwrap()
    }

    async fn open(dir: &Path, log: &Arc<ModelLog>) -> Result<Secrets, SecretError> {
        Secrets::open(dir, None, log.clone(), Arc::new(SystemClock)).await
    }

    fn value(secrets: &Secrets, name: &str) -> Option<Vec<u8>> {
        let granted = GrantedSecrets::new(secrets.clone(), [("inside".to_owned(), name.to_owned())].into());
        granted.read().get("inside").map(|secret| secret.bytes().to_vec())
    }

    #[tokio::test]
    async fn a_secret_is_there_after_a_restart_and_only_with_its_key() {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(ModelLog::new(Arc::new(SystemClock)));
        let secrets = open(dir.path(), &log).await.unwrap();
        let place = dir.path().join(KEY_FILE);
        assert!(!place.exists(), "nobody needs it yet");
        secrets.put(&name("token"), b"first".to_vec().into()).await.unwrap();
        let granted = GrantedSecrets::new(secrets.clone(), [("token".to_owned(), "token".to_owned())].into());
        assert_eq!(granted.read()["token"].bytes(), b"first");
        assert!(!granted.have_moved());
        secrets.put(&name("token"), b"second".to_vec().into()).await.unwrap();
        assert!(granted.have_moved());
        assert_eq!(fs::metadata(&place).unwrap().permissions().mode() & 0o777, 0o600);

        let again = open(dir.path(), &log).await.unwrap();
        assert_eq!(value(&again, "token").as_deref(), Some(&b"second"[..]));
        assert_eq!(value(&again, "other"), None);
        assert_eq!(again.list().len(), 1);
        let entries = log.meta_list(ENTRIES).await.unwrap();
        assert!(!String::from_utf8_lossy(&entries[0].1.value).contains("second"));

        // An entry under another name is not that secret.
        let moved = Some(entries[0].1.value.clone());
        log.meta_put("secret/other", Expect::Any, moved).unwrap().await.unwrap();
        assert!(matches!(open(dir.path(), &log).await, Err(SecretError::OtherKey { .. })));
        log.meta_put("secret/other", Expect::Any, None).unwrap().await.unwrap();

        fs::write(&place, "00".repeat(KEY_BYTES)).unwrap();
        assert!(matches!(open(dir.path(), &log).await, Err(SecretError::OtherKey { .. })));
        fs::write(&place, "no key").unwrap();
        assert!(matches!(open(dir.path(), &log).await, Err(SecretError::BadKey { .. })));
        fs::remove_file(&place).unwrap();
        assert!(matches!(open(dir.path(), &log).await, Err(SecretError::NoKey { .. })));
    }

    #[tokio::test]
    async fn what_is_no_secret_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let log = Arc::new(ModelLog::new(Arc::new(SystemClock)));
        let secrets = open(dir.path(), &log).await.unwrap();
        let a = name("a");
        let put = |bytes: usize| secrets.put(&a, vec![b'x'; bytes].into());
        assert!(matches!(put(0).await, Err(SecretError::Empty { .. })));
        assert!(matches!(put(SECRET_BYTES_MAX + 1).await, Err(SecretError::TooLarge { .. })));
        put(SECRET_BYTES_MAX).await.unwrap();
        assert!(matches!(secrets.delete(&name("b"), Vec::new()).await, Err(SecretError::Unknown { .. })));
        let used = secrets.delete(&name("a"), vec!["hook".to_owned()]).await;
        assert_eq!(used.unwrap_err().to_string(), "secret `a` is granted to hook");
        secrets.delete(&name("a"), Vec::new()).await.unwrap();
        assert_eq!(secrets.list(), []);
    }
}
