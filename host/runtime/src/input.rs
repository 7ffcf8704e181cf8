//! What one call is given: consecutive rows of one partition, as they lie in the log.
//!
//! The rows of one batch, or of a part of one, are handed on without being copied. Those of several batches are put one
//! behind the other when a guest asks for a column, which is the one copy that small batches cost.

use crate::limits::{INPUT_BYTES_MAX, INPUT_EVENTS_MAX};
use bytes::{Bytes, BytesMut};
use nodata_log::batch::Lens;
use nodata_log::{Batch, ColumnRef, ErrorKind, EventRef, Name, Offset, StoredBatch, TimestampUs};
use std::ops::Range;
use std::sync::Arc;
use thiserror::Error;

/// Consecutive rows of one partition; never empty.
#[derive(Clone, Debug)]
pub struct Input {
    topic: Name,
    partition: u32,
    attempt: u32,
    pieces: Vec<Piece>,
    rows: usize,
    bytes: u64,
}

/// Rows of one batch, and where their bytes lie in its columns.
#[derive(Clone, Debug)]
struct Piece {
    stored: StoredBatch,
    rows: Range<usize>,
    ids: Range<usize>,
    keys: Range<usize>,
    values: Range<usize>,
    headers: Range<usize>,
}

/// Why rows cannot be an input.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum InputError {
    #[error("an input without rows")]
    Empty,
    #[error("rows {} to {} of a batch that has {rows}", range.start, range.end)]
    OutOfRange { range: Range<usize>, rows: usize },
    #[error("an input of {rows} events, at most {INPUT_EVENTS_MAX} are allowed")]
    TooManyRows { rows: usize },
    #[error("an input of {bytes} bytes, at most {INPUT_BYTES_MAX} are allowed")]
    TooLarge { bytes: u64 },
}

impl InputError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        ErrorKind::Invalid
    }
}

impl Input {
    /// These rows of these batches, which follow each other in one partition, for the first time.
    pub fn new(
        topic: Name,
        partition: u32,
        batches: impl IntoIterator<Item = (StoredBatch, Range<usize>)>,
    ) -> Result<Self, InputError> {
        let mut input = Self { topic, partition, attempt: 1, pieces: Vec::new(), rows: 0, bytes: 0 };
        for (stored, rows) in batches {
            input.push(Piece::new(stored, rows)?);
        }
        match input {
            Input { rows: 0, .. } => Err(InputError::Empty),
            Input { rows, .. } if rows > INPUT_EVENTS_MAX => Err(InputError::TooManyRows { rows }),
            Input { bytes, .. } if bytes > INPUT_BYTES_MAX => Err(InputError::TooLarge { bytes }),
            _ => Ok(input),
        }
    }

    fn push(&mut self, piece: Piece) {
        if !piece.rows.is_empty() {
            self.rows += piece.rows.len();
            self.bytes += piece.bytes();
            self.pieces.push(piece);
        }
    }

