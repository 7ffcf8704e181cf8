//! What waits to be handed to the host for one port.
//!
//! Events are gathered in columns and handed over together; rows that are passed on unchanged are gathered as row
//! numbers and come after the columns. What would have to come before them sends both off, so that the order in a port
//! is the order in which the component spoke. A component that goes back and forth between the two all the time would
//! call the host for every event or two: for that one, short runs of passed on rows are copied into the columns.
//!
//! An event is written in place: its id, key, headers and value go behind the finished rows of their columns, and
//! finishing the row makes them part of it. An event that is given up half-written is cut off again.

use crate::column_builder::BytesColumnBuilder;
use crate::columns::{ColumnsRef, HeadersColumnRef};
use crate::error::{Error, Result};
use crate::events::Event;
use crate::host::{Collector, EmitError};

/// Bytes of events after which they are handed over before the call ends. It bounds what a component holds, keeps
/// the columns in the cache of the processor, and is so much that the cost of a host call does not show.
pub(crate) const FLUSH_BYTES: usize = 1 << 20;

/// Events after which they are handed over before the call ends: empty ones count, too.
const FLUSH_ROWS: usize = 1 << 16;

/// How often pushed events may follow forwarded rows in one call before short runs of rows are copied. Copying needs
/// every column of the input, which has to pay off.
const SWITCHES_MAX: u32 = 4;

/// Rows that are copied in one run. A longer run is worth the two calls of the host that it costs, which take about as
/// long as copying this many small events.
const COPY_ROWS_MAX: u32 = 16;

/// Bytes of memory that a column keeps for the next call.
const KEEP_BYTES: usize = 2 * FLUSH_BYTES;

#[derive(Debug, Default)]
pub(crate) struct Outbox {
    port: String,
    rows: usize,
    ids: BytesColumnBuilder,
    keys: BytesColumnBuilder,
    values: BytesColumnBuilder,
    /// One for each row or none at all: the contract has no nulls here.
    timestamps: Vec<i64>,
    headers: HeadersBuilder,
    /// Rows of the input that come after the events above.
    forwards: Vec<u32>,
    switches: u32,
    copied_rows: u32,
    /// Something may lie behind the finished rows.
    has_pending: bool,
    /// The first refusal. It ends the call, also when the component did not look at it: otherwise events would be
    /// missing from a call that says it went well.
    refused: Option<Error>,
}

/// What is known of the event that is being written. It is with the one who writes it, where it stays in registers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pending {
    has_id: bool,
    has_key: bool,
    pub(crate) timestamp_us: Option<i64>,
    /// What waited before it was refused when it was started, so it ends with that error.
    is_refused: bool,
}

impl Outbox {
    pub(crate) fn new(port: &str) -> Self {
        Self { port: port.to_owned(), ..Self::default() }
    }

    pub(crate) fn port(&self) -> &str {
        &self.port
    }

