//! A batch: events that travel and commit together, stored as columns.
//!
//! A batch is built and hashed once, at the door, by the task that received the events. After that its payload is
//! never looked at again until someone reads it: the sequencer sees a count and a length, the syncer hands the
//! columns to the disk as they are, and a component is given whole columns.
//!
//! The bytes are drawn in this crate's `README.md`. In memory the columns stand apart ([`Batch`] holds five
//! buffers), so that neither building nor writing one needs to copy them into one piece.

use crate::event::{self, Event, EventError, EventRef, TimestampUs};
use crate::limits::{BATCH_EVENTS_MAX, FRAME_BYTES_MAX};
use bytes::{Bytes, BytesMut};
use thiserror::Error;

mod builder;

pub use builder::{BatchBuilder, ColumnRef, RowsRef};

/// Bytes of the header in front of the columns.
pub const BATCH_HEADER_BYTES: usize = 64;

const VERSION: u8 = 1;
const CODEC_NONE: u8 = 0;
/// The length that stands for "there is none".
const NULL: u32 = u32::MAX;

// Stored attribute bits; numbers are never reused.
const HAS_KEYS: u16 = 1;
const HAS_HEADERS: u16 = 2;
const HAS_NULL_VALUES: u16 = 4;
const FROM_COMPONENT: u16 = 8;
const WIDE_TIMESTAMPS: u16 = 16;
const HAS_IDS: u16 = 32;
const EQUAL_TIMESTAMPS: u16 = 64;
const KNOWN: u16 =
    HAS_KEYS | HAS_HEADERS | HAS_NULL_VALUES | FROM_COMPONENT | WIDE_TIMESTAMPS | HAS_IDS | EQUAL_TIMESTAMPS;

/// Events as columns, with their checksum. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    header: Header,
    /// Fixed-width columns, one after the other: timestamps, then the lengths of ids, keys, values and headers.
    fixed: Bytes,
    ids: Bytes,
    keys: Bytes,
    values: Bytes,
    headers: Bytes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    bytes: u32,
    crc: u32,
    attributes: u16,
    count: u32,
    timestamp_min_us: TimestampUs,
    timestamp_max_us: TimestampUs,
    ids_bytes: u32,
    keys_bytes: u32,
    values_bytes: u32,
    headers_bytes: u32,
}

impl Header {
    fn encode(&self) -> [u8; BATCH_HEADER_BYTES] {
        let mut out = [0; BATCH_HEADER_BYTES];
        out[0..4].copy_from_slice(&self.bytes.to_le_bytes());
        out[4..8].copy_from_slice(&self.crc.to_le_bytes());
        out[8] = VERSION;
        out[9] = CODEC_NONE;
        out[10..12].copy_from_slice(&self.attributes.to_le_bytes());
        out[12..16].copy_from_slice(&self.count.to_le_bytes());
        out[16..24].copy_from_slice(&self.timestamp_min_us.to_le_bytes());
        out[24..32].copy_from_slice(&self.timestamp_max_us.to_le_bytes());
        // 32..36 is the schema id, 0 for none.
        out[36..40].copy_from_slice(&self.ids_bytes.to_le_bytes());
        out[40..44].copy_from_slice(&self.keys_bytes.to_le_bytes());
        out[44..48].copy_from_slice(&self.values_bytes.to_le_bytes());
        out[48..52].copy_from_slice(&self.headers_bytes.to_le_bytes());
        out
    }

    fn decode(bytes: &[u8; BATCH_HEADER_BYTES]) -> Result<Self, BatchError> {
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if bytes[8] != VERSION {
            return Err(BatchError::Version { version: bytes[8] });
        }
        if bytes[9] != CODEC_NONE {
            return Err(BatchError::Codec { codec: bytes[9] });
        }
        let attributes = u16::from_le_bytes([bytes[10], bytes[11]]);
        if attributes & !KNOWN != 0 {
            return Err(BatchError::Malformed { what: "unknown attributes" });
        }
        // What is not kept here would be lost when the batch is written again, and its checksum would be wrong.
        if u32_at(32) != 0 || bytes[52..].iter().any(|&byte| byte != 0) {
            return Err(BatchError::Malformed { what: "a schema, or bytes that must be zero" });
        }
        Ok(Self {
            bytes: u32_at(0),
            crc: u32_at(4),
            attributes,
            count: u32_at(12),
            timestamp_min_us: u64_at(16) as i64,
            timestamp_max_us: u64_at(24) as i64,
            ids_bytes: u32_at(36),
            keys_bytes: u32_at(40),
            values_bytes: u32_at(44),
            headers_bytes: u32_at(48),
        })
    }