    /// The same rows, delivered for this time; the first is 1.
    #[must_use]
    pub fn with_attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }

    /// Some of the rows, by their numbers in this input: how a batch is taken apart to find the event that fails.
    pub fn slice(&self, rows: Range<usize>) -> Result<Self, InputError> {
        if rows.start > rows.end || rows.end > self.rows {
            return Err(InputError::OutOfRange { range: rows, rows: self.rows });
        }
        let mut before = 0;
        let mut pieces = Vec::new();
        for piece in &self.pieces {
            let within = |row: usize| row.saturating_sub(before).min(piece.rows.len()) + piece.rows.start;
            pieces.push((piece.stored.clone(), within(rows.start)..within(rows.end)));
            before += piece.rows.len();
        }
        Ok(Self::new(self.topic.clone(), self.partition, pieces)?.with_attempt(self.attempt))
    }

    /// The topic the rows come from.
    pub fn topic(&self) -> &Name {
        &self.topic
    }

    /// The partition the rows come from.
    pub fn partition(&self) -> u32 {
        self.partition
    }

    /// 1 for the first time.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Rows; at least 1.
    #[allow(clippy::len_without_is_empty, reason = "an input is never empty")]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// The offset of the first row.
    pub fn first_offset(&self) -> Offset {
        self.pieces.first().map_or(0, |piece| piece.stored.offsets.at(piece.rows.start))
    }

    /// The offset of the last row.
    pub fn last_offset(&self) -> Offset {
        self.pieces.last().map_or(0, |piece| piece.stored.offsets.at(piece.rows.end - 1))
    }

    /// The offset behind the first so many rows, at least one.
    pub fn offset_behind(&self, rows: usize) -> Offset {
        let mut left = rows.clamp(1, self.rows);
        for piece in &self.pieces {
            if left <= piece.rows.len() {
                return piece.stored.offsets.at(piece.rows.start + left - 1) + 1;
            }
            left -= piece.rows.len();
        }
        self.last_offset() + 1
    }

    /// Bytes of ids, keys, values and headers.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The rows with their offsets, in order.
    pub fn events(&self) -> impl Iterator<Item = (Offset, EventRef<'_>)> {
        self.pieces.iter().flat_map(|piece| {
            let events = piece.stored.batch.events().skip(piece.rows.start).take(piece.rows.len());
            piece.rows.clone().map(|row| piece.stored.offsets.at(row)).zip(events)
        })
    }

    pub(crate) fn offsets(&self) -> Vec<Offset> {
        let mut offsets = Vec::with_capacity(self.rows);
        for piece in &self.pieces {
            offsets.extend(piece.rows.clone().map(|row| piece.stored.offsets.at(row)));
        }
        offsets
    }

    fn timestamps(&self) -> Vec<TimestampUs> {
        let mut timestamps = Vec::with_capacity(self.rows);
        for piece in &self.pieces {
            timestamps.extend(piece.stored.batch.timestamps().skip(piece.rows.start).take(piece.rows.len()));
        }
        timestamps
    }

    /// One column; `None` when no batch has it.
    fn column(&self, which: Which) -> Option<Column> {
        self.pieces.iter().any(|piece| which.lens(&piece.stored.batch).is_some()).then(|| {
            let (offsets, validity) = self.layout(which);
            Column { offsets: Arc::new(offsets), data: self.data(which), validity }
        })
    }

    fn layout(&self, which: Which) -> (Vec<u32>, Bytes) {
        let mut offsets = Vec::with_capacity(self.rows + 1);
        let mut end = 0;
        let mut nulls = false;
        offsets.push(end);
        for piece in &self.pieces {
            match which.lens(&piece.stored.batch) {
                Some(lens) => offsets.extend(piece.cut(lens).map(|len| {
                    nulls |= len.is_none();
                    end += len.unwrap_or(0);
                    end
                })),
                None => {
                    nulls |= which != Which::Headers;
                    offsets.resize(offsets.len() + piece.rows.len(), end);
                }
            }
        }
        (offsets, if nulls { self.validity(which) } else { Bytes::new() })
    }

    fn validity(&self, which: Which) -> Bytes {
        let mut validity = vec![0u8; self.rows.div_ceil(8)];
        let mut row = 0;
        for piece in &self.pieces {
            if let Some(lens) = which.lens(&piece.stored.batch) {
                for (row, len) in (row..).zip(piece.cut(lens)) {
                    validity[row / 8] |= u8::from(len.is_some()) << (row % 8);
                }
            }
            row += piece.rows.len();
        }
        validity.into()
    }

    fn data(&self, which: Which) -> Bytes {
        if let [piece] = self.pieces.as_slice() {
            return which.data(piece);
        }
        let mut data = BytesMut::new();
        for piece in &self.pieces {
            data.extend_from_slice(&which.data(piece));
        }
        data.freeze()
    }
}

impl Piece {
    fn new(stored: StoredBatch, rows: Range<usize>) -> Result<Self, InputError> {
        let batch = &stored.batch;
        if rows.start > rows.end || rows.end > batch.len() {
            return Err(InputError::OutOfRange { range: rows, rows: batch.len() });
        }
        let span = |which: Which| match which.lens(batch) {
            None => 0..0,
            Some(_) if rows == (0..batch.len()) => 0..which.all(batch).len(),
            Some(lens) => {
                let bytes = |lens: &mut dyn Iterator<Item = Option<u32>>| {
                    lens.map(|len| len.unwrap_or(0) as usize).sum::<usize>()
                };
                let start = bytes(&mut lens.iter().take(rows.start));
                start..start + bytes(&mut lens.iter().skip(rows.start).take(rows.len()))
            }
        };
        let [ids, keys, values, headers] = [Which::Ids, Which::Keys, Which::Values, Which::Headers].map(span);
        Ok(Self { stored, rows, ids, keys, values, headers })
    }

