//! What a call produces.

use crate::error::{Error, Result};
use crate::events::Event;
use crate::host::Collector;
use crate::outbox::{Outbox, Pending};
use std::cell::Cell;
use std::fmt::{self, Display};
use std::io;

thread_local! {
    /// The outboxes of the last call. Their memory is used again.
    static LAST: Cell<Vec<Outbox>> = const { Cell::new(Vec::new()) };
}

/// What a call produces: events on ports, and rows that are put aside.
///
/// Nothing of it is seen by anyone unless the call returns `Ok`. Then it becomes durable in one step, together with
/// the state that was written and the position in the input.
///
/// Events leave in the order in which they are pushed, port by port. They are handed to the host together, so an
/// event that the host refuses may end the call later than where it was pushed.
pub struct Output<'a> {
    collector: &'a Collector<'a>,
    /// The first one is the default port.
    outboxes: Vec<Outbox>,
}

impl<'a> Output<'a> {
    pub(crate) fn new(collector: &'a Collector<'a>) -> Self {
        let mut outboxes = LAST.take();
        if outboxes.is_empty() {
            outboxes.push(Outbox::new(""));
        }
        Self { collector, outboxes }
    }

    /// A port by its name. The deployment wires ports to topics; `""` is the default port.
    #[inline]
    pub fn to(&mut self, port: &str) -> Port<'_> {
        let at = match self.outboxes.iter().position(|outbox| outbox.port() == port) {
            Some(at) => at,
            None => self.add_outbox(port),
        };
        Port { outbox: &mut self.outboxes[at], collector: self.collector }
    }

    #[cold]
    fn add_outbox(&mut self, port: &str) -> usize {
        self.outboxes.push(Outbox::new(port));
        self.outboxes.len() - 1
    }

    #[inline]
    fn default_port(&mut self) -> Port<'_> {
        Port { outbox: &mut self.outboxes[0], collector: self.collector }
    }

    /// Pushes an event with this value and nothing else. See [`Port::push`].
    #[inline]
    pub fn push(&mut self, value: impl AsRef<[u8]>) -> Result<()> {
        self.default_port().push(value)
    }

    /// Starts an event with nothing in it. See [`Port::event`].
    #[inline]
    pub fn event(&mut self) -> Draft<'_> {
        self.default_port().event()
    }

    /// Starts an event with the key and the timestamp of another. See [`Port::like`].
    #[inline]
    pub fn like(&mut self, event: &Event<'_>) -> Draft<'_> {
        self.default_port().like(event)
    }

    /// Passes an event on as it is. See [`Port::forward`].
    #[inline]
    pub fn forward(&mut self, event: &Event<'_>) -> Result<()> {
        self.default_port().forward(event)
    }

    /// Puts one event of the input aside, with the reason, as a dead letter. The rest of the batch is not affected.
    /// The host keeps the last reason given for an event, and at most 1024 bytes of it.
    pub fn reject(&mut self, event: &Event<'_>, reason: impl Display) {
        self.collector.reject(event.row(), &reason.to_string());
    }

    /// Leaves this event and those behind it for the next call, which begins with it. What this call pushes, rejects and writes to
    /// state is of the events before. An error for the first event of a call: one that gets nowhere fails.
    pub fn defer(&mut self, event: &Event<'_>) -> Result<()> {
        Ok(self.collector.defer(event.row())?)
    }

    /// For sources: says where to go on from when everything that this call pushes is durable. The last one of a call counts. At most
    /// 64 KiB; fails in other calls than those of a source.
    pub fn checkpoint(&mut self, position: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.collector.checkpoint(position.as_ref())?)
    }

    /// Bytes of ids, keys, values and headers that this call may still push. What is forwarded counts, too.
    pub fn remaining_bytes(&self) -> u64 {
        let waiting: usize = self.outboxes.iter().map(Outbox::waiting_bytes).sum();
        self.collector.remaining_bytes().saturating_sub(waiting as u64)
    }

    /// Hands everything to the host.
    pub(crate) fn flush(&mut self) -> Result<()> {
        self.outboxes.iter_mut().try_for_each(|outbox| outbox.flush(self.collector))
    }
}

