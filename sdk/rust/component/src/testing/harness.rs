//! The host, as far as a component can tell.

use super::component::{Component, OfFunction, OfSink, OfTransform, Saved};
use super::{Columns, Event};
use crate::columns::{BytesColumnRef, ColumnsRef};
use crate::component::Transform;
use crate::error::{Error, Result};
use crate::events::Events;
use crate::host::EmitError;
use crate::host::native::{Batch, Collector, Installed, Offsets, Sink, World, reading, series};
use crate::kept::Kept;
use crate::output::Output;
use crate::source::Next;
use crate::tick::Tick;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::mem;

/// Longest id of an event in bytes.
const ID_BYTES_MAX: usize = 256;
/// Longest name of a header in bytes.
const HEADER_NAME_BYTES_MAX: usize = 256;
/// Most headers of one event.
const HEADERS_MAX: usize = 256;
/// Largest event: id, key, value and headers together.
const EVENT_BYTES_MAX: usize = 16 << 20;
/// Bytes and events that one call may emit, unless the deployment says otherwise.
const OUTPUT_BYTES_MAX: u64 = 32 << 20;
const OUTPUT_EVENTS_MAX: u64 = 1 << 18;
/// Bytes of a checkpoint.
const CHECKPOINT_BYTES_MAX: usize = 64 << 10;
/// What is kept of a reason for a dead letter, in bytes.
const REASON_BYTES_MAX: usize = 1024;

/// Gives events to a component, call by call, and keeps what it produces.
pub struct Harness {
    component: Box<dyn Component>,
    world: World,
    topic: String,
    partition: u32,
    next_offset: u64,
    /// `None`: every port is wired.
    ports: Option<BTreeSet<String>>,
    output_bytes_max: u64,
    output_events_max: u64,
    last: Option<Input>,
    /// What the component saved last, and the digest of who did.
    saved: Option<Saved>,
}

/// What the last call was given.
struct Input {
    events: Vec<Event>,
    offsets: Vec<u64>,
    attempt: u32,
    /// The first that the call left for the next one.
    deferred: Option<usize>,
}

impl Harness {
    /// For a component that is a function.
    pub fn new(process: impl FnMut(Events<'_>, &mut Output<'_>) -> Result<()> + 'static) -> Self {
        Self::with(OfFunction(RefCell::new(process)))
    }

    /// For a component that implements [`Transform`]. It is made before the first call.
    pub fn of<T: Transform>() -> Self {
        Self::with(OfTransform::<T>(Kept::new()))
    }

    /// For a component that implements [`Sink`](crate::Sink). It is made before the first call; each call writes and flushes.
    pub fn of_sink<T: crate::Sink>() -> Self {
        Self::with(OfSink::<T>(Kept::new()))
    }

    fn with(component: impl Component + 'static) -> Self {
        Self {
            component: Box::new(component),
            world: World::default(),
            topic: "input".to_owned(),
            partition: 0,
            next_offset: 0,
            ports: None,
            output_bytes_max: OUTPUT_BYTES_MAX,
            output_events_max: OUTPUT_EVENTS_MAX,
            last: None,
            saved: None,
        }
    }

    /// Sets one entry of the configuration.
    #[must_use]
    pub fn config(mut self, key: &str, value: impl Display) -> Self {
        self.world.config.insert(key.to_owned(), value.to_string());
        self
    }

    /// Grants a secret.
    #[must_use]
    pub fn secret(mut self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.world.secrets.insert(name.to_owned(), value.as_ref().to_vec());
        self
    }

    /// Answers the requests that the component sends; without it, all are denied. An error is one of the connection.
    #[cfg(feature = "http")]
    #[must_use]
    pub fn http(
        mut self,
        answer: impl FnMut(&crate::http::Request) -> Result<crate::http::Response> + 'static,
    ) -> Self {
        self.world.http = Some(crate::host::native::http::Receiver(Box::new(answer)));
        self
    }

    /// Names the topic that the events are from. It is `input` otherwise.
    #[must_use]
    pub fn topic(mut self, topic: &str) -> Self {
        self.topic = topic.to_owned();
        self
    }