    fn bytes(&self) -> u64 {
        (self.ids.len() + self.keys.len() + self.values.len() + self.headers.len()) as u64
    }

    /// The lengths of these rows.
    fn cut<'a>(&self, lens: Lens<'a>) -> impl Iterator<Item = Option<u32>> + 'a {
        lens.iter().skip(self.rows.start).take(self.rows.len())
    }
}

/// The columns of byte strings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    Ids,
    Keys,
    Values,
    Headers,
}

impl Which {
    fn lens(self, batch: &Batch) -> Option<Lens<'_>> {
        match self {
            Which::Ids => batch.id_lens(),
            Which::Keys => batch.key_lens(),
            Which::Values => Some(batch.value_lens()),
            Which::Headers => batch.header_lens(),
        }
    }

    fn all(self, batch: &Batch) -> &Bytes {
        match self {
            Which::Ids => batch.ids(),
            Which::Keys => batch.keys(),
            Which::Values => batch.values(),
            Which::Headers => batch.headers(),
        }
    }

    fn data(self, piece: &Piece) -> Bytes {
        let span = match self {
            Which::Ids => &piece.ids,
            Which::Keys => &piece.keys,
            Which::Values => &piece.values,
            Which::Headers => &piece.headers,
        };
        self.all(&piece.stored.batch).slice(span.clone())
    }
}

/// A column of byte strings, with offsets from 0. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Column {
    pub(crate) offsets: Arc<Vec<u32>>,
    pub(crate) data: Bytes,
    /// Empty when there is no null.
    pub(crate) validity: Bytes,
}

impl Column {
    /// A column of nothing but nulls.
    pub(crate) fn nulls(rows: usize) -> Self {
        Self { offsets: Arc::new(vec![0; rows + 1]), data: Bytes::new(), validity: vec![0; rows.div_ceil(8)].into() }
    }

    pub(crate) fn as_ref(&self) -> ColumnRef<'_> {
        ColumnRef { offsets: &self.offsets, data: &self.data, validity: &self.validity }
    }

    /// The element at this row, sharing the bytes.
    pub(crate) fn get(&self, row: usize) -> Option<Bytes> {
        self.as_ref().get(row).map(|element| self.data.slice_ref(element))
    }
}

/// An input with the columns that were asked for so far: each is made once in a call, however often it is needed.
#[derive(Debug)]
pub(crate) struct InputColumns {
    pub(crate) input: Input,
    ids: Option<Option<Column>>,
    keys: Option<Option<Column>>,
    values: Option<Option<Column>>,
    headers: Option<Option<Column>>,
    timestamps: Option<Arc<Vec<TimestampUs>>>,
}

impl InputColumns {
    pub(crate) fn new(input: Input) -> Self {
        Self { input, ids: None, keys: None, values: None, headers: None, timestamps: None }
    }

    pub(crate) fn ids(&mut self) -> Option<Column> {
        self.ids.get_or_insert_with(|| self.input.column(Which::Ids)).clone()
    }

    /// `None` when no row has one.
    pub(crate) fn keys(&mut self) -> Option<Column> {
        self.keys.get_or_insert_with(|| self.input.column(Which::Keys)).clone()
    }

    pub(crate) fn values(&mut self) -> Column {
        let values = self.values.get_or_insert_with(|| self.input.column(Which::Values)).clone();
        // Every batch has values.
        values.unwrap_or_else(|| Column::nulls(self.input.rows))
    }

    /// As they are encoded in a batch. `None` when no row has any.
    pub(crate) fn headers(&mut self) -> Option<Column> {
        self.headers.get_or_insert_with(|| self.input.column(Which::Headers)).clone()
    }

