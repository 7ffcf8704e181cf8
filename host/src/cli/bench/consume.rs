//! `nodata bench consume`

use crate::cli::CliError;
use crate::cli::bench::BenchCommon;
use crate::cli::bench::payload;
use crate::cli::bench::report::{self, Figures, Latencies, Rows};
use crate::cli::bench::target::{Target, Usage};
use crate::cli::out::Out;
use clap::Args;
use nodata_client::{Batch, Event, From, PublisherOptions, TailOptions};
use serde_json::json;
use std::time::{Duration, Instant};

/// Measure reading.
///
/// Replays a topic from its beginning, from memory and, after restarts of the server, from the write-ahead log and from Parquet
/// files; and sends events at a fixed rate and measures how long each takes until a reader has it.
#[derive(Debug, Args)]
pub(crate) struct ConsumeBench {
    /// MB of events to replay.
    #[arg(long, default_value_t = 256, value_name = "MB")]
    megabytes: u64,
    /// Events in a second, for the time from end to end.
    #[arg(long, default_value_t = 5000, value_name = "N")]
    rate: u32,
    #[command(flatten)]
    pub(crate) common: BenchCommon,
}

/// Bytes that fit the memory for recent events with room to spare.
const IN_MEMORY_BYTES: u64 = 32 << 20;

/// The log stays, although everything in it is in files.
const KEEP_LOG: [&str; 2] = ["--keep-log", "16384"];
const NO_LOG: [&str; 2] = ["--keep-log", "0"];

pub(crate) async fn run(args: ConsumeBench) -> Result<(), CliError> {
    args.common.check()?;
    let out = Out::new(args.common.json);
    let sizes = [100, 1024];
    let mut rows: Vec<Rows> = Vec::new();
    let mut row = |name: String, figures: Figures| match rows.iter_mut().find(|rows| rows.name == name) {
        Some(known) => known.rounds.push(figures),
        None => rows.push(Rows { name, rounds: vec![figures] }),
    };
    // First, so that no store of some hundred megabytes is being removed from the same disk meanwhile.
    for round in 0..args.common.rounds {
        out.say(&format!("round {} of {}: from end to end", round + 1, args.common.rounds));
        let target = Target::start(&args.common.dir)?;
        let name = format!("end to end, 1024 B, {} events/s, ack durable", args.rate);
        row(name, end_to_end(&target, 1024, args.rate, args.common.seconds).await?);
    }
    let mut ready = Vec::new();
    for round in 0..args.common.rounds {
        for bytes in sizes {
            out.say(&format!("round {} of {}: events of {bytes} B", round + 1, args.common.rounds));
            let mut target = Target::start_with(&args.common.dir, &KEEP_LOG)?;
            fill(&target, "recent", bytes, IN_MEMORY_BYTES).await?;
            row(format!("replay from memory, {bytes} B"), replay(&target, "recent", bytes).await?);
            fill(&target, "old", bytes, args.megabytes * 1_000_000).await?;
            // Once more, because what was in memory before the end is what a stop puts into files.
            target.restart(&KEEP_LOG)?;
            ready.push(target.restart(&KEEP_LOG)?.as_secs_f64() * 1e3);
            row(format!("replay from the log, {bytes} B"), replay(&target, "old", bytes).await?);
            // The log is let go of at the end of the one life, and the next has nothing but files.
            target.restart(&NO_LOG)?;
            target.restart(&NO_LOG)?;
            row(format!("replay from files, {bytes} B"), replay(&target, "old", bytes).await?);
        }
    }
    let ready = report::spread(ready);
    let ready_ms = ready.map_or(0.0, |ready| ready.median);
    let json = json!({ "cases": report::to_json(&rows), "ready_after_restart_ms": ready_ms });
    out.show(&json, || {
        let mut lines = vec![format!("consume, 1 reader, 1 partition, medians of {} rounds", args.common.rounds)];
        lines.extend(report::lines(&rows));
        lines.push(format!(
            "a restart with {} MB of events in the log was ready after {ready_ms:.0} ms",
            args.megabytes + IN_MEMORY_BYTES / 1_000_000
        ));
        lines
    })
}

