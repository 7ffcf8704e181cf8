//! Makes a batch, of events or of rows of columns.

use super::{
    BATCH_HEADER_BYTES, Batch, BatchError, EQUAL_TIMESTAMPS, FROM_COMPONENT, HAS_HEADERS, HAS_IDS, HAS_KEYS,
    HAS_NULL_VALUES, Header, NULL, WIDE_TIMESTAMPS,
};
use crate::event::{self, EventRef, TimestampUs};
use crate::limits::{BATCH_EVENTS_MAX, FRAME_BYTES_MAX};
use std::ops::Range;

/// A column of byte strings that belongs to someone else: element `i` is `data[offsets[i]..offsets[i + 1]]`.
#[derive(Clone, Copy, Debug)]
pub struct ColumnRef<'a> {
    /// One more than there are rows, ascending, within `data`. The first need not be 0.
    pub offsets: &'a [u32],
    pub data: &'a [u8],
    /// A bit for each row, least significant first; a 0 is a null, whose bytes do not count. Empty: there is no null.
    pub validity: &'a [u8],
}

impl<'a> ColumnRef<'a> {
    /// The element at this row; `None` is a null.
    #[inline]
    pub fn get(&self, row: usize) -> Option<&'a [u8]> {
        self.is_valid(row).then(|| &self.data[self.offsets[row] as usize..self.offsets[row + 1] as usize])
    }

    #[inline]
    fn is_valid(&self, row: usize) -> bool {
        self.validity.is_empty() || self.validity[row / 8] >> (row % 8) & 1 == 1
    }

    /// The length of each element, as it is stored.
    #[inline]
    fn stored_lens(self, rows: Range<usize>) -> impl Iterator<Item = u32> + Clone + 'a {
        let ends = &self.offsets[rows.start..=rows.end];
        ends.windows(2).zip(rows).map(move |(pair, row)| if self.is_valid(row) { pair[1] - pair[0] } else { NULL })
    }

    fn copy_data(&self, rows: Range<usize>, out: &mut Vec<u8>) {
        if self.validity.is_empty() {
            out.extend_from_slice(&self.data[self.offsets[rows.start] as usize..self.offsets[rows.end] as usize]);
        } else {
            for row in rows {
                out.extend_from_slice(self.get(row).unwrap_or_default());
            }
        }
    }
}

/// Rows as columns that belong to someone else. All columns have the same number of rows.
#[derive(Clone, Copy, Debug)]
pub struct RowsRef<'a> {
    pub ids: Option<ColumnRef<'a>>,
    pub keys: Option<ColumnRef<'a>>,
    pub values: ColumnRef<'a>,
    /// `None`: every row gets the time at which the batch is built.
    pub timestamps_us: Option<&'a [TimestampUs]>,
    /// Encoded with [`put_header`](crate::event::put_header), without nulls.
    pub headers: Option<ColumnRef<'a>>,
}

/// Collects events into a batch. A column that no event uses costs nothing.
#[derive(Debug)]
pub struct BatchBuilder {
    now_us: TimestampUs,
    count: usize,
    attributes: u16,
    timestamps: LazyColumn<TimestampUs>,
    id_lens: LazyColumn<u32>,
    key_lens: LazyColumn<u32>,
    value_lens: Vec<u32>,
    header_lens: LazyColumn<u32>,
    ids: Vec<u8>,
    keys: Vec<u8>,
    values: Vec<u8>,
    headers: Vec<u8>,
}

/// A column that is not written down as long as every row has the same value.
#[derive(Debug)]
struct LazyColumn<T> {
    same: T,
    rows: Vec<T>,
}

impl<T: Copy + PartialEq> LazyColumn<T> {
    fn new(same: T) -> Self {
        Self { same, rows: Vec::new() }
    }

    #[inline]
    fn push(&mut self, row: usize, value: T) {
        if !self.rows.is_empty() {
            self.rows.push(value);
        } else if value != self.same {
            self.rows.reserve(row.max(64));
            self.rows.resize(row, self.same);
            self.rows.push(value);
        }
    }

    /// The same as pushing one after the other.
    #[inline]
    fn extend(&mut self, row: usize, values: impl Iterator<Item = T> + Clone) {
        if self.rows.is_empty() {
            if values.clone().all(|value| value == self.same) {
                return;
            }
            self.rows.resize(row, self.same);
        }
        self.rows.extend(values);
    }

