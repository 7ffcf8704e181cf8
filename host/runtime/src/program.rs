//! A component that is ready to run.

use crate::accept::AcceptError;
use crate::call_error::CallError;
use crate::contract::{self, Role};
use crate::deployment::Deployment;
use crate::digest::Digest;
use crate::engine::StreamEngine;
use crate::guest::Guest;
use crate::imports;
use crate::instance::Instance;
use crate::memory::HostMemory;
use crate::state::StateStore;
use nodata_log::{Clock, Log, TaskKey};
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
    pub(crate) process: ComponentExportIndex,
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
        let export = contract::interface(Role::Transform.interface());
        let interface = component.get_export_index(None, &export);
        let process = interface.and_then(|interface| component.get_export_index(Some(&interface), "process"));
        let Some(process) = process else {
            return Err(AcceptError::Export { export, message: "there is no function `process`".to_owned() });
        };
        Ok(Self { inner: Arc::new(ProgramInner { digest, pre, process, machine }) })
    }

    /// Names the component.
    pub fn digest(&self) -> Digest {
        self.inner.digest
    }

    /// Starts an instance. This runs code of the component, so it is done on a guest thread
    /// ([`Runtime::spawn`](crate::Runtime::spawn)).
    pub async fn instantiate(&self, settings: InstanceSettings) -> Result<Instance, CallError> {
        let InstanceSettings { deployment, task, log } = settings;
        Instance::start(&self.inner, deployment, task.source.partition, Some(StateStore { task, log })).await
    }
}