/// Publishes so many bytes.
async fn fill(target: &Target, topic: &str, event_bytes: usize, bytes: u64) -> Result<(), CliError> {
    target.topic(topic, 1).await?;
    let payload = payload::events(event_bytes);
    let publisher = target.connect().await?.publisher(topic, PublisherOptions::default());
    let mut next = (0..payload.len()).cycle();
    let mut left = bytes / event_bytes as u64;
    while left > 0 {
        let mut batch = Batch::new();
        for at in next.by_ref().take(left.min(1000) as usize) {
            batch.push_parts(None, &payload[at]);
        }
        left -= batch.len() as u64;
        publisher.send_batch(batch).await?;
    }
    Ok(publisher.flush().await?)
}

/// Reads a topic from its beginning to its end and looks at every event.
async fn replay(target: &Target, topic: &str, event_bytes: usize) -> Result<Figures, CliError> {
    let client = target.connect().await?;
    let before = (target.usage(), Usage::own());
    let begun = Instant::now();
    let mut tail = client.tail(topic, TailOptions::default()).await?;
    let (mut events, mut bytes) = (0u64, 0usize);
    while let Some(batch) = tail.next_batch().await? {
        for row in batch.rows() {
            let (_, event) = row?;
            events += 1;
            bytes += event.value.map_or(0, <[u8]>::len);
        }
    }
    let elapsed = begun.elapsed().as_secs_f64();
    if bytes as u64 != events * event_bytes as u64 {
        return Err(CliError::failed(format!("{events} events had {bytes} bytes, which is not what was published")));
    }
    let after = (target.usage(), Usage::own());
    let millions = events as f64 / 1e6;
    Ok(Figures {
        events_per_s: events as f64 / elapsed,
        event_bytes,
        server_cpu: Some((after.0.cpu_s - before.0.cpu_s) / millions),
        client_cpu: Some((after.1.cpu_s - before.1.cpu_s) / millions),
        peak_memory_mb: Some(after.0.peak_memory_bytes / 1e6),
        ..Figures::default()
    })
}

/// Sends events at a fixed rate, each with the moment at which it should have been sent, and reads them.
pub(crate) async fn end_to_end(
    target: &Target,
    event_bytes: usize,
    rate: u32,
    seconds: f64,
) -> Result<Figures, CliError> {
    target.topic("live", 1).await?;
    let client = target.connect().await?;
    let reader = target.connect().await?;
    let mut tail =
        reader.tail("live", TailOptions { from: From::Earliest, follow: true, ..TailOptions::default() }).await?;
    let publisher = client.publisher("live", PublisherOptions::default());
    let payload = payload::events(event_bytes);
    let count = (f64::from(rate) * seconds) as u64;
    let before = target.usage();
    let begun = Instant::now();
    let between = Duration::from_secs(1) / rate;

    let handle = tokio::runtime::Handle::current();
    let sending = tokio::task::spawn_blocking(move || {
        for number in 0..count {
            let due = begun + between * number as u32;
            // The timers of tokio tick in milliseconds, and that would be measured too.
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let event =
                Event::new(payload[number as usize % payload.len()].clone()).with_key(number.to_le_bytes().to_vec());
            handle.block_on(publisher.send(event))?;
        }
        handle.block_on(publisher.flush())
    });
    let mut latencies = Latencies::new();
    let mut received = 0;
    while received < count {
        let Some(batch) = tail.next_batch().await? else { break };
        let now = Instant::now();
        for row in batch.rows() {
            let (_, event) = row?;
            let number = event.key.and_then(|key| key.try_into().ok()).map_or(0, u64::from_le_bytes);
            latencies.record(now.saturating_duration_since(begun + between * number as u32));
            received += 1;
        }
    }
    let elapsed = begun.elapsed().as_secs_f64();
    sending.await.map_err(|error| CliError::failed(format!("the sender failed: {error}")))??;
    let after = target.usage();
    Ok(Figures {
        events_per_s: received as f64 / elapsed,
        event_bytes,
        p50_us: Some(latencies.us(0.5)),
        p99_us: Some(latencies.us(0.99)),
        p999_us: Some(latencies.us(0.999)),
        server_cpu: Some((after.cpu_s - before.cpu_s) / (received as f64 / 1e6)),
        peak_memory_mb: Some(after.peak_memory_bytes / 1e6),
        written: Some((after.written_bytes - before.written_bytes) / (received * event_bytes as u64) as f64),
        ..Figures::default()
    })
}