    fn is_used(&self) -> bool {
        !self.rows.is_empty()
    }
}

impl BatchBuilder {
    /// Events pushed without a timestamp get `now_us`.
    pub fn new(now_us: TimestampUs) -> Self {
        Self {
            now_us,
            count: 0,
            attributes: 0,
            timestamps: LazyColumn::new(now_us),
            id_lens: LazyColumn::new(NULL),
            key_lens: LazyColumn::new(NULL),
            value_lens: Vec::new(),
            header_lens: LazyColumn::new(0),
            ids: Vec::new(),
            keys: Vec::new(),
            values: Vec::new(),
            headers: Vec::new(),
        }
    }

    /// Makes room for this many more events and bytes of values, so that pushing them does not move memory.
    pub fn reserve(&mut self, events: usize, value_bytes: usize) {
        self.value_lens.reserve(events);
        self.values.reserve(value_bytes);
    }

    /// Marks the events as emitted by a component.
    pub fn mark_from_component(&mut self) {
        self.attributes |= FROM_COMPONENT;
    }

    /// Events so far.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Whether there are none yet.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Bytes of ids, keys, values and headers so far.
    pub fn payload_bytes(&self) -> usize {
        self.ids.len() + self.keys.len() + self.values.len() + self.headers.len()
    }

    /// Adds an event. The caller has checked its id, its size and that it has a place in a batch.
    #[inline]
    pub fn push(
        &mut self,
        id: Option<&[u8]>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        timestamp_us: Option<TimestampUs>,
    ) {
        let row = self.count;
        let timestamp_us = timestamp_us.unwrap_or(self.now_us);
        if row == 0 {
            self.timestamps.same = timestamp_us;
        }
        self.timestamps.push(row, timestamp_us);
        self.id_lens.push(row, id.map_or(NULL, |id| id.len() as u32));
        self.ids.extend_from_slice(id.unwrap_or_default());
        self.key_lens.push(row, key.map_or(NULL, |key| key.len() as u32));
        self.keys.extend_from_slice(key.unwrap_or_default());
        match value {
            Some(value) => {
                self.value_lens.push(value.len() as u32);
                self.values.extend_from_slice(value);
            }
            None => {
                self.value_lens.push(NULL);
                self.attributes |= HAS_NULL_VALUES;
            }
        }
        self.header_lens.push(row, 0);
        self.count += 1;
    }

    /// Adds a header to the event that was pushed last. The caller has checked its name.
    pub fn push_header(&mut self, name: &str, value: &[u8]) {
        debug_assert!(self.count > 0, "a header belongs to an event");
        let before = self.headers.len();
        event::put_header(&mut self.headers, name, value);
        self.grow_last_headers(before);
    }

    /// Adds these rows: the same as pushing them one by one, but a column at a time. The caller has checked their ids,
    /// their headers, their sizes and their offsets.
    pub fn push_rows(&mut self, rows: &RowsRef<'_>, range: Range<usize>) {
        if range.is_empty() {
            return;
        }
        let row = self.count;
        match rows.timestamps_us {
            Some(timestamps) => {
                let timestamps = &timestamps[range.clone()];
                if row == 0 {
                    self.timestamps.same = timestamps[0];
                }
                self.timestamps.extend(row, timestamps.iter().copied());
            }
            None => {
                if row == 0 {
                    self.timestamps.same = self.now_us;
                }
                self.timestamps.extend(row, range.clone().map(|_| self.now_us));
            }
        }
        for (column, lens, data, absent) in [
            (rows.ids, &mut self.id_lens, &mut self.ids, NULL),
            (rows.keys, &mut self.key_lens, &mut self.keys, NULL),
            (rows.headers, &mut self.header_lens, &mut self.headers, 0),
        ] {
            match column {
                Some(column) => {
                    lens.extend(row, column.stored_lens(range.clone()));
                    column.copy_data(range.clone(), data);
                }
                None => lens.extend(row, range.clone().map(|_| absent)),
            }
        }
        if rows.values.validity.is_empty() {
            self.value_lens.extend(rows.values.stored_lens(range.clone()));
        } else {
            let mut nulls = false;
            let lens = rows.values.stored_lens(range.clone()).inspect(|&len| nulls |= len == NULL);
            self.value_lens.extend(lens);
            if nulls {
                self.attributes |= HAS_NULL_VALUES;
            }
        }
        rows.values.copy_data(range.clone(), &mut self.values);
        self.count += range.len();
    }