    fn has(&self, attribute: u16) -> bool {
        self.attributes & attribute != 0
    }

    fn timestamp_width(&self) -> usize {
        if self.has(EQUAL_TIMESTAMPS) {
            0
        } else if self.has(WIDE_TIMESTAMPS) {
            8
        } else {
            4
        }
    }

    /// Where each fixed-width column starts, and where the last one ends.
    fn fixed_layout(&self) -> FixedLayout {
        let rows = self.count as usize;
        let id_lens = rows * self.timestamp_width();
        let key_lens = id_lens + if self.has(HAS_IDS) { rows * 4 } else { 0 };
        let value_lens = key_lens + if self.has(HAS_KEYS) { rows * 4 } else { 0 };
        let header_lens = value_lens + rows * 4;
        let end = header_lens + if self.has(HAS_HEADERS) { rows * 4 } else { 0 };
        FixedLayout { id_lens, key_lens, value_lens, header_lens, end }
    }
}

struct FixedLayout {
    id_lens: usize,
    key_lens: usize,
    value_lens: usize,
    header_lens: usize,
    end: usize,
}

/// What is wrong with the bytes of a batch.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BatchError {
    #[error("a batch holds at least one event")]
    Empty,
    #[error("{count} events, a batch holds at most {BATCH_EVENTS_MAX}")]
    TooManyEvents { count: usize },
    #[error("{bytes} bytes, a batch holds at most {FRAME_BYTES_MAX}")]
    TooLarge { bytes: u64 },
    #[error("the batch is cut short: {bytes} bytes of {expected}")]
    Short { bytes: usize, expected: usize },
    #[error("checksum {found:08x}, the header says {expected:08x}")]
    Checksum { found: u32, expected: u32 },
    #[error("batch version {version}, this build reads {VERSION}")]
    Version { version: u8 },
    #[error("batch codec {codec} is not known to this build")]
    Codec { codec: u8 },
    #[error("malformed batch: {what}")]
    Malformed { what: &'static str },
}

impl Batch {
    /// A batch of these events. The ones without a timestamp get `now_us`.
    pub fn from_events(events: &[Event], now_us: TimestampUs) -> Result<Self, BatchError> {
        let mut builder = BatchBuilder::new(now_us);
        for event in events {
            builder.push(
                event.id.as_ref().map(String::as_bytes),
                event.key.as_deref(),
                event.value.as_deref(),
                event.timestamp_us,
            );
            for (name, value) in &event.headers {
                builder.push_header(name, value);
            }
        }
        builder.finish()
    }

    /// Reads a batch at the start of `bytes`, which may go on behind it, and checks it wholly: the checksum, and
    /// that the lengths of the columns agree. What comes back shares the bytes.
    pub fn decode(bytes: &Bytes) -> Result<Self, BatchError> {
        let Some(header) = bytes.first_chunk::<BATCH_HEADER_BYTES>() else {
            return Err(BatchError::Short { bytes: bytes.len(), expected: BATCH_HEADER_BYTES });
        };
        let total = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        if total < BATCH_HEADER_BYTES {
            return Err(BatchError::Malformed { what: "the length is smaller than the header" });
        }
        if bytes.len() < total {
            return Err(BatchError::Short { bytes: bytes.len(), expected: total });
        }
        let found = crc32c::crc32c(&bytes[8..total]);
        let expected = u32::from_le_bytes([header[4], header[5], header[6], header[7]]);
        if found != expected {
            return Err(BatchError::Checksum { found, expected });
        }
        let header = Header::decode(header)?;
        if header.count == 0 || header.count as usize > BATCH_EVENTS_MAX {
            return Err(BatchError::Malformed { what: "the count is out of range" });
        }
        let fixed_bytes = header.fixed_layout().end;
        let sections = [
            fixed_bytes,
            header.ids_bytes as usize,
            header.keys_bytes as usize,
            header.values_bytes as usize,
            header.headers_bytes as usize,
        ];
        if sections.iter().sum::<usize>() + BATCH_HEADER_BYTES != total {
            return Err(BatchError::Malformed { what: "the columns do not add up to the length" });
        }
        let mut at = BATCH_HEADER_BYTES;
        let [fixed, ids, keys, values, headers] = sections.map(|len| {
            let section = bytes.slice(at..at + len);
            at += len;
            section
        });
        let batch = Self { header, fixed, ids, keys, values, headers };
        batch.check_lengths()?;
        Ok(batch)
    }

