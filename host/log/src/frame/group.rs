//! Frames that are written together.

use super::{
    BLOCK_BYTES, FRAME_HEADER_BYTES, FrameContext, GROUP_END, Lsn, MAGIC, MUST_UNDERSTAND, OP_HEADER_BYTES, Op, OpSpan,
    PAD, align, header_crc,
};
use crate::event::TimestampUs;
use crate::limits::FRAME_BYTES_MAX;
use bytes::Bytes;
use std::io::IoSlice;
use std::ops::Range;

/// Pieces shorter than this are copied together; longer ones are handed to the disk where they are.
const COPY_BYTES_MAX: usize = 4096;

/// Frames that are written under one sync.
///
/// Large columns are referred to and not copied: the kernel gathers them (`pwritev`).
#[derive(Debug, Default)]
pub struct Group {
    scratch: Vec<u8>,
    pieces: Vec<Piece>,
    bytes: u64,
}

#[derive(Debug)]
enum Piece {
    Scratch(Range<usize>),
    Shared(Bytes),
}

/// What is stamped on the frames of a group.
#[derive(Clone, Copy, Debug)]
pub struct Stamp {
    pub context: FrameContext,
    pub durable_lsn: Lsn,
    pub wall_us: TimestampUs,
}

impl Group {
    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.bytes
    }

    /// Whether there is nothing in it.
    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Forgets everything but its memory.
    pub fn clear(&mut self) {
        self.scratch.clear();
        self.pieces.clear();
        self.bytes = 0;
    }

    fn put(&mut self, bytes: &[u8]) {
        let start = self.scratch.len();
        self.scratch.extend_from_slice(bytes);
        match self.pieces.last_mut() {
            Some(Piece::Scratch(range)) if range.end == start => range.end = self.scratch.len(),
            _ => self.pieces.push(Piece::Scratch(start..self.scratch.len())),
        }
        self.bytes += bytes.len() as u64;
    }

    fn put_shared(&mut self, bytes: &Bytes) {
        if bytes.len() < COPY_BYTES_MAX {
            self.put(bytes);
        } else {
            self.pieces.push(Piece::Shared(bytes.clone()));
            self.bytes += bytes.len() as u64;
        }
    }

    fn put_zeros(&mut self, count: u64) {
        const ZEROS: [u8; 512] = [0; 512];
        let mut left = count as usize;
        while left > 0 {
            let now = left.min(ZEROS.len());
            self.put(&ZEROS[..now]);
            left -= now;
        }
    }

    /// Adds a frame of these operations at `lsn` and says where each one lies. `base_lsn` of the group plus its length
    /// must be `lsn`.
    pub fn push_frame(&mut self, ops: &[&Op], lsn: Lsn, stamp: Stamp) -> Vec<OpSpan> {
        let mut spans = Vec::with_capacity(ops.len());
        let mut at = FRAME_HEADER_BYTES as u64;
        for op in ops {
            let bytes = op.encoded_len();
            spans.push(OpSpan { at, bytes });
            at += bytes;
        }
        debug_assert!(at <= FRAME_BYTES_MAX + (FRAME_BYTES_MAX >> 3), "the sequencer keeps frames within their bound");
        let (header_at, mut crc) = self.put_header(at, lsn, ops.len() as u32, 0, stamp);
        for op in ops {
            let small = op.small_payload();
            let payload_len = if let Op::Append { batch, .. } = op { batch.encoded_len() } else { small.len() };
            let (topic, partition, offset) = op.place();
            let mut header = [0; OP_HEADER_BYTES];
            header[0] = op.kind();
            header[1] = MUST_UNDERSTAND;
            header[4..8].copy_from_slice(&(payload_len as u32).to_le_bytes());
            header[8..12].copy_from_slice(&topic.to_le_bytes());
            header[12..16].copy_from_slice(&partition.to_le_bytes());
            header[16..24].copy_from_slice(&offset.to_le_bytes());
            crc = crc32c::crc32c_append(crc, &header);
            self.put(&header);
            if let Op::Append { batch, .. } = op {
                let (batch_header, pieces) = batch.pieces();
                crc = crc32c::crc32c_append(crc, &batch_header);
                self.put(&batch_header);
                for piece in pieces {
                    self.put_shared(piece);
                }
            } else {
                crc = crc32c::crc32c_append(crc, &small);
                self.put(&small);
            }
            self.put_zeros(align(payload_len as u64, 8) - payload_len as u64);
        }
        self.scratch[header_at + 8..header_at + 12].copy_from_slice(&crc.to_le_bytes());
        spans
    }

    /// Fills the last block. `lsn` is where the group begins.
    pub fn finish(&mut self, lsn: Lsn, stamp: Stamp) {
        let end = lsn + self.bytes;
        let mut padding = align(end, BLOCK_BYTES) - end;
        if padding < FRAME_HEADER_BYTES as u64 {
            padding += BLOCK_BYTES;
        }
        let (header_at, crc) = self.put_header(padding, end, 0, PAD | GROUP_END, stamp);
        self.scratch[header_at + 8..header_at + 12].copy_from_slice(&crc.to_le_bytes());
        self.put_zeros(padding - FRAME_HEADER_BYTES as u64);
    }

    fn put_header(&mut self, len: u64, lsn: Lsn, ops: u32, flags: u16, stamp: Stamp) -> (usize, u32) {
        let mut header = [0; FRAME_HEADER_BYTES];
        header[0..4].copy_from_slice(&MAGIC);
        header[4..8].copy_from_slice(&(len as u32).to_le_bytes());
        header[12..16].copy_from_slice(&stamp.context.epoch.to_le_bytes());
        header[16..24].copy_from_slice(&lsn.to_le_bytes());
        header[24..32].copy_from_slice(&stamp.durable_lsn.to_le_bytes());
        header[32..40].copy_from_slice(&stamp.wall_us.to_le_bytes());
        header[40..44].copy_from_slice(&ops.to_le_bytes());
        header[44..46].copy_from_slice(&flags.to_le_bytes());
        let at = self.scratch.len();
        self.put(&header);
        (at, header_crc(&header, stamp.context.salt))
    }

    /// The bytes of the group, in order.
    pub fn slices(&self) -> Vec<IoSlice<'_>> {
        self.pieces
            .iter()
            .map(|piece| match piece {
                Piece::Scratch(range) => IoSlice::new(&self.scratch[range.clone()]),
                Piece::Shared(bytes) => IoSlice::new(bytes),
            })
            .collect()
    }

    /// Puts these bytes in front, as the header of a segment that begins with this group.
    pub fn prepend(&mut self, bytes: Vec<u8>) {
        self.pieces.insert(0, Piece::Shared(bytes.into()));
    }
}
