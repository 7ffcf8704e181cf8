//! Accepting an upload: everything that must be true of a component before a deployment may use it.
//!
//! 1. It has a size that is allowed, and it is a component and nothing else.
//! 2. It is small enough in every respect, and valid.
//! 3. It was built against a contract that this host knows, and exports something that this host runs.
//! 4. It compiles, in a child process that may fail.
//! 5. The host offers everything it imports, with the same types.
//! 6. It starts, in a store that is thrown away, and what it exports has the types of the contract.

use crate::call_error::CallError;
use crate::compile::CompileError;
use crate::contract::{self, Extra, ROLES, Role};
use crate::digest::Digest;
use crate::limits::COMPONENT_BYTES_MAX;
use nodata_log::ErrorKind;
use std::io;
use thiserror::Error;

/// What is known about a component that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ComponentInfo {
    /// Of the file; it names the component for ever.
    pub digest: Digest,
    /// Size of the file.
    pub bytes: u64,
    /// What the component can be deployed as.
    pub roles: Vec<Role>,
    /// What it exports beside that.
    pub extras: Vec<Extra>,
    /// The version of the contract that it was built against.
    pub contract: String,
    /// Full names of the interfaces it imports: what it wants from a host.
    pub imports: Vec<String>,
    /// Full names of the interfaces it exports.
    pub exports: Vec<String>,
    /// Its world as WIT text, for people.
    pub wit: String,
}

/// What is being done about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AcceptStage {
    /// Whether it is a component, and what it imports and exports.
    Checking,
    /// One is compiled at a time.
    Waiting,
    Compiling,
    /// An instance is started that is granted nothing.
    Trying,
}

/// Why a file was not accepted.
#[derive(Debug, Error)]
pub enum AcceptError {
    #[error("the file is empty")]
    Empty,
    #[error("the file has {bytes} bytes; a component may have {COMPONENT_BYTES_MAX} ({} MiB)", COMPONENT_BYTES_MAX >> 20)]
    TooLarge { bytes: usize },
    #[error("this is not a WebAssembly component; it looks like {looks_like}")]
    NotWasm { looks_like: &'static str },
    #[error("this is WebAssembly in its text format")]
    Text,
    #[error("this is machine code that wasmtime made of a component (.cwasm)")]
    Precompiled,
    #[error("this is a core WebAssembly module, not a component")]
    CoreModule,
    #[error("this is WebAssembly of a version that is neither a module nor a component")]
    UnknownVersion,
    #[error("the component is not valid: {message}")]
    NotValid { message: String },
    #[error("the component has {count} {what}, at most {max} are allowed")]
    TooComplex { what: &'static str, count: u64, max: u64 },
    #[error("built against {} {version}; this host offers {}", contract::PACKAGE, contract::version())]
    OtherContract { version: String },
    #[error("the component exports `{export}`; this host runs version {}", contract::version())]
    OtherVersion { export: String },
    #[error("the component exports {}, which is nothing that this host runs", list(exports))]
    NoRole { exports: Vec<String> },
    #[error("the component exports `{export}`, which is nothing for a {}", worlds(roles))]
    NotOfRole { export: String, roles: Vec<Role> },
    #[error(transparent)]
    Compile(#[from] CompileError),
    #[error("the component imports something that this host does not offer: {message}")]
    Import { message: String },
    #[error("`{export}` is not what the contract says: {message}")]
    Export { export: String, message: String },
    #[error("the component does not start: {0}")]
    Start(CallError),
    #[error("the file is not the one that was asked for: its digest is {found}, not {expected}")]
    OtherDigest { expected: Digest, found: Digest },
    #[error("the component could not be read: {0}")]
    Read(#[source] io::Error),
    #[error("the compiled component could not be kept: {0}")]
    Cache(#[source] io::Error),
    #[error("the runtime is stopping")]
    Stopping,
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

fn worlds(roles: &[Role]) -> String {
    roles.iter().map(|role| role.world()).collect::<Vec<_>>().join(" or a ")
}

impl AcceptError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            AcceptError::Compile(error) => error.kind(),
            AcceptError::Read(_) | AcceptError::Cache(_) | AcceptError::Stopping => ErrorKind::Unavailable,
            AcceptError::OtherDigest { .. } => ErrorKind::Corrupt,
            AcceptError::Empty
            | AcceptError::TooLarge { .. }
            | AcceptError::NotWasm { .. }
            | AcceptError::Text
            | AcceptError::Precompiled
            | AcceptError::CoreModule
            | AcceptError::UnknownVersion
            | AcceptError::NotValid { .. }
            | AcceptError::TooComplex { .. }
            | AcceptError::OtherContract { .. }
            | AcceptError::OtherVersion { .. }
            | AcceptError::NoRole { .. }
            | AcceptError::NotOfRole { .. }
            | AcceptError::Import { .. }
            | AcceptError::Export { .. }
            | AcceptError::Start(_) => ErrorKind::Invalid,
        }
    }

    /// What its author can do about it, if we know.
    pub fn hint(&self) -> Option<String> {
        let hint = match self {
            AcceptError::NotWasm { .. } | AcceptError::Empty => "upload the .wasm file that your build made".to_owned(),
            AcceptError::Text => "make a binary of it: `wasm-tools parse text.wat -o component.wasm`".to_owned(),
            AcceptError::Precompiled => {
                "upload the .wasm file it was made from; this host compiles it itself".to_owned()
            }
            AcceptError::CoreModule => {
                "build for `wasm32-wasip2`, or make a component of it: `wasm-tools component new \
                                        module.wasm -o component.wasm`"
                    .to_owned()
            }
            AcceptError::OtherContract { .. } | AcceptError::OtherVersion { .. } => {
                format!("build it against {} {}, or use a newer host", contract::PACKAGE, contract::version())
            }
            AcceptError::NoRole { .. } => {
                let wanted: Vec<String> = ROLES
                    .iter()
                    .map(|role| format!("`{}` (world `{}`)", contract::interface(role.interface()), role.world()))
                    .collect();
                format!("export {}", wanted.join(" or "))
            }
            AcceptError::TooLarge { .. } => "leave out the debug information: `wasm-tools strip`".to_owned(),
            _ => return None,
        };
        Some(hint)
    }
}