    fn check_lengths(&self) -> Result<(), BatchError> {
        let agrees = |lens: Option<Lens<'_>>, bytes: &Bytes, nulls: bool| match lens {
            None => bytes.is_empty(),
            Some(lens) => {
                let mut total = 0u64;
                for len in lens.raw() {
                    if len != NULL {
                        total += u64::from(len);
                    } else if !nulls {
                        return false;
                    }
                }
                total == bytes.len() as u64
            }
        };
        let ok = agrees(self.id_lens(), &self.ids, true)
            && agrees(self.key_lens(), &self.keys, true)
            && agrees(Some(self.value_lens()), &self.values, self.header.has(HAS_NULL_VALUES))
            && agrees(self.header_lens(), &self.headers, false);
        if ok { Ok(()) } else { Err(BatchError::Malformed { what: "the lengths do not add up to their column" }) }
    }

    /// The pieces of the batch as it lies on disk, in order.
    pub fn pieces(&self) -> ([u8; BATCH_HEADER_BYTES], [&Bytes; 5]) {
        (self.header.encode(), [&self.fixed, &self.ids, &self.keys, &self.values, &self.headers])
    }

    /// The batch as it lies on disk, in one piece.
    pub fn encode(&self) -> Bytes {
        let (header, pieces) = self.pieces();
        let mut out = BytesMut::with_capacity(self.encoded_len());
        out.extend_from_slice(&header);
        for piece in pieces {
            out.extend_from_slice(piece);
        }
        out.freeze()
    }

    /// Bytes of the batch as it lies on disk.
    pub fn encoded_len(&self) -> usize {
        self.header.bytes as usize
    }

    /// The checksum over everything behind itself.
    pub fn crc(&self) -> u32 {
        self.header.crc
    }

    /// Events in the batch; never 0.
    #[allow(clippy::len_without_is_empty, reason = "a batch is never empty")]
    pub fn len(&self) -> usize {
        self.header.count as usize
    }

    /// Bytes of ids, keys, values and headers.
    pub fn payload_bytes(&self) -> usize {
        self.ids.len() + self.keys.len() + self.values.len() + self.headers.len()
    }

    /// The earliest timestamp.
    pub fn timestamp_min_us(&self) -> TimestampUs {
        self.header.timestamp_min_us
    }

    /// The latest timestamp.
    pub fn timestamp_max_us(&self) -> TimestampUs {
        self.header.timestamp_max_us
    }

    /// Whether a component emitted these events.
    pub fn is_from_component(&self) -> bool {
        self.header.has(FROM_COMPONENT)
    }

    /// All ids, one after the other.
    pub fn ids(&self) -> &Bytes {
        &self.ids
    }

    /// All keys, one after the other.
    pub fn keys(&self) -> &Bytes {
        &self.keys
    }

    /// All values, one after the other.
    pub fn values(&self) -> &Bytes {
        &self.values
    }

    /// All encoded headers, one event after the other.
    pub fn headers(&self) -> &Bytes {
        &self.headers
    }

    /// A batch of those of its events whose rows are kept, of which there must be one.
    pub(crate) fn retain(&self, is_kept: impl Fn(usize) -> bool) -> Result<Self, BatchError> {
        let mut builder = BatchBuilder::new(self.timestamp_max_us());
        if self.is_from_component() {
            builder.mark_from_component();
        }
        let kept = self.events().enumerate().filter(|(row, _)| is_kept(*row));
        kept.for_each(|(_, event)| builder.push_event(event));
        builder.finish()
    }

    /// The length of each id; `None` when no event has one.
    pub fn id_lens(&self) -> Option<Lens<'_>> {
        let layout = self.header.fixed_layout();
        self.header.has(HAS_IDS).then(|| Lens(&self.fixed[layout.id_lens..layout.key_lens]))
    }

    /// The length of each key; `None` when no event has one.
    pub fn key_lens(&self) -> Option<Lens<'_>> {
        let layout = self.header.fixed_layout();
        self.header.has(HAS_KEYS).then(|| Lens(&self.fixed[layout.key_lens..layout.value_lens]))
    }

    /// The length of each value.
    pub fn value_lens(&self) -> Lens<'_> {
        let layout = self.header.fixed_layout();
        Lens(&self.fixed[layout.value_lens..layout.header_lens])
    }

    /// The bytes of the encoded headers of each event; `None` when no event has any.
    pub fn header_lens(&self) -> Option<Lens<'_>> {
        let layout = self.header.fixed_layout();
        self.header.has(HAS_HEADERS).then(|| Lens(&self.fixed[layout.header_lens..layout.end]))
    }

    /// The timestamps, in order.
    pub fn timestamps(&self) -> Timestamps<'_> {
        let width = self.header.timestamp_width();
        Timestamps {
            min: self.header.timestamp_min_us,
            width,
            left: self.len(),
            deltas: &self.fixed[..self.len() * width],
        }
    }

    /// The events, in order.
    pub fn events(&self) -> Events<'_> {
        Events {
            timestamps: self.timestamps(),
            ids: Column::new(self.id_lens(), &self.ids),
            keys: Column::new(self.key_lens(), &self.keys),
            values: Column::new(Some(self.value_lens()), &self.values),
            headers: Column::new(self.header_lens(), &self.headers),
        }
    }
}