    pub(crate) fn timestamps(&mut self) -> Arc<Vec<TimestampUs>> {
        self.timestamps.get_or_insert_with(|| Arc::new(self.input.timestamps())).clone()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use nodata_log::{Event, Offsets};
    use proptest::prelude::*;

    pub(crate) fn stored(first: Offset, events: &[Event]) -> StoredBatch {
        StoredBatch { offsets: Offsets::From(first), append_us: 0, batch: Batch::from_events(events, 7).unwrap() }
    }

    pub(crate) fn topic() -> Name {
        Name::new("orders").unwrap()
    }

    prop_compose! {
        pub(crate) fn any_event()(
            id in prop::option::weighted(0.2, "[a-z]{1,8}"),
            key in prop::option::weighted(0.3, prop::collection::vec(any::<u8>(), 0..8)),
            value in prop::option::weighted(0.8, prop::collection::vec(any::<u8>(), 0..20)),
            headers in prop::collection::btree_map("[a-z]{1,6}", prop::collection::vec(any::<u8>(), 0..9), 0..3),
            timestamp_us in prop::option::of(any::<i64>()),
        ) -> Event {
            Event {
                id,
                key: key.map(Bytes::from),
                value: value.map(Bytes::from),
                headers: headers.into_iter().map(|(name, value)| (name, value.into())).collect(),
                timestamp_us,
            }
        }
    }

    fn shown(input: &Input) -> Vec<(Offset, Event)> {
        input.events().map(|(offset, event)| (offset, event.to_event())).collect()
    }

    proptest! {
        /// However the rows are cut, the columns hold them.
        #[test]
        fn columns_hold_the_rows(
            batches in prop::collection::vec(prop::collection::vec(any_event(), 1..12), 1..4),
            cut in (any::<prop::sample::Index>(), any::<prop::sample::Index>()),
        ) {
            let pieces: Vec<_> = batches.iter().enumerate().map(|(n, events)| (stored(n as u64 * 100, events), 0..events.len())).collect();
            let whole = Input::new(topic(), 3, pieces).unwrap();
            let expected = shown(&whole);
            prop_assert_eq!(whole.len(), expected.len());

            let (from, to) = (cut.0.index(whole.len()), cut.1.index(whole.len()) + 1);
            prop_assume!(from < to);
            let input = whole.slice(from..to).unwrap();
            let expected = &expected[from..to];
            prop_assert_eq!(&shown(&input), expected);
            prop_assert_eq!(input.offsets(), expected.iter().map(|(offset, _)| *offset).collect::<Vec<_>>());

            let mut columns = InputColumns::new(input);
            let timestamps = columns.timestamps();
            let (ids, keys, values) = (columns.ids(), columns.keys(), columns.values());
            for (row, (_, event)) in expected.iter().enumerate() {
                let id = ids.as_ref().and_then(|ids| ids.get(row));
                prop_assert_eq!(id.as_deref(), event.id.as_ref().map(|id| id.as_bytes()));
                prop_assert_eq!(keys.as_ref().and_then(|keys| keys.get(row)), event.key.clone());
                prop_assert_eq!(values.get(row), event.value.clone());
                prop_assert_eq!(Some(timestamps[row]), event.timestamp_us);
            }
            for column in [ids, keys, Some(values), columns.headers()].into_iter().flatten() {
                prop_assert_eq!(column.offsets.len(), expected.len() + 1);
                prop_assert_eq!(*column.offsets.last().unwrap() as usize, column.data.len());
            }
        }
    }

    #[test]
    fn the_rows_of_one_batch_are_not_copied() {
        let batch = stored(0, &[Event::new("aa"), Event::new("bbb"), Event::new("c")]);
        let values = batch.batch.values().clone();
        let mut columns = InputColumns::new(Input::new(topic(), 0, [(batch, 1..3)]).unwrap());
        let column = columns.values();
        assert_eq!(column.data, "bbbc");
        assert_eq!(column.data.as_ptr(), values[2..].as_ptr());
        assert_eq!(*column.offsets, [0, 3, 4]);
        assert!(columns.keys().is_none() && columns.ids().is_none() && columns.headers().is_none());
    }

    #[test]
    fn an_input_is_bounded_and_not_empty() {
        let batch = stored(0, &[Event::new("a"), Event::new("b")]);
        let new = |rows| Input::new(topic(), 0, [(batch.clone(), rows)]).map(|input| input.len());
        assert_eq!(new(0..2), Ok(2));
        assert_eq!(new(1..1), Err(InputError::Empty));
        assert_eq!(new(1..3).unwrap_err().to_string(), "rows 1 to 3 of a batch that has 2");
        let input = Input::new(topic(), 0, [(batch, 0..2)]).unwrap();
        assert_eq!(input.slice(0..3).unwrap_err().to_string(), "rows 0 to 3 of a batch that has 2");
        assert_eq!(input.slice(0..0).unwrap_err(), InputError::Empty);
        assert_eq!(input.with_attempt(3).slice(1..2).unwrap().attempt(), 3);
    }
}
