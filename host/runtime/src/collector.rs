//! Gathers what one call emits and rejects.
//!
//! Nothing here knows wasm. The collector is given columns, events and row numbers that a guest chose, and writes what is
//! right straight into the batches that will go to the log. An emit is checked wholly before anything of it is taken, so a
//! refused one leaves no trace.

use crate::input::{Column, InputColumns};
use crate::limits::{CHECKPOINT_BYTES_MAX, REJECT_REASON_BYTES_MAX, REJECT_REASONS_BYTES_MAX};
use crate::output::{Emitted, Output, Port, Rejected};
use crate::rows::{EmitError, EncodedHeaders, GuestEvent, GuestRows, check_sizes, check_values, cut, rows_bytes};
use bytes::Bytes;
use nodata_log::batch::BatchError;
use nodata_log::{BatchBuilder, RowsRef, StateChange, TimestampUs, partition_of_key};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

/// Gathers what one call emits and rejects. It is used for one call after the other.
#[derive(Debug)]
pub(crate) struct Collector {
    ports: Arc<[Port]>,
    bytes_max: u64,
    events_max: u64,
    /// For each port and partition, its place in `open`, or `NOT_OPEN`.
    slots: Vec<Vec<u32>>,
    open: Vec<Open>,
    now_us: TimestampUs,
    input_partition: u32,
    input_rows: u32,
    bytes: u64,
    events: u64,
    rejected: BTreeMap<u32, String>,
    reasons_bytes: usize,
    rejects_ignored: u64,
    /// Whether there is something to go on from.
    takes_checkpoints: bool,
    checkpoint: Option<Bytes>,
    /// Whether there is a next call that rows can be left for.
    takes_defers: bool,
    deferred: Option<u32>,
    /// Headers of the emit in hand, encoded; kept for its memory.
    headers: EncodedHeaders,
}

const NOT_OPEN: u32 = u32::MAX;

#[derive(Debug)]
struct Open {
    port: usize,
    partition: u32,
    builder: BatchBuilder,
}

impl Collector {
    pub(crate) fn new(ports: Arc<[Port]>, bytes_max: u64, events_max: u64) -> Self {
        Self {
            slots: ports.iter().map(|port| vec![NOT_OPEN; port.partitions.max(1) as usize]).collect(),
            ports,
            bytes_max,
            events_max,
            open: Vec::new(),
            now_us: 0,
            input_partition: 0,
            input_rows: 0,
            bytes: 0,
            events: 0,
            rejected: BTreeMap::new(),
            reasons_bytes: 0,
            rejects_ignored: 0,
            takes_checkpoints: false,
            checkpoint: None,
            takes_defers: false,
            deferred: None,
            headers: EncodedHeaders::default(),
        }
    }

    /// Makes it the collector of a source.
    pub(crate) fn take_checkpoints(&mut self) {
        self.takes_checkpoints = true;
    }

    /// Makes it the collector of a transform or a sink.
    pub(crate) fn take_defers(&mut self) {
        self.takes_defers = true;
    }

    /// Makes ready for a call; whatever the last one left is gone.
    pub(crate) fn begin(&mut self, input_partition: u32, input_rows: usize, now_us: TimestampUs) {
        self.close();
        self.open.clear();
        self.rejected.clear();
        (self.checkpoint, self.deferred) = (None, None);
        (self.bytes, self.events, self.reasons_bytes, self.rejects_ignored) = (0, 0, 0, 0);
        (self.input_partition, self.input_rows, self.now_us) = (input_partition, input_rows as u32, now_us);
    }

    /// Everything since the beginning of the call.
    pub(crate) fn finish(&mut self, state: Vec<StateChange>) -> Result<Output, BatchError> {
        self.close();
        let mut batches = Vec::with_capacity(self.open.len());
        for Open { port, partition, builder } in self.open.drain(..) {
            batches.push(Emitted { port, partition, batch: builder.finish()? });
        }
        let mut rejected = std::mem::take(&mut self.rejected);
        if let Some(row) = self.deferred {
            // They are given again, and may be rejected then.
            rejected.retain(|rejected, _| *rejected < row);
        }
        let rejected = rejected.into_iter();
        let output = Output {
            batches,
            events: self.events,
            bytes: self.bytes,
            rejected: rejected.map(|(row, reason)| Rejected { row, reason }).collect(),
            rejects_ignored: self.rejects_ignored,
            deferred: self.deferred.take(),
            checkpoint: self.checkpoint.take(),
            state,
            state_grown: 0,
            begun_us: self.now_us,
            memory: None,
        };
        (self.bytes, self.events, self.reasons_bytes, self.rejects_ignored) = (0, 0, 0, 0);
        Ok(output)
    }

