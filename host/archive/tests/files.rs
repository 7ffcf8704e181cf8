//! What is written is read again, whatever it is and however the file came to be.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use nodata_archive::decode::{OpenFile, SLICE_ROWS};
use nodata_archive::encode::{grown_file, new_file};
use nodata_archive::schema::FileOrigin;
use nodata_log::fs::FsFile;
use nodata_log::fs::simulated::{Faults, SimulatedFs};
use nodata_log::fs::{Fs as _, write_all_at};
use nodata_log::{Batch, Event, Offset, Offsets, StoredBatch, ValueType};
use proptest::prelude::*;
use std::io::IoSlice;
use std::sync::Arc;

/// The same with columns that are declared: they must change nothing for those who read events.
fn typed(is_typed: bool) -> FileOrigin {
    let columns = ["a:int64", "b=/a/b:string", "c:date"].map(|column| column.parse().unwrap());
    FileOrigin { columns: if is_typed { Arc::new(columns) } else { Arc::new([]) }, ..origin(0) }
}

fn origin(base_offset: u64) -> FileOrigin {
    FileOrigin {
        store: "0f".repeat(16),
        topic: "orders".into(),
        topic_id: 7,
        partition: 3,
        base_offset,
        values: ValueType::Bytes,
        columns: Arc::new([]),
    }
}

fn file(bytes: &[u8]) -> Arc<dyn FsFile> {
    let disk = SimulatedFs::new(Faults::default());
    let file: Arc<dyn FsFile> = disk.create("x.parquet").unwrap();
    write_all_at(&*file, &mut [IoSlice::new(bytes)], 0).unwrap();
    file
}

fn open(bytes: &[u8]) -> OpenFile {
    OpenFile::open(file(bytes), bytes.len() as u64).unwrap()
}

/// Every event with its offset and the time it was appended.
fn rows(batches: &[StoredBatch]) -> Vec<(Offset, i64, Event)> {
    let of = |stored: &StoredBatch| {
        let events: Vec<Event> = stored.batch.events().map(|event| event.to_event()).collect();
        let offsets = stored.offsets.clone();
        let append_us = stored.append_us;
        events.into_iter().enumerate().map(move |(row, event)| (offsets.at(row), append_us, event))
    };
    batches.iter().flat_map(of).collect()
}

fn read(file: &OpenFile, from: Offset) -> Vec<(Offset, i64, Event)> {
    let mut found = Vec::new();
    let mut next = from;
    while let Some(slices) = file.events_from(next).unwrap() {
        for slice in slices {
            found.extend(rows(&slice.unwrap()));
        }
        next = found.last().unwrap().0 + 1;
    }
    found
}

fn stored(first: Offset, append_us: i64, events: &[Event]) -> StoredBatch {
    StoredBatch { offsets: Offsets::From(first), append_us, batch: Batch::from_events(events, append_us).unwrap() }
}