    /// Says which partition the events are from. It is 0 otherwise.
    #[must_use]
    pub fn partition(mut self, partition: u32) -> Self {
        self.partition = partition;
        self
    }

    /// Gives the next event this offset. It is 0 for the first event otherwise.
    #[must_use]
    pub fn next_offset(mut self, offset: u64) -> Self {
        self.next_offset = offset;
        self
    }

    /// Wires these ports and no others. Without this, every port is wired.
    #[must_use]
    pub fn ports<P: Into<String>>(mut self, ports: impl IntoIterator<Item = P>) -> Self {
        self.ports = Some(ports.into_iter().map(Into::into).collect());
        self
    }

    /// Limits the bytes that one call may emit and forward. It is 32 MiB otherwise.
    #[must_use]
    pub fn output_bytes_max(mut self, bytes_max: u64) -> Self {
        self.output_bytes_max = bytes_max;
        self
    }

    /// Limits the events that one call may emit and forward. It is 262 144 otherwise.
    #[must_use]
    pub fn output_events_max(mut self, events_max: u64) -> Self {
        self.output_events_max = events_max;
        self
    }

    /// Limits the bytes of keys and values in all state tables. They are not limited otherwise.
    #[must_use]
    pub fn state_bytes_max(mut self, bytes_max: usize) -> Self {
        self.world.state_bytes_max = Some(bytes_max);
        self
    }

    /// Gives the component a batch of these events. There must be at least one, as always.
    #[must_use = "a call may have failed: look at it, or end with `.ok()`"]
    pub fn call<E: Into<Event>>(&mut self, events: impl IntoIterator<Item = E>) -> Call {
        let events: Vec<Event> = events.into_iter().map(Into::into).collect();
        assert!(!events.is_empty(), "a batch is never empty");
        let offsets: Vec<u64> = (self.next_offset..).take(events.len()).collect();
        self.next_offset += events.len() as u64;
        self.give(Input { events, offsets, attempt: 1, deferred: None })
    }

    /// Gives the component the same batch again, as the host does after a failed call.
    #[must_use = "a call may have failed: look at it, or end with `.ok()`"]
    pub fn call_again(&mut self) -> Call {
        let Some(mut input) = self.last.take() else { panic!("there was no call yet") };
        input.attempt += 1;
        self.give(input)
    }

    /// Gives the component the events that the last call left for it. Panics if it left none.
    #[must_use = "a call may have failed: look at it, or end with `.ok()`"]
    pub fn call_rest(&mut self) -> Call {
        let rest = self.last.take().and_then(|input| {
            let from = input.deferred?;
            Some(Input {
                events: input.events[from..].to_vec(),
                offsets: input.offsets[from..].to_vec(),
                attempt: 1,
                deferred: None,
            })
        });
        let Some(rest) = rest else { panic!("the last call left nothing") };
        self.give(rest)
    }

    /// Has the component tick at this time, in microseconds since the Unix epoch.
    #[must_use = "a call may have failed: look at it, or end with `.ok()`"]
    pub fn tick(&mut self, now_us: i64) -> Call {
        let at = Tick { now_us, watermark_us: None };
        self.run(Vec::new(), |component, _, collector| component.tick(at, collector))
    }

    fn give(&mut self, mut input: Input) -> Call {
        let columns = Columns::from_events(&input.events);
        let call = self.run(columns.to_events(), |component, (topic, partition), collector| {
            let (attempt, offsets) = (input.attempt, Offsets::Given(&input.offsets));
            component.call(Batch { topic, partition, attempt, offsets, columns: &columns }, collector)
        });
        input.deferred = call.deferred.map(|row| row as usize);
        self.last = Some(input);
        call
    }