    fn close(&mut self) {
        for open in &self.open {
            self.slots[open.port][open.partition as usize] = NOT_OPEN;
        }
    }

    pub(crate) fn remaining_bytes(&self) -> u64 {
        self.bytes_max - self.bytes
    }

    fn port(&self, name: &str) -> Result<usize, EmitError> {
        self.ports.iter().position(|port| port.name == name).ok_or_else(|| EmitError::unknown_port(name))
    }

    /// The budget after this emit, if there is enough.
    fn afford(&self, bytes: u64, events: usize) -> Result<(u64, u64), EmitError> {
        let (bytes, events) = (self.bytes.saturating_add(bytes), self.events + events as u64);
        if bytes > self.bytes_max || events > self.events_max {
            return Err(EmitError::BudgetExceeded);
        }
        Ok((bytes, events))
    }

    /// Takes all of these rows or none.
    pub(crate) fn emit_columns(&mut self, port: &str, given: &GuestRows<'_>) -> Result<(), EmitError> {
        let port = self.port(port)?;
        // The memory is taken out, so that the rows can borrow it while they are written.
        let mut headers = std::mem::take(&mut self.headers);
        let done = self.emit_checked(port, given, &mut headers);
        self.headers = headers;
        done
    }

    fn emit_checked(
        &mut self,
        port: usize,
        given: &GuestRows<'_>,
        headers: &mut EncodedHeaders,
    ) -> Result<(), EmitError> {
        let count = given.len();
        let rows = given.check(self.ports[port].event_bytes_max, headers)?;
        check_values(&rows, 0..count, self.ports[port].values)?;
        let spent = self.afford(rows_bytes(&rows, 0..count), count)?;
        self.route(port, &rows, std::iter::once(0..count));
        (self.bytes, self.events) = spent;
        Ok(())
    }

