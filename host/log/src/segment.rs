//! Segment files: their names, and the header that says which part of which log they hold.

use crate::event::TimestampUs;
use crate::frame::{FrameContext, Lsn};

/// Folder of the segments.
pub(crate) const WAL_DIR: &str = "wal";

/// Bytes in front of the first frame; one block.
pub const SEGMENT_HEADER_BYTES: u64 = 4096;

const MAGIC: [u8; 8] = *b"NDWAL\0\0\x01";
const VERSION: u32 = 1;
/// Bytes that the checksum covers, and where it stands.
const CHECKED_BYTES: usize = 80;

/// Names a store, so that a file of another one is noticed.
pub type StoreId = [u8; 16];

/// Public only for those who test how it is read.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SegmentHeader {
    pub store_id: StoreId,
    pub segment: u64,
    /// Of the first byte behind the header.
    pub base_lsn: Lsn,
    /// Where the segment before this one truly ends.
    pub prev_end_lsn: Lsn,
    pub context: FrameContext,
    pub created_us: TimestampUs,
    /// Bytes of the file. It is shortened only when there is a later segment, so a last one that is shorter was cut.
    pub bytes: u64,
}

/// What the first block of a segment file says.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SegmentStart {
    Header(SegmentHeader),
    /// Nothing was ever written to it.
    Unused,
    /// The header of a segment with another number.
    Other,
    /// A segment of another store, or of a nodata that is not this one; which.
    Foreign(&'static str),
    /// Something else; why.
    Damaged(&'static str),
}

impl SegmentHeader {
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![0; SEGMENT_HEADER_BYTES as usize];
        out[0..8].copy_from_slice(&MAGIC);
        out[8..12].copy_from_slice(&VERSION.to_le_bytes());
        out[12..16].copy_from_slice(&(SEGMENT_HEADER_BYTES as u32).to_le_bytes());
        out[16..32].copy_from_slice(&self.store_id);
        out[32..40].copy_from_slice(&self.segment.to_le_bytes());
        out[40..48].copy_from_slice(&self.base_lsn.to_le_bytes());
        out[48..56].copy_from_slice(&self.prev_end_lsn.to_le_bytes());
        out[56..60].copy_from_slice(&self.context.epoch.to_le_bytes());
        out[60..64].copy_from_slice(&self.context.salt.to_le_bytes());
        out[64..72].copy_from_slice(&self.created_us.to_le_bytes());
        out[72..80].copy_from_slice(&self.bytes.to_le_bytes());
        let crc = crc32c::crc32c(&out[..CHECKED_BYTES]);
        out[80..84].copy_from_slice(&crc.to_le_bytes());
        out
    }

    /// Whether a log can have come so far, and can go on: after 4 exabytes, and after as many starts as an epoch can count.
    pub(crate) fn is_reachable(&self) -> bool {
        const MAX: u64 = 1 << 62;
        self.context.epoch < u32::MAX
            && [self.segment, self.base_lsn, self.prev_end_lsn, self.bytes].iter().all(|at| *at < MAX)
    }

    pub fn decode(block: &[u8], segment: u64, store_id: &StoreId) -> SegmentStart {
        let Some(block) = block.first_chunk::<{ CHECKED_BYTES + 4 }>() else {
            return SegmentStart::Damaged("it is shorter than a header");
        };
        if block.iter().all(|&byte| byte == 0) {
            return SegmentStart::Unused;
        }
        let u32_at = |at: usize| u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]]);
        let u64_at = |at: usize| u64::from(u32_at(at)) | u64::from(u32_at(at + 4)) << 32;
        if block[0..8] != MAGIC {
            return SegmentStart::Damaged("it does not begin like a segment");
        }
        if crc32c::crc32c(&block[..CHECKED_BYTES]) != u32_at(CHECKED_BYTES) {
            return SegmentStart::Damaged("the checksum of its header is wrong");
        }
        if u32_at(8) != VERSION || u64::from(u32_at(12)) != SEGMENT_HEADER_BYTES {
            return SegmentStart::Foreign("its version is not known to this build");
        }
        if block[16..32] != *store_id {
            return SegmentStart::Foreign("it belongs to another store");
        }
        if u64_at(32) != segment {
            return SegmentStart::Other;
        }
        SegmentStart::Header(Self {
            store_id: *store_id,
            segment,
            base_lsn: u64_at(40),
            prev_end_lsn: u64_at(48),
            context: FrameContext { epoch: u32_at(56), salt: u32_at(60) },
            created_us: u64_at(64) as TimestampUs,
            bytes: u64_at(72),
        })
    }
}

/// The path of a segment.
pub(crate) fn segment_path(segment: u64) -> String {
    format!("{WAL_DIR}/{segment:020}.wal")
}

/// The number in the name of a segment.
pub(crate) fn segment_number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".wal")?;
    (digits.len() == 20).then(|| digits.parse().ok()).flatten()
}

/// The path of a file that is ready to become a segment.
pub(crate) fn spare_path(spare: u64) -> String {
    format!("{WAL_DIR}/spare-{spare}.wal")
}

/// The number in the name of a spare.
pub(crate) fn spare_number(name: &str) -> Option<u64> {
    name.strip_prefix("spare-")?.strip_suffix(".wal")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const STORE: StoreId = [7; 16];

    fn header() -> SegmentHeader {
        SegmentHeader {
            store_id: STORE,
            segment: 42,
            base_lsn: 1 << 40,
            prev_end_lsn: (1 << 40) - 8,
            context: FrameContext { epoch: 3, salt: 4 },
            created_us: -5,
            bytes: 64 << 20,
        }
    }

    #[test]
    fn a_header_comes_back() {
        assert_eq!(SegmentHeader::decode(&header().encode(), 42, &STORE), SegmentStart::Header(header()));
    }

    #[test]
    fn every_flipped_bit_of_a_header_is_noticed() {
        for bit in 0..(CHECKED_BYTES + 4) * 8 {
            let mut block = header().encode();
            block[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(SegmentHeader::decode(&block, 42, &STORE), SegmentStart::Damaged(_)), "bit {bit}");
        }
    }

    #[test]
    fn other_files_are_told_apart() {
        let decode = |block: &[u8], segment, store| SegmentHeader::decode(block, segment, store);
        assert_eq!(decode(&[0; 4096], 42, &STORE), SegmentStart::Unused);
        assert_eq!(decode(&[0; 20], 42, &STORE), SegmentStart::Damaged("it is shorter than a header"));
        assert_eq!(decode(&header().encode(), 43, &STORE), SegmentStart::Other);
        assert_eq!(decode(&header().encode(), 42, &[8; 16]), SegmentStart::Foreign("it belongs to another store"));
    }

    #[test]
    fn names_come_back() {
        assert_eq!(segment_path(42), "wal/00000000000000000042.wal");
        assert_eq!(segment_number("00000000000000000042.wal"), Some(42));
        assert_eq!(segment_number("42.wal"), None);
        assert_eq!(spare_number("spare-3.wal"), Some(3));
        assert_eq!(segment_number("spare-3.wal"), None);
    }
}
