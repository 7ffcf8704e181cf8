//! Why a component could not be taken or found.

use crate::images::ImageError;
use crate::limits::{DIGEST_DIGITS_MIN, INTAKES_MAX};
use crate::registry::policy::PolicyRefusal;
use crate::registry::reference::{ComponentRef, ReferenceError, VersionRef};
use nodata_log::{ErrorKind, LogError, Name};
use nodata_runtime::AcceptError;
use semver::Version;
use std::io;
use thiserror::Error;

/// Why a component could not be taken or found.
#[derive(Debug, Error)]
pub enum RegistryError {
    #[error("{0}")]
    Accept(#[from] AcceptError),
    #[error(transparent)]
    Reference(#[from] ReferenceError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Policy(#[from] PolicyRefusal),
    #[error("component `{name}` does not exist")]
    Unknown { name: Name },
    #[error("component `{}` has no version {}", reference.name, reference.version)]
    UnknownVersion { reference: ComponentRef },
    #[error("component `{}` has several versions whose digests begin with {}", reference.name, reference.version)]
    Ambiguous { reference: ComponentRef },
    #[error("`{label}` is the label of another version of component `{name}`, sha256:{digest}, and remains that")]
    LabelTaken { name: Name, label: Version, digest: String },
    #[error("component `{name}` may have several versions, and only one can be deleted at once")]
    WhichVersion { name: Name },
    #[error("component `{}` is being deployed or deleted", .reference)]
    Busy { reference: ComponentRef },
    #[error("component `{name}`, sha256:{digest}, is needed by deployment {}", deployments.join(", "))]
    InUse { name: String, digest: String, deployments: Vec<String> },
    #[error("who uploads a component: {what}")]
    By { what: String },
    #[error("{INTAKES_MAX} components are being taken, which is the most at once")]
    TooManyAtOnce,
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
            RegistryError::Image(error) => error.kind(),
            RegistryError::Policy(_) => ErrorKind::Denied,
            RegistryError::Unknown { .. } | RegistryError::UnknownVersion { .. } => ErrorKind::NotFound,
            RegistryError::Reference(_) | RegistryError::Ambiguous { .. } | RegistryError::By { .. } => {
                ErrorKind::Invalid
            }
            RegistryError::WhichVersion { .. } => ErrorKind::Invalid,
            RegistryError::TooManyAtOnce => ErrorKind::Exhausted,
            RegistryError::LabelTaken { .. } | RegistryError::Busy { .. } | RegistryError::InUse { .. } => {
                ErrorKind::Conflict
            }
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
            RegistryError::Image(error) => error.reason(),
            RegistryError::Policy(_) => "NOT_TRUSTED",
            RegistryError::Reference(ReferenceError::Name(_)) => "NAME",
            RegistryError::Reference(_) | RegistryError::Ambiguous { .. } => "VERSION",
            RegistryError::Unknown { .. } => "UNKNOWN_COMPONENT",
            RegistryError::UnknownVersion { .. } => "UNKNOWN_VERSION",
            RegistryError::LabelTaken { .. } => "LABEL_TAKEN",
            RegistryError::WhichVersion { .. } => "WHICH_VERSION",
            RegistryError::TooManyAtOnce => "TOO_MANY_AT_ONCE",
            RegistryError::Busy { .. } => "BUSY",
            RegistryError::InUse { .. } => "IN_USE",
            RegistryError::By { .. } => "UPLOADED_BY",
            RegistryError::Write(_) => "WRITE_FAILED",
            RegistryError::Log(error) => error.reason(),
            RegistryError::Entry { .. } => "DAMAGED",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            RegistryError::Accept(error) => error.hint(),
            RegistryError::Image(error) => error.hint(),
            RegistryError::Policy(error) => error.hint(),
            RegistryError::Unknown { name } => {
                Some(format!("upload it with `nodata component push FILE --name {name}`"))
            }
            RegistryError::UnknownVersion { reference } => Some(match reference.version {
                VersionRef::Major(number) if number.to_string().len() >= DIGEST_DIGITS_MIN => {
                    format!("this is a label; the digest that begins so is sha256:{number}")
                }
                _ => format!("see which there are: `nodata component versions {}`", reference.name),
            }),
            RegistryError::Ambiguous { .. } => Some("give more digits".to_owned()),
            RegistryError::WhichVersion { name } => Some(format!(
                "name it: `{name}@2.1.0` or `{name}@sha256:27b3cf`; `nodata component versions {name}` shows them"
            )),
            RegistryError::TooManyAtOnce => Some("try again when one of them is done".to_owned()),
            RegistryError::Busy { .. } => Some("try again when that is done".to_owned()),
            RegistryError::InUse { .. } => {
                Some("deploy another version there, or delete the deployment, or what is kept of it".to_owned())
            }
            RegistryError::LabelTaken { .. } => Some("give the new version another label".to_owned()),
            _ => None,
        }
    }
}
