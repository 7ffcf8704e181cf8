//! A component that is ready to run.

use crate::accept::AcceptError;
use crate::call_error::{CallError, CallErrorReason};
use crate::contract::{self, EXTRAS, Extra, ROLES, Role};
use crate::deployment::Deployment;
use crate::digest::Digest;
use crate::engine::StreamEngine;
use crate::guest::Guest;
use crate::imports;
use crate::instance::Instance;
use crate::memory::HostMemory;
use crate::ports::DescribedPort;
use crate::state::StateStore;
use nodata_log::{Clock, ErrorKind, Log, TaskKey};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use thiserror::Error;
use wasmtime::component::{Component, ComponentExportIndex, InstancePre, Linker};

/// What all programs share.
pub(crate) struct Machine {
    pub(crate) stream: StreamEngine,
    linker: Linker<Guest>,
    pub(crate) memory: Arc<HostMemory>,
    pub(crate) clock: Arc<dyn Clock>,
}

impl Machine {
    pub(crate) fn start(memory_bytes_max: u64, clock: Arc<dyn Clock>) -> wasmtime::Result<Self> {
        let stream = StreamEngine::start()?;
        let linker = imports::link(&stream.engine)?;
        Ok(Self { stream, linker, memory: HostMemory::new(memory_bytes_max), clock })
    }
}

/// A component that is loaded and whose imports were checked against what the host offers. Cheap to clone.
#[derive(Clone)]
pub struct Program {
    pub(crate) inner: Arc<ProgramInner>,
}

pub(crate) struct ProgramInner {
    digest: Digest,
    pub(crate) pre: InstancePre<Guest>,
    /// The functions of each role that the component exports, in the order of the contract.
    pub(crate) exports: BTreeMap<Role, Vec<ComponentExportIndex>>,
    /// The functions of what it exports beside its roles, in the order of the contract.
    pub(crate) extras: BTreeMap<Extra, Vec<ComponentExportIndex>>,
    pub(crate) machine: Arc<Machine>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("digest", &self.inner.digest).finish()
    }
}

/// For whom an instance works.
#[derive(Clone)]
pub struct InstanceSettings {
    /// What it works as.
    pub role: Role,
    pub deployment: Arc<Deployment>,
    /// Whose state tables these are.
    pub task: TaskKey,
    /// Where the state tables are read.
    pub log: Arc<dyn Log>,
}

/// Why a component cannot be deployed so.
#[derive(Clone, Debug, Error)]
pub enum TrialError {
    #[error("does not start: {0}")]
    Start(CallError),
    #[error("does not describe its ports: {}", .0.words())]
    Describe(CallError),
    /// It said so, or it failed at it.
    #[error("does not open: {}", .0.words())]
    Open(CallError),
}

impl TrialError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            TrialError::Start(error) | TrialError::Describe(error) | TrialError::Open(error) => error.kind(),
        }
    }
}

impl Program {
    /// Checks the imports of a component against what the host offers.
    pub(crate) fn link(digest: Digest, component: &Component, machine: Arc<Machine>) -> Result<Self, AcceptError> {
        let pre = machine
            .linker
            .instantiate_pre(component)
            .map_err(|error| AcceptError::Import { message: format!("{error:#}") })?;
        let of = |name: &str, functions: &[&str]| {
            let export = contract::interface(name);
            let Some(interface) = component.get_export_index(None, &export) else { return Ok(None) };
            let index = |name: &&str| {
                let function = component.get_export_index(Some(&interface), name);
                let message = format!("there is no function `{name}`");
                function.ok_or_else(|| AcceptError::Export { export: export.clone(), message })
            };
            functions.iter().map(index).collect::<Result<Vec<_>, _>>().map(Some)
        };
        let mut exports = BTreeMap::new();
        for role in ROLES {
            exports.extend(of(role.interface(), role.functions())?.map(|functions| (*role, functions)));
        }
        let mut extras = BTreeMap::new();
        for extra in EXTRAS {
            extras.extend(of(extra.interface(), extra.functions())?.map(|functions| (*extra, functions)));
        }
        Ok(Self { inner: Arc::new(ProgramInner { digest, pre, exports, extras, machine }) })
    }

    /// What it can be started as.
    pub(crate) fn roles(&self) -> impl Iterator<Item = Role> {
        self.inner.exports.keys().copied()
    }

    /// Whether the component exports this beside its role.
    pub fn has(&self, extra: Extra) -> bool {
        self.inner.extras.contains_key(&extra)
    }

    /// Names the component.
    pub fn digest(&self) -> Digest {
        self.inner.digest
    }

    /// Starts an instance, and opens it if it wants to be. This runs code of the component, so it is done on a guest thread
    /// ([`Runtime::spawn`](crate::Runtime::spawn)).
    pub async fn instantiate(&self, settings: InstanceSettings) -> Result<Instance, CallError> {
        let InstanceSettings { role, deployment, task, log } = settings;
        let store = Some(StateStore { task, log });
        let mut instance = Instance::start(&self.inner, role, deployment, task.source.partition, store).await?;
        instance.open_up().await.map_err(CallError::at_open)?;
        Ok(instance)
    }

    /// Starts an instance that is thrown away, and finds out what it says of its ports, and whether it opens with what this
    /// deployment says. It has no state.
    pub async fn try_out(
        &self,
        role: Role,
        deployment: Arc<Deployment>,
    ) -> Result<Option<Vec<DescribedPort>>, TrialError> {
        let mut instance = Instance::start(&self.inner, role, deployment, 0, None).await.map_err(TrialError::Start)?;
        let ports = instance.ports().await.map_err(TrialError::Describe)?;
        match instance.open_up().await {
            // It has nothing to do, and it may have somebody to say goodbye to. Nobody waits for how that ends.
            Ok(()) => drop(instance.let_go().await),
            Err(error) if matches!(error.reason(), CallErrorReason::Transient(_)) => {}
            Err(error) => return Err(TrialError::Open(error)),
        }
        Ok(ports)
    }
}
