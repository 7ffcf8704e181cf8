//! A running component: one store, one instance, one task.

use crate::accept::AcceptError;
use crate::call_error::{CallError, CallErrorReason};
use crate::contract::{self, Role};
use crate::deployment::Deployment;
use crate::extras::Extras;
use crate::guest::Guest;
use crate::imports::types::{
    BatchHandle, CollectorHandle, ColumnFromCall, ColumnToGuest, GroupsToGuest, GuestError, MembersToGuest, PollStatus,
};
use crate::input::{Input, InputColumns};
use crate::limits::{ACCUMULATOR_BYTES_MAX, HOSTCALL_BYTES_MAX, RESOURCES_MAX};
use crate::output::Output;
use crate::program::ProgramInner;
use crate::state::StateStore;
use crate::ticker::Pulse;
use bytes::Bytes;
use nodata_log::TimestampUs;
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, ComponentNamedList, ComponentType, Lift, Lower, Resource, TypedFunc};

/// A function that may fail.
pub(crate) type Function<P, R> = TypedFunc<P, (Result<R, GuestError>,)>;
type Handles = (Resource<BatchHandle>, Resource<CollectorHandle>);

/// Groups of an aggregate, by position.
#[derive(Clone, Debug, Default)]
pub struct Groups {
    pub keys: Vec<Bytes>,
    /// Empty without windows.
    pub window_starts: Vec<TimestampUs>,
    pub window_ends: Vec<TimestampUs>,
    /// `None` for a new group.
    pub accumulators: Vec<Option<Bytes>>,
}

/// What a source has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceStatus {
    /// Call it again at once.
    More,
    /// Call it again after so long.
    Idle(Duration),
    /// Never call it again.
    Finished,
}

/// A running component, for one task. It is called with one batch after the other.
///
/// Calls compute, so they belong on a guest thread ([`Runtime::spawn`](crate::Runtime::spawn)).
pub struct Instance {
    /// `None` when it has ended.
    live: Option<Live>,
}

struct Live {
    store: Store<Guest>,
    exports: Exports,
    extras: Extras,
    /// That it works on.
    partition: u32,
    /// Of who ticks for its calls.
    pulse: Arc<Pulse>,
}

/// The functions of a role.
#[derive(Clone, Copy)]
enum Exports {
    Transform {
        process: Function<Handles, ()>,
    },
    Sink {
        write: Function<Handles, ()>,
        flush: Function<(), ()>,
    },
    Source {
        open: Function<(Option<Bytes>,), ()>,
        poll: Function<(u32, Resource<CollectorHandle>), PollStatus>,
        committed: Function<(Bytes,), ()>,
    },
    Aggregate {
        accumulate: Function<Accumulate, ColumnFromCall>,
        merge: Function<(ColumnToGuest, ColumnToGuest), ColumnFromCall>,
        finish: Function<(GroupsToGuest, Resource<CollectorHandle>), ()>,
        render: Function<(GroupsToGuest,), ColumnFromCall>,
    },
}

type Accumulate = (Resource<BatchHandle>, GroupsToGuest, MembersToGuest, Resource<CollectorHandle>);

impl Exports {
    fn of(
        role: Role,
        functions: &[ComponentExportIndex],
        store: &mut Store<Guest>,
        instance: &wasmtime::component::Instance,
    ) -> wasmtime::Result<Self> {
        Ok(match (role, functions) {
            (Role::Transform, [process]) => {
                Exports::Transform { process: instance.get_typed_func(&mut *store, process)? }
            }
            (Role::Sink, [write, flush]) => Exports::Sink {
                write: instance.get_typed_func(&mut *store, write)?,
                flush: instance.get_typed_func(&mut *store, flush)?,
            },
            (Role::Source, [open, poll, committed]) => Exports::Source {
                open: instance.get_typed_func(&mut *store, open)?,
                poll: instance.get_typed_func(&mut *store, poll)?,
                committed: instance.get_typed_func(&mut *store, committed)?,
            },
            (Role::Aggregate, [accumulate, merge, finish, render]) => Exports::Aggregate {
                accumulate: instance.get_typed_func(&mut *store, accumulate)?,
                merge: instance.get_typed_func(&mut *store, merge)?,
                finish: instance.get_typed_func(&mut *store, finish)?,
                render: instance.get_typed_func(&mut *store, render)?,
            },
            _ => wasmtime::bail!("the component is no {}", role.world()),
        })
    }
}