    /// One call of the component, which is told where the input is from.
    fn run(
        &mut self,
        input: Vec<Event>,
        call: impl FnOnce(&dyn Component, (&str, u32), &Collector<'_>) -> Result<()>,
    ) -> Call {
        let produced = Produced {
            ports: self.ports.as_ref(),
            takes_defers: !input.is_empty(),
            remaining_bytes: Cell::new(self.output_bytes_max),
            remaining_events: Cell::new(self.output_events_max),
            ..Produced::new(input)
        };
        let state_before = (self.world.tables.clone(), self.world.state_bytes);
        let result = {
            let _installed = Installed::new(&mut self.world);
            let from = (self.topic.as_str(), self.partition);
            self.component
                .open(self.saved.as_ref())
                .and_then(|()| call(&*self.component, from, &Collector(&produced)))
                .and_then(|()| self.component.save())
        };
        match result {
            Ok(saved) => {
                self.saved = saved.or(self.saved.take());
                let deferred = produced.deferred.get();
                let (events, rejected) = (produced.events.take(), produced.into_rejected());
                Call { error: None, events, rejected, deferred, next: None }
            }
            Err(error) => {
                (self.world.tables, self.world.state_bytes) = state_before;
                Call::failed(error)
            }
        }
    }

    /// Makes the component anew, as the host does after a restart: the next call is one of another instance, restored from what this
    /// one saved.
    pub fn restart(&mut self) {
        self.component.forget();
    }

    /// What the component saved with the last call that succeeded.
    pub fn saved(&self) -> Option<&[u8]> {
        self.saved.as_ref().map(|(saved, _)| saved.as_slice())
    }

    /// Has the component go on from what another version of it saved, which has this digest.
    #[must_use]
    pub fn saved_by(mut self, digest: &str, saved: impl AsRef<[u8]>) -> Self {
        self.saved = Some((saved.as_ref().to_vec(), digest.to_owned()));
        self
    }

    /// Lets the component go, as the host does when the deployment is paused. The next call makes another one.
    pub fn close(&mut self) {
        let _installed = Installed::new(&mut self.world);
        reading(|| self.component.close());
    }

    /// What a state table holds.
    pub fn table(&self, name: &str) -> BTreeMap<Vec<u8>, Vec<u8>> {
        self.world.tables.get(name).cloned().unwrap_or_default()
    }

    /// Sets the value of a key in a state table.
    #[must_use]
    pub fn state(mut self, table: &str, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Self {
        let (key, value) = (key.as_ref().to_vec(), value.as_ref().to_vec());
        self.world.state_bytes += key.len() + value.len();
        let before = self.world.tables.entry(table.to_owned()).or_default().insert(key.clone(), value);
        self.world.state_bytes -= before.map_or(0, |value| key.len() + value.len());
        self
    }

    /// What a counter adds up to. The order of the attributes does not matter.
    pub fn counter(&self, name: &str, attributes: &[(&str, &str)]) -> u64 {
        self.world.counters.get(&series(name, attributes)).copied().unwrap_or_default()
    }

    /// What a gauge was set to.
    pub fn gauge(&self, name: &str, attributes: &[(&str, &str)]) -> Option<f64> {
        self.world.gauges.get(&series(name, attributes)).copied()
    }

    /// What was observed, in order.
    pub fn observations(&self, name: &str, attributes: &[(&str, &str)]) -> &[f64] {
        self.world.observations.get(&series(name, attributes)).map_or(&[], Vec::as_slice)
    }
}

impl fmt::Debug for Harness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Harness").field("topic", &self.topic).field("world", &self.world).finish_non_exhaustive()
    }
}

/// What came of one call.
#[derive(Clone, Debug)]
pub struct Call {
    pub(super) error: Option<Error>,
    pub(super) events: BTreeMap<String, Vec<Event>>,
    pub(super) rejected: Vec<Rejected>,
    pub(super) deferred: Option<u32>,
    pub(super) next: Option<Next>,
}

impl Call {
    pub(super) fn failed(error: Error) -> Self {
        Self { error: Some(error), events: BTreeMap::new(), rejected: Vec::new(), deferred: None, next: None }
    }

    /// The same call. Panics if it failed.
    pub fn ok(self) -> Self {
        match &self.error {
            Some(error) => panic!("the call failed: {error:?}"),
            None => self,
        }
    }

