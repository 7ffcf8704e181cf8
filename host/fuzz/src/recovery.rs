//! A whole disk: what a start finds on it, which may be anything.
//!
//! An input is a row of files. Each is a byte that says which it is, two bytes of length, and that many bytes:
//!
//! | first byte | |
//! | --- | --- |
//! | 0 to 5 | segment 1 to 6: 84 bytes of header, then frames. The rest of the header's block, the zeros of padding, places, epochs, salts and checksums are filled in, so that a small input is a real log |
//! | 6 | a spare, in the same form |
//! | 7 | the file that names the store, as it is |
//! | + 16 | the last checksum is wrong |
//! | + 32 | a segment exactly as it is |

use crate::seal;
use crate::segment::STORE;
use nodata_log::frame::FrameContext;
use nodata_log::fs::simulated::{Faults, SimulatedFs};
use nodata_log::fs::{Fs, SyncSite, read_file, write_all_at};
use nodata_log::{
    Bounds, Clock, EmbeddedLog, Log, MetadataStore, Name, OpenError, Options, OwnerId, ReadLimits, TaskKey,
    TopicConfig, Tp,
};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::future::Future;
use std::io::IoSlice;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

pub(crate) const SPARE: u8 = 6;
pub(crate) const STORE_FILE: u8 = 7;
pub(crate) const WRONG: u8 = 16;
pub(crate) const RAW: u8 = 32;

/// Bytes of a file, at most: one that is as long as its header says need not be long.
const FILE_BYTES_MAX: usize = 64 << 10;
pub(crate) const HEADER_BYTES: usize = 84;
const BLOCK_BYTES: usize = 4096;

pub(crate) fn run(input: &[u8]) {
    let fs = disk(input);
    let before = content(&fs);
    let Ok(log) = open(&fs, 1) else {
        assert_eq!(content(&fs), before, "a store that is refused is as it was");
        return;
    };
    let known = dump(&log);
    drop(log);
    fs.kill();

    let log = open(&fs, 2).expect("a store that started starts again");
    assert_eq!(dump(&log), known, "and knows the same");
    // It takes what is new, and what was there stays.
    let added = Name::new("added-by-the-target").expect("a name");
    let pending = log.create_topic(added.clone(), TopicConfig::default()).ok();
    let is_written = log.by_hand().write_group().expect("a disk without faults");
    assert_eq!(is_written, pending.is_some());
    log.by_hand().mark().expect("a disk without faults");
    let with_more = dump(&log);
    drop(log);
    fs.kill();
    let log = open(&fs, 3).expect("a store that was written to starts again");
    assert_eq!(dump(&log), with_more, "and knows what was written");
    assert!(pending.is_none() || log.topic(&added).is_ok());
}

fn disk(input: &[u8]) -> SimulatedFs {
    let fs = SimulatedFs::new(Faults::default());
    fs.create_dir("wal").expect("a new disk");
    let write = |path: &str, bytes: &[u8]| {
        let _ = fs.remove(path);
        let file = fs.create(path).expect("a name that is free");
        write_all_at(&*file, &mut [IoSlice::new(bytes)], 0).expect("a disk without faults");
        file.sync_data(SyncSite::Group).expect("a disk without faults");
    };
    let id = u128::from_be_bytes(STORE);
    write("STORE", format!("nodata store\nformat 1\nid {id:032x}\n").as_bytes());
    let mut rest = input;
    while let Some((&[kind, low, high], behind)) = rest.split_first_chunk() {
        let len = usize::from(u16::from_le_bytes([low, high])).min(behind.len());
        let (bytes, behind) = behind.split_at(len);
        rest = behind;
        let number = u64::from(kind % 8) + 1;
        let file = if kind & RAW == 0 { segment(bytes, number, kind & WRONG != 0) } else { bytes.to_vec() };
        match kind % 8 {
            SPARE => write("wal/spare-3.wal", &file),
            STORE_FILE => write("STORE", bytes),
            _ => write(&format!("wal/{number:020}.wal"), &file),
        }
    }
    for dir in ["", "wal"] {
        fs.sync_dir(dir, SyncSite::StoreName).expect("a disk without faults");
    }
    fs
}

