//! One event, and many.

use crate::{Error, Result};
use bytes::{Bytes, BytesMut};
use nodata_proto::client::StoredBatch;
use nodata_proto::events::{self, Outgoing, WireEvent};

/// An event to publish.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Event {
    /// Unique name, for deduplication and tracing.
    pub id: Option<String>,
    /// Events with equal keys go to the same partition and keep their order. An empty key is a key, `None` is not.
    pub key: Option<Bytes>,
    /// `None` is a tombstone.
    pub value: Option<Bytes>,
    /// In order; no name twice.
    pub headers: Vec<(String, Bytes)>,
    /// Microseconds since the Unix epoch, UTC. `None`: the server's clock.
    pub timestamp_us: Option<i64>,
}

impl Event {
    /// An event with this value and nothing else.
    pub fn new(value: impl Into<Bytes>) -> Self {
        Self { value: Some(value.into()), ..Self::default() }
    }

    /// The same event with this key.
    #[must_use]
    pub fn with_key(mut self, key: impl Into<Bytes>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// The same event with this id.
    #[must_use]
    pub fn with_id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// The same event with one more header.
    #[must_use]
    pub fn with_header(mut self, name: impl Into<String>, value: impl Into<Bytes>) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same event with this timestamp.
    #[must_use]
    pub fn with_timestamp_us(mut self, timestamp_us: i64) -> Self {
        self.timestamp_us = Some(timestamp_us);
        self
    }
}

/// Events that are appended as one unit. They are encoded as they are pushed.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    wire: BytesMut,
    len: usize,
}

impl Batch {
    /// An empty batch.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an event.
    pub fn push(&mut self, event: &Event) {
        let headers = event.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_ref()));
        let outgoing = Outgoing {
            id: event.id.as_ref().map(String::as_bytes),
            key: event.key.as_deref(),
            value: event.value.as_deref(),
            timestamp_us: event.timestamp_us,
            headers,
        };
        self.wire.reserve(outgoing.len());
        outgoing.put(&mut self.wire);
        self.len += 1;
    }

    /// Adds an event that is a key and a value, without making an [`Event`] of them.
    pub fn push_parts(&mut self, key: Option<&[u8]>, value: &[u8]) {
        let outgoing = Outgoing { id: None, key, value: Some(value), timestamp_us: None, headers: std::iter::empty() };
        self.wire.reserve(outgoing.len());
        outgoing.put(&mut self.wire);
        self.len += 1;
    }

    /// Events in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes on the wire.
    pub fn bytes(&self) -> usize {
        self.wire.len()
    }

    /// The bytes of a `nodata.v1.EventBatch`.
    pub fn as_wire(&self) -> &[u8] {
        &self.wire
    }

    pub(crate) fn into_wire(self) -> Bytes {
        self.wire.freeze()
    }
}

impl<'a> FromIterator<&'a Event> for Batch {
    fn from_iter<I: IntoIterator<Item = &'a Event>>(events: I) -> Self {
        let mut batch = Self::new();
        events.into_iter().for_each(|event| batch.push(event));
        batch
    }
}

/// An event that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Received {
    pub partition: u32,
    /// Its place in the partition. Offsets strictly increase and may have gaps.
    pub offset: u64,
    /// When it was appended, by the server's clock: microseconds since the Unix epoch, UTC.
    pub append_timestamp_us: i64,
    /// Its timestamp is never `None`.
    pub event: Event,
}

/// Events of one partition that were read together.
#[derive(Clone, Debug)]
pub struct ReceivedBatch {
    partition: u32,
    base_offset: u64,
    deltas: Vec<u32>,
    append_timestamp_us: i64,
    wire: Bytes,
    count: usize,
    /// Events at the front and at the end that were not asked for.
    skip: usize,
    end: u64,
}

impl ReceivedBatch {
    pub(crate) fn new(stored: StoredBatch, from: u64, end: u64) -> Self {
        let StoredBatch { partition, base_offset, offset_deltas, append_timestamp_us, batch, event_count } = stored;
        let skip = if offset_deltas.is_empty() {
            usize::try_from(from.saturating_sub(base_offset)).unwrap_or(usize::MAX)
        } else {
            offset_deltas.partition_point(|&delta| base_offset + u64::from(delta) < from)
        };
        Self {
            partition,
            base_offset,
            deltas: offset_deltas,
            append_timestamp_us,
            wire: batch,
            count: event_count as usize,
            skip,
            end,
        }
    }

    /// The partition of all of them.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    fn offset(&self, row: usize) -> u64 {
        self.base_offset + self.deltas.get(row).map_or(row as u64, |&delta| u64::from(delta))
    }

    /// The offset of the last event, whether it was asked for or not.
    pub(crate) fn last_offset(&self) -> u64 {
        self.offset(self.count.saturating_sub(1))
    }

    /// Whether there is nothing in it that was asked for.
    pub(crate) fn is_empty(&self) -> bool {
        self.skip >= self.count || self.offset(self.skip) >= self.end
    }

    /// Key, value and the rest of each event, with its offset, without copying anything.
    pub fn rows(&self) -> impl Iterator<Item = Result<(u64, WireEvent<'_>)>> + '_ {
        events::read(&self.wire)
            .enumerate()
            .skip(self.skip)
            .map(|(row, event)| match event {
                Ok(event) => Ok((self.offset(row), event)),
                Err(error) => Err(Error::invalid(error.to_string())),
            })
            .take_while(|row| row.as_ref().map_or(true, |(offset, _)| *offset < self.end))
    }

    /// The events, in order.
    pub fn events(&self) -> impl Iterator<Item = Result<Received>> + '_ {
        self.rows().map(|row| {
            let (offset, event) = row?;
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            // The parts share the bytes of the message.
            let part = |part: &[u8]| self.wire.slice_ref(part);
            Ok(Received {
                partition: self.partition,
                offset,
                append_timestamp_us: self.append_timestamp_us,
                event: Event {
                    id: event.id.map(text),
                    key: event.key.map(part),
                    value: event.value.map(part),
                    headers: event.headers().map(|(name, value)| (text(name), part(value))).collect(),
                    timestamp_us: event.timestamp_us,
                },
            })
        })
    }
}
