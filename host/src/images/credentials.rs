//! Who we are in other registries: a file as other tools write it, that nobody else may read.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use thiserror::Error;
use zeroize::Zeroizing;

/// Why a file with credentials cannot be used.
#[derive(Debug, Error)]
pub enum CredentialsError {
    #[error("the credentials in {} cannot be read: {source}", place.display())]
    Read { place: PathBuf, source: io::Error },
    #[error("others may read the credentials in {}: its mode is {mode:o}", place.display())]
    Open { place: PathBuf, mode: u32 },
    #[error("the credentials in {} are not written as they should be: {what}", place.display())]
    Form { place: PathBuf, what: String },
}

impl CredentialsError {
    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            CredentialsError::Open { place, .. } => Some(format!("chmod 600 {}", place.display())),
            CredentialsError::Form { .. } => {
                Some("write {\"auths\":{\"registry.example\":{\"username\":\"…\",\"password\":\"…\"}}}".to_owned())
            }
            CredentialsError::Read { .. } => None,
        }
    }
}

/// A user of a registry.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: Zeroizing<String>,
}

/// Users of registries. Cheap to clone.
#[derive(Clone, Default)]
pub struct Credentials {
    of: Arc<BTreeMap<String, Login>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
    creds_store: Option<serde::de::IgnoredAny>,
    cred_helpers: Option<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
struct Entry {
    auth: Option<Zeroizing<String>>,
    username: Option<String>,
    password: Option<Zeroizing<String>>,
}

impl Credentials {
    /// Reads a file of the form that docker, podman and oras write: `auths` with `auth`, or with `username` and `password`.
    pub fn read(place: &Path) -> Result<Self, CredentialsError> {
        let failed = |source| CredentialsError::Read { place: place.to_owned(), source };
        let mode = fs::metadata(place).map_err(failed)?.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(CredentialsError::Open { place: place.to_owned(), mode });
        }
        let text = Zeroizing::new(fs::read(place).map_err(failed)?);
        Self::parse(&text).map_err(|what| CredentialsError::Form { place: place.to_owned(), what })
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        // What the parser says could quote what it read.
        let file: File = serde_json::from_slice(text).map_err(|error| {
            format!("line {}, column {} is not what is expected there", error.line(), error.column())
        })?;
        if file.creds_store.is_some() || file.cred_helpers.is_some() {
            return Err("it names programs that give credentials, which this server does not run".to_owned());
        }
        let mut of = BTreeMap::new();
        for (registry, entry) in file.auths {
            let login = login(entry)
                .ok_or_else(|| format!("the entry of {registry} has neither auth nor username and password"))?;
            of.insert(name_of(&registry), login);
        }
        Ok(Self { of: Arc::new(of) })
    }

    pub(super) fn of(&self, registry: &str) -> Option<&Login> {
        self.of.get(registry)
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.of.keys()).finish()
    }
}

fn login(entry: Entry) -> Option<Login> {
    match entry {
        Entry { username: Some(user), password: Some(password), .. } => Some(Login { user, password }),
        Entry { auth: Some(auth), .. } => {
            let both = Zeroizing::new(BASE64_STANDARD.decode(auth.as_bytes()).ok()?);
            let (user, password) = std::str::from_utf8(&both).ok()?.split_once(':')?;
            Some(Login { user: user.to_owned(), password: Zeroizing::new(password.to_owned()) })
        }
        _ => None,
    }
}

/// The registry of an entry, as references name it: some tools write an address.
fn name_of(entry: &str) -> String {
    let name = entry.split_once("://").map_or(entry, |(_, rest)| rest);
    let name = name.split('/').next().unwrap_or(name).to_ascii_lowercase();
    match name.as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        _ => name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_read_as_other_tools_write_them_and_shown_by_nobody() {
        let text = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YWRhOnMzY3JldDp4"},"Localhost:5000":{"username":"bob","password":"hush"}}}"#;
        let credentials = Credentials::parse(text.as_bytes()).unwrap();
        let of = |registry: &str| credentials.of(registry).map(|login| (login.user.as_str(), login.password.as_str()));
        assert_eq!(of("docker.io"), Some(("ada", "s3cret:x")));
        assert_eq!(of("localhost:5000"), Some(("bob", "hush")));
        assert_eq!(of("registry.example"), None);
        assert_eq!(format!("{credentials:?}"), r#"{"docker.io", "localhost:5000"}"#);
        let refused = |text: &str| Credentials::parse(text.as_bytes()).unwrap_err();
        assert_eq!(refused(r#"{"auths":{"a":{"password":hush}}}"#), "line 1, column 27 is not what is expected there");
        assert!(refused(r#"{"auths":{"a":{"auth":"???"}}}"#).contains("the entry of a has neither"));
        assert!(refused(r#"{"auths":{},"credsStore":"desktop"}"#).contains("programs"));
    }

    #[test]
    fn a_file_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let place = dir.path().join("auth.json");
        fs::write(&place, r#"{"auths":{}}"#).unwrap();
        fs::set_permissions(&place, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(Credentials::read(&place).unwrap_err().to_string().ends_with("its mode is 640"));
        fs::set_permissions(&place, fs::Permissions::from_mode(0o600)).unwrap();
        Credentials::read(&place).unwrap();
    }
}
