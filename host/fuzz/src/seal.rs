//! Makes checksums right, and what says how long something is.
//!
//! What is under a checksum changes only if whoever has the key to it, which is everyone, wants it to, or if we have a mistake.
//! Without this, nearly every input would end at the first checksum, and nothing behind it would be tried. It is written from
//! the tables in the README of `nodata-log` and not with its code, so that the tables are tried too.

use nodata_log::frame::FrameContext;

const BATCH_HEADER_BYTES: usize = 64;
const FRAME_HEADER_BYTES: usize = 48;
const OP_HEADER_BYTES: usize = 24;
const BLOCK_BYTES: usize = 4096;
const APPEND: u8 = 1;
const PADDING: u16 = 2;

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + value.len()) {
        place.copy_from_slice(value);
    }
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

/// A batch that is as long as its bytes, and has their checksum.
pub(crate) fn batch(bytes: &mut [u8]) {
    if bytes.len() < BATCH_HEADER_BYTES {
        return;
    }
    put(bytes, 0, &(bytes.len() as u32).to_le_bytes());
    let checksum = crc32c::crc32c(&bytes[8..]);
    put(bytes, 4, &checksum.to_le_bytes());
}

/// The header of a segment.
pub(crate) fn segment(block: &mut [u8], number: u64, store: &[u8; 16]) {
    if block.len() < 84 {
        return;
    }
    put(block, 0, b"NDWAL\0\0\x01");
    put(block, 16, store);
    put(block, 32, &number.to_le_bytes());
    let checksum = crc32c::crc32c(&block[..80]);
    put(block, 80, &checksum.to_le_bytes());
}

/// A frame at this place of the log, with the operations that there are up to the first that is cut. It is as long as they are,
/// and the rest of the bytes is left out, or goes on behind it.
///
/// Answers with the length of the frame; `None` if the bytes are less than its header.
pub(crate) fn frame(bytes: &mut Vec<u8>, from: usize, context: FrameContext, lsn: u64) -> Option<usize> {
    let at = from + FRAME_HEADER_BYTES;
    if bytes.len() < at {
        return None;
    }
    put(bytes, from, b"NDFR");
    put(bytes, from + 12, &context.epoch.to_le_bytes());
    put(bytes, from + 16, &lsn.to_le_bytes());
    let is_padding = u16::from_le_bytes([bytes[from + 44], bytes[from + 45]]) & PADDING != 0;
    let end = if is_padding { padding(bytes, from) } else { operations(bytes, at, u32_at(bytes, from + 40)) };
    let len = end - from;
    put(bytes, from + 4, &(len as u32).to_le_bytes());
    let header = &bytes[from..at];
    let mut checksum = crc32c::crc32c_append(crc32c::crc32c_append(context.salt, &header[4..8]), &header[12..]);
    let mut op_at = at;
    while !is_padding && op_at < end {
        let payload_bytes = u32_at(bytes, op_at + 4) as usize;
        let covered = if bytes[op_at] == APPEND { payload_bytes.min(BATCH_HEADER_BYTES) } else { payload_bytes };
        checksum = crc32c::crc32c_append(checksum, &bytes[op_at..op_at + OP_HEADER_BYTES + covered]);
        op_at += OP_HEADER_BYTES + payload_bytes.next_multiple_of(8);
    }
    put(bytes, from + 8, &checksum.to_le_bytes());
    Some(len)
}

/// Puts zeros behind the header of a padding, up to the next block, and answers with where it ends.
fn padding(bytes: &mut Vec<u8>, from: usize) -> usize {
    let at = from + FRAME_HEADER_BYTES;
    let end = at.next_multiple_of(BLOCK_BYTES);
    bytes.splice(at..at, std::iter::repeat_n(0, end - at));
    end
}

/// Makes right the batches of the operations from here on, of which there are as many as the header says or as there is room for,
/// and answers with where the last one ends.
fn operations(bytes: &mut Vec<u8>, mut at: usize, count: u32) -> usize {
    let header_at = at - FRAME_HEADER_BYTES;
    let mut found = 0u32;
    while found < count && at + OP_HEADER_BYTES <= bytes.len() {
        let payload_at = at + OP_HEADER_BYTES;
        let payload_bytes = (u32_at(bytes, at + 4) as usize).min(bytes.len() - payload_at);
        put(bytes, at + 4, &(payload_bytes as u32).to_le_bytes());
        if bytes[at] == APPEND {
            batch(&mut bytes[payload_at..payload_at + payload_bytes]);
        }
        at = payload_at + payload_bytes.next_multiple_of(8);
        if bytes.len() < at {
            bytes.resize(at, 0);
        }
        found += 1;
    }
    put(bytes, header_at + 40, &found.to_le_bytes());
    at
}

const CHECKSUMS: &[u8] = b"nodata.checksums";

/// A file of the archive, with the checksums of the bytes that its row groups have.
pub(crate) fn parquet_file(bytes: &mut [u8], groups: &[(usize, usize)]) {
    let Some(key_at) = bytes.windows(CHECKSUMS.len()).rposition(|window| window == CHECKSUMS) else { return };
    // Behind the key comes the second field, which is a text: its kind, its length (which may have two bytes), and the text.
    let is_word = |word: &[u8]| word.len() == 8 && word.iter().all(u8::is_ascii_hexdigit);
    let behind = key_at + CHECKSUMS.len();
    let Some(mut at) = (behind..behind + 5).find(|&at| bytes.get(at..at + 8).is_some_and(is_word)) else { return };
    for &(start, end) in groups {
        let Some(checksum) = bytes.get(start..end).map(crc32c::crc32c) else { return };
        if !bytes.get(at..at + 8).is_some_and(is_word) {
            return;
        }
        put(bytes, at, format!("{checksum:08x}").as_bytes());
        at += 9;
    }
}