impl Drop for Output<'_> {
    fn drop(&mut self) {
        let mut outboxes = std::mem::take(&mut self.outboxes);
        outboxes.iter_mut().for_each(Outbox::clear);
        outboxes.truncate(PORTS_KEPT_MAX);
        LAST.set(outboxes);
    }
}

/// Ports whose memory is kept for the next call. A component that makes up port names must not grow for ever.
const PORTS_KEPT_MAX: usize = 16;

impl fmt::Debug for Output<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.outboxes.iter().map(Outbox::port)).finish()
    }
}

/// One way out, from [`Output::to`].
#[derive(Debug)]
pub struct Port<'p> {
    outbox: &'p mut Outbox,
    collector: &'p Collector<'p>,
}

impl<'p> Port<'p> {
    /// Pushes an event with this value and nothing else.
    #[inline]
    pub fn push(&mut self, value: impl AsRef<[u8]>) -> Result<()> {
        let pending = self.outbox.begin(self.collector);
        Draft { outbox: self.outbox, collector: self.collector, pending }.value(value)
    }

    /// Starts an event with nothing in it.
    #[inline]
    pub fn event(self) -> Draft<'p> {
        let pending = self.outbox.begin(self.collector);
        Draft { outbox: self.outbox, collector: self.collector, pending }
    }

    /// Starts an event with the key and the timestamp of another, which is what most transforms want: it stays in
    /// order with the others of its key, and happened at the same time.
    ///
    /// It does not take the id over, because an id is the name of one event: add [`Draft::id_of`] where one event
    /// becomes one event.
    #[inline]
    pub fn like(self, event: &Event<'_>) -> Draft<'p> {
        self.event().key_of(event).timestamp_of(event)
    }

    /// Passes an event on as it is: id, key, value, headers and timestamp. The host copies it, so this is the fastest
    /// way out.
    #[inline]
    pub fn forward(&mut self, event: &Event<'_>) -> Result<()> {
        self.outbox.forward(self.collector, event)
    }
}

/// An event that is being put together. It is pushed when it is given its value; dropped before, it never was.
#[derive(Debug)]
#[must_use = "an event is pushed when it is given a value: end with `.value(…)`, `.text(…)`, `.json(…)` or `.tombstone()`"]
pub struct Draft<'p> {
    outbox: &'p mut Outbox,
    collector: &'p Collector<'p>,
    pending: Pending,
}

impl<'p> Draft<'p> {
    /// Gives it a name, for deduplication and tracing. At most 256 bytes.
    #[inline]
    pub fn id(mut self, id: impl AsRef<str>) -> Self {
        self.outbox.set_id(&mut self.pending, Some(id.as_ref().as_bytes()));
        self
    }

    /// Gives it a key. Events with equal keys go to the same partition and keep their order.
    #[inline]
    pub fn key(mut self, key: impl AsRef<[u8]>) -> Self {
        self.outbox.set_key(&mut self.pending, Some(key.as_ref()));
        self
    }

    /// Says when it happened, in microseconds since the Unix epoch. Without, it is the time of the append.
    #[inline]
    pub fn timestamp_us(mut self, timestamp_us: i64) -> Self {
        self.pending.timestamp_us = Some(timestamp_us);
        self
    }

    /// Adds a header, or changes it: a name appears once in an event.
    #[inline]
    pub fn header(self, name: impl AsRef<str>, value: impl AsRef<[u8]>) -> Self {
        self.outbox.set_header(name.as_ref(), value.as_ref());
        self
    }

