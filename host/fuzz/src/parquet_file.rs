//! A file of the archive: its footer, and what is in it.

use crate::{batch, disk, seal};
use bytes::Bytes;
use nodata_archive::decode::OpenFile;
use nodata_archive::encode::{grown_file, new_file};
use nodata_archive::pages::check_footer;
use nodata_archive::schema::FileOrigin;
use nodata_log::{Event, Offset, Offsets, StoredBatch};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Slices of a file that are decoded, at most: a few bytes can say that there are a billion nulls.
const SLICES_MAX: usize = 16;

pub(crate) fn run(input: &[u8]) {
    read(input);
    let mut sealed = input.to_vec();
    if let Some(footer) = footer(input) {
        seal::parquet_file(&mut sealed, &row_groups(&footer));
    }
    if sealed != input {
        read(&sealed);
    }
}

/// The footer as the library reads it, which may panic.
fn footer(bytes: &[u8]) -> Option<ParquetMetaData> {
    // The library would look for a billion elements.
    let tail = bytes.len().checked_sub(8)?;
    let len = bytes[tail..].first_chunk().map_or(0, |len| u32::from_le_bytes(*len)) as usize;
    check_footer(&bytes[tail.checked_sub(len)?..tail]).ok()?;
    let bytes = Bytes::copy_from_slice(bytes);
    let read = || ParquetMetaDataReader::new().with_page_index_policy(PageIndexPolicy::Skip).parse_and_finish(&bytes);
    catch_unwind(AssertUnwindSafe(read)).ok()?.ok()
}

/// Where row groups begin and end, if a footer can be believed.
fn row_groups(footer: &ParquetMetaData) -> Vec<(usize, usize)> {
    let range = |group: &parquet::file::metadata::RowGroupMetaData| {
        let columns = group.columns().iter().map(|column| {
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            (start, start.saturating_add(column.compressed_size()))
        });
        let (starts, ends): (Vec<i64>, Vec<i64>) = columns.unzip();
        let bound = |at: Option<&i64>| at.map_or(0, |at| usize::try_from(*at).unwrap_or(0));
        (bound(starts.iter().min()), bound(ends.iter().max()))
    };
    footer.row_groups().iter().map(range).collect()
}

fn read(bytes: &[u8]) {
    let Ok(file) = OpenFile::open(disk::file(bytes), bytes.len() as u64) else { return };
    let offsets = file.offsets();
    assert_eq!(offsets.start, file.origin().base_offset);
    assert!(offsets.start < offsets.end && file.row_groups() > 0);
    assert!(file.rows() <= offsets.end - offsets.start, "an event has an offset of its own");
    assert!(file.data_bytes() <= file.bytes() && file.bytes() == bytes.len() as u64);
    let _ = (file.timestamps(), file.append_timestamps(), file.raw_bytes());
    let is_whole = file.check().is_ok();

    let (earliest, latest) = file.timestamps();
    for time in [i64::MIN, earliest, latest, i64::MAX] {
        for from in [0, offsets.start, offsets.end - 1] {
            if let Ok(Some(found)) = file.offset_at(from, time) {
                assert!(from <= found, "nothing before what was asked for");
            }
        }
    }
    for from in [offsets.end - 1, offsets.end, Offset::MAX] {
        events(&file, from);
    }
    if let Some(found) = events(&file, offsets.start) {
        assert!(is_whole, "what was read was checked");
        comes_back(&file, &found);
        grows(bytes, file.origin(), found.last().map_or(0, StoredBatch::last));
    }
}

/// All events from an offset on, if all of them could be read.
fn events(file: &OpenFile, from: Offset) -> Option<Vec<StoredBatch>> {
    let mut found: Vec<StoredBatch> = Vec::new();
    let mut next = from;
    let mut slices_left = SLICES_MAX;
    while let Some(slices) = file.events_from(next).ok()? {
        for slice in slices {
            for stored in slice.ok()? {
                batch::holds(&stored.batch);
                let is_next = found.last().is_none_or(|last| last.last() < stored.first());
                assert!(is_next && stored.first() <= stored.last(), "offsets increase");
                assert!(file.offsets().contains(&stored.first()) && file.offsets().contains(&stored.last()));
                if let Offsets::Each(each) = &stored.offsets {
                    assert!(each.len() == stored.batch.len() && each.is_sorted_by(|a, b| a < b));
                }
                found.push(stored);
            }
            slices_left = slices_left.checked_sub(1)?;
        }
        let behind = found.last()?.last() + 1;
        assert!(behind > next, "reading goes on");
        next = behind;
    }
    Some(found)
}

fn rows(batches: &[StoredBatch]) -> Vec<(Offset, i64, Event)> {
    let of = |stored: &StoredBatch| {
        let rows = batch::events(&stored.batch).into_iter().enumerate();
        rows.map(|(row, event)| (stored.offsets.at(row), stored.append_us, event)).collect::<Vec<_>>()
    };
    batches.iter().flat_map(of).collect()
}

/// The same events in a file of our own.
fn comes_back(file: &OpenFile, found: &[StoredBatch]) {
    let bytes = new_file(file.origin(), found).expect("what was read can be written");
    let again = OpenFile::open(disk::file(&bytes), bytes.len() as u64).expect("what was written can be opened");
    assert_eq!(again.rows(), rows(found).len() as u64);
    let read = events(&again, file.offsets().start).expect("what was written can be read");
    assert_eq!(rows(&read), rows(found));
}

/// The file with one more event, as the archive does it with the file that it finds.
fn grows(bytes: &[u8], origin: &FileOrigin, last: Offset) {
    let event = nodata_log::Batch::from_events(&[Event::default()], 5).expect("one event");
    let more = StoredBatch { offsets: Offsets::From(last.saturating_add(1)), append_us: 5, batch: event };
    // It may be refused; it may not be wrong.
    let grown = catch_unwind(AssertUnwindSafe(|| grown_file(&Bytes::copy_from_slice(bytes), origin, &[more])));
    let Ok(Ok(grown)) = grown else { return };
    assert!(grown.starts_with(bytes), "a file grows by prefix");
}