    /// Bytes that the host has not counted yet.
    #[inline]
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.ids.data.len()
            + self.keys.data.len()
            + self.values.data.len()
            + self.headers.names.data.len()
            + self.headers.values.data.len()
    }

    /// Starts an event. One that was not finished is forgotten.
    #[inline]
    pub(crate) fn begin(&mut self, collector: &Collector<'_>) -> Pending {
        if self.has_pending {
            self.discard_pending();
        }
        let is_refused = !self.forwards.is_empty() && self.switch(collector).is_err();
        self.has_pending = true;
        self.copied_rows = 0;
        Pending { is_refused, ..Pending::default() }
    }

    /// Makes place behind the rows that were passed on.
    #[cold]
    #[inline(never)]
    fn switch(&mut self, collector: &Collector<'_>) -> Result<()> {
        self.switches += 1;
        self.flush(collector)
    }

    #[cold]
    #[inline(never)]
    fn discard_pending(&mut self) {
        self.values.discard_pending();
        self.keys.discard_pending();
        self.ids.discard_pending();
        self.headers.discard_pending();
        self.has_pending = false;
    }

    #[inline]
    pub(crate) fn set_id(&mut self, pending: &mut Pending, id: Option<&[u8]>) {
        if pending.has_id {
            self.ids.discard_pending();
        }
        pending.has_id = id.is_some();
        if let Some(id) = id {
            self.ids.data.extend_from_slice(id);
        }
    }

    #[inline]
    pub(crate) fn set_key(&mut self, pending: &mut Pending, key: Option<&[u8]>) {
        if pending.has_key {
            self.keys.discard_pending();
        }
        pending.has_key = key.is_some();
        if let Some(key) = key {
            self.keys.data.extend_from_slice(key);
        }
    }

    pub(crate) fn set_header(&mut self, name: &str, value: &[u8]) {
        self.headers.set(self.rows, name, value);
    }

    /// Where the value of the event is written, behind those of the others.
    #[inline]
    pub(crate) fn value(&mut self) -> &mut Vec<u8> {
        &mut self.values.data
    }

    /// Where in [`Self::value`] the value starts.
    #[inline]
    pub(crate) fn value_start(&self) -> usize {
        self.values.end()
    }

    /// Bytes of the value so far.
    #[inline]
    pub(crate) fn value_len(&self) -> usize {
        self.values.pending().len()
    }

    /// Ends the event.
    #[inline]
    pub(crate) fn finish(&mut self, collector: &Collector<'_>, pending: Pending, has_value: bool) -> Result<()> {
        if pending.is_refused {
            return self.refused();
        }
        if self.rows > 0 && self.timestamps.is_empty() == pending.timestamp_us.is_some() {
            self.flush_before_pending(collector)?;
        }
        let row = self.rows;
        if has_value {
            self.values.finish_element(row);
        } else {
            self.values.discard_pending();
            self.values.finish_null(row);
        }
        if pending.has_key {
            self.keys.finish_element(row);
        } else {
            self.keys.finish_null(row);
        }
        if pending.has_id {
            self.ids.finish_element(row);
        } else {
            self.ids.finish_null(row);
        }
        self.headers.finish_row();
        if let Some(timestamp_us) = pending.timestamp_us {
            self.timestamps.push(timestamp_us);
        }
        self.has_pending = false;
        self.rows += 1;
        if self.waiting_bytes() >= FLUSH_BYTES || self.rows >= FLUSH_ROWS {
            return self.flush_rows(collector);
        }
        Ok(())
    }

    /// Passes an event of the input on.
    #[inline]
    pub(crate) fn forward(&mut self, collector: &Collector<'_>, event: &Event<'_>) -> Result<()> {
        let is_after_events = self.rows > 0 && self.forwards.is_empty();
        if is_after_events && self.switches >= SWITCHES_MAX {
            return self.forward_or_copy(collector, event);
        }
        self.forwards.push(event.row());
        Ok(())
    }

    #[inline(never)]
    fn forward_or_copy(&mut self, collector: &Collector<'_>, event: &Event<'_>) -> Result<()> {
        let copied_rows = self.copied_rows;
        if copied_rows == COPY_ROWS_MAX || !event.is_cheap_to_copy() {
            self.forwards.push(event.row());
            return Ok(());
        }
        let mut pending = self.begin(collector);
        self.set_id(&mut pending, event.id_bytes());
        self.set_key(&mut pending, event.key());
        pending.timestamp_us = Some(event.timestamp_us());
        for (name, value) in event.headers() {
            self.set_header(name, value);
        }
        let value = event.value();
        self.value().extend_from_slice(value.unwrap_or_default());
        self.finish(collector, pending, value.is_some())?;
        self.copied_rows = copied_rows + 1;
        Ok(())
    }

    /// Hands everything over, and says whether anything was ever refused.
    pub(crate) fn flush(&mut self, collector: &Collector<'_>) -> Result<()> {
        if self.has_pending {
            self.discard_pending();
        }
        if self.rows > 0 {
            self.flush_rows(collector)?;
        }
        if !self.forwards.is_empty() {
            self.flush_forwards(collector)?;
        }
        self.refused()
    }

    #[cold]
    fn refused(&self) -> Result<()> {
        self.refused.clone().map_or(Ok(()), Err)
    }

    /// Forgets everything and keeps its memory.
    pub(crate) fn clear(&mut self) {
        self.clear_rows();
        self.forwards.clear();
        self.switches = 0;
        self.refused = None;
    }

    fn clear_rows(&mut self) {
        self.rows = 0;
        self.ids.clear(KEEP_BYTES);
        self.keys.clear(KEEP_BYTES);
        self.values.clear(KEEP_BYTES);
        self.timestamps.clear();
        self.headers.clear();
        self.has_pending = false;
    }

    #[cold]
    #[inline(never)]
    fn flush_rows(&mut self, collector: &Collector<'_>) -> Result<()> {
        let (count, bytes) = (self.rows, self.waiting_bytes());
        for column in [&mut self.keys, &mut self.values] {
            if !column.is_used() {
                column.fill_with_nulls(self.rows);
            }
        }
        let rows = ColumnsRef {
            ids: self.ids.is_used().then(|| self.ids.as_column()),
            keys: self.keys.as_column(),
            values: self.values.as_column(),
            timestamps: &self.timestamps,
            headers: self.headers.as_column(),
        };
        let emitted = collector.emit_columns(&self.port, rows);
        self.clear_rows();
        emitted.or_else(|error| self.refuse(collector, error, format!("{count} events with {bytes} bytes")))
    }

    #[cold]
    #[inline(never)]
    fn flush_forwards(&mut self, collector: &Collector<'_>) -> Result<()> {
        let count = self.forwards.len();
        let forwarded = collector.forward(&self.port, &self.forwards);
        self.forwards.clear();
        forwarded.or_else(|error| self.refuse(collector, error, format!("{count} forwarded events")))
    }

    /// The contract has a timestamp for each row that is handed over or for none. Where one with meets one without,
    /// what came before goes first.
    #[cold]
    #[inline(never)]
    fn flush_before_pending(&mut self, collector: &Collector<'_>) -> Result<()> {
        let id = self.ids.pending().to_vec();
        let key = self.keys.pending().to_vec();
        let value = self.values.pending().to_vec();
        let headers = self.headers.take_pending();
        let flushed = self.flush_rows(collector);
        self.ids.data.extend_from_slice(&id);
        self.keys.data.extend_from_slice(&key);
        self.values.data.extend_from_slice(&value);
        for (name, value) in headers {
            self.headers.set(0, &name, &value);
        }
        self.has_pending = true;
        flushed
    }

    #[cold]
    fn refuse(&mut self, collector: &Collector<'_>, error: EmitError, what: String) -> Result<()> {
        let port = match self.port.as_str() {
            "" => "the default port".to_owned(),
            port => format!("port `{port}`"),
        };
        let error = Error::permanent(match error {
            EmitError::UnknownPort(_) => format!("the deployment wires no topic to {port}"),
            EmitError::BudgetExceeded => format!(
                "the output of this call is more than the deployment allows: {what} for {port} were refused, {} bytes \
                 were left",
                collector.remaining_bytes()
            ),
            EmitError::Invalid(why) => format!("an event for {port} was refused: {why}"),
        });
        self.refused.get_or_insert_with(|| error.clone());
        Err(error)
    }
}