    /// Takes the id of another event, or that it has none.
    #[inline]
    pub fn id_of(mut self, event: &Event<'_>) -> Self {
        self.outbox.set_id(&mut self.pending, event.id_bytes());
        self
    }

    /// Takes the key of another event, or that it has none.
    #[inline]
    pub fn key_of(mut self, event: &Event<'_>) -> Self {
        self.outbox.set_key(&mut self.pending, event.key());
        self
    }

    /// Takes the timestamp of another event.
    #[inline]
    pub fn timestamp_of(mut self, event: &Event<'_>) -> Self {
        self.pending.timestamp_us = Some(event.timestamp_us());
        self
    }

    /// Adds the headers of another event.
    #[inline]
    pub fn headers_of(self, event: &Event<'_>) -> Self {
        for (name, value) in event.headers() {
            self.outbox.set_header(name, value);
        }
        self
    }

    /// Pushes it with this value.
    #[inline]
    pub fn value(self, value: impl AsRef<[u8]>) -> Result<()> {
        self.outbox.value().extend_from_slice(value.as_ref());
        self.push(true)
    }

    /// Pushes it with this text as its value. It takes all that can be displayed, as [`format_args!`] gives it.
    pub fn text(self, text: impl Display) -> Result<()> {
        let mut value = self.writer();
        // Only a `Display` that fails by itself can fail here.
        fmt::Write::write_fmt(&mut value, format_args!("{text}"))?;
        value.finish()
    }

    /// Pushes it with this as its value, in JSON.
    #[cfg(feature = "json")]
    pub fn json<T: serde::Serialize + ?Sized>(self, value: &T) -> Result<()> {
        let mut writer = self.writer();
        serde_json::to_writer(&mut writer, value)
            .map_err(|error| Error::permanent(error).context("the value cannot be written as JSON"))?;
        writer.finish()
    }

    /// Pushes it without a value.
    #[inline]
    pub fn tombstone(self) -> Result<()> {
        self.push(false)
    }

    /// Writes its value piece by piece, straight to where it is handed over from.
    #[inline]
    pub fn writer(self) -> ValueWriter<'p> {
        let start = self.outbox.value_start();
        ValueWriter { draft: self, start }
    }

    #[inline]
    fn push(self, has_value: bool) -> Result<()> {
        self.outbox.finish(self.collector, self.pending, has_value)
    }
}

/// Writes the value of an event in place, from [`Draft::writer`].
///
/// ```
/// # use nodata_component::{Events, Output, Result};
/// use std::io::Write;
///
/// fn numbered(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
///     for (n, event) in events.iter().enumerate() {
///         let mut value = out.like(&event).writer();
///         write!(value, "{n}: ")?;
///         value.extend(event.bytes()?);
///         value.as_mut().make_ascii_uppercase();
///         value.finish()?;
///     }
///     Ok(())
/// }
/// ```
#[derive(Debug)]
#[must_use = "the event is pushed by `.finish()`"]
pub struct ValueWriter<'p> {
    draft: Draft<'p>,
    start: usize,
}

impl ValueWriter<'_> {
    /// Adds these bytes.
    #[inline]
    pub fn extend(&mut self, bytes: impl AsRef<[u8]>) {
        self.draft.outbox.value().extend_from_slice(bytes.as_ref());
    }

    /// Adds one byte.
    #[inline]
    pub fn push(&mut self, byte: u8) {
        self.draft.outbox.value().push(byte);
    }

    /// Bytes so far.
    #[inline]
    #[allow(
        clippy::len_without_is_empty,
        reason = "what is being written has a length; that it has none is no question"
    )]
    pub fn len(&self) -> usize {
        self.draft.outbox.value_len()
    }

    /// Keeps the first `len` bytes.
    #[inline]
    pub fn truncate(&mut self, len: usize) {
        let end = self.start.saturating_add(len);
        self.draft.outbox.value().truncate(end);
    }

    /// Pushes the event.
    #[inline]
    pub fn finish(self) -> Result<()> {
        self.draft.push(true)
    }
}