    /// Why it failed. Nothing of a failed call is kept.
    pub fn error(&self) -> Option<&Error> {
        self.error.as_ref()
    }

    /// What was pushed and forwarded to the default port, in order.
    pub fn events(&self) -> &[Event] {
        self.to("")
    }

    /// What was pushed and forwarded to this port, in order.
    pub fn to(&self, port: &str) -> &[Event] {
        self.events.get(port).map_or(&[], Vec::as_slice)
    }

    /// The ports that anything was pushed or forwarded to.
    pub fn ports(&self) -> impl Iterator<Item = &str> {
        self.events.keys().map(String::as_str)
    }

    /// The first row that was left for the next call: see [`Harness::call_rest`].
    pub fn deferred(&self) -> Option<u32> {
        self.deferred
    }

    /// When a source wants to be called again.
    pub fn next(&self) -> Option<Next> {
        self.next
    }

    /// The events that were put aside, in order.
    pub fn rejected(&self) -> &[Rejected] {
        &self.rejected
    }
}

/// An event that was put aside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its place in the call.
    pub row: u32,
    /// Why; at most 1024 bytes.
    pub reason: String,
    /// The event.
    pub event: Event,
}

/// What a call produces, checked as the host checks it.
pub(super) struct Produced<'a> {
    input: Vec<Event>,
    ports: Option<&'a BTreeSet<String>>,
    remaining_bytes: Cell<u64>,
    remaining_events: Cell<u64>,
    pub(super) events: RefCell<BTreeMap<String, Vec<Event>>>,
    rejected: RefCell<BTreeMap<u32, String>>,
    /// Whether there is a next call for this input: an aggregate folds all of it.
    takes_defers: bool,
    deferred: Cell<Option<u32>>,
    /// Those of a source have a place for it.
    pub(super) checkpoint: Option<RefCell<Option<Vec<u8>>>>,
}

impl Produced<'_> {
    pub(super) fn new(input: Vec<Event>) -> Self {
        Self {
            input,
            ports: None,
            remaining_bytes: Cell::new(OUTPUT_BYTES_MAX),
            remaining_events: Cell::new(OUTPUT_EVENTS_MAX),
            events: RefCell::default(),
            rejected: RefCell::default(),
            takes_defers: false,
            deferred: Cell::default(),
            checkpoint: None,
        }
    }

    pub(super) fn of_source() -> Self {
        Self { checkpoint: Some(RefCell::default()), ..Self::new(Vec::new()) }
    }

    fn take(&self, port: &str, events: Vec<Event>) -> Result<(), EmitError> {
        if self.ports.is_some_and(|ports| !ports.contains(port)) {
            return Err(EmitError::UnknownPort(port.to_owned()));
        }
        events.iter().try_for_each(check_event)?;
        let bytes: usize = events.iter().map(Event::byte_size).sum();
        let remaining_bytes = self.remaining_bytes.get().checked_sub(bytes as u64);
        let remaining_events = self.remaining_events.get().checked_sub(events.len() as u64);
        let (Some(remaining_bytes), Some(remaining_events)) = (remaining_bytes, remaining_events) else {
            return Err(EmitError::BudgetExceeded);
        };
        self.remaining_bytes.set(remaining_bytes);
        self.remaining_events.set(remaining_events);
        self.events.borrow_mut().entry(port.to_owned()).or_default().extend(events);
        Ok(())
    }

    pub(super) fn into_rejected(self) -> Vec<Rejected> {
        let mut input = self.input;
        let left = self.deferred.get().unwrap_or(u32::MAX);
        let rejected = self.rejected.into_inner().into_iter().filter(|(row, _)| *row < left);
        rejected.map(|(row, reason)| Rejected { row, reason, event: mem::take(&mut input[row as usize]) }).collect()
    }
}

