//! `nodata fsck`

use crate::cli::CliError;
use crate::cli::out::{Out, bytes, count, count_of, has_terminal};
use clap::Args;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use nodata_archive::{ArchiveError, ArchiveFiles, ArchiveOptions, Archiver, Finding, Loss, LossKind, Survey, survey};
use nodata_log::fs::Fs;
use nodata_log::fs::read_only::ReadOnlyFs;
use nodata_log::fs::real::RealFs;
use nodata_log::{Clock as _, EmbeddedLog, ErrorKind, OpenError, Options, RecoveryReport, Salvage, SystemClock};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Check a store while no server uses it, and repair it.
///
/// Every transaction of the log, every byte of every file and the checkpoint are compared with each other. Nothing is changed
/// without `--repair`. With it, what is damaged is kept in `lost+found/` in the directory of the store, what can be read is put
/// into files, and it is said which events are lost.
///
/// Exits with 0 if everything is as it should be or was repaired without a loss, with 1 if something is damaged or lost, and with 2
/// if it could not be done: there is no store, a server uses it, a newer nodata wrote it, or there is too little space.
#[derive(Debug, Args)]
pub(crate) struct FsckArgs {
    /// The directory of the store.
    #[arg(long, env = "NODATA_DATA", default_value = "nodata-data", value_name = "DIR")]
    data: PathBuf,
    /// Repair what is damaged.
    #[arg(long)]
    repair: bool,
    /// Say what `--repair` would do, and do nothing.
    #[arg(long, requires = "repair")]
    dry_run: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

pub(crate) fn run(args: FsckArgs) -> Result<(), CliError> {
    let json = args.json;
    fsck(&args).map_err(|error| error.told_as_json(json))
}

fn fsck(args: &FsckArgs) -> Result<(), CliError> {
    let place = args.data.display().to_string();
    // A store is not made by looking for it.
    if !args.data.is_dir() {
        return Err(CliError::invalid(format!("{place} holds no nodata store")));
    }
    let disk = RealFs::new(&args.data).map_err(|error| CliError::not_run(format!("cannot open {place}: {error}")))?;
    let disk: Arc<dyn Fs> = Arc::new(disk);
    let unchanged = ReadOnlyFs::new(disk.clone());
    let salvage = Salvage::examine(&unchanged, &place).map_err(|error| not_run(&place, error))?;
    let progress = Progress::new(args);
    let now_us = SystemClock.now_us();
    let survey = survey(&unchanged, salvage, now_us, |done, count| progress.show(done, count));
    progress.0.finish_and_clear();
    let survey = survey.map_err(|error| not_run(&place, error))?;

    let out = Out::new(args.json);
    if survey.is_well() {
        let head = Head::of(&survey);
        let notes = survey.notes.clone();
        drop(survey);
        let started = start(&disk, &place).map_err(|error| CliError::failed(error.to_string()))?;
        return tell_well(&out, &head, &started, &notes);
    }
    let does = args.repair && !args.dry_run;
    let report = Report::of(&survey);
    if !does {
        report.tell(&out, None, args)?;
        return Err(report.failed().hint(if args.repair {
            "nothing was changed; without `--dry-run` it is"
        } else {
            "restore what is damaged from a backup, or see `nodata fsck --repair --dry-run`"
        }));
    }
    check_space(&args.data, survey.bytes_needed)?;
    let folder = survey.folder(&*disk, now_us).map_err(|error| not_run(&place, error))?;
    let text = report.lines(Some(&folder), args).join("\n") + "\n";
    let repaired = survey.repair(disk.clone(), &folder, &text, now_us);
    repaired.map_err(|error| {
        CliError::failed(format!("the repair was interrupted: {error}")).hint("run it again: it begins anew")
    })?;
    let started = start(&disk, &place);
    started.map_err(|error| CliError::failed(format!("the repair is done, and the store does not start: {error}")))?;
    report.tell(&out, Some(&folder), args)?;
    if report.is_without_loss() { Ok(()) } else { Err(report.failed()) }
}

fn not_run(place: &str, error: impl Into<ArchiveError>) -> CliError {
    let error: ArchiveError = error.into();
    match error {
        ArchiveError::Open(OpenError::NotAStore { .. }) => CliError::invalid(format!("{place} holds no nodata store")),
        // Its own text says to ask this command.
        ArchiveError::Open(OpenError::Damaged { file, what, .. }) => CliError::not_run(format!("{file}: {what}"))
            .hint("a repair cannot know what is right here; restore the file from a backup"),
        error if error.kind() == ErrorKind::Invalid => CliError::invalid(error.to_string()),
        error => CliError::not_run(error.to_string()),
    }
}

/// What a start says, of a disk that keeps changes in memory. Whatever was found before, this is what counts.
fn start(disk: &Arc<dyn Fs>, place: &str) -> Result<RecoveryReport, ArchiveError> {
    let fs: Arc<dyn Fs> = Arc::new(ReadOnlyFs::new(disk.clone()));
    let files = Arc::new(ArchiveFiles::new(fs.clone()));
    let options = Options { archive: Some(files.clone()), ..Options::new(0) };
    let (log, report) = EmbeddedLog::open(options, place, fs.clone(), Arc::new(SystemClock))?;
    let archiver = Archiver::new(fs, Arc::new(log), files, Arc::new(SystemClock), ArchiveOptions::default());
    archiver.adopt()?;
    Ok(report)
}

/// Before anything is changed it is known that there is space for all of it.
fn check_space(data: &Path, needed: u64) -> Result<(), CliError> {
    let free = rustix::fs::statvfs(data).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    if free >= needed {
        return Ok(());
    }
    let text = format!("the repair needs about {}, and {} are free", bytes(needed), bytes(free));
    Err(CliError::not_run(text).hint("nothing was changed; make space, or copy the store to a larger disk"))
}

struct Progress(ProgressBar);

impl Progress {
    fn new(args: &FsckArgs) -> Self {
        let is_seen = has_terminal() && !args.json;
        let target = if is_seen { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        let progress = ProgressBar::with_draw_target(None, target);
        if let Ok(style) = ProgressStyle::with_template("{wide_bar} {pos} of {len} files, {eta} left") {
            progress.set_style(style);
        }
        Self(progress)
    }

    fn show(&self, done: u64, count: u64) {
        self.0.set_length(count);
        self.0.set_position(done);
    }
}

/// How much there is.
#[derive(Clone, Copy)]
struct Head {
    topics: u64,
    partitions: u64,
    files: u64,
    file_bytes: u64,
    events: u64,
}

impl Head {
    fn of(survey: &Survey) -> Self {
        let partitions = survey.salvage().topics().iter().map(|topic| u64::from(topic.config.partitions)).sum();
        let Survey { topics, files, file_bytes, events, .. } = *survey;
        Self { topics, partitions, files, file_bytes, events }
    }