/// What was written so far.
impl AsMut<[u8]> for ValueWriter<'_> {
    #[inline]
    fn as_mut(&mut self) -> &mut [u8] {
        let start = self.start;
        &mut self.draft.outbox.value()[start..]
    }
}

impl io::Write for ValueWriter<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend(bytes);
        Ok(bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.extend(bytes);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Write for ValueWriter<'_> {
    #[inline]
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.extend(text);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::testing::{self, Harness};
    use std::io::Write;

    #[test]
    fn a_value_is_written_in_place() {
        let mut harness = Harness::new(|events, out| {
            out.push("before")?;
            for event in events {
                let mut value = out.like(&event).writer();
                value.extend("n");
                value.push(b'=');
                write!(value, "{}", 17)?;
                value.as_mut()[0] = b'N';
                assert_eq!(value.len(), 4);
                value.extend(" cut off");
                value.truncate(4);
                value.finish()?;
            }
            out.push("after")
        });
        let call = harness.call([testing::Event::new("x").key("k")]).ok();
        let expected = [
            testing::Event::new("before"),
            testing::Event::new("N=17").key("k").timestamp_us(0),
            testing::Event::new("after"),
        ];
        assert_eq!(call.events(), expected);
    }

    #[test]
    fn each_port_has_its_own_order() {
        let mut harness = Harness::new(|events, out| {
            for event in events {
                out.to("copies").forward(&event)?;
                out.like(&event).text("main")?;
                let mut copies = out.to("copies");
                copies.push("one")?;
                copies.push("two")?;
            }
            Ok(())
        });
        let call = harness.call(["a", "b"]).ok();
        assert_eq!(call.ports().collect::<Vec<_>>(), ["", "copies"]);
        let texts: Vec<_> = call.to("copies").iter().map(testing::Event::text).collect();
        assert_eq!(texts, ["a", "one", "two", "b", "one", "two"]);
        assert_eq!(call.events().len(), 2);
        assert_eq!(call.to("nothing"), []);
    }

    #[test]
    fn what_waits_counts_against_the_budget() {
        let mut harness = Harness::new(|events, out| {
            assert_eq!(out.remaining_bytes(), 100);
            out.event().key("123").value("4567890")?;
            assert_eq!(out.remaining_bytes(), 90);
            events.iter().try_for_each(|event| out.forward(&event))?;
            // The forwarded row is counted by the host, when it is handed over.
            out.to("other").push("12345")?;
            assert_eq!(out.remaining_bytes(), 85);
            Ok(())
        })
        .output_bytes_max(100);
        harness.call(["x"]).ok();
    }

    #[test]
    fn the_last_reason_for_a_rejected_event_is_kept_and_cut() {
        let mut harness = Harness::new(|events, out| {
            for event in events {
                out.reject(&event, "first");
                out.reject(&event, "é".repeat(600));
                out.forward(&event)?;
            }
            Ok(())
        });
        let call = harness.call(["a", "b"]).ok();
        let rejected = call.rejected();
        assert_eq!((rejected[0].row, rejected[1].row), (0, 1));
        assert_eq!(rejected[1].reason, "é".repeat(512));
        assert_eq!(rejected[1].event.text(), "b");
        assert_eq!(call.events().len(), 2);
    }

    #[cfg(feature = "json")]
    #[test]
    fn a_value_that_is_no_json_is_a_permanent_error_and_no_event() {
        let mut harness = Harness::new(|_, out| {
            let no_json = std::collections::BTreeMap::from([((), 1)]);
            let error = out.event().key("k").json(&no_json).unwrap_err();
            assert_eq!(error.message(), "the value cannot be written as JSON: key must be a string");
            out.event().json(&[1, 2])
        });
        assert_eq!(harness.call(["x"]).ok().events(), [testing::Event::new("[1,2]")]);
    }
}
