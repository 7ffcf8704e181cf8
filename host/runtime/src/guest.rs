//! Everything of the host that belongs to one instance.

use crate::collector::Collector;
use crate::contract::Role;
use crate::deployment::{Deployment, InstanceLimits};
use crate::guest_log::LogSource;
use crate::imports::wasi::{self, Requests};
use crate::input::InputColumns;
use crate::limits::{RESOURCES_MAX, TICK_MS};
use crate::memory::{HostMemory, InstanceMemory};
use crate::state::{StateBounds, StateStore, StateTables};
use crate::stdio::GuestStream;
use nodata_log::Clock;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use wasmtime::UpdateDeadline;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView, WasiHttpView};

/// The data of a store.
pub(crate) struct Guest {
    pub(crate) deployment: Arc<Deployment>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) memory: InstanceMemory,
    pub(crate) budget: CpuBudget,
    /// Calls so far.
    pub(crate) calls: u32,
    /// The batch of the call in hand.
    pub(crate) input: Option<InputColumns>,
    /// Taken out while it reads the memory of the guest.
    pub(crate) collector: Option<Box<Collector>>,
    pub(crate) state: StateTables,
    pub(crate) stderr: GuestStream,
    pub(crate) resources: ResourceTable,
    wasi: WasiCtx,
    http: WasiHttpCtx,
    hooks: Requests,
}

impl Guest {
    pub(crate) fn new(
        deployment: Arc<Deployment>,
        role: Role,
        partition: u32,
        state: Option<StateStore>,
        host_memory: Arc<HostMemory>,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let limits: InstanceLimits = deployment.limits.within_ceilings();
        let stdout = GuestStream::new(deployment.log.clone(), LogSource::Stdout, partition);
        let stderr = GuestStream::new(deployment.log.clone(), LogSource::Stderr, partition);
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(RESOURCES_MAX);
        let state_bounds = StateBounds { write_bytes: limits.state_write_bytes, bytes: limits.state_bytes };
        let mut collector = Collector::new(deployment.ports.clone(), limits.output_bytes, limits.output_events);
        match role {
            Role::Source => collector.take_checkpoints(),
            Role::Transform | Role::Sink => collector.take_defers(),
            // Groups are of the whole batch.
            Role::Aggregate => {}
        }
        Self {
            memory: InstanceMemory::new(host_memory, limits.memory_bytes),
            budget: CpuBudget::default(),
            calls: 0,
            input: None,
            collector: Some(Box::new(collector)),
            state: StateTables::new(state, state_bounds),
            wasi: wasi::context(stdout, stderr.clone(), clock.clone()),
            http: wasi::http_context(),
            hooks: Requests::new(deployment.http.clone(), deployment.log.clone(), partition),
            stderr,
            resources,
            deployment,
            clock,
        }
    }
}

impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.resources }
    }
}

impl WasiHttpView for Guest {
    fn http(&mut self) -> WasiHttpCtxView<'_> {
        WasiHttpCtxView { ctx: &mut self.http, table: &mut self.resources, hooks: &mut self.hooks }
    }
}

/// Processor time of a call, counted in ticks of the engine.
#[derive(Debug, Default)]
pub(crate) struct CpuBudget {
    ticks: u64,
    ticks_max: u64,
}

/// A call used more processor time than it may.
#[derive(Clone, Copy, Debug, Error)]
#[error("out of processor time")]
pub(crate) struct OutOfCpu;

impl CpuBudget {
    /// Begins to count anew.
    pub(crate) fn begin(&mut self, max: Duration) {
        self.ticks = 0;
        self.ticks_max = (max.as_millis() as u64).div_ceil(TICK_MS);
    }

    /// Another tick has begun while the guest was computing: it gives way to its neighbours, or it ends.
    pub(crate) fn tick(&mut self) -> wasmtime::Result<UpdateDeadline> {
        self.ticks += 1;
        if self.ticks > self.ticks_max { Err(OutOfCpu.into()) } else { Ok(UpdateDeadline::Yield(1)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_counted_in_ticks() {
        let mut budget = CpuBudget::default();
        budget.begin(Duration::from_millis(2 * TICK_MS - 1));
        assert!(matches!(budget.tick(), Ok(UpdateDeadline::Yield(1))));
        assert!(budget.tick().is_ok());
        assert!(budget.tick().is_err_and(|error| error.is::<OutOfCpu>()));
        budget.begin(Duration::from_millis(TICK_MS));
        assert!(budget.tick().is_ok());
    }
}
