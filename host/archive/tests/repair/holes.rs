//! Reading over what is lost, and files whose footer nobody knows.

use crate::check::{Said, look, read_all, repair};
use crate::store::{Made, Model, TurnedClock, archive, now, open};
use nodata_archive::decode::OpenFile;
use nodata_archive::encode::new_file;
use nodata_archive::schema::FileOrigin;
use nodata_log::fs::simulated::{Faults, SimulatedFs};
use nodata_log::fs::{Fs, FsFile, SyncSite, read_file, write_all_at};
use nodata_log::{Batch, Event, Log, Name, Offset, Offsets, ReadLimits, StoredBatch, TopicConfig, Tp, ValueType};
use std::collections::BTreeMap;
use std::io::IoSlice;
use std::sync::Arc;

/// A partition with three files of ten events, and ten events in the log only.
fn three_files(hot_bytes: u64) -> (Made, Tp, Vec<String>) {
    let fs = SimulatedFs::new(Faults::default());
    let clock = Arc::new(TurnedClock::default());
    let mut model = Model::default();
    let store = open(&fs, &clock, 1, hot_bytes).unwrap();
    let pending = store.log.create_topic(Name::new("orders").unwrap(), TopicConfig::default()).unwrap();
    store.write();
    let tp = now(pending).unwrap().partitions().next().unwrap();
    let mut paths = Vec::new();
    for day in 0..4 {
        let values: Vec<String> = (day * 10..day * 10 + 10).map(|value: u64| format!("{value}.")).collect();
        store.append(tp, &values, None);
        if day < 3 {
            archive(&store, &mut model, tp);
            let date = nodata_archive::place::date(store.log.archive(tp).unwrap().files[&(day * 10)].append_min_us);
            paths.push(format!("data/topic=orders/partition=0/date={date}/{:020}.parquet", day * 10));
            clock.turn(86_400_000_000);
        }
        // A segment for each, so that the log can let go of what is in files.
        for _ in 0..3 {
            store.log.by_hand().checkpoint().unwrap();
        }
    }
    drop(store);
    fs.kill();
    for life in 0..2 {
        let store = open(&fs, &clock, 10 + life, hot_bytes).unwrap();
        store.append(tp, &[format!("{}.", 40 + life)], None);
        store.log.by_hand().checkpoint().unwrap();
        drop(store);
        fs.kill();
    }
    (Made { fs, clock, model, hot_bytes }, tp, paths)
}

fn remove(fs: &SimulatedFs, path: &str) {
    fs.remove(path).unwrap();
    fs.sync_dir(path.rsplit_once('/').unwrap().0, SyncSite::KeptName).unwrap();
}

fn offsets(found: &BTreeMap<Offset, String>) -> Vec<Offset> {
    assert!(found.iter().all(|(offset, value)| *value == format!("{offset}.")), "{found:?}");
    found.keys().copied().collect()
}

#[test]
fn readers_pass_over_files_that_are_gone() {
    for lost in [0usize, 1, 2] {
        let (made, tp, paths) = three_files(0);
        remove(&made.fs, &paths[lost]);
        let survey = look(&made.fs, &made).unwrap();
        let said = Said::of(&survey);
        let from = lost as u64 * 10;
        if said.lost_events() == 0 {
            // The last of them may be in the log still.
            assert_eq!(lost, 2);
            continue;
        }
        assert_eq!(said.lost_events(), 10, "{:#?}", said.findings);
        repair(&made.fs, &made, survey).unwrap();
        let store = open(&made.fs, &made.clock, 50, 0).unwrap();
        let expected: Vec<Offset> = (0..42).filter(|offset| !(from..from + 10).contains(offset)).collect();
        assert_eq!(offsets(&read_all(&store, tp).unwrap()), expected);
        // From the middle of what is lost one goes on behind it, and no time finds it.
        let mut next = from + 5;
        let limits = ReadLimits { bytes_max: 1, events_max: 1 };
        let first = loop {
            let chunk = now(store.log.read(tp, next, limits)).unwrap();
            assert!(chunk.next > next);
            match chunk.batches.first() {
                Some(stored) => break stored.first(),
                None => next = chunk.next,
            }
        };
        assert_eq!(first, from + 10);
        let found = now(store.log.offset_at(tp, i64::MIN)).unwrap();
        assert_eq!(found, if lost == 0 { 10 } else { 0 });
    }
}

