//! The log alone: how many events it makes durable, without a network.
//!
//! `cargo bench -p nodata-log` in a release build. Every figure is with ack `durable` (an `fdatasync` of the group before the
//! answer), in a fresh store on the disk of `NODATA_BENCH_DIR` or the current directory.

#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::disallowed_methods, reason = "a benchmark is no library")]

use nodata_log::fs::real::RealFs;
use nodata_log::{AckLevel, Append, Batch, EmbeddedLog, Event, Log, Name, Options, SystemClock, TopicConfig, Tp};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

struct Case {
    event_bytes: usize,
    batch: usize,
    producers: u32,
    in_flight: usize,
}

const CASES: [Case; 8] = [
    Case { event_bytes: 100, batch: 1, producers: 1, in_flight: 1 },
    Case { event_bytes: 100, batch: 1, producers: 4, in_flight: 1 },
    Case { event_bytes: 100, batch: 1, producers: 64, in_flight: 1 },
    Case { event_bytes: 100, batch: 1, producers: 1, in_flight: 1000 },
    Case { event_bytes: 100, batch: 1000, producers: 1, in_flight: 1 },
    Case { event_bytes: 100, batch: 1000, producers: 4, in_flight: 2 },
    Case { event_bytes: 1024, batch: 1000, producers: 4, in_flight: 1 },
    Case { event_bytes: 1024, batch: 1000, producers: 4, in_flight: 2 },
];

const SECONDS: u64 = 3;
const ROUNDS: usize = 3;

fn main() {
    let base = std::env::var("NODATA_BENCH_DIR").unwrap_or_else(|_| ".".to_owned());
    println!("durable appends, {ROUNDS} rounds of {SECONDS} s, median (least to most)");
    for case in &CASES {
        let mut runs: Vec<Figures> = (0..ROUNDS).map(|_| run(case, &base)).collect();
        runs.sort_by(|a, b| a.events_per_s.total_cmp(&b.events_per_s));
        let median = &runs[ROUNDS / 2];
        println!(
            "{:>5} B x {:>4}, {:>2} producers, {:>4} in flight: {:>9.0} events/s ({:.0} to {:.0}), {:>6.0} MB/s, p50 {:>6} us, p99 {:>6} us, {:.2} bytes written for one, {:.2} CPU s for a million",
            case.event_bytes,
            case.batch,
            case.producers,
            case.in_flight,
            median.events_per_s,
            runs[0].events_per_s,
            runs[ROUNDS - 1].events_per_s,
            median.events_per_s * case.event_bytes as f64 / 1e6,
            median.p50_us,
            median.p99_us,
            median.written_per_byte,
            median.cpu_s_per_million,
        );
    }
}

struct Figures {
    events_per_s: f64,
    p50_us: u128,
    p99_us: u128,
    written_per_byte: f64,
    cpu_s_per_million: f64,
}

/// Processor seconds of this process so far.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / 100.0
}

fn run(case: &Case, base: &str) -> Figures {
    let dir = tempfile::tempdir_in(base).unwrap();
    let fs = Arc::new(RealFs::new(dir.path()).unwrap());
    let (log, _) = EmbeddedLog::open(Options::new(1), "bench", fs, Arc::new(SystemClock)).unwrap();
    log.start().unwrap();
    let log = Arc::new(log);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let name = Name::new("bench").unwrap();
    let config = TopicConfig { partitions: case.producers, ..TopicConfig::default() };
    let topic = runtime.block_on(async { log.create_topic(name, config).unwrap().await.unwrap() });

    let events: Vec<Event> = (0..case.batch)
        .map(|n| Event::new((0..case.event_bytes).map(|at| (n * 31 + at * 7) as u8).collect::<Vec<u8>>()))
        .collect();
    let count = Arc::new(AtomicU64::new(0));
    let cpu_before = cpu_seconds();
    let start = Instant::now();
    let end = start + Duration::from_secs(SECONDS);
    let tasks: Vec<_> = (0..case.producers)
        .flat_map(|partition| (0..case.in_flight).map(move |_| partition))
        .map(|partition| {
            let (log, count, events) = (log.clone(), count.clone(), events.clone());
            let tp = Tp { topic: topic.id, partition };
            runtime.spawn(async move {
                let mut latencies = Vec::new();
                while Instant::now() < end {
                    let begun = Instant::now();
                    let batch = Batch::from_events(&events, 1).unwrap();
                    let room = log.room(batch.encoded_len() as u64).await.unwrap();
                    let append = Append { batches: vec![(tp, batch)], ack: AckLevel::Durable, producer: None, room };
                    log.append(append).unwrap().await.unwrap();
                    latencies.push(begun.elapsed().as_micros());
                    count.fetch_add(events.len() as u64, Ordering::Relaxed);
                }
                latencies
            })
        })
        .collect();
    let mut latencies: Vec<u128> =
        runtime.block_on(async { futures_join(tasks).await }).into_iter().flatten().collect();
    let elapsed = start.elapsed().as_secs_f64();
    latencies.sort_unstable();
    let events = count.load(Ordering::Relaxed);
    Figures {
        events_per_s: events as f64 / elapsed,
        p50_us: latencies[latencies.len() / 2],
        p99_us: latencies[latencies.len() * 99 / 100],
        cpu_s_per_million: (cpu_seconds() - cpu_before) * 1e6 / events as f64,
        written_per_byte: log.written_bytes() as f64 / (events * case.event_bytes as u64) as f64,
    }
}

async fn futures_join(tasks: Vec<tokio::task::JoinHandle<Vec<u128>>>) -> Vec<Vec<u128>> {
    let mut done = Vec::new();
    for task in tasks {
        done.push(task.await.unwrap());
    }
    done
}