/// The lengths of one column: one for each row, `None` for a null.
#[derive(Clone, Copy, Debug)]
pub struct Lens<'a>(&'a [u8]);

impl<'a> Lens<'a> {
    fn raw(&self) -> impl ExactSizeIterator<Item = u32> + use<'a> {
        let (chunks, _) = self.0.as_chunks::<4>();
        chunks.iter().map(|chunk| u32::from_le_bytes(*chunk))
    }

    /// In order of the rows.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Option<u32>> + use<'a> {
        self.raw().map(|len| (len != NULL).then_some(len))
    }
}

/// The timestamps of a batch, in order.
#[derive(Clone, Debug)]
pub struct Timestamps<'a> {
    min: TimestampUs,
    /// Bytes of one difference to `min`: 0, 4 or 8.
    width: usize,
    left: usize,
    deltas: &'a [u8],
}

impl Iterator for Timestamps<'_> {
    type Item = TimestampUs;

    #[inline]
    fn next(&mut self) -> Option<TimestampUs> {
        self.left = self.left.checked_sub(1)?;
        let (delta, rest) = self.deltas.split_at(self.width);
        self.deltas = rest;
        let mut wide = [0; 8];
        wide[..delta.len()].copy_from_slice(delta);
        Some(self.min.wrapping_add(u64::from_le_bytes(wide) as i64))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl ExactSizeIterator for Timestamps<'_> {}

/// The values of one column, cut off its front row by row.
struct Column<'a> {
    lens: std::slice::Iter<'a, [u8; 4]>,
    data: &'a [u8],
}

impl<'a> Column<'a> {
    fn new(lens: Option<Lens<'a>>, data: &'a [u8]) -> Self {
        Self { lens: lens.map_or([].as_slice(), |lens| lens.0.as_chunks().0).iter(), data }
    }

    #[inline]
    fn take(&mut self) -> Option<&'a [u8]> {
        let len = u32::from_le_bytes(*self.lens.next()?);
        if len == NULL {
            return None;
        }
        // The lengths were checked against the column when the batch was made.
        let (value, rest) = self.data.split_at(len as usize);
        self.data = rest;
        Some(value)
    }
}

/// The events of a batch, in order.
pub struct Events<'a> {
    timestamps: Timestamps<'a>,
    ids: Column<'a>,
    keys: Column<'a>,
    values: Column<'a>,
    headers: Column<'a>,
}

impl<'a> Iterator for Events<'a> {
    type Item = EventRef<'a>;

    #[inline]
    fn next(&mut self) -> Option<EventRef<'a>> {
        Some(EventRef {
            timestamp_us: self.timestamps.next()?,
            id: self.ids.take(),
            key: self.keys.take(),
            value: self.values.take(),
            headers: self.headers.take().unwrap_or_default(),
        })
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.timestamps.size_hint()
    }
}