impl Instance {
    /// Starts an instance; without a store for its state it is only tried out.
    pub(crate) async fn start(
        program: &ProgramInner,
        role: Role,
        deployment: Arc<Deployment>,
        partition: u32,
        state: Option<StateStore>,
    ) -> Result<Self, CallError> {
        match Self::try_start(program, role, deployment, partition, state).await? {
            Ok(instance) => Ok(instance),
            // It was checked when the component was accepted.
            Err(error) => Err(CallError::new(CallErrorReason::Host(error.to_string()))),
        }
    }

    /// The same, with an export of another type told apart from a component that does not start.
    pub(crate) async fn try_start(
        program: &ProgramInner,
        role: Role,
        deployment: Arc<Deployment>,
        partition: u32,
        state: Option<StateStore>,
    ) -> Result<Result<Self, AcceptError>, CallError> {
        let limits = deployment.limits;
        let machine = &program.machine;
        let guest = Guest::new(deployment, role, partition, state, machine.memory.clone(), machine.clock.clone());
        let mut store = Store::new(&machine.stream.engine, guest);
        store.limiter(|guest| &mut guest.memory);
        store.set_hostcall_fuel(HOSTCALL_BYTES_MAX);
        store.set_max_component_handles(RESOURCES_MAX);
        store.epoch_deadline_callback(|mut cx| cx.data_mut().budget.tick());
        store.data_mut().budget.begin(limits.start_cpu);
        store.set_epoch_deadline(1);
        let pulse = machine.stream.pulse();
        let ticking = pulse.call();
        let started = within(limits.start_wall, program.pre.instantiate_async(&mut store)).await;
        drop(ticking);
        let instance = match started {
            Some(Ok(instance)) => instance,
            Some(Err(error)) => return Err(CallError::ended(&error, limits.start_cpu, store.data_mut())),
            None => return Err(CallError::out_of_time(limits.start_wall, store.data())),
        };
        let functions = program.exports.get(&role).map_or([].as_slice(), Vec::as_slice);
        let refused = |interface: &str, error: &wasmtime::Error| AcceptError::Export {
            export: contract::interface(interface),
            message: format!("{error:#}"),
        };
        let exports = match Exports::of(role, functions, &mut store, &instance) {
            Ok(exports) => exports,
            Err(error) => return Ok(Err(refused(role.interface(), &error))),
        };
        let mut extras = Extras::default();
        for (extra, functions) in program.extras.iter().filter(|(extra, _)| extra.is_for(role)) {
            if let Err(error) = extras.add(*extra, functions, &mut store, &instance) {
                return Ok(Err(refused(extra.interface(), &error)));
            }
        }
        Ok(Ok(Self { live: Some(Live { store, exports, extras, partition, pulse }) }))
    }

    /// Gives a transform a batch. What comes back well is to be committed as one unit; after an error nothing of the call
    /// is left, and the same input can be given again.
    ///
    /// Dropping the future ends the instance; so it is with all calls.
    pub async fn process(&mut self, input: Input) -> Result<Output, CallError> {
        let Exports::Transform { process } = self.begin(Some(input))? else { return Err(other_role()) };
        self.call(process, handles()).await?;
        self.finish().await
    }

    /// Gives a sink a batch, and has it delivered. What comes back is to be committed with the position behind the batch.
    pub async fn deliver(&mut self, input: Input) -> Result<Output, CallError> {
        let Exports::Sink { write, flush } = self.begin(Some(input))? else { return Err(other_role()) };
        self.call(write, handles()).await?;
        self.call(flush, ()).await?;
        self.finish().await
    }

    /// Opens a source at the position that was committed last.
    pub async fn open(&mut self, position: Option<Bytes>) -> Result<(), CallError> {
        let Exports::Source { open, .. } = self.begin(None)? else { return Err(other_role()) };
        self.call(open, (position,)).await
    }

    /// Asks a source for events. What comes back well is to be committed as one unit.
    pub async fn poll(&mut self, events_max: u32) -> Result<(Output, SourceStatus), CallError> {
        let Exports::Source { poll, .. } = self.begin(None)? else { return Err(other_role()) };
        let status = match self.call(poll, (events_max, Resource::new_borrow(0))).await? {
            PollStatus::More => SourceStatus::More,
            PollStatus::Idle(millis) => SourceStatus::Idle(Duration::from_millis(millis.into())),
            PollStatus::Finished => SourceStatus::Finished,
        };
        Ok((self.finish().await?, status))
    }

    /// Tells a source that everything up to its checkpoint is durable.
    pub async fn committed(&mut self, position: Bytes) -> Result<(), CallError> {
        let Exports::Source { committed, .. } = self.begin(None)? else { return Err(other_role()) };
        self.call(committed, (position,)).await
    }

