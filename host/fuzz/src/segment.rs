//! The first block of a segment.

use crate::seal;
use nodata_log::segment::{SegmentHeader, SegmentStart, StoreId};

pub(crate) const STORE: StoreId = *b"a store of fuzz.";
pub(crate) const NUMBER: u64 = 42;

pub(crate) fn run(input: &[u8]) {
    read(input, NUMBER, &STORE);
    // Under the name that it says it has.
    let said = |at: usize| input.get(at..);
    if let (Some(store), Some(number)) =
        (said(16).and_then(<[u8]>::first_chunk), said(32).and_then(<[u8]>::first_chunk))
    {
        read(input, u64::from_le_bytes(*number), store);
    }
    let mut sealed = input.to_vec();
    seal::segment(&mut sealed, NUMBER, &STORE);
    read(&sealed, NUMBER, &STORE);
}

fn read(block: &[u8], number: u64, store: &StoreId) {
    if let SegmentStart::Header(header) = SegmentHeader::decode(block, number, store) {
        assert_eq!((header.segment, &header.store_id), (number, store));
        let encoded = header.encode();
        assert_eq!(encoded[..84], block[..84], "a header has one way to be written");
        assert_eq!(SegmentHeader::decode(&encoded, number, store), SegmentStart::Header(header));
    }
}