    /// Adds a copy of an event that is in a batch.
    pub fn push_event(&mut self, event: EventRef<'_>) {
        self.push(event.id, event.key, event.value, Some(event.timestamp_us));
        if !event.headers.is_empty() {
            let before = self.headers.len();
            self.headers.extend_from_slice(event.headers);
            self.grow_last_headers(before);
        }
    }

    fn grow_last_headers(&mut self, before: usize) {
        let added = (self.headers.len() - before) as u32;
        if !self.header_lens.is_used() {
            self.header_lens.rows.resize(self.count, 0);
        }
        if let Some(last) = self.header_lens.rows.last_mut() {
            *last += added;
        }
    }

    /// The batch of everything pushed. Fails when that is nothing or more than fits one transaction.
    pub fn finish(self) -> Result<Batch, BatchError> {
        if self.count == 0 {
            return Err(BatchError::Empty);
        }
        if self.count > BATCH_EVENTS_MAX {
            return Err(BatchError::TooManyEvents { count: self.count });
        }
        let (min, max) = if self.timestamps.is_used() {
            let rows = &self.timestamps.rows;
            rows.iter().fold((i64::MAX, i64::MIN), |(min, max), &t| (min.min(t), max.max(t)))
        } else {
            (self.timestamps.same, self.timestamps.same)
        };
        let spread = max.wrapping_sub(min) as u64;
        let mut attributes = self.attributes;
        attributes |= match () {
            () if !self.timestamps.is_used() => EQUAL_TIMESTAMPS,
            () if spread > u64::from(u32::MAX) => WIDE_TIMESTAMPS,
            () => 0,
        };
        for (used, attribute) in [
            (self.id_lens.is_used(), HAS_IDS),
            (self.key_lens.is_used(), HAS_KEYS),
            (self.header_lens.is_used(), HAS_HEADERS),
        ] {
            if used {
                attributes |= attribute;
            }
        }

        let mut fixed = Vec::with_capacity(self.count * 16);
        let deltas = self.timestamps.rows.iter().map(|timestamp| timestamp.wrapping_sub(min) as u64);
        if attributes & WIDE_TIMESTAMPS != 0 {
            put_fixed(&mut fixed, deltas.map(u64::to_le_bytes));
        } else {
            put_fixed(&mut fixed, deltas.map(|delta| (delta as u32).to_le_bytes()));
        }
        for lens in [&self.id_lens.rows, &self.key_lens.rows, &self.value_lens, &self.header_lens.rows] {
            put_fixed(&mut fixed, lens.iter().map(|len| len.to_le_bytes()));
        }

        let sections = [&fixed, &self.ids, &self.keys, &self.values, &self.headers];
        let bytes = (BATCH_HEADER_BYTES + sections.iter().map(|section| section.len()).sum::<usize>()) as u64;
        if bytes > FRAME_BYTES_MAX {
            return Err(BatchError::TooLarge { bytes });
        }
        let mut header = Header {
            bytes: bytes as u32,
            crc: 0,
            attributes,
            count: self.count as u32,
            timestamp_min_us: min,
            timestamp_max_us: max,
            ids_bytes: self.ids.len() as u32,
            keys_bytes: self.keys.len() as u32,
            values_bytes: self.values.len() as u32,
            headers_bytes: self.headers.len() as u32,
        };
        let crc = crc32c::crc32c(&header.encode()[8..]);
        header.crc = sections.iter().fold(crc, |crc, section| crc32c::crc32c_append(crc, section));
        Ok(Batch {
            header,
            fixed: fixed.into(),
            ids: self.ids.into(),
            keys: self.keys.into(),
            values: self.values.into(),
            headers: self.headers.into(),
        })
    }
}

/// Adds a column of fixed-width values. Room is made first, so that the loop becomes a copy.
fn put_fixed<const N: usize>(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = [u8; N]>) {
    let start = out.len();
    out.resize(start + values.len() * N, 0);
    for (place, value) in out[start..].as_chunks_mut().0.iter_mut().zip(values) {
        *place = value;
    }
}