impl Sink for Produced<'_> {
    fn emit_columns(&self, port: &str, rows: ColumnsRef<'_>) -> Result<(), EmitError> {
        check_columns(&rows);
        self.take(port, rows.to_columns().to_events())
    }

    fn forward(&self, port: &str, rows: &[u32]) -> Result<(), EmitError> {
        let event = |&row: &u32| self.input.get(row as usize).cloned();
        match rows.iter().map(event).collect() {
            Some(events) => self.take(port, events),
            None => Err(EmitError::Invalid("a row is out of range".to_owned())),
        }
    }

    fn reject(&self, row: u32, reason: &str) {
        let mut end = reason.len().min(REASON_BYTES_MAX);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        if (row as usize) < self.input.len() {
            self.rejected.borrow_mut().insert(row, reason[..end].to_owned());
        }
    }

    fn defer(&self, row: u32) -> Result<(), EmitError> {
        let what = match row {
            _ if !self.takes_defers => "only a transform and a sink can leave rows for the next call".to_owned(),
            0 => "a call cannot leave all of its rows for the next one".to_owned(),
            row if row as usize >= self.input.len() => {
                format!("there is no input row {row}; the batch has {}", self.input.len())
            }
            row => {
                self.deferred.set(Some(row));
                return Ok(());
            }
        };
        Err(EmitError::Invalid(what))
    }

    fn checkpoint(&self, position: &[u8]) -> Result<(), EmitError> {
        let Some(checkpoint) = &self.checkpoint else {
            return Err(EmitError::Invalid("only a source has checkpoints".to_owned()));
        };
        let bytes = position.len();
        if bytes > CHECKPOINT_BYTES_MAX {
            let what = format!("a checkpoint of {bytes} bytes, at most {CHECKPOINT_BYTES_MAX} are allowed");
            return Err(EmitError::Invalid(what));
        }
        checkpoint.replace(Some(position.to_vec()));
        Ok(())
    }

    fn remaining_bytes(&self) -> u64 {
        self.remaining_bytes.get()
    }
}

/// Columns that do not fit together are a mistake of this crate, not of the component.
fn check_columns(rows: &ColumnsRef<'_>) {
    fn check(name: &str, column: BytesColumnRef<'_>, rows: usize) {
        assert_eq!(column.offsets.len(), rows + 1, "{name}");
        assert!(column.offsets[0] == 0 && column.offsets.is_sorted(), "{name}: {:?}", column.offsets);
        assert_eq!(column.offsets[rows] as usize, column.data.len(), "{name}");
        assert!(column.validity.is_empty() || column.validity.len() == rows.div_ceil(8), "{name}");
    }
    let count = rows.values.offsets.len() - 1;
    check("values", rows.values, count);
    check("keys", rows.keys, count);
    if let Some(ids) = rows.ids {
        check("ids", ids, count);
    }
    assert!(rows.timestamps.is_empty() || rows.timestamps.len() == count, "timestamps");
    if let Some(headers) = rows.headers {
        let offsets = headers.row_offsets;
        assert!(offsets.len() == count + 1 && offsets[0] == 0 && offsets.is_sorted(), "headers: {offsets:?}");
        let names = offsets[count] as usize;
        check("header names", headers.names, names);
        check("header values", headers.values, names);
    }
}

