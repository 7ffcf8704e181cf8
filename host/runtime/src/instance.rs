//! A running component: one store, one instance, one task.

use crate::accept::AcceptError;
use crate::call_error::{CallError, CallErrorReason};
use crate::contract::{self, Role};
use crate::deployment::{Deployment, InstanceLimits};
use crate::guest::Guest;
use crate::imports::types::{BatchHandle, CollectorHandle, GuestError};
use crate::input::{Input, InputColumns};
use crate::limits::{HOSTCALL_BYTES_MAX, RESOURCES_MAX};
use crate::output::Output;
use crate::program::ProgramInner;
use crate::state::StateStore;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use wasmtime::Store;
use wasmtime::component::{Resource, TypedFunc};

type Process = TypedFunc<(Resource<BatchHandle>, Resource<CollectorHandle>), (Result<(), GuestError>,)>;

/// A running component, for one task. It is called with one batch after the other.
///
/// Calls compute, so they belong on a guest thread ([`Runtime::spawn`](crate::Runtime::spawn)).
pub struct Instance {
    /// `None` when it has ended.
    live: Option<Live>,
}

struct Live {
    store: Store<Guest>,
    process: Process,
}

impl Instance {
    /// Starts an instance; without a store for its state it is only tried out.
    pub(crate) async fn start(
        program: &ProgramInner,
        deployment: Arc<Deployment>,
        partition: u32,
        state: Option<StateStore>,
    ) -> Result<Self, CallError> {
        match Self::try_start(program, deployment, partition, state).await? {
            Ok(instance) => Ok(instance),
            // It was checked when the component was accepted.
            Err(error) => Err(CallError::new(CallErrorReason::Host(error.to_string()))),
        }
    }

    /// The same, with an export of another type told apart from a component that does not start.
    pub(crate) async fn try_start(
        program: &ProgramInner,
        deployment: Arc<Deployment>,
        partition: u32,
        state: Option<StateStore>,
    ) -> Result<Result<Self, AcceptError>, CallError> {
        let limits = deployment.limits;
        let machine = &program.machine;
        let guest = Guest::new(deployment, partition, state, machine.memory.clone(), machine.clock.clone());
        let mut store = Store::new(&machine.stream.engine, guest);
        store.limiter(|guest| &mut guest.memory);
        store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
        store.set_max_component_handles(RESOURCES_MAX);
        store.epoch_deadline_callback(|mut cx| cx.data_mut().budget.tick());
        store.data_mut().budget.begin(limits.start_cpu);
        store.set_epoch_deadline(1);
        let instance = match within(limits.start_wall, program.pre.instantiate_async(&mut store)).await {
            Some(Ok(instance)) => instance,
            Some(Err(error)) => return Err(CallError::ended(&error, limits.start_cpu, store.data_mut())),
            None => return Err(CallError::out_of_time(limits.start_wall, store.data())),
        };
        Ok(match instance.get_typed_func(&mut store, program.process) {
            Ok(process) => Ok(Self { live: Some(Live { store, process }) }),
            Err(error) => {
                let export = contract::interface(Role::Transform.interface());
                Err(AcceptError::Export { export, message: format!("{error:#}") })
            }
        })
    }

    /// Gives the component a batch. What comes back well is to be committed as one unit; after an error nothing of the call
    /// is left, and the same input can be given again.
    ///
    /// Dropping the future ends the instance.
    pub async fn process(&mut self, input: Input) -> Result<Output, CallError> {
        // It is put back when the call has returned: a call that is given up, and a trap, leave a store that cannot be used.
        let Some(mut live) = self.live.take() else { return Err(CallError::new(CallErrorReason::Ended)) };
        let limits = live.begin(input);
        let call = live.process.call_async(&mut live.store, (Resource::new_borrow(0), Resource::new_borrow(0)));
        match within(limits.call_wall, call).await {
            Some(Ok((Ok(()),))) => {
                let output = live.finish();
                self.live = Some(live);
                output
            }
            Some(Ok((Err(error),))) => {
                live.store.data_mut().input = None;
                let error = CallError::returned(error, live.store.data());
                self.live = Some(live);
                Err(error)
            }
            Some(Err(error)) => Err(CallError::ended(&error, limits.call_cpu, live.store.data_mut())),
            None => Err(CallError::out_of_time(limits.call_wall, live.store.data())),
        }
    }

    /// Whether it can be called.
    pub fn is_alive(&self) -> bool {
        self.live.is_some()
    }

    /// Bytes of linear memory. They never become fewer: an instance that has many is better replaced.
    pub fn memory_bytes(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.store.data().memory.used())
    }
}

impl Live {
    fn begin(&mut self, input: Input) -> InstanceLimits {
        let guest = self.store.data_mut();
        let now_us = guest.clock.now_us();
        let limits = guest.deployment.limits;
        if let Some(collector) = &mut guest.collector {
            collector.begin(input.partition(), input.len(), now_us);
        }
        guest.input = Some(InputColumns::new(input));
        guest.state.begin();
        guest.memory.take_refusal();
        guest.budget.begin(limits.call_cpu);
        self.store.set_epoch_deadline(1);
        limits
    }

    fn finish(&mut self) -> Result<Output, CallError> {
        let guest = self.store.data_mut();
        guest.input = None;
        let state = guest.state.finish();
        let host = |what: String| CallError::new(CallErrorReason::Host(what));
        let collector = guest.collector.as_mut().ok_or_else(|| host("the collector is gone".to_owned()))?;
        collector.finish(state).map_err(|error| host(error.to_string()))
    }
}

/// Waits for a future at most so long. One that is ready at once costs no timer.
async fn within<F: Future>(max: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    match std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        Poll::Ready(output) => Some(output),
        Poll::Pending => tokio::time::timeout(max, future).await.ok(),
    }
}