const JSON: [&str; 4] = [r#"{"a":1,"c":"2013-01-01"}"#, r#"{"a":{"b":"x"}}"#, "{\"a\":\"1\"}", "null"];

fn event() -> impl Strategy<Value = Event> {
    let bytes = || prop::collection::vec(any::<u8>(), 0..20).prop_map(Bytes::from);
    let headers = prop::collection::btree_map("[a-z]{1,3}", bytes(), 0..3);
    (
        prop::option::of("[a-z]{1,8}"),
        prop::option::of(bytes()),
        prop::option::of(prop_oneof![bytes(), prop::sample::select(&JSON[..]).prop_map(Bytes::from)]),
        headers,
        prop::option::of(any::<i64>()),
    )
        .prop_map(|(id, key, value, headers, timestamp_us)| Event {
            id,
            key,
            value,
            headers: headers.into_iter().collect(),
            timestamp_us,
        })
}

/// Batches with gaps between them, some appended at the same moment.
fn batches() -> impl Strategy<Value = Vec<StoredBatch>> {
    prop::collection::vec((prop::collection::vec(event(), 1..9), 0u64..3, 0i64..2), 1..6).prop_map(|parts| {
        let (mut next, mut now) = (0, 1_700_000_000_000_000);
        let place = |(events, gap, later): (Vec<Event>, u64, i64)| {
            now += later;
            let batch = stored(next + gap, now, &events);
            next = batch.last() + 1;
            batch
        };
        parts.into_iter().map(place).collect()
    })
}

proptest! {
    #[test]
    fn events_come_back_as_they_were(batches in batches(), skip in 0u64..40) {
        let file = open(&new_file(&origin(0), &batches).unwrap());
        let written = rows(&batches);
        prop_assert_eq!(&read(&file, 0), &written);
        prop_assert_eq!(file.rows(), written.len() as u64);
        prop_assert_eq!(file.offsets(), 0..batches.last().unwrap().last() + 1);
        prop_assert_eq!(file.origin(), &origin(0));
        // A reader gets whole slices, which may begin before what was asked for.
        let later: Vec<_> = written.iter().filter(|row| row.0 >= skip).cloned().collect();
        let found: Vec<_> = read(&file, skip).into_iter().filter(|row| row.0 >= skip).collect();
        prop_assert_eq!(found, later);
    }

    #[test]
    fn a_file_that_grew_begins_with_the_file_that_it_was(
        parts in prop::collection::vec(batches(), 2..5), is_typed in any::<bool>(),
    ) {
        let mut versions: Vec<(Bytes, usize)> = Vec::new();
        let mut all: Vec<StoredBatch> = Vec::new();
        for part in parts {
            let next = all.last().map_or(0, |last| last.last() + 1);
            let moved: Vec<StoredBatch> = part
                .iter()
                .map(|batch| StoredBatch { offsets: Offsets::From(next + batch.first()), ..batch.clone() })
                .collect();
            let bytes = match versions.last() {
                None => new_file(&typed(is_typed), &moved),
                Some((file, _)) => grown_file(file, &typed(is_typed), &moved),
            }
            .unwrap();
            all.extend(moved);
            versions.push((bytes.into(), all.len()));
        }
        let (last, _) = versions.last().unwrap().clone();
        for (version, batches) in &versions {
            prop_assert!(last.starts_with(version));
            // Someone who knew the size of an old version reads the old version in the new file.
            let seen = OpenFile::open(file(&last), version.len() as u64).unwrap();
            prop_assert_eq!(read(&seen, 0), rows(&all[..*batches]));
        }
    }

    #[test]
    fn the_first_event_that_is_not_older_is_found(batches in batches(), from in 0u64..20, time in any::<i64>()) {
        let file = open(&new_file(&origin(0), &batches).unwrap());
        let is_it = |row: &&(Offset, i64, Event)| row.0 >= from && row.2.timestamp_us.unwrap() >= time;
        let expected = rows(&batches).iter().find(is_it).map(|row| row.0);
        prop_assert_eq!(file.offset_at(from, time).unwrap(), expected);
    }

    #[test]
    fn a_changed_byte_is_noticed_and_never_a_panic(
        batches in batches(), at in any::<prop::sample::Index>(), byte in any::<u8>(),
    ) {
        let mut bytes = new_file(&origin(0), &batches).unwrap();
        let at = at.index(bytes.len());
        let is_changed = bytes[at] != byte;
        bytes[at] = byte;
        // The footer is under a checksum of the manifest: here it may say anything, but it must be safe to read.
        let footer_bytes = u32::from_le_bytes(*bytes[bytes.len() - 8..].first_chunk().unwrap()) as usize;
        let in_footer = at >= bytes.len().saturating_sub(footer_bytes + 8);
        if let Ok(file) = OpenFile::open(file(&bytes), bytes.len() as u64) {
            let events: Result<Vec<_>, _> =
                file.events_from(0).and_then(|slices| slices.into_iter().flatten().collect());
            prop_assert!(!is_changed || in_footer || at < 4 || at >= file.data_bytes() as usize || events.is_err());
        }
    }
}

#[test]
fn a_reader_starts_in_the_middle_of_a_large_file() {
    let events: Vec<Event> = (0..20_000).map(|n| Event::new(format!("value {n}"))).collect();
    let batches: Vec<StoredBatch> =
        events.chunks(1000).enumerate().map(|(n, events)| stored(n as u64 * 1000, 5, events)).collect();
    let file = open(&new_file(&origin(0), &batches).unwrap());
    for from in [0, 1, 8191, 8192, 8193, 12_345, 19_999] {
        let found = read(&file, from);
        assert_eq!(found[0].0, from / SLICE_ROWS as u64 * SLICE_ROWS as u64);
        assert_eq!(found.last().unwrap().0, 19_999);
        let row = &found[(from - found[0].0) as usize];
        assert_eq!(row.2.value.as_deref(), Some(format!("value {from}").as_bytes()));
    }
    assert_eq!(read(&file, 20_000), []);
    assert_eq!(file.row_groups(), 1);
}

#[test]
fn values_that_are_text_or_json_come_back_as_the_same_bytes() {
    for values in [ValueType::Text, ValueType::Json] {
        let origin = FileOrigin { values, ..origin(0) };
        let events = [Event::new("{\"a\" : 1}"), Event::default(), Event::new("\"\"")];
        let first = new_file(&origin, &[stored(0, 1, &events)]).unwrap();
        let file = open(&grown_file(&first.into(), &origin, &[stored(3, 2, &events)]).unwrap());
        assert_eq!(file.origin(), &origin);
        let found: Vec<Option<Bytes>> = read(&file, 0).into_iter().map(|row| row.2.value).collect();
        let written: Vec<Option<Bytes>> = events.iter().chain(&events).map(|event| event.value.clone()).collect();
        assert_eq!(found, written);
        // Such a value never comes through the door; if it did, no file would be written that a reader cannot read.
        assert!(new_file(&origin, &[stored(0, 1, &[Event::new(vec![0xff])])]).is_err());
    }
}

#[test]
fn what_is_no_file_of_ours_is_refused() {
    let refused = |bytes: &[u8]| {
        let opened = OpenFile::open(file(bytes), bytes.len() as u64);
        opened.and_then(|opened| opened.check()).err().unwrap().to_string()
    };
    let whole = new_file(&origin(0), &[stored(0, 1, &[Event::new("a")])]).unwrap();
    assert!(refused(b"").contains("too short"), "{}", refused(b""));
    refused(b"PAR1");
    refused(&whole[..whole.len() - 1]);
    refused(&whole[1..]);
}