/// All that is left is lost too: the end stays where it was.
#[test]
fn a_partition_of_which_everything_is_lost_goes_on_at_its_end() {
    let (made, tp, _) = three_files(u64::MAX);
    for (path, _) in crate::damage::files(&made.fs) {
        if path.starts_with("data/") || (path.starts_with("wal/") && !path.ends_with("9.wal")) {
            remove(&made.fs, &path);
        }
    }
    let survey = look(&made.fs, &made).unwrap();
    repair(&made.fs, &made, survey).unwrap();
    let store = open(&made.fs, &made.clock, 50, 0).unwrap();
    let bounds = store.log.bounds(tp).unwrap();
    assert!(bounds.end >= 42, "{bounds:?}");
    assert_eq!(offsets(&read_all(&store, tp).unwrap()), [0; 0]);
    let chunk = now(store.log.read(tp, bounds.earliest, ReadLimits { bytes_max: 1, events_max: 1 })).unwrap();
    assert_eq!((chunk.batches.len(), chunk.next), (0, bounds.end));
    assert_eq!(store.append(tp, &["new".to_owned()], None), bounds.end);
}

/// While the log has the events, nothing is lost, and the file is there again.
#[test]
fn a_file_that_is_gone_comes_back_from_the_log() {
    let (made, tp, paths) = three_files(u64::MAX);
    paths.iter().for_each(|path| remove(&made.fs, path));
    let survey = look(&made.fs, &made).unwrap();
    let said = Said::of(&survey);
    assert_eq!((said.findings.len(), said.lost_events()), (3, 0), "{:#?}", said.findings);
    repair(&made.fs, &made, survey).unwrap();
    for path in &paths {
        read_file(&made.fs, path).unwrap();
    }
    let store = open(&made.fs, &made.clock, 50, 0).unwrap();
    assert_eq!(offsets(&read_all(&store, tp).unwrap()), (0..42).collect::<Vec<_>>());
}

/// A bit of the payload of the last batch, which nothing but the log has.
#[test]
fn a_damaged_batch_costs_its_events_and_nothing_else() {
    let (made, tp, _) = three_files(0);
    let store = open(&made.fs, &made.clock, 40, 0).unwrap();
    store.append(tp, &["42.".to_owned(), "43.".to_owned()], None);
    store.append(tp, &["44.needle".to_owned(), "45.".to_owned()], Some(0));
    store.log.by_hand().mark().unwrap();
    drop(store);
    made.fs.kill();
    let (path, at) = crate::damage::files(&made.fs)
        .into_iter()
        .find_map(|(path, _)| {
            let bytes = read_file(&made.fs, &path).unwrap();
            Some((path, bytes.windows(6).position(|window| window == b"needle")?))
        })
        .unwrap();
    made.fs.flip_bit(&path, at as u64, 3).unwrap();
    let survey = look(&made.fs, &made).unwrap();
    let said = Said::of(&survey);
    assert!(said.is_exact && said.lost_events() == 2, "{:#?}", said.findings);
    repair(&made.fs, &made, survey).unwrap();
    let store = open(&made.fs, &made.clock, 50, 0).unwrap();
    assert_eq!(offsets(&read_all(&store, tp).unwrap()), (0..44).collect::<Vec<_>>());
    // The producer has sent it, and need not send it again. What comes next has a place of its own.
    assert_eq!(store.append(tp, &["46.".to_owned()], Some(1)), 46);
}

/// The server would go on with the file as it was, while everyone else finds no footer at its end.
#[test]
fn a_file_that_grew_and_cannot_be_read_is_written_anew() {
    let (made, tp, _) = three_files(0);
    let mut model = Model::default();
    let store = open(&made.fs, &made.clock, 40, 0).unwrap();
    archive(&store, &mut model, tp);
    store.append(tp, &["42.".to_owned()], None);
    // It has its name, and the log is not told.
    let (file, _) = now(store.archiver.write_next(tp)).unwrap().unwrap();
    store.log.by_hand().mark().unwrap();
    drop(store);
    made.fs.kill();
    assert!(look(&made.fs, &made).unwrap().is_well());
    let date = nodata_archive::place::date(file.append_min_us);
    let path = format!("data/topic=orders/partition=0/date={date}/{:020}.parquet", file.base);
    made.fs.flip_bit(&path, file.bytes - 2, 0).unwrap();
    let survey = look(&made.fs, &made).unwrap();
    let said = Said::of(&survey);
    assert_eq!((said.findings.len(), said.lost_events()), (1, 0), "{:#?}", said.findings);
    repair(&made.fs, &made, survey).unwrap();
    OpenFile::open(made.fs.open(&path).unwrap(), made.fs.open(&path).unwrap().size().unwrap()).unwrap();
    let store = open(&made.fs, &made.clock, 50, 0).unwrap();
    assert_eq!(offsets(&read_all(&store, tp).unwrap()), (0..43).collect::<Vec<_>>());
}

