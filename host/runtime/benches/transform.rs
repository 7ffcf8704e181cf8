//! What a transform costs alone: one function as a component and the same function compiled for this machine, on the same
//! batches, from the batch that was read to the batch that would be written.
//!
//! ```text
//! cargo xtask components
//! cargo bench -p nodata-runtime --bench transform [-- --component FILE] [--rounds N] [--profile BYTES EVENTS]
//! ```
//!
//! `--profile` measures one size only, and the components without the native code, for someone who looks with `perf`.
//!
//! The variants take turns, so that a busy machine is busy for all of them; the table shows medians.

#[path = "../../../components/guests/src/filter.rs"]
#[allow(unreachable_pub, reason = "the guests share this file")]
mod filter;

use nodata_log::model::ModelLog;
use nodata_log::{
    Batch, BatchBuilder, ColumnRef, Event, Name, Offsets, OwnerId, RowsRef, StoredBatch, SystemClock, TaskKey, TopicId,
    Tp, ValueType,
};
use nodata_runtime::{
    Compiler, Deployment, GuestLog, Input, InstanceLimits, InstanceSettings, Port, Runtime, RuntimeOptions, Share,
};
use std::collections::BTreeMap;
use std::error::Error;
use std::hint::black_box;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

const NOW: i64 = 1_700_000_000_000_000;
const BATCHES: [usize; 4] = [1, 10, 100, 1000];
const EVENT_BYTES: [usize; 2] = [100, 1024];
/// How long one variant works before the next one takes its turn.
const TURN: Duration = Duration::from_millis(20);

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// A component that `cargo xtask components` built.
fn built(name: &str) -> PathBuf {
    root().join("target/components").join(name).with_extension("wasm")
}

/// Lines of a log, of which one in four is dropped and the others are rewritten.
fn lines(count: usize, bytes: usize) -> StoredBatch {
    let event = |n: usize| {
        let level = ["info", "debug", "warn", "error"][n % 4];
        let mut line =
            format!("{level} request={n:06} user=u{:05} path=/orders/{} ", n * 7919 % 100_000, n * 31 % 1000);
        while line.len() < bytes {
            line.push_str("detail=ok ");
        }
        line.truncate(bytes);
        let mut event = Event::new(line).with_key(format!("k{:07}", n % 1000));
        event.timestamp_us = Some(NOW + n as i64);
        event
    };
    let events: Vec<Event> = (0..count).map(event).collect();
    let batch = Batch::from_events(&events, NOW).unwrap_or_else(|error| panic!("{error}"));
    StoredBatch { offsets: Offsets::From(0), append_us: NOW, batch }
}

fn offsets(lens: nodata_log::batch::Lens<'_>) -> Vec<u32> {
    let mut end = 0;
    std::iter::once(0)
        .chain(lens.iter().map(|len| {
            end += len.unwrap_or(0);
            end
        }))
        .collect()
}

/// The same work without a component, on columns.
fn native_columns(stored: &StoredBatch) -> Batch {
    let batch = &stored.batch;
    let value_offsets = offsets(batch.value_lens());
    let key_offsets = batch.key_lens().map(offsets).unwrap_or_default();
    let timestamps: Vec<i64> = batch.timestamps().collect();
    let (mut out_offsets, mut out) = (Vec::new(), Vec::new());
    let kept = filter::rewrite_column(&value_offsets, batch.values(), &mut out_offsets, &mut out);
    let (mut out_key_offsets, mut out_keys) =
        (Vec::with_capacity(kept.len() + 1), Vec::with_capacity(batch.keys().len()));
    out_key_offsets.push(0);
    for &row in &kept {
        let row = row as usize;
        out_keys.extend_from_slice(&batch.keys()[key_offsets[row] as usize..key_offsets[row + 1] as usize]);
        out_key_offsets.push(out_keys.len() as u32);
    }
    let timestamps: Vec<i64> = kept.iter().map(|&row| timestamps[row as usize]).collect();
    let mut builder = BatchBuilder::new(NOW);
    builder.mark_from_component();
    let rows = RowsRef {
        ids: None,
        keys: Some(ColumnRef { offsets: &out_key_offsets, data: &out_keys, validity: &[] }),
        values: ColumnRef { offsets: &out_offsets, data: &out, validity: &[] },
        timestamps_us: Some(&timestamps),
        headers: None,
    };
    builder.push_rows(&rows, 0..kept.len());
    builder.finish().unwrap_or_else(|error| panic!("{error}"))
}

/// The same work without a component, event by event.
fn native_events(stored: &StoredBatch) -> Batch {
    let mut builder = BatchBuilder::new(NOW);
    builder.mark_from_component();
    builder.reserve(stored.batch.len(), stored.batch.values().len());
    let mut value = Vec::new();
    for event in stored.batch.events() {
        value.clear();
        if filter::rewrite(event.value.unwrap_or_default(), &mut value) {
            builder.push(None, event.key, Some(&value), Some(event.timestamp_us));
        }
    }
    builder.finish().unwrap_or_else(|error| panic!("{error}"))
}

