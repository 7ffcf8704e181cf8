//! A `nodata.v1.StoredBatch` that is written straight from wherever the events are.

use bytes::{Buf, BufMut};
use prost::DecodeError;
use prost::encoding::{DecodeContext, WireType, encode_varint, encoded_len_varint};
use std::fmt;
use std::sync::Arc;

/// Events that can write themselves as an `EventBatch`.
pub trait EncodeEvents: Send + Sync {
    /// Bytes that [`encode`](Self::encode) writes.
    fn encoded_len(&self) -> usize;
    fn encode(&self, out: &mut dyn BufMut);
}

/// Events on their way to a reader.
#[derive(Clone, Default)]
pub struct StoredBatch {
    pub partition: u32,
    pub base_offset: u64,
    /// Empty: without gaps.
    pub offset_deltas: Vec<u32>,
    pub append_timestamp_us: i64,
    pub events: Option<Arc<dyn EncodeEvents>>,
    pub event_count: u32,
}

impl fmt::Debug for StoredBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredBatch({}@{})", self.partition, self.base_offset)
    }
}

impl PartialEq for StoredBatch {
    fn eq(&self, other: &Self) -> bool {
        prost::Message::encode_to_vec(self) == prost::Message::encode_to_vec(other)
    }
}

impl prost::Message for StoredBatch {
    fn encode_raw(&self, out: &mut impl BufMut) {
        prost::encoding::uint32::encode(1, &self.partition, out);
        prost::encoding::uint64::encode(2, &self.base_offset, out);
        prost::encoding::uint32::encode_packed(3, &self.offset_deltas, out);
        prost::encoding::int64::encode(4, &self.append_timestamp_us, out);
        if let Some(events) = &self.events {
            encode_varint(5 << 3 | 2, out);
            encode_varint(events.encoded_len() as u64, out);
            events.encode(out);
        }
        prost::encoding::uint32::encode(6, &self.event_count, out);
    }

    fn encoded_len(&self) -> usize {
        let events = self.events.as_ref().map_or(0, |events| {
            let len = events.encoded_len();
            1 + encoded_len_varint(len as u64) + len
        });
        prost::encoding::uint32::encoded_len(1, &self.partition)
            + prost::encoding::uint64::encoded_len(2, &self.base_offset)
            + prost::encoding::uint32::encoded_len_packed(3, &self.offset_deltas)
            + prost::encoding::int64::encoded_len(4, &self.append_timestamp_us)
            + events
            + prost::encoding::uint32::encoded_len(6, &self.event_count)
    }

    /// The server writes these and never reads them.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        prost::encoding::skip_field(wire_type, tag, buf, ctx)
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use prost::Message as _;

    struct Raw(&'static [u8]);

    impl EncodeEvents for Raw {
        fn encoded_len(&self) -> usize {
            self.0.len()
        }

        fn encode(&self, out: &mut dyn BufMut) {
            out.put_slice(self.0);
        }
    }

    /// As the generator of prost sees it.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Plain {
        #[prost(uint32, tag = "1")]
        partition: u32,
        #[prost(uint64, tag = "2")]
        base_offset: u64,
        #[prost(uint32, repeated, tag = "3")]
        offset_deltas: Vec<u32>,
        #[prost(int64, tag = "4")]
        append_timestamp_us: i64,
        #[prost(bytes = "vec", tag = "5")]
        batch: Vec<u8>,
        #[prost(uint32, tag = "6")]
        event_count: u32,
    }

    #[test]
    fn what_is_written_is_plain_protobuf() {
        let stored = StoredBatch {
            partition: 3,
            base_offset: 1 << 40,
            offset_deltas: vec![0, 1, 500],
            append_timestamp_us: -7,
            events: Some(Arc::new(Raw(b"events"))),
            event_count: 3,
        };
        let bytes = stored.encode_to_vec();
        assert_eq!(bytes.len(), stored.encoded_len());
        let plain = Plain {
            partition: 3,
            base_offset: 1 << 40,
            offset_deltas: vec![0, 1, 500],
            append_timestamp_us: -7,
            batch: b"events".to_vec(),
            event_count: 3,
        };
        assert_eq!(Plain::decode(bytes.as_slice()), Ok(plain));
    }
}
