//! Why there is no image.

use crate::images::ImageRef;
use nodata_log::ErrorKind;
use nodata_runtime::limits::COMPONENT_BYTES_MAX;
use nodata_runtime::{Digest, HttpGetError};
use std::time::Duration;
use thiserror::Error;

/// Why there is no image, or none that is a component.
#[derive(Debug, Error)]
pub enum ImageError {
    #[error("`{text}` is no image: {why}")]
    Reference { text: String, why: String },
    #[error("registry {registry} is not one that this server may ask")]
    NotListed { registry: String },
    #[error("registry {registry}: {what}")]
    Unreachable { registry: String, what: String },
    #[error("registry {registry} answers with {what}")]
    Answer { registry: String, what: String },
    #[error("registry {registry} takes longer than {} s", wall.as_secs())]
    TooSlow { registry: String, wall: Duration },
    #[error("registry {registry} is asked too often")]
    TooMany { registry: String },
    #[error("registry {registry} does not give image {image} to {}", if *is_known { "the user that this server is there" } else { "just anybody" })]
    Denied { image: String, registry: String, is_known: bool },
    #[error("there is no image {image}")]
    Unknown { image: String },
    #[error("image {image} is no component: {what}")]
    NoComponent { image: String, what: String },
    #[error("the component of image {image} has {bytes} bytes; a component may have {COMPONENT_BYTES_MAX} ({} MiB)", COMPONENT_BYTES_MAX >> 20)]
    TooLarge { image: String, bytes: u64 },
    #[error("the component of image {image} has more than the {bytes} bytes that its manifest says")]
    Longer { image: String, bytes: u64 },
    #[error(
        "the {what} of image {image} is not the one that was asked for: its digest is sha256:{found}, not sha256:{expected}"
    )]
    OtherBytes { image: String, what: &'static str, expected: Digest, found: Digest },
}

impl ImageError {
    pub(super) fn unreachable(image: &ImageRef, error: &HttpGetError) -> Self {
        ImageError::Unreachable { registry: image.registry.clone(), what: error.to_string() }
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ImageError::Reference { .. } | ImageError::NoComponent { .. } | ImageError::TooLarge { .. } => {
                ErrorKind::Invalid
            }
            ImageError::NotListed { .. } | ImageError::Denied { .. } => ErrorKind::Denied,
            ImageError::Unknown { .. } => ErrorKind::NotFound,
            ImageError::TooMany { .. } => ErrorKind::Exhausted,
            ImageError::Unreachable { .. } | ImageError::Answer { .. } | ImageError::TooSlow { .. } => {
                ErrorKind::Unavailable
            }
            ImageError::Longer { .. } | ImageError::OtherBytes { .. } => ErrorKind::Corrupt,
        }
    }

    /// A word that a program can match.
    pub fn reason(&self) -> &'static str {
        match self {
            ImageError::Reference { .. } => "IMAGE",
            ImageError::NotListed { .. } => "REGISTRY_NOT_LISTED",
            ImageError::Unreachable { .. }
            | ImageError::Answer { .. }
            | ImageError::TooSlow { .. }
            | ImageError::TooMany { .. } => "REGISTRY_FAILED",
            ImageError::Denied { .. } => "REGISTRY_DENIED",
            ImageError::Unknown { .. } => "UNKNOWN_IMAGE",
            ImageError::NoComponent { .. } | ImageError::TooLarge { .. } => "COMPONENT_REFUSED",
            ImageError::Longer { .. } | ImageError::OtherBytes { .. } => "OTHER_BYTES",
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ImageError::Reference { .. } => Some(
                "write REGISTRY/PATH:TAG or REGISTRY/PATH@sha256:DIGEST, such as registry.example/acme/redact:1.2.0"
                    .to_owned(),
            ),
            ImageError::NotListed { registry } => {
                Some(format!("whoever runs the server can list it: `nodata serve --registry-allow {registry}`"))
            }
            ImageError::Denied { registry, .. } => Some(format!(
                "whoever runs the server can say who it is at {registry}: `nodata serve --registry-auth FILE`"
            )),
            ImageError::NoComponent { .. } => {
                Some("push the .wasm file as the only layer, of type application/wasm: `wkg oci push` does".to_owned())
            }
            ImageError::TooLarge { .. } => Some("leave out the debug information: `wasm-tools strip`".to_owned()),
            _ => None,
        }
    }
}
