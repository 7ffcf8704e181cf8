//! A component that is ready to run.

use crate::accept::AcceptError;
use crate::call_error::CallError;
use crate::contract::{self, ROLES, Role};
use crate::deployment::Deployment;
use crate::digest::Digest;
use crate::engine::StreamEngine;
use crate::guest::Guest;
use crate::imports;
use crate::instance::Instance;
use crate::memory::HostMemory;
use crate::state::StateStore;
use nodata_log::{Clock, Log, TaskKey};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
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
    /// Of an aggregate that says which group an event belongs to.
    pub(crate) grouper: Option<ComponentExportIndex>,
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

impl Program {
    /// Checks the imports of a component against what the host offers.
    pub(crate) fn link(digest: Digest, component: &Component, machine: Arc<Machine>) -> Result<Self, AcceptError> {
        let pre = machine
            .linker
            .instantiate_pre(component)
            .map_err(|error| AcceptError::Import { message: format!("{error:#}") })?;
        let mut exports = BTreeMap::new();
        for role in ROLES {
            let export = contract::interface(role.interface());
            let Some(interface) = component.get_export_index(None, &export) else { continue };
            let of = |name: &&str| {
                let function = component.get_export_index(Some(&interface), name);
                let message = format!("there is no function `{name}`");
                function.ok_or_else(|| AcceptError::Export { export: export.clone(), message })
            };
            exports.insert(*role, role.functions().iter().map(of).collect::<Result<_, _>>()?);
        }
        let (interface, function) = contract::GROUPER;
        let grouper = component.get_export_index(None, contract::interface(interface));
        let grouper = grouper.and_then(|interface| component.get_export_index(Some(&interface), function));
        Ok(Self { inner: Arc::new(ProgramInner { digest, pre, exports, grouper, machine }) })
    }

    /// What it can be started as.
    pub(crate) fn roles(&self) -> impl Iterator<Item = Role> {
        self.inner.exports.keys().copied()
    }

    /// Names the component.
    pub fn digest(&self) -> Digest {
        self.inner.digest
    }

    /// Starts an instance. This runs code of the component, so it is done on a guest thread
    /// ([`Runtime::spawn`](crate::Runtime::spawn)).
    pub async fn instantiate(&self, settings: InstanceSettings) -> Result<Instance, CallError> {
        let InstanceSettings { role, deployment, task, log } = settings;
        Instance::start(&self.inner, role, deployment, task.source.partition, Some(StateStore { task, log })).await
    }
}
