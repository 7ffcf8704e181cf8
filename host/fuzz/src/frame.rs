//! The bytes of a frame, and the operations of one partition without it.

use crate::{batch, seal};
use bytes::Bytes;
use nodata_log::frame::{Frame, FrameContext, Group, Op, OpSpan, Stamp, decode_appends};

/// Where frames lie in this target.
pub(crate) const CONTEXT: FrameContext = FrameContext { epoch: 3, salt: 0x5a17_5a17 };
pub(crate) const LSN: u64 = 1 << 20;

pub(crate) fn run(input: &[u8]) {
    read(Bytes::copy_from_slice(input));
    let mut sealed = input.to_vec();
    seal::frame(&mut sealed, 0, CONTEXT, LSN);
    read(sealed.into());
}

fn read(bytes: Bytes) {
    if let Ok(appends) = decode_appends(&bytes) {
        appends.iter().for_each(|(_, _, found)| batch::holds(found));
    }
    let Ok(frame) = Frame::decode(&bytes, CONTEXT, LSN) else { return };
    assert_eq!(frame.lsn, LSN);
    assert!(frame.bytes <= bytes.len() as u64 && frame.bytes % 8 == 0);
    let mut end = nodata_log::frame::FRAME_HEADER_BYTES as u64;
    for (op, span) in &frame.ops {
        assert!(end <= span.at && span.at + span.bytes <= frame.bytes, "operations lie one behind the other");
        end = span.at + span.bytes;
        if let Op::Append { tp, base_offset, batch: found } = op {
            batch::holds(found);
            // A reader is given this part of the frame, and finds the same there.
            let part = bytes.slice(span.at as usize..end as usize);
            assert_eq!(decode_appends(&part).as_deref(), Ok([(*tp, *base_offset, found.clone())].as_slice()));
            assert_eq!(op.encoded_len(), span.bytes, "no bytes that nothing covers");
        }
    }
    comes_back(&frame);
}

/// The same operations, written and read again.
fn comes_back(frame: &Frame) {
    let stamp = Stamp { context: CONTEXT, durable_lsn: frame.durable_lsn, wall_us: frame.wall_us };
    let ops: Vec<&Op> = frame.ops.iter().map(|(op, _)| op).collect();
    let mut group = Group::default();
    let spans = group.push_frame(&ops, LSN, stamp);
    let bytes: Vec<u8> = group.slices().iter().flat_map(|slice| slice.to_vec()).collect();
    assert_eq!(bytes.len() as u64, group.len());
    let again = Frame::decode(&bytes.into(), CONTEXT, LSN).expect("what is written is read");
    let (found, found_spans): (Vec<&Op>, Vec<OpSpan>) = again.ops.iter().map(|(op, span)| (op, *span)).unzip();
    assert_eq!(found, ops);
    assert_eq!(found_spans, spans);
    assert_eq!((again.bytes, again.durable_lsn, again.wall_us), (group.len(), frame.durable_lsn, frame.wall_us));
}