/// A segment of this header and these frames.
fn segment(compact: &[u8], number: u64, is_wrong: bool) -> Vec<u8> {
    let (header, frames) = compact.split_at(HEADER_BYTES.min(compact.len()));
    let mut file = vec![0; BLOCK_BYTES];
    file[..header.len()].copy_from_slice(header);
    seal::segment(&mut file, number, &STORE);
    let u64_at = |at: usize| file[at..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let (base_lsn, said_bytes) = (u64_at(40), u64_at(72));
    let epoch_and_salt = u64_at(56);
    let context = FrameContext { epoch: epoch_and_salt as u32, salt: (epoch_and_salt >> 32) as u32 };
    file.extend_from_slice(frames);
    let mut at = BLOCK_BYTES;
    let mut last = 0;
    while file.len() < FILE_BYTES_MAX {
        let lsn = base_lsn.wrapping_add((at - BLOCK_BYTES) as u64);
        let Some(bytes) = seal::frame(&mut file, at, context, lsn) else { break };
        last = at;
        at += bytes;
    }
    if is_wrong {
        file[last + 8] ^= 1;
    }
    let bytes = file.len().next_multiple_of(BLOCK_BYTES).max(FILE_BYTES_MAX.min(said_bytes as usize));
    file.resize(bytes, 0);
    file
}

struct Noon;

impl Clock for Noon {
    fn now_us(&self) -> i64 {
        1_700_000_000_000_000
    }
}

pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(Noon)
}

/// Segments that a few groups fill.
pub(crate) fn options(seed: u64) -> Options {
    Options {
        segment_bytes: 16 << 10,
        first_segment_bytes: 16 << 10,
        on_failure: Arc::new(|error| panic!("a disk without faults failed: {error}")),
        ..Options::new(seed)
    }
}

fn open(fs: &SimulatedFs, seed: u64) -> Result<EmbeddedLog, OpenError> {
    EmbeddedLog::open(options(seed), "fuzz", Arc::new(fs.clone()), clock()).map(|(log, _)| log)
}

/// Every file that is not derived from others, with its name.
fn content(fs: &SimulatedFs) -> BTreeMap<String, Vec<u8>> {
    let wal = fs.list("wal").expect("it was made").into_iter().map(|entry| format!("wal/{}", entry.name));
    let paths = wal.chain(["STORE".to_owned()]);
    paths.map(|path| (path.clone(), read_file(fs, &path).expect("it is listed"))).collect()
}

/// Waits for something that needs nothing but what has happened already.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits for something"),
    }
}

/// What a log knows, as far as it can be asked.
fn dump(log: &EmbeddedLog) -> String {
    let mut out = String::new();
    for topic in log.topics() {
        let _ = writeln!(out, "{topic:?}");
        for tp in topic.partitions() {
            let archive = log.archive(tp).expect("its topic is there");
            let _ = writeln!(out, "{tp} {:?} {archive:?}", log.bounds(tp).expect("its topic is there"));
            read(log, tp, &mut out);
            for owner in 0..3 {
                let position = log.task_position(TaskKey { owner: OwnerId(owner), source: tp });
                let _ = writeln!(out, "task {owner} {position:?}");
            }
        }
    }
    for (key, entry) in now(log.meta_list("")).expect("it is in memory") {
        let _ = writeln!(out, "{key} {entry:?}");
    }
    out
}

/// Every event of a partition, or why there are no more.
fn read(log: &EmbeddedLog, tp: Tp, out: &mut String) {
    let Bounds { earliest, end } = log.bounds(tp).expect("its topic is there");
    let limits = ReadLimits { bytes_max: 1 << 20, events_max: 1 << 20 };
    let mut next = earliest;
    while next < end {
        match now(log.read(tp, next, limits)) {
            Ok(chunk) => {
                assert!(chunk.next > next, "reading goes on");
                let mut last = None;
                for stored in &chunk.batches {
                    assert!(last < Some(stored.first()) && stored.last() < end, "offsets increase up to the end");
                    last = Some(stored.last());
                    let _ = writeln!(out, "{:?} {} {:?}", stored.offsets, stored.append_us, stored.batch);
                }
                next = chunk.next;
            }
            Err(error) => {
                let _ = writeln!(out, "from {next} on: {error}");
                return;
            }
        }
    }
}