fn check_event(event: &Event) -> Result<(), EmitError> {
    let invalid = |why: String| Err(EmitError::Invalid(why));
    if let Some(id) = &event.id {
        match id.len() {
            0 => return invalid("the id is empty; leave it out instead".to_owned()),
            1..=ID_BYTES_MAX => {}
            bytes => return invalid(format!("the id has {bytes} bytes, at most {ID_BYTES_MAX} are allowed")),
        }
    }
    if event.headers.len() > HEADERS_MAX {
        return invalid(format!("{} headers, at most {HEADERS_MAX} are allowed", event.headers.len()));
    }
    let mut names = BTreeSet::new();
    for (name, _) in &event.headers {
        if name.is_empty() {
            return invalid("a header has an empty name".to_owned());
        }
        if name.len() > HEADER_NAME_BYTES_MAX {
            let bytes = name.len();
            return invalid(format!("a header name has {bytes} bytes, at most {HEADER_NAME_BYTES_MAX} are allowed"));
        }
        if !names.insert(name) {
            return invalid(format!("header `{name}` is given twice; header names are unique in an event"));
        }
    }
    match event.byte_size() {
        0..=EVENT_BYTES_MAX => Ok(()),
        bytes => invalid(format!("{bytes} bytes (id, key, value and headers), at most {EVENT_BYTES_MAX} are allowed")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics;

    #[test]
    fn offsets_go_on_and_a_repeated_batch_is_the_same() {
        let mut harness = Harness::new(|events, out| {
            let offsets: Vec<u64> = events.iter().map(|event| event.offset()).collect();
            out.event().text(format_args!("{} {offsets:?}", events.attempt()))
        });
        let texts = |call: Call| call.ok().events().iter().map(Event::text).collect::<Vec<_>>();
        assert_eq!(texts(harness.call(["a", "b"])), ["1 [0, 1]"]);
        assert_eq!(texts(harness.call_again()), ["2 [0, 1]"]);
        assert_eq!(texts(harness.call_again()), ["3 [0, 1]"]);
        assert_eq!(texts(harness.call(["c"])), ["1 [2]"]);
    }

    #[test]
    fn events_are_limited_as_bytes_are() {
        let mut harness = Harness::new(|events, out| events.iter().try_for_each(|event| out.forward(&event)));
        harness = harness.output_events_max(2);
        assert_eq!(harness.call(["a", "b"]).ok().events().len(), 2);
        assert!(harness.call(["a", "b", "c"]).error().is_some());
    }

    #[test]
    fn numbers_count_also_when_the_call_fails() {
        let mut harness = Harness::new(|_, _| {
            metrics::add("seen", 2, &[("a", "1"), ("b", "2")]);
            metrics::set("depth", 7.5, &[]);
            metrics::observe("took", 1.0, &[]);
            metrics::observe("took", 2.0, &[]);
            Err(Error::permanent("no"))
        });
        for _ in 0..2 {
            assert!(harness.call(["x"]).error().is_some());
        }
        assert_eq!(harness.counter("seen", &[("b", "2"), ("a", "1")]), 4);
        assert_eq!(harness.counter("seen", &[]), 0);
        assert_eq!(harness.gauge("depth", &[]), Some(7.5));
        assert_eq!(harness.observations("took", &[]), [1.0, 2.0, 1.0, 2.0]);
    }

    #[test]
    fn events_are_checked_as_the_host_checks_them() {
        let refusal = |event: Event| match check_event(&event) {
            Err(EmitError::Invalid(why)) => why,
            other => panic!("{other:?}"),
        };
        assert_eq!(check_event(&Event::new("v").id("i").key("").header("a", "").header("b", "")), Ok(()));
        assert_eq!(refusal(Event::new("").id("i".repeat(257))), "the id has 257 bytes, at most 256 are allowed");
        assert_eq!(refusal(Event::new("").header("", "")), "a header has an empty name");
        assert_eq!(
            refusal(Event::new("").header("h", "1").header("h", "2")),
            "header `h` is given twice; header names are unique in an event"
        );
        assert_eq!(
            refusal(Event::new("").header("h".repeat(300), "")),
            "a header name has 300 bytes, at most 256 are allowed"
        );
        let many = (0..257).fold(Event::new(""), |event, n| event.header(n.to_string(), ""));
        assert_eq!(refusal(many), "257 headers, at most 256 are allowed");
        assert_eq!(
            refusal(Event::new(vec![0; 16 << 20]).key("k")),
            "16777217 bytes (id, key, value and headers), at most 16777216 are allowed"
        );
    }

    #[test]
    #[should_panic(expected = "the call failed: transient(\"later\")")]
    fn a_failed_call_is_not_ok() {
        Harness::new(|_, _| Err(Error::transient("later"))).call(["x"]).ok();
    }

    /// The world of the thread comes back, so that a test that catches the panic can go on.
    #[test]
    fn a_panic_leaves_the_thread_as_it_was() {
        let panicked = std::panic::catch_unwind(|| {
            let _ = Harness::new(|_, _| panic!("on purpose")).config("k", "v").call(["x"]);
        });
        assert!(panicked.is_err());
        assert_eq!(crate::config::get("k"), None);
    }
}
