//! `nodata fsck`

use crate::cli::CliError;
use crate::cli::out::{Out, bytes, count_of, has_terminal};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nodata_archive::{ArchiveFiles, Checked, check};
use nodata_log::fs::Fs;
use nodata_log::fs::read_only::ReadOnlyFs;
use nodata_log::fs::real::RealFs;
use nodata_log::{EmbeddedLog, ErrorKind, Log, OpenError, Options, RecoveryReport, SystemClock};
use serde_json::json;
use std::path::PathBuf;
use std::sync::Arc;

/// Check a store while no server uses it: every transaction of the log, every byte of every file, and each against the other.
///
/// Nothing is changed. Exits with 0 if everything is as it should be, and with 1 if not.
#[derive(Debug, Args)]
pub(crate) struct FsckArgs {
    /// The directory of the store.
    #[arg(long, env = "NODATA_DATA", default_value = "nodata-data", value_name = "DIR")]
    data: PathBuf,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: FsckArgs) -> Result<(), CliError> {
    let json = args.json;
    fsck(args).map_err(|error| error.told_as_json(json))
}

fn fsck(args: FsckArgs) -> Result<(), CliError> {
    let place = args.data.display().to_string();
    // A store is not made by looking for it.
    if !args.data.join("STORE").exists() {
        return Err(CliError::invalid(format!("{place} holds no nodata store")));
    }
    let disk = RealFs::new(&args.data).map_err(|error| CliError::failed(format!("cannot open {place}: {error}")))?;
    let fs: Arc<dyn Fs> = Arc::new(ReadOnlyFs::new(Arc::new(disk)));
    let options = Options { archive: Some(Arc::new(ArchiveFiles::new(fs.clone()))), ..Options::new(0) };
    let opened = EmbeddedLog::open(options, &place, fs.clone(), Arc::new(SystemClock));
    let (log, report) = opened.map_err(|error: OpenError| {
        let failed = if error.kind() == ErrorKind::Invalid { CliError::invalid } else { CliError::failed };
        failed(error.to_string())
    })?;

    let progress = ProgressBar::with_draw_target(
        None,
        if has_terminal() && !args.json { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() },
    );
    if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos} of {len} files, {eta} left") {
        progress.set_style(style);
    }
    let checked = check(&*fs, &log, |done, count| {
        progress.set_length(count);
        progress.set_position(done);
    });
    progress.finish_and_clear();
    let checked = checked.map_err(|error| CliError::failed(error.to_string()))?;
    tell(&Out::new(args.json), &log, &report, &checked)?;
    let lost = checked.problems.iter().filter(|problem| problem.lost.is_some()).count() as u64;
    if lost > 0 {
        return Err(CliError::failed(format!("{} with events that cannot be read", count_of(lost, "problem")))
            .hint("restore these files from a backup"));
    }
    Ok(())
}

fn tell(out: &Out, log: &EmbeddedLog, report: &RecoveryReport, checked: &Checked) -> Result<(), CliError> {
    let topics = log.topics();
    let partitions: usize = topics.iter().map(|topic| topic.config.partitions as usize).sum();
    let problems = checked.problems.iter().map(|problem| {
        let lost = problem.lost.as_ref().map(
            |(topic, partition, from, to)| json!({ "topic": topic, "partition": partition, "from": from, "to": to }),
        );
        json!({ "place": problem.place, "what": problem.what, "lost": lost })
    });
    let json = json!({
        "topics": topics.len(),
        "partitions": partitions,
        "log": {
            "segments": report.segments,
            "bytes": report.log_bytes,
            "torn_bytes": report.torn_bytes,
            "checkpoint_rebuilt": report.checkpoint_rebuilt,
        },
        "files": { "count": checked.files, "bytes": checked.file_bytes, "events": checked.events },
        "problems": problems.collect::<Vec<_>>(),
    });
    out.show(&json, || {
        let (topics, partitions) = (count_of(topics.len() as u64, "topic"), count_of(partitions as u64, "partition"));
        let mut lines = vec![
            format!("{topics}, {partitions}"),
            format!(
                "log: {}, {}, every transaction is whole",
                count_of(report.segments, "segment"),
                bytes(report.log_bytes)
            ),
        ];
        if report.torn_bytes > 0 {
            let torn = bytes(report.torn_bytes);
            lines.push(format!("log: ends with {torn} that were being written; nobody was told they are safe"));
        }
        if let Some(why) = &report.checkpoint_rebuilt {
            lines.push(format!("checkpoint: cannot be used ({why}); the next start makes it anew from the log"));
        }
        let (files, events) = (count_of(checked.files, "file"), count_of(checked.events, "event"));
        lines.push(format!("files: {files}, {}, {events}, every byte is as it was written", bytes(checked.file_bytes)));
        for problem in &checked.problems {
            lines.push(format!("problem: {}: {}", problem.place, problem.what));
            if let Some((topic, partition, from, to)) = &problem.lost {
                lines.push(format!("    lost: offsets {from} to {to} of topic {topic}, partition {partition}"));
            }
        }
        lines
    })
}