/// The headers of the rows of an outbox. Nothing until the first header.
#[derive(Debug, Default)]
struct HeadersBuilder {
    row_offsets: Vec<u32>,
    names: BytesColumnBuilder,
    values: BytesColumnBuilder,
}

impl HeadersBuilder {
    fn count(&self) -> usize {
        self.names.offsets.len().saturating_sub(1)
    }

    /// The first header of the event that is being written.
    fn pending_start(&self) -> usize {
        self.row_offsets.last().map_or(0, |&start| start as usize)
    }

    #[inline]
    fn discard_pending(&mut self) {
        if !self.row_offsets.is_empty() {
            self.truncate(self.pending_start());
        }
    }

    fn truncate(&mut self, count: usize) {
        for column in [&mut self.names, &mut self.values] {
            column.offsets.truncate(count + 1);
            column.discard_pending();
        }
    }

    fn set(&mut self, rows: usize, name: &str, value: &[u8]) {
        if self.row_offsets.is_empty() {
            self.row_offsets.resize(rows + 1, 0);
        }
        // A name appears once in an event; the last value counts.
        let start = self.pending_start();
        let is_repeated = (start..self.count()).any(|at| self.element(at).0 == name.as_bytes());
        if is_repeated {
            let others: Vec<_> = self.take_pending().into_iter().filter(|(other, _)| other != name).collect();
            for (name, value) in &others {
                self.push(name, value);
            }
        }
        self.push(name, value);
    }