    fn line(&self) -> String {
        format!("{}, {}", count_of(self.topics, "topic"), count_of(self.partitions, "partition"))
    }

    fn files_line(&self) -> String {
        let (files, events) = (count_of(self.files, "file"), count_of(self.events, "event"));
        format!("files: {files}, {}, {events}, every byte is as it was written", bytes(self.file_bytes))
    }

    fn json(&self) -> Value {
        json!({ "count": self.files, "bytes": self.file_bytes, "events": self.events })
    }
}

fn notes_json(notes: &[(String, String)]) -> Value {
    notes.iter().map(|(place, what)| json!({ "place": place, "what": what })).collect()
}

fn notes_lines(notes: &[(String, String)]) -> impl Iterator<Item = String> + '_ {
    notes.iter().map(|(place, what)| format!("note: {place}: {what}"))
}

fn tell_well(out: &Out, head: &Head, started: &RecoveryReport, notes: &[(String, String)]) -> Result<(), CliError> {
    let json = json!({
        "topics": head.topics,
        "partitions": head.partitions,
        "log": { "segments": started.segments, "bytes": started.log_bytes, "torn_bytes": started.torn_bytes },
        "files": head.json(),
        "problems": [],
        "notes": notes_json(notes),
    });
    out.show(&json, || {
        let (segments, log_bytes) = (count_of(started.segments, "segment"), bytes(started.log_bytes));
        let mut lines = vec![head.line(), format!("log: {segments}, {log_bytes}, every transaction is whole")];
        if started.torn_bytes > 0 {
            let torn = bytes(started.torn_bytes);
            lines.push(format!("log: ends with {torn} that were being written; nobody was told they are safe"));
        }
        lines.push(head.files_line());
        lines.extend(notes_lines(notes));
        lines.push("everything is as it should be; nothing was changed".to_owned());
        lines
    })
}

/// What is wrong, and what is done about it.
struct Report {
    head: Head,
    findings: Vec<Finding>,
    notes: Vec<(String, String)>,
    moved_back: Vec<Value>,
    lost: u64,
    undone: u64,
    has_unknown: bool,
}

impl Report {
    fn of(survey: &Survey) -> Self {
        let sum = |kind: LossKind| {
            let losses = survey.losses().filter(|loss| loss.kind == kind);
            losses.map(|loss| loss.offsets.end - loss.offsets.start).sum()
        };
        let moved_back: Vec<Value> = survey
            .salvage()
            .moved_back()
            .iter()
            .map(|moved| {
                let topic = survey.salvage().topic(moved.task.source.topic).map(|topic| topic.name.to_string());
                json!({
                    "deployment": deployment(survey, moved.task.owner.0),
                    "topic": topic,
                    "partition": moved.task.source.partition,
                    "from": moved.from,
                    "to": moved.to,
                })
            })
            .collect();
        Self {
            head: Head::of(survey),
            findings: survey.findings.clone(),
            notes: survey.notes.clone(),
            lost: sum(LossKind::Lost),
            undone: sum(LossKind::Undone),
            has_unknown: survey.findings.iter().any(|finding| {
                !finding.unknown.is_empty() || finding.lost.iter().any(|loss| loss.kind == LossKind::Possible)
            }) || !moved_back.is_empty(),
            moved_back,
        }
    }