    /// Gives an aggregate a batch, and answers with the group of each row, where `None` is none. Without an answer the keys of the
    /// events say it. Everything about the batch follows, up to [`accumulate`](Self::accumulate).
    pub async fn group(&mut self, input: Input) -> Result<Option<Vec<Option<Bytes>>>, CallError> {
        let rows = input.len();
        let Exports::Aggregate { .. } = self.begin(Some(input))? else { return Err(other_role()) };
        let Some(keys) = self.extras()?.keys else { return Ok(None) };
        let keys = self.call(keys, (Resource::new_borrow(0),)).await?;
        Ok(Some(keys.elements(rows, "keys", true)?))
    }

    /// Puts accumulators together, pair by pair.
    pub async fn merge(&mut self, left: &[Bytes], right: &[Bytes]) -> Result<Vec<Bytes>, CallError> {
        let Exports::Aggregate { merge, .. } = self.exports()? else { return Err(other_role()) };
        let merged = self.call(merge, (ColumnToGuest::of(left), ColumnToGuest::of(right))).await?;
        let merged = accumulators(merged.elements(left.len(), "merge", false)?, "merge")?;
        Ok(merged.into_iter().flatten().collect())
    }

    /// Folds rows of the batch into groups: the row at each place belongs to the group at the same. The new accumulators, `None` for
    /// a group that goes, and the rest are to be committed as one unit.
    pub async fn accumulate(
        &mut self,
        groups: &Groups,
        members: (Vec<u32>, Vec<u32>),
    ) -> Result<(Vec<Option<Bytes>>, Output), CallError> {
        let Exports::Aggregate { accumulate, .. } = self.exports()? else { return Err(other_role()) };
        let (rows, of) = members;
        let parameters = (
            Resource::new_borrow(0),
            GroupsToGuest::of(groups),
            MembersToGuest { rows, groups: of },
            Resource::new_borrow(0),
        );
        let folded = self.call(accumulate, parameters).await?;
        let folded = accumulators(folded.elements(groups.keys.len(), "accumulate", true)?, "accumulate")?;
        Ok((folded, self.finish().await?))
    }

    /// Tells an aggregate that windows are closed. What it emits is to be committed with their end.
    pub async fn close(&mut self, groups: &Groups) -> Result<Output, CallError> {
        let Exports::Aggregate { finish, .. } = self.begin(None)? else { return Err(other_role()) };
        self.call(finish, (GroupsToGuest::of(groups), Resource::new_borrow(0))).await?;
        self.finish().await
    }

    /// What a reader is shown of groups.
    pub async fn render(&mut self, groups: &Groups) -> Result<Vec<Bytes>, CallError> {
        let Exports::Aggregate { render, .. } = self.begin(None)? else { return Err(other_role()) };
        let rendered = self.call(render, (GroupsToGuest::of(groups),)).await?;
        Ok(rendered.elements(groups.keys.len(), "render", false)?.into_iter().flatten().collect())
    }

    fn exports(&self) -> Result<Exports, CallError> {
        self.live.as_ref().map(|live| live.exports).ok_or_else(ended)
    }

    pub(crate) fn extras(&self) -> Result<Extras, CallError> {
        self.live.as_ref().map(|live| live.extras).ok_or_else(ended)
    }

    /// Whether it can be called.
    pub fn is_alive(&self) -> bool {
        self.live.is_some()
    }

