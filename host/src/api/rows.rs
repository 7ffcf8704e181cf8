//! Rows of a stored batch on their way to a reader: written from the columns straight into the message.

use bytes::BufMut;
use nodata_log::{Batch, Offset, Offsets, StoredBatch as Stored};
use nodata_proto::events::Outgoing;
use nodata_proto::stored::{EncodeEvents, StoredBatch};
use std::sync::Arc;

/// Some rows of a batch.
pub(crate) struct Rows {
    batch: Batch,
    skip: usize,
    take: usize,
    encoded_len: usize,
}

impl Rows {
    /// The events of a batch with `from <= offset < end`; `None` when there are none.
    pub(crate) fn stored_batch(partition: u32, stored: Stored, from: Offset, end: Offset) -> Option<StoredBatch> {
        let Stored { offsets, append_us, batch } = stored;
        let skip = offsets.rows_before(from, batch.len());
        let take = offsets.rows_before(end, batch.len()).checked_sub(skip).filter(|&take| take > 0)?;
        let base_offset = offsets.at(skip);
        let offset_deltas = match &offsets {
            Offsets::From(_) => Vec::new(),
            Offsets::Each(each) => each[skip..skip + take].iter().map(|at| (at - base_offset) as u32).collect(),
        };
        let mut rows = Self { batch, skip, take, encoded_len: 0 };
        rows.encoded_len = rows.outgoing().map(|event| event.len()).sum();
        Some(StoredBatch {
            partition,
            base_offset,
            offset_deltas,
            append_timestamp_us: append_us,
            event_count: take as u32,
            events: Some(Arc::new(rows)),
        })
    }

    fn outgoing(&self) -> impl Iterator<Item = Outgoing<'_, impl Iterator<Item = (&[u8], &[u8])> + Clone>> {
        self.batch.events().skip(self.skip).take(self.take).map(|event| Outgoing {
            id: event.id().map(str::as_bytes),
            key: event.key,
            value: event.value,
            timestamp_us: Some(event.timestamp_us),
            headers: event.headers().map(|(name, value)| (name.as_bytes(), value)),
        })
    }
}

impl EncodeEvents for Rows {
    fn encoded_len(&self) -> usize {
        self.encoded_len
    }

    fn encode(&self, mut out: &mut dyn BufMut) {
        for event in self.outgoing() {
            event.put(&mut out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_log::Event;
    use nodata_proto::events;

    fn check(offsets: Offsets, from: Offset, end: Offset) -> Option<(Offset, Vec<u32>, String)> {
        let events: Vec<Event> = ["a", "b", "c", "d"].map(Event::new).to_vec();
        let batch = Batch::from_events(&events, 9).unwrap();
        let stored = Rows::stored_batch(0, Stored { offsets, append_us: 1, batch }, from, end)?;
        let mut out = Vec::new();
        let rows = stored.events.unwrap();
        rows.encode(&mut out);
        assert_eq!(out.len(), rows.encoded_len());
        let values: Vec<u8> = events::read(&out).map(|event| event.unwrap().value.unwrap()[0]).collect();
        assert_eq!(stored.event_count as usize, values.len());
        Some((stored.base_offset, stored.offset_deltas, String::from_utf8(values).unwrap()))
    }

    #[test]
    fn a_reader_gets_the_rows_it_asked_for() {
        let dense = || Offsets::From(10);
        assert_eq!(check(dense(), 0, 99), Some((10, vec![], "abcd".into())));
        assert_eq!(check(dense(), 12, 99), Some((12, vec![], "cd".into())));
        assert_eq!(check(dense(), 11, 13), Some((11, vec![], "bc".into())));
        assert_eq!(check(dense(), 14, 99), None);
        assert_eq!(check(dense(), 12, 12), None);
        let sparse = || Offsets::Each([10, 12, 15, 20].into());
        assert_eq!(check(sparse(), 11, 99), Some((12, vec![0, 3, 8], "bcd".into())));
        assert_eq!(check(sparse(), 0, 15), Some((10, vec![0, 2], "ab".into())));
        assert_eq!(check(sparse(), 16, 20), None);
    }
}