/// Repeats a piece of work for a turn; answers with nanoseconds for one.
fn turn<T>(mut work: impl FnMut() -> T) -> f64 {
    let (mut done, start) = (0u32, Instant::now());
    loop {
        for _ in 0..16 {
            black_box(work());
        }
        done += 16;
        let spent = start.elapsed();
        if spent >= TURN {
            return spent.as_nanos() as f64 / f64::from(done);
        }
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

struct Args {
    component: PathBuf,
    rounds: usize,
    /// Bytes of an event, and events of a batch.
    profile: Option<(usize, usize)>,
}

fn args() -> Result<Args, Box<dyn Error>> {
    let mut parsed = Args { component: built("filter-rewrite"), rounds: 15, profile: None };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        match arg.as_str() {
            "--component" => parsed.component = args.next().ok_or("--component needs a file")?.into(),
            "--rounds" => parsed.rounds = args.next().ok_or("--rounds needs a number")?.parse()?,
            "--profile" => {
                let mut number = || args.next().ok_or("--profile needs two numbers").map(|number| number.parse());
                parsed.profile = Some((number()??, number()??));
            }
            // Cargo says so to everything that it runs.
            "--bench" => {}
            other => return Err(format!("unknown argument {other}").into()),
        }
    }
    Ok(parsed)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Args { component, rounds, profile } = args()?;
    let cache = tempfile::tempdir()?;
    let compiler = Compiler::new(env!("CARGO_BIN_EXE_nodata-compile-child"), [""; 0]);
    let runtime = Runtime::start(RuntimeOptions::new(compiler, cache.path(), Arc::new(SystemClock)))?;

    let components = [("contract", built("rewrites-lines")), ("sdk", component)];
    let mut out = std::io::stdout();
    let mut instances = Vec::new();
    for (name, path) in components {
        let bytes = std::fs::read(&path);
        let bytes =
            bytes.map_err(|error| format!("{}: {error}; `cargo xtask components` builds it", path.display()))?;
        let (_, program) = runtime.accept(bytes.into()).await?;
        let clock = Arc::new(SystemClock);
        let deployment = Arc::new(Deployment {
            config: BTreeMap::new(),
            secrets: BTreeMap::new(),
            ports: Arc::new([Port {
                name: String::new(),
                partitions: 1,
                event_bytes_max: 16 << 20,
                values: ValueType::Bytes,
            }]),
            log: Arc::new(GuestLog::new(clock.clone())),
            metrics: Arc::default(),
            http: None,
            limits: InstanceLimits::default(),
        });
        let task = TaskKey { owner: OwnerId(1), source: Tp { topic: TopicId(1), partition: 0 } };
        let settings = InstanceSettings {
            role: nodata_runtime::Role::Transform,
            deployment,
            task,
            log: Arc::new(ModelLog::new(clock)),
        };
        let instance = runtime.spawn(&Share::default(), async move { program.instantiate(settings).await }).await??;
        instances.push((name, instance));
    }

    // Both sides work on the same thread, a guest thread.
    let table = runtime.spawn(&Share::default(), async move {
        let mut rows = Vec::new();
        let sizes = match profile {
            Some(size) => vec![size],
            None => EVENT_BYTES.iter().flat_map(|bytes| BATCHES.map(|count| (*bytes, count))).collect(),
        };
        for (bytes, count) in sizes {
            let stored = lines(count, bytes);
            let input = Input::new(topic(), 0, [(stored.clone(), 0..count)]).unwrap_or_else(|error| panic!("{error}"));
            let expected = native_columns(&stored);
            assert_eq!(native_events(&stored), expected);
            let mut times = vec![Vec::new(); 2 + instances.len()];
            for (name, instance) in &mut instances {
                let output = instance.process(input.clone()).await.unwrap_or_else(|error| panic!("{name}: {error}"));
                assert_eq!(output.batches[0].batch, expected, "{name}");
            }
            for _ in 0..rounds {
                if profile.is_none() {
                    times[0].push(turn(|| native_events(black_box(&stored))));
                    times[1].push(turn(|| native_columns(black_box(&stored))));
                }
                for (times, (name, instance)) in times[2..].iter_mut().zip(&mut instances) {
                    let start = Instant::now();
                    let mut done = 0u32;
                    while start.elapsed() < TURN {
                        for _ in 0..16 {
                            let output = instance.process(black_box(input.clone())).await;
                            black_box(output.unwrap_or_else(|error| panic!("{name}: {error}")));
                        }
                        done += 16;
                    }
                    times.push(start.elapsed().as_nanos() as f64 / f64::from(done));
                }
            }
            rows.push((bytes, count, times.into_iter().map(median).collect::<Vec<_>>()));
        }
        (rows, instances.iter().map(|(name, _)| *name).collect::<Vec<_>>())
    });
    let (rows, names) = table.await?;

    write!(out, "ns per event   {:>9} {:>9}", "by event", "columns")?;
    for name in &names {
        write!(out, " {name:>9} {:>6}", "ratio")?;
    }
    writeln!(out)?;
    for (bytes, count, times) in rows {
        let of_event = |ns: f64| ns / count as f64;
        write!(out, "{bytes:>5} B x {count:>4}  {:>9.1} {:>9.1}", of_event(times[0]), of_event(times[1]))?;
        for time in &times[2..] {
            write!(out, " {:>9.1} {:>6.2}", of_event(*time), time / times[1])?;
        }
        writeln!(out)?;
    }
    runtime.stop(Duration::from_secs(10)).await;
    Ok(())
}

fn topic() -> Name {
    Name::new("lines").unwrap_or_else(|error| panic!("{error}"))
}