    /// Bytes of linear memory. They never become fewer: an instance that has many is better replaced.
    pub fn memory_bytes(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.store.data().memory.used())
    }

    /// Says how many bytes of keys and values the state tables of its task have before the next call.
    pub fn holds_state(&mut self, bytes: u64) {
        if let Some(live) = &mut self.live {
            live.store.data_mut().state.hold(bytes);
        }
    }

    /// Makes ready for calls about this input; whatever the last ones left is gone.
    fn begin(&mut self, input: Option<Input>) -> Result<Exports, CallError> {
        let Some(live) = &mut self.live else { return Err(ended()) };
        let guest = live.store.data_mut();
        let now_us = guest.clock.now_us();
        guest.calls = guest.calls.wrapping_add(1);
        if let Some(collector) = &mut guest.collector {
            match &input {
                Some(input) => collector.begin(input.partition(), input.len(), now_us),
                // Events without a key have no partition to stay with, so they take turns.
                None => collector.begin(guest.calls, 0, now_us),
            }
        }
        guest.input = input.map(InputColumns::new);
        guest.state.begin();
        Ok(live.exports)
    }

    /// Makes ready for a call that is about no input. Events without a key stay with the partition of the task, as others do.
    pub(crate) fn begin_in_place(&mut self) -> Result<(), CallError> {
        self.begin(None)?;
        if let Some(Live { store, partition, .. }) = &mut self.live {
            let guest = store.data_mut();
            let now_us = guest.clock.now_us();
            if let Some(collector) = &mut guest.collector {
                collector.begin(*partition, 0, now_us);
            }
        }
        Ok(())
    }

    /// Makes ready for a call that is about no input and writes nothing.
    pub(crate) fn begin_reading(&mut self) -> Result<(), CallError> {
        self.begin(None)?;
        if let Some(live) = &mut self.live {
            live.store.data_mut().state.read_only();
        }
        Ok(())
    }

    /// Calls a function that may fail. What it emitted and wrote stays where it is until it is finished or begun anew.
    pub(crate) async fn call<P, R>(&mut self, function: Function<P, R>, parameters: P) -> Result<R, CallError>
    where
        P: ComponentNamedList + Lower + Send + Sync + 'static,
        R: ComponentType + Lift + Send + Sync + 'static,
    {
        let (answer,) = self.invoke(function, parameters).await?;
        match (answer, &mut self.live) {
            (Ok(value), _) => Ok(value),
            (Err(error), Some(live)) => {
                live.store.data_mut().input = None;
                Err(CallError::returned(error, live.store.data()))
            }
            (Err(_), None) => Err(ended()),
        }
    }

    /// Calls a function.
    pub(crate) async fn invoke<P, R>(&mut self, function: TypedFunc<P, R>, parameters: P) -> Result<R, CallError>
    where
        P: ComponentNamedList + Lower + Send + Sync + 'static,
        R: ComponentNamedList + Lift + Send + Sync + 'static,
    {
        // It is put back when the call has returned: a call that is given up, and a trap, leave a store that cannot be used.
        let mut live = self.live.take().ok_or_else(ended)?;
        let guest = live.store.data_mut();
        let limits = guest.deployment.limits;
        guest.memory.take_refusal();
        guest.budget.begin(limits.call_cpu);
        live.store.set_epoch_deadline(1);
        let ticking = live.pulse.call();
        let answered = within(limits.call_wall, function.call_async(&mut live.store, parameters)).await;
        drop(ticking);
        match answered {
            Some(Ok(answer)) => {
                self.live = Some(live);
                Ok(answer)
            }
            Some(Err(error)) => Err(CallError::ended(&error, limits.call_cpu, live.store.data_mut())),
            None => Err(CallError::out_of_time(limits.call_wall, live.store.data())),
        }
    }

    /// What the calls since the beginning did.
    pub(crate) async fn finish(&mut self) -> Result<Output, CallError> {
        let memory = self.save().await?;
        let Some(live) = &mut self.live else { return Err(ended()) };
        let guest = live.store.data_mut();
        guest.input = None;
        let (state, state_grown) = guest.state.finish().map_err(CallError::state)?;
        let host = |what: String| CallError::new(CallErrorReason::Host(what));
        let collector = guest.collector.as_mut().ok_or_else(|| host("the collector is gone".to_owned()))?;
        let output = collector.finish(state).map_err(|error| host(error.to_string()))?;
        Ok(Output { memory, state_grown, ..output })
    }
}

/// Accumulators that a call returned, none of them too large.
fn accumulators(found: Vec<Option<Bytes>>, call: &'static str) -> Result<Vec<Option<Bytes>>, CallError> {
    match found.iter().flatten().map(Bytes::len).find(|bytes| *bytes > ACCUMULATOR_BYTES_MAX) {
        None => Ok(found),
        Some(bytes) => {
            let what = format!("an accumulator of {bytes} bytes, at most {ACCUMULATOR_BYTES_MAX} are allowed");
            Err(CallError::new(CallErrorReason::Returned { call, what }))
        }
    }
}

fn ended() -> CallError {
    CallError::new(CallErrorReason::Ended)
}

/// The batch and the collector of the call in hand.
fn handles() -> Handles {
    (Resource::new_borrow(0), Resource::new_borrow(0))
}

pub(crate) fn other_role() -> CallError {
    CallError::new(CallErrorReason::Host("an instance was called as what it was not started as".to_owned()))
}

/// Waits for a future at most so long. One that is ready at once costs no timer.
async fn within<F: Future>(max: Duration, future: F) -> Option<F::Output> {
    let mut future = pin!(future);
    match std::future::poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await {
        Poll::Ready(output) => Some(output),
        Poll::Pending => tokio::time::timeout(max, future).await.ok(),
    }
}