/// The end of the log is cut off, and nobody knows what was there. An interrupted repair leaves it so.
#[test]
fn a_log_that_lost_its_end_gives_no_offset_again_whenever_its_repair_is_interrupted() {
    let (made, tp, _) = three_files(0);
    let store = open(&made.fs, &made.clock, 40, 0).unwrap();
    for value in 42..60 {
        store.append(tp, &[format!("{value}.")], None);
    }
    drop(store);
    made.fs.kill();
    let last = crate::damage::files(&made.fs).into_iter().rfind(|(path, _)| path.starts_with("wal/")).unwrap().0;
    made.fs.truncate(&last, 1000).unwrap();
    for crash_at in 0..1000 {
        let fs = made.fs.fork();
        let survey = look(&fs, &made).unwrap();
        assert!(!survey.salvage().is_exact());
        fs.set_faults(Faults { crash_at: Some(crash_at), ..Faults::default() });
        let is_done = repair(&fs, &made, survey).is_ok();
        fs.kill();
        let survey = look(&fs, &made).unwrap();
        if survey.is_well() {
            drop(survey);
        } else {
            repair(&fs, &made, survey).unwrap();
        }
        let store = open(&fs, &made.clock, 50, 0).unwrap();
        let left = offsets(&read_all(&store, tp).unwrap());
        assert!((42..60).contains(&left.len()), "{left:?}");
        let first = store.append(tp, &["new".to_owned()], None);
        assert!(first >= 60, "interrupted at {crash_at}, offset {first} is given out again");
        if is_done {
            return;
        }
    }
    panic!("it is never done");
}

fn file(bytes: &[u8]) -> Arc<dyn FsFile> {
    let disk = SimulatedFs::new(Faults::default());
    let file: Arc<dyn FsFile> = disk.create("x.parquet").unwrap();
    write_all_at(&*file, &mut [IoSlice::new(bytes)], 0).unwrap();
    file
}

type Row = (Offset, i64, Event);

fn rows(file: &OpenFile) -> Option<Vec<Row>> {
    let mut found = Vec::new();
    for at in 0..file.row_groups() as usize {
        for stored in file.group_events(at).ok()? {
            let events = stored.batch.events().enumerate();
            found.extend(events.map(|(row, event)| (stored.offsets.at(row), stored.append_us, event.to_event())));
        }
    }
    Some(found)
}

/// A footer that is believed without a checksum gives the events that were written, or none.
#[test]
fn no_flipped_bit_of_a_footer_makes_another_event() {
    let events: Vec<Event> = (0..40)
        .map(|n| {
            let mut event = Event::new(format!("value {n}"));
            event.key = (n % 3 > 0).then(|| format!("key {n}").into());
            event.id = (n % 2 > 0).then(|| format!("id {n}"));
            event.headers = if n % 5 == 0 { vec![("h".into(), "x".into())] } else { Vec::new() };
            event
        })
        .collect();
    let batches: Vec<StoredBatch> = events
        .chunks(7)
        .zip(0..)
        .map(|(events, at)| StoredBatch {
            offsets: Offsets::From(at * 9),
            append_us: 1_700_000_000_000_000 + at as i64,
            batch: Batch::from_events(events, 5 + at as i64).unwrap(),
        })
        .collect();
    let origin = FileOrigin {
        store: "0f".repeat(16),
        topic: "orders".into(),
        topic_id: 7,
        partition: 3,
        base_offset: 0,
        values: ValueType::Bytes,
        columns: [].into(),
    };
    let bytes = new_file(&origin, &batches).unwrap();
    let whole = OpenFile::open_strictly(file(&bytes), bytes.len() as u64).unwrap();
    let written = rows(&whole).unwrap();
    assert_eq!(written.len(), 40);
    let mut believed = 0;
    // What comes before it, page indexes, is not read.
    let footer_bytes = u32::from_le_bytes(*bytes[bytes.len() - 8..].first_chunk().unwrap()) as usize + 8;
    for bit in (bytes.len() - footer_bytes) * 8..bytes.len() * 8 {
        let mut bytes = bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let Ok(opened) = OpenFile::open_strictly(file(&bytes), bytes.len() as u64) else { continue };
        if let Some(found) = rows(&opened) {
            assert_eq!(found, written, "bit {bit}");
            believed += 1;
        }
    }
    assert!(believed > 100, "some bits do not matter ({believed})");
}
