//! What is known of a component.

use crate::limits::UPLOADED_BY_BYTES_MAX;
use crate::registry::RegistryError;
use nodata_log::{Name, TimestampUs};
use semver::Version;
use serde::{Deserialize, Serialize};

/// A version of a component, as it is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentEntry {
    pub name: String,
    pub digest: String,
    /// The highest first. Each is an entry of its own.
    #[serde(skip)]
    pub labels: Vec<Version>,
    pub bytes: u64,
    pub roles: Vec<String>,
    /// The interfaces that it exports beside its roles.
    #[serde(default)]
    pub extras: Vec<String>,
    pub imports: Vec<String>,
    pub uploaded_us: TimestampUs,
    /// Who uploaded it, as the client said. Nobody has checked it.
    #[serde(default)]
    pub uploaded_by: String,
    /// The address that it came from.
    #[serde(default)]
    pub uploaded_from: String,
    #[serde(default)]
    pub source: ComponentSource,
    /// The key whose signature was checked when it was taken, if one was asked for.
    #[serde(default)]
    pub signed_by: Option<String>,
}

/// Where the bytes of a component came from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ComponentSource {
    #[default]
    Upload,
    /// An image of another registry: what was asked for, and the digest of the manifest that this was then.
    Image { reference: String, manifest_digest: String },
}

/// What comes with the bytes of a component.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewComponent {
    pub name: Name,
    pub label: Option<Version>,
    pub by: String,
    pub from: String,
    pub source: ComponentSource,
    /// As minisign writes it. Empty: none.
    pub signature: String,
}

impl NewComponent {
    /// One of which nothing else is known.
    pub fn named(name: Name) -> Self {
        Self {
            name,
            label: None,
            by: String::new(),
            from: String::new(),
            source: ComponentSource::Upload,
            signature: String::new(),
        }
    }

    pub(super) fn check(&self) -> Result<(), RegistryError> {
        let what = if self.by.len() > UPLOADED_BY_BYTES_MAX {
            format!("it has {} bytes; at most {UPLOADED_BY_BYTES_MAX} are allowed", self.by.len())
        } else if let Some(control) = self.by.chars().find(|c| c.is_control()) {
            format!("it contains the control character {control:?}")
        } else {
            return Ok(());
        };
        Err(RegistryError::By { what })
    }
}