impl ExactSizeIterator for Events<'_> {}

/// Checks one event against the limits, as the door does.
pub fn check_event(event: &Event, event_bytes_max: u32) -> Result<(), EventError> {
    if let Some(id) = &event.id {
        event::check_id(id.as_bytes())?;
    }
    event::check_header_names(event.headers.iter().map(|(name, _)| name.as_bytes()))?;
    let bytes = event.size();
    if bytes > event_bytes_max as usize {
        return Err(EventError::TooLarge { bytes, bytes_max: event_bytes_max });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: TimestampUs = 1_700_000_000_000_000;

    fn any_bytes() -> impl Strategy<Value = Option<Bytes>> {
        prop::option::of(prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from))
    }

    fn any_timestamp() -> impl Strategy<Value = Option<TimestampUs>> {
        prop_oneof![
            3 => Just(None),
            3 => Just(Some(NOW)),
            2 => (0..1_000_000i64).prop_map(|delta| Some(NOW + delta)),
            1 => any::<i64>().prop_map(Some),
        ]
    }

    prop_compose! {
        fn any_event()(
            id in prop::option::of("[a-z]{1,8}"),
            key in any_bytes(),
            value in any_bytes(),
            headers in prop::collection::vec(("[a-z]{1,6}", prop::collection::vec(any::<u8>(), 0..200)), 0..3),
            timestamp_us in any_timestamp(),
        ) -> Event {
            let headers = headers.into_iter().map(|(name, value)| (name, value.into())).collect();
            Event { id, key, value, headers, timestamp_us }
        }
    }

    fn any_events() -> impl Strategy<Value = Vec<Event>> {
        prop::collection::vec(any_event(), 1..40)
    }

    proptest! {
        #[test]
        fn events_come_back(events in any_events()) {
            let batch = Batch::from_events(&events, NOW).unwrap();
            let mut expected = events;
            for event in &mut expected {
                event.timestamp_us.get_or_insert(NOW);
            }
            let found: Vec<Event> = batch.events().map(|event| event.to_event()).collect();
            prop_assert_eq!(&found, &expected);
            prop_assert_eq!(batch.len(), expected.len());

            let encoded = batch.encode();
            prop_assert_eq!(encoded.len(), batch.encoded_len());
            prop_assert_eq!(&Batch::decode(&encoded).unwrap(), &batch);
        }

        #[test]
        fn a_copied_event_is_the_same(events in any_events()) {
            let batch = Batch::from_events(&events, NOW).unwrap();
            let mut copy = BatchBuilder::new(0);
            for event in batch.events() {
                copy.push_event(event);
            }
            prop_assert_eq!(copy.finish().unwrap(), batch);
        }

        /// Whatever is pushed as columns, in whichever pieces, is the batch that pushing row by row makes.
        #[test]
        fn columns_are_the_same_as_rows(events in any_events(), cuts in prop::collection::vec(0usize..40, 0..3)) {
            let expected = Batch::from_events(&events, NOW).unwrap();

            let stray = Some(b"the bytes of a null do not count".as_slice());
            let column = |of: &dyn Fn(&Event) -> Option<Vec<u8>>| {
                let (mut offsets, mut data, mut validity) = (vec![3u32], vec![0; 3], vec![0u8; events.len().div_ceil(8)]);
                for (row, event) in events.iter().enumerate() {
                    let element = of(event);
                    data.extend_from_slice(element.as_deref().or(stray).unwrap_or_default());
                    offsets.push(data.len() as u32);
                    validity[row / 8] |= u8::from(element.is_some()) << (row % 8);
                }
                if events.iter().all(|event| of(event).is_some()) {
                    validity.clear();
                }
                (offsets, data, validity)
            };
            let ids = column(&|event| event.id.as_ref().map(|id| id.clone().into_bytes()));
            let keys = column(&|event| event.key.as_ref().map(|key| key.to_vec()));
            let values = column(&|event| event.value.as_ref().map(|value| value.to_vec()));
            let headers = column(&|event| {
                let mut out = Vec::new();
                event.headers.iter().for_each(|(name, value)| event::put_header(&mut out, name, value));
                Some(out)
            });
            let timestamps: Vec<_> = events.iter().map(|event| event.timestamp_us.unwrap_or(NOW)).collect();
            fn borrow((offsets, data, validity): &(Vec<u32>, Vec<u8>, Vec<u8>)) -> ColumnRef<'_> {
                ColumnRef { offsets, data, validity }
            }
            let rows = RowsRef {
                ids: events.iter().any(|event| event.id.is_some()).then(|| borrow(&ids)),
                keys: events.iter().any(|event| event.key.is_some()).then(|| borrow(&keys)),
                values: borrow(&values),
                timestamps_us: events.iter().any(|event| event.timestamp_us.is_some()).then_some(timestamps.as_slice()),
                headers: events.iter().any(|event| !event.headers.is_empty()).then(|| borrow(&headers)),
            };

            let mut builder = BatchBuilder::new(NOW);
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(events.len())).collect();
            cuts.extend([0, events.len()]);
            cuts.sort_unstable();
            for pair in cuts.windows(2) {
                builder.push_rows(&rows, pair[0]..pair[1]);
            }
            prop_assert_eq!(builder.payload_bytes(), expected.payload_bytes());
            prop_assert_eq!(builder.finish().unwrap(), expected);
        }

        #[test]
        fn a_flipped_bit_is_refused(events in any_events(), at in any::<prop::sample::Index>(), bit in 0u32..8) {
            let mut bytes = Batch::from_events(&events, NOW).unwrap().encode().to_vec();
            let at = at.index(bytes.len());
            bytes[at] ^= 1u8 << bit;
            prop_assert!(Batch::decode(&bytes.into()).is_err());
        }

        #[test]
        fn a_short_batch_is_refused(events in any_events(), len in any::<prop::sample::Index>()) {
            let bytes = Batch::from_events(&events, NOW).unwrap().encode();
            let len = len.index(bytes.len());
            let is_short = matches!(
                Batch::decode(&bytes.slice(..len)),
                Err(BatchError::Short { .. })
            );
            prop_assert!(is_short);
        }

        /// A checksum does not make bytes true: what agrees with its checksum may still lie about its lengths.
        #[test]
        fn bytes_with_a_good_checksum_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 64..200)) {
            let len = bytes.len() as u32;
            bytes[0..4].copy_from_slice(&len.to_le_bytes());
            bytes[8] = VERSION;
            bytes[9] = CODEC_NONE;
            bytes[10] &= KNOWN as u8;
            bytes[11] = 0;
            bytes[13..16].fill(0);
            let crc = crc32c::crc32c(&bytes[8..]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            if let Ok(batch) = Batch::decode(&bytes.into()) {
                prop_assert_eq!(batch.events().count(), batch.len());
            }
        }
    }

    #[test]
    fn columns_that_nobody_uses_take_no_bytes() {
        let plain = Batch::from_events(&[Event::new("a"), Event::new("b")], NOW).unwrap();
        assert_eq!(plain.encoded_len(), BATCH_HEADER_BYTES + 2 * 4 + 2);
        assert!(plain.key_lens().is_none() && plain.id_lens().is_none() && plain.header_lens().is_none());

        let keyed = Batch::from_events(&[Event::new("a"), Event::new("b").with_key("k")], NOW).unwrap();
        assert_eq!(keyed.key_lens().unwrap().iter().collect::<Vec<_>>(), [None, Some(1)]);
        assert_eq!(keyed.encoded_len(), plain.encoded_len() + 2 * 4 + 1);
    }

    #[test]
    fn an_empty_batch_is_refused() {
        assert_eq!(Batch::from_events(&[], NOW), Err(BatchError::Empty));
    }

    #[test]
    fn what_a_later_version_may_write_is_refused_by_name() {
        let refused = |at: usize, byte: u8| {
            let mut bytes = Batch::from_events(&[Event::new("a")], NOW).unwrap().encode().to_vec();
            bytes[at] = byte;
            let crc = crc32c::crc32c(&bytes[8..]);
            bytes[4..8].copy_from_slice(&crc.to_le_bytes());
            Batch::decode(&bytes.into()).unwrap_err().to_string()
        };
        assert_eq!(refused(8, 2), "batch version 2, this build reads 1");
        for at in [32, 35, 52, 63] {
            assert_eq!(refused(at, 1), "malformed batch: a schema, or bytes that must be zero");
        }
    }
}