    /// Takes all of these events or none.
    pub(crate) fn emit_events(&mut self, port: &str, events: &[GuestEvent<'_>]) -> Result<(), EmitError> {
        let port = self.port(port)?;
        let Port { event_bytes_max, values, .. } = self.ports[port];
        let mut bytes = 0;
        for (row, event) in events.iter().enumerate() {
            let checked = event.check(event_bytes_max).and_then(|bytes| values.check(event.value).map(|()| bytes));
            bytes += checked.map_err(|error| EmitError::in_row(row, &error))?;
        }
        let spent = self.afford(bytes, events.len())?;
        for event in events {
            let partition = self.partition(port, event.key);
            let builder = self.builder(port, partition);
            builder.push(event.id.as_ref().map(|id| id.as_bytes()), event.key, event.value, event.timestamp_us);
            for (name, value) in &event.headers {
                builder.push_header(name, value);
            }
        }
        (self.bytes, self.events) = spent;
        Ok(())
    }

    /// Takes these rows of the input or none.
    pub(crate) fn forward(&mut self, port: &str, input: &mut InputColumns, rows: &[u32]) -> Result<(), EmitError> {
        let port = self.port(port)?;
        if let Some(row) = rows.iter().find(|&&row| row >= self.input_rows) {
            let what = format!("there is no input row {row}; the batch has {}", self.input_rows);
            return Err(EmitError::Invalid(what));
        }
        let (ids, keys, values, headers) = (input.ids(), input.keys(), input.values(), input.headers());
        let timestamps = input.timestamps();
        let columns = RowsRef {
            ids: ids.as_ref().map(Column::as_ref),
            keys: keys.as_ref().map(Column::as_ref),
            values: values.as_ref(),
            timestamps_us: Some(&timestamps),
            headers: headers.as_ref().map(Column::as_ref),
        };
        let mut bytes = 0;
        let event_bytes_max = self.ports[port].event_bytes_max;
        for range in runs(rows) {
            let run_bytes = rows_bytes(&columns, range.clone());
            check_values(&columns, range.clone(), self.ports[port].values)?;
            bytes += run_bytes;
            // A row can only be too large when all of them together are.
            if run_bytes > u64::from(event_bytes_max) {
                check_sizes(&columns, range, event_bytes_max)?;
            }
        }
        let spent = self.afford(bytes, rows.len())?;
        self.route(port, &columns, runs(rows));
        (self.bytes, self.events) = spent;
        Ok(())
    }

    /// Keeps the last reason for a row, cut, as long as there is room for reasons.
    pub(crate) fn reject(&mut self, row: u32, reason: &str) {
        if row >= self.input_rows {
            self.rejects_ignored += 1;
            return;
        }
        let before = self.rejected.get(&row).map_or(0, String::len);
        let room = REJECT_REASONS_BYTES_MAX - (self.reasons_bytes - before);
        let reason = cut(reason, REJECT_REASON_BYTES_MAX.min(room));
        self.reasons_bytes += reason.len();
        self.reasons_bytes -= before;
        self.rejected.insert(row, reason.to_owned());
    }

    /// Keeps the row that the next call begins with.
    pub(crate) fn defer(&mut self, row: u32) -> Result<(), EmitError> {
        let what = match row {
            _ if !self.takes_defers => "only a transform and a sink can leave rows for the next call".to_owned(),
            0 => "a call cannot leave all of its rows for the next one".to_owned(),
            row if row >= self.input_rows => {
                format!("there is no input row {row}; the batch has {}", self.input_rows)
            }
            row => {
                self.deferred = Some(row);
                return Ok(());
            }
        };
        Err(EmitError::Invalid(what))
    }

    /// Keeps the last position of a source.
    pub(crate) fn checkpoint(&mut self, position: &[u8]) -> Result<(), EmitError> {
        if !self.takes_checkpoints {
            return Err(EmitError::Invalid("only a source has checkpoints".to_owned()));
        }
        let bytes = position.len();
        if bytes > CHECKPOINT_BYTES_MAX {
            let what = format!("a checkpoint of {bytes} bytes, at most {CHECKPOINT_BYTES_MAX} are allowed");
            return Err(EmitError::Invalid(what));
        }
        self.checkpoint = Some(Bytes::copy_from_slice(position));
        Ok(())
    }

    /// Where an event goes: equal keys go to equal places, events without one stay with the partition they came from.
    #[inline]
    fn partition(&self, port: usize, key: Option<&[u8]>) -> u32 {
        let partitions = self.ports[port].partitions.max(1);
        match key {
            Some(key) if partitions > 1 => partition_of_key(key, partitions),
            _ => self.input_partition % partitions,
        }
    }

    fn builder(&mut self, port: usize, partition: u32) -> &mut BatchBuilder {
        let slot = &mut self.slots[port][partition as usize];
        if *slot == NOT_OPEN {
            *slot = self.open.len() as u32;
            let mut builder = BatchBuilder::new(self.now_us);
            builder.mark_from_component();
            self.open.push(Open { port, partition, builder });
        }
        &mut self.open[*slot as usize].builder
    }

    /// Writes checked rows to the partitions they belong to, as many at a time as go to the same one.
    fn route(&mut self, port: usize, rows: &RowsRef<'_>, ranges: impl Iterator<Item = Range<usize>>) {
        let keys = rows.keys.filter(|_| self.ports[port].partitions > 1);
        for range in ranges.filter(|range| !range.is_empty()) {
            let Some(keys) = keys else {
                let partition = self.partition(port, None);
                self.builder(port, partition).push_rows(rows, range);
                continue;
            };
            let mut start = range.start;
            let mut partition = self.partition(port, keys.get(start));
            for row in start + 1..range.end {
                let next = self.partition(port, keys.get(row));
                if next != partition {
                    self.builder(port, partition).push_rows(rows, start..row);
                    (start, partition) = (row, next);
                }
            }
            self.builder(port, partition).push_rows(rows, start..range.end);
        }
    }
}

/// Consecutive row numbers as ranges.
fn runs(rows: &[u32]) -> impl Iterator<Item = Range<usize>> {
    rows.chunk_by(|&one, &next| next == one.wrapping_add(1)).map(|run| {
        let first = run[0] as usize;
        first..first + run.len()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::Input;
    use crate::input::tests::{any_event, stored, topic};
    use crate::rows::tests::{Columns, any_columns};
    use nodata_log::{Event, Name, ValueType};
    use proptest::prelude::*;

    const NOW: TimestampUs = 1_700_000_000_000_000;

    fn ports(partitions: u32, event_bytes_max: u32) -> Arc<[Port]> {
        let port = |name: &str, partitions| Port {
            name: name.to_owned(),
            partitions,
            event_bytes_max,
            values: ValueType::Bytes,
        };
        Arc::new([port("", partitions), port("late", 1)])
    }

    #[test]
    fn values_that_the_topic_does_not_take_are_refused_whichever_way_they_come() {
        let ports: Arc<[Port]> =
            Arc::new([Port { name: String::new(), partitions: 1, event_bytes_max: 1000, values: ValueType::Text }]);
        let mut collector = Collector::new(ports, 1 << 20, 1000);
        let events = [Event::new("fine"), Event::new(vec![0xff])];
        let stored = stored(0, &events);
        let mut input = InputColumns::new(Input::new(topic(), 0, [(stored, 0..2)]).unwrap());
        collector.begin(0, 2, NOW);
        let expected = EmitError::Invalid("row 1: the value is not UTF-8, and the values of the topic are text".into());
        assert_eq!(collector.forward("", &mut input, &[0, 1]), Err(expected.clone()));
        let event =
            |value| GuestEvent { id: None, key: None, value: Some(value), headers: Vec::new(), timestamp_us: None };
        assert_eq!(collector.emit_events("", &[event(b"a"), event(b"\xff")]), Err(expected));
        assert_eq!(collector.forward("", &mut input, &[0]), Ok(()));
        assert_eq!(collector.finish(Vec::new()).unwrap().events, 1);
    }

    fn collector(partitions: u32, event_bytes_max: u32) -> Collector {
        let mut collector = Collector::new(ports(partitions, event_bytes_max), 1 << 20, 1000);
        collector.begin(5, 10, NOW);
        collector
    }

    /// What was emitted: for each port and partition, the events.
    fn emitted(collector: &mut Collector) -> Vec<(usize, u32, Vec<Event>)> {
        let output = collector.finish(Vec::new()).unwrap();
        let (mut events, mut bytes) = (0, 0);
        for emitted in &output.batches {
            assert!(emitted.batch.is_from_component());
            events += emitted.batch.len() as u64;
            bytes += emitted.batch.payload_bytes() as u64;
        }
        assert_eq!((output.events, output.bytes), (events, bytes));
        let events = |batch: &nodata_log::Batch| batch.events().map(|event| event.to_event()).collect();
        output.batches.iter().map(|one| (one.port, one.partition, events(&one.batch))).collect()
    }

    /// Where events belong, in the order in which partitions come up.
    fn placed(events: &[Event], partitions: u32) -> Vec<(usize, u32, Vec<Event>)> {
        let mut placed: Vec<(usize, u32, Vec<Event>)> = Vec::new();
        for event in events {
            let mut event = event.clone();
            event.timestamp_us.get_or_insert(NOW);
            let partition = match &event.key {
                Some(key) => partition_of_key(key, partitions),
                None => 5 % partitions,
            };
            match placed.iter_mut().find(|(_, at, _)| *at == partition) {
                Some((_, _, events)) => events.push(event),
                None => placed.push((0, partition, vec![event])),
            }
        }
        placed
    }

    fn guest_event(event: &Event) -> GuestEvent<'_> {
        GuestEvent {
            id: event.id.as_deref().map(Into::into),
            key: event.key.as_deref(),
            value: event.value.as_deref(),
            headers: event.headers.iter().map(|(name, value)| (name.as_str().into(), value.as_ref())).collect(),
            timestamp_us: event.timestamp_us,
        }
    }

    proptest! {
        /// However events are emitted, each arrives where it belongs, as it was.
        #[test]
        fn events_arrive_as_they_were(
            events in prop::collection::vec(any_event(), 1..20),
            partitions in 1u32..5,
            with_timestamps in any::<bool>(),
        ) {
            let mut events = events;
            for event in &mut events {
                // A column of timestamps is given whole or not at all.
                event.timestamp_us = if with_timestamps { Some(event.timestamp_us.unwrap_or(3)) } else { None };
            }
            let expected = placed(&events, partitions);

            let mut collector = collector(partitions, 1 << 20);
            let columns = Columns::of(&events);
            prop_assert_eq!(collector.emit_columns("", &columns.rows()), Ok(()));
            prop_assert_eq!(&emitted(&mut collector), &expected);

            let given: Vec<GuestEvent<'_>> = events.iter().map(guest_event).collect();
            prop_assert_eq!(collector.emit_events("", &given), Ok(()));
            prop_assert_eq!(&emitted(&mut collector), &expected);
        }

        #[test]
        fn rows_are_forwarded_as_they_were(
            events in prop::collection::vec(any_event(), 1..20),
            rows in prop::collection::vec(any::<prop::sample::Index>(), 0..30),
            partitions in 1u32..5,
        ) {
            let mut input = InputColumns::new(Input::new(topic(), 5, [(stored(0, &events), 0..events.len())]).unwrap());
            let rows: Vec<u32> = rows.iter().map(|row| row.index(events.len()) as u32).collect();
            let mut collector = collector(partitions, 1 << 20);
            collector.begin(5, events.len(), NOW);
            prop_assert_eq!(collector.forward("", &mut input, &rows), Ok(()));
            let stored: Vec<Event> = input.input.events().map(|(_, event)| event.to_event()).collect();
            let expected: Vec<Event> = rows.iter().map(|&row| stored[row as usize].clone()).collect();
            prop_assert_eq!(emitted(&mut collector), placed(&expected, partitions));
        }

        /// Whatever a guest makes up, nothing panics, and a refused emit leaves no trace.
        #[test]
        fn nonsense_is_refused_whole(columns in any_columns(), partitions in 1u32..4) {
            let mut collector = collector(partitions, 40);
            let accepted = collector.emit_columns("", &columns.rows());
            let found: usize = emitted(&mut collector).iter().map(|(_, _, events)| events.len()).sum();
            prop_assert_eq!(found, if accepted.is_ok() { columns.rows().len() } else { 0 });
        }
    }

    fn event(key: &str, value: &str) -> Event {
        let event = Event::new(value.to_owned());
        if key.is_empty() { event } else { event.with_key(key.to_owned()) }
    }

    #[test]
    fn a_port_that_is_not_wired_is_named() {
        let mut collector = collector(1, 100);
        let columns = Columns::of(&[event("", "a")]);
        assert_eq!(collector.emit_columns("lost", &columns.rows()), Err(EmitError::UnknownPort("lost".to_owned())));
        assert_eq!(collector.emit_columns("late", &columns.rows()), Ok(()));
        assert_eq!(emitted(&mut collector)[0].0, 1);
        let long = "é".repeat(300);
        assert_eq!(collector.emit_events(&long, &[]), Err(EmitError::UnknownPort("é".repeat(100))));
    }

    #[test]
    fn a_budget_is_for_the_whole_call() {
        let mut collector = Collector::new(ports(1, 100), 10, 3);
        collector.begin(0, 1, NOW);
        let five = Columns::of(&[event("k", "1234")]);
        assert_eq!(collector.emit_columns("", &five.rows()), Ok(()));
        assert_eq!(collector.remaining_bytes(), 5);
        let six = event("k", "12345");
        assert_eq!(collector.emit_events("", &[guest_event(&six)]), Err(EmitError::BudgetExceeded));
        assert_eq!(collector.emit_columns("", &five.rows()), Ok(()));
        assert_eq!(collector.remaining_bytes(), 0);
        let empty = Event::default();
        assert_eq!(collector.emit_events("", &[guest_event(&empty)]), Ok(()));
        assert_eq!(collector.emit_events("", &[guest_event(&empty)]), Err(EmitError::BudgetExceeded));
        assert_eq!(emitted(&mut collector)[0].2.len(), 3);

        // The next call has a budget of its own, and nothing of one that failed.
        assert_eq!(collector.remaining_bytes(), 10);
        assert_eq!(collector.emit_columns("", &five.rows()), Ok(()));
        collector.begin(0, 1, NOW);
        assert_eq!(collector.remaining_bytes(), 10);
        assert_eq!(emitted(&mut collector), []);
    }

    #[test]
    fn an_event_must_fit_its_topic() {
        let mut collector = collector(2, 8);
        let mut large = event("key", "value");
        large.headers = vec![("h".to_owned(), "".into())];
        let refused =
            Err(EmitError::Invalid("row 1: 9 bytes (id, key, value and headers), at most 8 are allowed".to_owned()));
        let events = [event("k", "fits"), large.clone()];
        assert_eq!(collector.emit_columns("", &Columns::of(&events).rows()), refused);
        let given: Vec<_> = events.iter().map(guest_event).collect();
        assert_eq!(collector.emit_events("", &given), refused);
        let mut input = InputColumns::new(Input::new(topic(), 5, [(stored(0, &events), 0..2)]).unwrap());
        assert_eq!(collector.forward("", &mut input, &[1, 0]), refused.clone());
        assert_eq!(collector.forward("", &mut input, &[0]), Ok(()));

        // Encoding a header takes bytes that do not count for an event.
        large.value = Some("valu".into());
        assert_eq!(collector.emit_columns("", &Columns::of(&[large]).rows()), Ok(()));
    }

    #[test]
    fn a_row_out_of_range_refuses_the_whole_call() {
        let mut collector = collector(1, 100);
        collector.begin(0, 2, NOW);
        let events = [event("", "a"), event("", "b")];
        let mut input =
            InputColumns::new(Input::new(Name::new("t").unwrap(), 0, [(stored(0, &events), 0..2)]).unwrap());
        assert_eq!(
            collector.forward("", &mut input, &[0, 2]),
            Err(EmitError::Invalid("there is no input row 2; the batch has 2".to_owned()))
        );
        assert_eq!(collector.forward("", &mut input, &[]), Ok(()));
        assert_eq!(emitted(&mut collector), []);
    }

    #[test]
    fn the_last_reason_counts_and_reasons_are_bounded() {
        let mut collector = collector(1, 100);
        collector.reject(3, "first");
        collector.reject(1, &"é".repeat(600));
        collector.reject(3, "last");
        collector.reject(10, "there is no such row");
        let output = collector.finish(Vec::new()).unwrap();
        assert_eq!(output.rejects_ignored, 1);
        let rejected: Vec<_> = output.rejected.iter().map(|one| (one.row, one.reason.as_str())).collect();
        assert_eq!(rejected, [(1, "é".repeat(512).as_str()), (3, "last")]);

        collector.begin(0, 1 << 20, NOW);
        let reason = "r".repeat(REJECT_REASON_BYTES_MAX);
        for row in 0..5000 {
            collector.reject(row, &reason);
        }
        collector.reject(0, "");
        collector.reject(4999, &reason);
        let output = collector.finish(Vec::new()).unwrap();
        assert_eq!(output.rejected.len(), 5000);
        assert_eq!(output.rejected.iter().map(|one| one.reason.len()).sum::<usize>(), REJECT_REASONS_BYTES_MAX);
        assert_eq!((output.rejected[4998].reason.len(), output.rejected[4999].reason.len()), (0, 1024));
    }

    #[test]
    fn rows_that_are_left_are_not_rejected_either() {
        let mut collector = collector(1, 100);
        let refused = |what: &str| Err(EmitError::Invalid(what.to_owned()));
        assert_eq!(collector.defer(2), refused("only a transform and a sink can leave rows for the next call"));
        collector.take_defers();
        assert_eq!(collector.defer(0), refused("a call cannot leave all of its rows for the next one"));
        assert_eq!(collector.defer(10), refused("there is no input row 10; the batch has 10"));
        assert_eq!((collector.defer(9), collector.defer(4)), (Ok(()), Ok(())));
        (2..6).for_each(|row| collector.reject(row, "it is bad"));
        let output = collector.finish(Vec::new()).unwrap();
        assert_eq!(output.deferred, Some(4));
        assert_eq!(output.rejected.iter().map(|one| one.row).collect::<Vec<_>>(), [2, 3]);
        collector.begin(0, 10, NOW);
        assert_eq!(collector.finish(Vec::new()).unwrap().deferred, None);
    }
}
