//! What files cost: making them, and reading them again.
//!
//! `cargo bench -p nodata-archive` in a release build. Figures are MB of payload (ids, keys, values, headers) for each second of
//! one thread, medians of five interleaved rounds, with files in memory: the disk is not in them. `NODATA_BENCH_LINES=FILE` takes
//! the lines of a file as values instead of made ones.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark is no library")]

use nodata_archive::decode::OpenFile;
use nodata_archive::encode::{grown_file, new_file};
use nodata_archive::schema::FileOrigin;
use nodata_log::fs::simulated::{Faults, SimulatedFs};
use nodata_log::fs::{Fs as _, FsFile, write_all_at};
use nodata_log::{Batch, Column, Event, Offsets, StoredBatch, ValueType};
use std::io::IoSlice;
use std::sync::Arc;
use std::time::Instant;

const ROUNDS: usize = 5;
const PAYLOAD_BYTES: usize = 32 << 20;
const BATCH_EVENTS: usize = 1000;

/// Numbers that look random and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

fn flight(numbers: &mut Numbers, at: u64) -> String {
    const CARRIERS: [&str; 8] = ["UA", "B6", "EV", "DL", "AA", "MQ", "US", "9E"];
    let carrier = CARRIERS[numbers.below(8) as usize];
    let (delay, flight, tail, distance) =
        (numbers.below(300) as i64 - 20, numbers.below(6000), numbers.below(4000), 80 + numbers.below(4900));
    let (month, day, hour) = (1 + at / 28_000 % 12, 1 + at / 1000 % 28, at / 40 % 24);
    format!(
        "{{\"id\":\"F{at:06}\",\"month\":{month},\"day\":{day},\"dep_delay\":{delay},\"carrier\":\"{carrier}\",\"flight\":{flight},\
         \"tailnum\":\"N{tail}\",\"distance\":{distance},\"time_hour\":\"2013-{month:02}-{day:02}T{hour:02}:00:00Z\"}}"
    )
}

/// Text that does not repeat and still is text.
fn noise(numbers: &mut Numbers, bytes: usize) -> String {
    (0..bytes).map(|_| char::from(b"abcdefghijklmnopqrstuvwxyz0123456789 {}:,"[numbers.below(40) as usize])).collect()
}

struct Case {
    name: &'static str,
    values: ValueType,
    columns: &'static [&'static str],
    events: Vec<Event>,
}

fn events(mut value: impl FnMut(u64) -> String) -> Vec<Event> {
    let mut bytes = 0;
    let mut events = Vec::new();
    while bytes < PAYLOAD_BYTES {
        let event = Event::new(value(events.len() as u64)).with_key(format!("k{}", events.len() % 16));
        bytes += event.value.as_ref().unwrap().len();
        events.push(event);
    }
    events
}

fn cases() -> Vec<Case> {
    let mut numbers = Numbers(88_172_645_463_325_252);
    let lines: Option<Vec<String>> = std::env::var_os("NODATA_BENCH_LINES")
        .map(|file| std::fs::read_to_string(file).unwrap().lines().map(str::to_owned).collect());
    let line = |numbers: &mut Numbers, at: u64| match &lines {
        Some(lines) => lines[at as usize % lines.len()].clone(),
        None => flight(numbers, at),
    };
    let flights = events(|at| line(&mut numbers, at));
    let mut numbers = Numbers(88_172_645_463_325_252);
    vec![
        Case { name: "flights, bytes", values: ValueType::Bytes, columns: &[], events: flights.clone() },
        Case { name: "flights, JSON", values: ValueType::Json, columns: &[], events: flights.clone() },
        Case {
            name: "flights, JSON, 3 columns",
            values: ValueType::Json,
            columns: &["carrier:string", "dep_delay:int64", "distance:int64"],
            events: flights.clone(),
        },
        Case {
            name: "flights, JSON, 9 columns",
            values: ValueType::Json,
            columns: &[
                "id:string",
                "month:int64",
                "day:int64",
                "dep_delay:int64",
                "carrier:string",
                "flight:int64",
                "tailnum:string",
                "distance:int64",
                "time_hour:timestamp",
            ],
            events: flights,
        },
        Case {
            name: "noise of 100 B",
            values: ValueType::Bytes,
            columns: &[],
            events: events(|_| noise(&mut numbers, 100)),
        },
        Case {
            name: "noise of 1 KiB",
            values: ValueType::Bytes,
            columns: &[],
            events: events(|_| noise(&mut numbers, 1024)),
        },
    ]
}

struct Figures {
    encode: f64,
    grow: f64,
    decode: f64,
    share: f64,
}

fn origin(case: &Case) -> FileOrigin {
    let columns: Arc<[Column]> = case.columns.iter().map(|column| column.parse().unwrap()).collect();
    FileOrigin {
        store: "0f".repeat(16),
        topic: "orders".into(),
        topic_id: 7,
        partition: 3,
        base_offset: 0,
        values: case.values,
        columns,
    }
}

fn run(case: &Case) -> Figures {
    let origin = origin(case);
    let mut batches: Vec<StoredBatch> = Vec::new();
    for (at, events) in case.events.chunks(BATCH_EVENTS).enumerate() {
        let batch = Batch::from_events(events, 0).unwrap();
        batches.push(StoredBatch { offsets: Offsets::From((at * BATCH_EVENTS) as u64), append_us: at as i64, batch });
    }
    let payload: usize = batches.iter().map(|stored| stored.batch.payload_bytes()).sum();
    let rate = |begun: Instant, bytes: usize| bytes as f64 / 1e6 / begun.elapsed().as_secs_f64();

    let begun = Instant::now();
    let whole = new_file(&origin, &batches).unwrap();
    let encode = rate(begun, payload);

    let (first, last) = batches.split_at(batches.len() * 9 / 10);
    let begins = new_file(&origin, first).unwrap().into();
    let added: usize = last.iter().map(|stored| stored.batch.payload_bytes()).sum();
    let begun = Instant::now();
    grown_file(&begins, &origin, last).unwrap();
    let grow = rate(begun, added);

    let disk = SimulatedFs::new(Faults::default());
    let file: Arc<dyn FsFile> = disk.create("x.parquet").unwrap();
    write_all_at(&*file, &mut [IoSlice::new(&whole)], 0).unwrap();
    let begun = Instant::now();
    let file = OpenFile::open(file, whole.len() as u64).unwrap();
    let mut next = 0;
    while let Some(slices) = file.events_from(next).unwrap() {
        next = slices.map(|slice| slice.unwrap().last().unwrap().last() + 1).last().unwrap();
    }
    let decode = rate(begun, payload);
    assert_eq!(next as usize, case.events.len());
    Figures { encode, grow, decode, share: whole.len() as f64 / payload as f64 }
}

fn main() {
    let cases = cases();
    let mut rounds: Vec<Vec<Figures>> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (case, figures) in cases.iter().zip(&mut rounds) {
            figures.push(run(case));
        }
    }
    for (case, figures) in cases.iter().zip(&rounds) {
        let median = |of: fn(&Figures) -> f64| {
            let mut all: Vec<f64> = figures.iter().map(of).collect();
            all.sort_by(f64::total_cmp);
            all[ROUNDS / 2]
        };
        println!(
            "{:<26} encode {:>4.0} MB/s, grow by a tenth {:>4.0} MB/s, decode {:>4.0} MB/s, file is {:>3.0} % of payload",
            case.name,
            median(|figures| figures.encode),
            median(|figures| figures.grow),
            median(|figures| figures.decode),
            median(|figures| figures.share) * 100.0,
        );
    }
}