    fn push(&mut self, name: &str, value: &[u8]) {
        let at = self.count();
        self.names.data.extend_from_slice(name.as_bytes());
        self.names.finish_element(at);
        self.values.data.extend_from_slice(value);
        self.values.finish_element(at);
    }

    fn element(&self, at: usize) -> (&[u8], &[u8]) {
        let of = |column: &'_ BytesColumnBuilder| column.offsets[at] as usize..column.offsets[at + 1] as usize;
        (&self.names.data[of(&self.names)], &self.values.data[of(&self.values)])
    }

    /// Cuts the headers of the event that is being written off.
    fn take_pending(&mut self) -> Vec<(String, Vec<u8>)> {
        let start = self.pending_start();
        let taken = (start..self.count())
            .map(|at| {
                let (name, value) = self.element(at);
                (String::from_utf8_lossy(name).into_owned(), value.to_vec())
            })
            .collect();
        self.discard_pending();
        taken
    }

    #[inline]
    fn finish_row(&mut self) {
        if !self.row_offsets.is_empty() {
            self.row_offsets.push(self.count() as u32);
        }
    }

    fn clear(&mut self) {
        self.row_offsets.clear();
        self.names.clear(KEEP_BYTES);
        self.values.clear(KEEP_BYTES);
    }

    fn as_column(&self) -> Option<HeadersColumnRef<'_>> {
        (!self.row_offsets.is_empty()).then(|| HeadersColumnRef {
            row_offsets: &self.row_offsets,
            names: self.names.as_column(),
            values: self.values.as_column(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::component;
    use crate::host::native::{Batch, Offsets, Sink};
    use crate::testing::{Call, Columns, Event, Harness};
    use crate::{Events, Output};
    use std::cell::Cell;

    fn check(process: fn(Events<'_>, &mut Output<'_>) -> Result<()>) -> Call {
        let input = [
            Event::new("a").id("1").key("ka").header("h", "x").timestamp_us(10),
            Event::new("b").timestamp_us(20),
            Event::tombstone().key("").timestamp_us(30),
        ];
        Harness::new(process).call(input).ok()
    }

    #[test]
    fn columns_that_begin_late_are_null_before() {
        let call = check(|_, out| {
            out.push("plain")?;
            out.event().key("k").value("keyed")?;
            out.event().id("i").value("named")?;
            out.event().header("h", "v").value("with header")?;
            out.event().tombstone()?;
            out.push("plain")
        });
        let expected = [
            Event::new("plain"),
            Event::new("keyed").key("k"),
            Event::new("named").id("i"),
            Event::new("with header").header("h", "v"),
            Event::tombstone(),
            Event::new("plain"),
        ];
        assert_eq!(call.events(), expected);
    }

    #[test]
    fn an_event_that_is_given_up_leaves_nothing() {
        let call = check(|_, out| {
            out.push("first")?;
            drop(out.event().id("i").key("k").header("h", "v").timestamp_us(1));
            let mut writer = out.event().key("k").writer();
            writer.extend("half");
            drop(writer);
            out.push("second")?;
            drop(out.event().key("k").header("h", "v"));
            out.to("other").event().key("k").value("third")?;
            drop(out.to("other").event().id("i").header("h", "v").writer());
            Ok(())
        });
        assert_eq!(call.events(), [Event::new("first"), Event::new("second")]);
        assert_eq!(call.to("other"), [Event::new("third").key("k")]);
    }

    #[test]
    fn what_is_set_twice_is_set_once() {
        let call = check(|_, out| {
            let draft = out.event().id("first").id("second").key("first").key("second");
            draft.header("a", "1").header("b", "2").header("a", "3").timestamp_us(1).timestamp_us(2).value("v")?;
            out.event().header("a", "4").value("w")
        });
        let first = Event::new("v").id("second").key("second").header("b", "2").header("a", "3").timestamp_us(2);
        assert_eq!(call.events()[..1], [first]);
        assert_eq!(call.events()[1].headers, [("a".to_owned(), b"4".to_vec())]);
    }

    #[test]
    fn what_is_taken_from_another_event_is_the_same() {
        let call = check(|events, out| {
            for event in events {
                let draft = out.event().id("x").key("x").header("mine", "1");
                draft.id_of(&event).key_of(&event).timestamp_of(&event).headers_of(&event).value("new")?;
                out.like(&event).tombstone()?;
            }
            Ok(())
        });
        let expected = [
            Event::new("new").id("1").key("ka").header("mine", "1").header("h", "x").timestamp_us(10),
            Event::tombstone().key("ka").timestamp_us(10),
            Event::new("new").header("mine", "1").timestamp_us(20),
            Event::tombstone().timestamp_us(20),
            Event::new("new").key("").header("mine", "1").timestamp_us(30),
            Event::tombstone().key("").timestamp_us(30),
        ];
        assert_eq!(call.events(), expected);
    }

    #[test]
    fn events_with_and_without_a_timestamp_keep_their_order() {
        let call = check(|_, out| {
            out.push("1")?;
            out.event().id("i").key("k").header("h", "v").timestamp_us(5).value("2")?;
            out.event().key("l").timestamp_us(6).value("3")?;
            out.event().header("h", "w").value("4")
        });
        let expected = [
            Event::new("1"),
            Event::new("2").id("i").key("k").header("h", "v").timestamp_us(5),
            Event::new("3").key("l").timestamp_us(6),
            Event::new("4").header("h", "w"),
        ];
        assert_eq!(call.events(), expected);
    }

    #[test]
    fn forwarded_and_pushed_events_keep_their_order_in_a_port() {
        let call = check(|events, out| {
            for event in events {
                out.forward(&event)?;
                out.forward(&event)?;
                out.like(&event).value("copy")?;
                out.to("other").forward(&event)?;
            }
            Ok(())
        });
        let texts: Vec<String> = call.events().iter().map(Event::text).collect();
        assert_eq!(texts, ["a", "a", "copy", "b", "b", "copy", "", "", "copy"]);
        let first = Event::new("a").id("1").key("ka").header("h", "x").timestamp_us(10);
        assert_eq!(call.events()[0], first);
        assert_eq!(call.to("other").len(), 3);
    }

    /// More than is handed over at once, with everything in it.
    #[test]
    fn many_events_are_handed_over_in_parts() {
        let call = check(|_, out| {
            for n in 0..200_000u32 {
                let draft = out.event().key(n.to_le_bytes());
                let draft = if n % 3 == 0 { draft.id(n.to_string()) } else { draft };
                let draft = if n % 5 == 0 { draft.header("n", n.to_string()) } else { draft };
                if n % 7 == 0 { draft.tombstone()? } else { draft.text(n)? }
            }
            Ok(())
        });
        assert_eq!(call.events().len(), 200_000);
        for (n, event) in call.events().iter().enumerate() {
            let mut expected = if n % 7 == 0 { Event::tombstone() } else { Event::new(n.to_string()) };
            expected = expected.key((n as u32).to_le_bytes());
            expected.id = (n % 3 == 0).then(|| n.to_string());
            if n % 5 == 0 {
                expected = expected.header("n", n.to_string());
            }
            assert_eq!(*event, expected);
        }
    }

    #[test]
    fn a_refusal_ends_the_call_even_if_it_was_not_looked_at() {
        let refused = |out: &mut Output<'_>| {
            out.to("nowhere").push("a")?;
            // The mix of the two hands over what came before.
            out.to("nowhere").event().timestamp_us(1).value("b")
        };
        let mut harness = Harness::new(move |_, out| {
            let message = refused(out).unwrap_err().to_string();
            assert_eq!(message, "the deployment wires no topic to port `nowhere`");
            out.push("c")
        })
        .ports([""]);
        let call = harness.call(["x"]);
        assert_eq!(call.error().unwrap().message(), "the deployment wires no topic to port `nowhere`");
        assert_eq!(call.events(), []);
    }

    #[test]
    fn what_the_host_refuses_is_said_in_words() {
        let error = |process: fn(Events<'_>, &mut Output<'_>) -> Result<()>| {
            let mut harness = Harness::new(process).ports(["late"]).output_bytes_max(10);
            let call = harness.call(["x"]);
            let error = call.error().unwrap();
            assert!(!error.is_transient());
            error.to_string()
        };
        assert_eq!(error(|_, out| out.push("a")), "the deployment wires no topic to the default port");
        assert_eq!(
            error(|_, out| {
                out.to("late").push("12345")?;
                out.to("late").event().timestamp_us(0).value("123456")
            }),
            "the output of this call is more than the deployment allows: 1 events with 6 bytes for port `late` were \
             refused, 5 bytes were left"
        );
        assert_eq!(
            error(|events, out| events.iter().cycle().take(11).try_for_each(|event| out.to("late").forward(&event))),
            "the output of this call is more than the deployment allows: 11 forwarded events for port `late` were \
             refused, 10 bytes were left"
        );
        assert_eq!(
            error(|_, out| out.to("late").event().id("").value("a")),
            "an event for port `late` was refused: the id is empty; leave it out instead"
        );
    }

    /// Counts how often the host is called.
    #[derive(Default)]
    struct Calls(Cell<usize>);

    impl Sink for Calls {
        fn emit_columns(&self, _: &str, _: ColumnsRef<'_>) -> Result<(), EmitError> {
            self.0.set(self.0.get() + 1);
            Ok(())
        }

        fn forward(&self, _: &str, _: &[u32]) -> Result<(), EmitError> {
            self.0.set(self.0.get() + 1);
            Ok(())
        }

        fn reject(&self, _: u32, _: &str) {}

        fn defer(&self, _: u32) -> Result<(), EmitError> {
            Err(EmitError::Invalid("there is no next call".to_owned()))
        }

        fn checkpoint(&self, _: &[u8]) -> Result<(), EmitError> {
            Err(EmitError::Invalid("only a source has checkpoints".to_owned()))
        }

        fn remaining_bytes(&self) -> u64 {
            u64::MAX
        }
    }

    /// How often the host is called for 1000 events of this size, when one in `every` is pushed and the rest is passed
    /// on.
    fn host_calls(value_bytes: usize, every: usize) -> usize {
        let input = vec![Event::new(vec![b'x'; value_bytes]); 1000];
        let columns = Columns::from_events(&input);
        let batch = Batch { topic: "t", partition: 0, attempt: 1, offsets: Offsets::FromZero, columns: &columns };
        let calls = Calls::default();
        let process = |events: Events<'_>, out: &mut Output<'_>| {
            for (n, event) in events.iter().enumerate() {
                if n % every == 0 { out.like(&event).value("pushed")? } else { out.forward(&event)? }
            }
            Ok(())
        };
        component::call(process, batch, &Collector(&calls)).unwrap();
        calls.0.get()
    }

    #[test]
    fn the_host_is_called_once_in_a_while() {
        assert_eq!(host_calls(100, 1), 1);
        assert_eq!(host_calls(100, 2000), 2);
        // The first switches call it twice each. Then short runs are copied, …
        assert_eq!(host_calls(100, 2), 2 * SWITCHES_MAX as usize + 1);
        assert_eq!(host_calls(100, 10), 2 * SWITCHES_MAX as usize + 1);
        // … long ones are not, …
        assert_eq!(host_calls(100, 100), 20);
        // … and neither are large events.
        assert_eq!(host_calls(2000, 10), 200);
    }
}