    fn is_without_loss(&self) -> bool {
        self.lost == 0 && self.undone == 0 && !self.has_unknown
    }

    fn tell(&self, out: &Out, kept_in: Option<&str>, args: &FsckArgs) -> Result<(), CliError> {
        let problems = self.findings.iter().map(|finding| {
            let lost = finding.lost.iter().map(|Loss { topic, partition, offsets, kind }| {
                let kind = match kind {
                    LossKind::Lost => "lost",
                    LossKind::Undone => "undone",
                    LossKind::Possible => "possible",
                };
                json!({ "topic": topic, "partition": partition, "from": offsets.start, "to": offsets.end, "kind": kind })
            });
            json!({
                "place": finding.place,
                "what": finding.what,
                "repair": finding.repair,
                "lost": lost.collect::<Vec<_>>(),
                "unknown": finding.unknown,
            })
        });
        let json = json!({
            "topics": self.head.topics,
            "partitions": self.head.partitions,
            "files": self.head.json(),
            "problems": problems.collect::<Vec<_>>(),
            "moved_back": self.moved_back,
            "notes": notes_json(&self.notes),
            "repaired": kept_in.is_some(),
            "kept_in": kept_in,
            "lost_events": self.lost,
            "undone_events": self.undone,
        });
        out.show(&json, || self.lines(kept_in, args))
    }

    /// `kept_in`: it was repaired, and what was damaged is there.
    fn lines(&self, kept_in: Option<&str>, args: &FsckArgs) -> Vec<String> {
        let mut lines = vec![self.head.line(), self.head.files_line()];
        let repair = if kept_in.is_some() { "repaired" } else { "would be repaired" };
        for finding in &self.findings {
            lines.push(format!("problem: {}: {}", finding.place, finding.what));
            if args.repair {
                lines.push(format!("    {repair}: {}", finding.repair));
            }
            for Loss { topic, partition, offsets, kind } in &finding.lost {
                let events = offsets.end - offsets.start;
                let (kind, more) = match kind {
                    LossKind::Lost => ("lost", count_of(events, "event")),
                    LossKind::Undone => ("undone", count_of(events, "event")),
                    LossKind::Possible => ("perhaps lost", format!("at most {}", count_of(events, "event"))),
                };
                let (from, to) = (offsets.start, offsets.end);
                lines.push(format!(
                    "    {kind}: offsets {from} to {to} of topic {topic}, partition {partition} ({more})"
                ));
            }
            lines.extend(finding.unknown.iter().map(|what| format!("    not known any more: {what}")));
        }
        for moved in &self.moved_back {
            let text = |field: &str| moved[field].as_str().map_or_else(|| moved[field].to_string(), str::to_owned);
            let to = moved["to"].as_u64().map_or("its beginning".to_owned(), |to| format!("offset {to}"));
            lines.push(format!(
                "undone: deployment {} goes back from offset {} of topic {}, partition {}, to {to}, with its state",
                text("deployment"),
                text("from"),
                text("topic"),
                text("partition"),
            ));
        }
        lines.extend(notes_lines(&self.notes));
        if let Some(folder) = kept_in {
            lines.push(format!("what was damaged is kept in {folder}"));
        }
        lines.push(self.summary());
        lines
    }

    fn summary(&self) -> String {
        let problems = count_of(self.findings.len() as u64, "problem");
        if self.is_without_loss() {
            return format!("{problems}, nothing is lost");
        }
        let mut parts = vec![format!(
            "{} lost",
            if self.lost == 1 { "1 event is".to_owned() } else { format!("{} events are", count(self.lost)) }
        )];
        if self.undone > 0 {
            parts.push(format!("{} of deployments undone", count_of(self.undone, "output")));
        }
        if self.has_unknown {
            parts.push("not everything is known".to_owned());
        }
        format!("{problems}: {}", parts.join(", "))
    }

    fn failed(&self) -> CliError {
        CliError::failed(self.summary())
    }
}

/// The name of a deployment, or its number if nobody knows it any more.
fn deployment(survey: &Survey, owner: u64) -> String {
    let name = survey.salvage().entries("deployment/").find_map(|(_, entry)| {
        let spec: Value = serde_json::from_slice(&entry.value).ok()?;
        (spec["owner"].as_u64() == Some(owner)).then(|| spec["name"].as_str().map(str::to_owned))?
    });
    name.unwrap_or_else(|| format!("{owner:016x}"))
}
