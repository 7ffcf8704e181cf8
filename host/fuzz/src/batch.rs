//! The bytes of a batch.

use crate::seal;
use bytes::Bytes;
use nodata_log::{Batch, BatchBuilder, Event};

pub(crate) fn run(input: &[u8]) {
    read(Bytes::copy_from_slice(input));
    let mut sealed = input.to_vec();
    seal::batch(&mut sealed);
    read(sealed.into());
}

fn read(bytes: Bytes) {
    if let Ok(batch) = Batch::decode(&bytes) {
        assert_eq!(batch.encode(), bytes[..batch.encoded_len()], "a batch has one way to be written");
        holds(&batch);
    }
}

/// What is so for every batch, whoever made it.
pub(crate) fn holds(batch: &Batch) {
    let encoded = batch.encode();
    assert_eq!(encoded.len(), batch.encoded_len());
    assert_eq!(Batch::decode(&encoded).as_ref(), Ok(batch), "what was read and is written is the same");

    let rows = batch.len();
    assert!(rows > 0);
    assert_eq!(batch.timestamps().len(), rows);
    assert_eq!(batch.value_lens().iter().len(), rows);
    for lens in [batch.id_lens(), batch.key_lens(), batch.header_lens()].into_iter().flatten() {
        assert_eq!(lens.iter().len(), rows);
    }
    let mut copy = BatchBuilder::new(0);
    for event in batch.events() {
        copy.push_event(event);
    }
    assert_eq!(copy.len(), rows);
    assert_eq!(copy.payload_bytes(), batch.payload_bytes(), "no event has bytes of another one");
    let copy = copy.finish().expect("as many events as there were, with as many bytes");
    assert_eq!(events(&copy), events(batch));
}

pub(crate) fn events(batch: &Batch) -> Vec<Event> {
    batch.events().map(|event| event.to_event()).collect()
}
