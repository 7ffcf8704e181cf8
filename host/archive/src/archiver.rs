//! Puts events into files when it is time, and removes files when their time is over.
//!
//! It is one task, and waits for the disk where it stands: it wants a thread of its own. One file is written at a time, because
//! encoding takes a whole core and the log needs the other.

use crate::adopt::{self, Adoption};
use crate::error::ArchiveError;
use crate::files::ArchiveFiles;
use crate::flush::Flusher;
use crate::limits::{FLUSH_AGE_SECS, FLUSH_BYTES, GROWTH_AGES_MAX, GROWTH_BYTES, GROWTH_PART};
use crate::place;
use nodata_log::fs::{Fs, SyncSite};
use nodata_log::{ArchiveFile, Change, Clock, EmbeddedLog, Log, LogError, Name, TimestampUs, Topic, Tp, Unarchived};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{broadcast, mpsc, oneshot};

/// When events become part of a file.
#[derive(Clone, Copy, Debug)]
pub struct ArchiveOptions {
    /// Bytes of one partition in the log.
    pub flush_bytes: u64,
    /// Age of the oldest event that is in no file. Where only a few wait, they wait longer for a file that covers much time:
    /// see [`GROWTH_PART`](crate::limits::GROWTH_PART).
    pub flush_age: Duration,
}

impl Default for ArchiveOptions {
    fn default() -> Self {
        Self { flush_bytes: FLUSH_BYTES, flush_age: Duration::from_secs(FLUSH_AGE_SECS) }
    }
}

/// What a flush did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flushed {
    /// Files that were begun or that grew.
    pub files: u64,
    pub events: u64,
}

/// Between the log and the files.
pub struct Archiver {
    fs: Arc<dyn Fs>,
    log: Arc<EmbeddedLog>,
    files: Arc<ArchiveFiles>,
    clock: Arc<dyn Clock>,
    options: ArchiveOptions,
    flusher: Flusher,
}

/// Asks a running archiver for something.
#[derive(Clone, Debug)]
pub struct ArchiverHandle(mpsc::Sender<FlushRequest>);

#[derive(Debug)]
struct FlushRequest {
    topic: Option<Name>,
    done: oneshot::Sender<Result<Flushed, ArchiveError>>,
}

impl ArchiverHandle {
    /// Puts everything that is durable now into files; `None` does it for all topics.
    pub async fn flush(&self, topic: Option<Name>) -> Result<Flushed, ArchiveError> {
        let (done, answer) = oneshot::channel();
        let stopping = || ArchiveError::Log(LogError::Stopping);
        self.0.send(FlushRequest { topic, done }).await.map_err(|_| stopping())?;
        answer.await.unwrap_or_else(|_| Err(stopping()))
    }
}

/// How often it looks what is due.
const TICK: Duration = Duration::from_secs(1);
/// Requests that wait while a file is written.
const REQUESTS_MAX: usize = 64;

impl Archiver {
    pub fn new(
        fs: Arc<dyn Fs>,
        log: Arc<EmbeddedLog>,
        files: Arc<ArchiveFiles>,
        clock: Arc<dyn Clock>,
        options: ArchiveOptions,
    ) -> Self {
        let flusher = Flusher::new(fs.clone(), log.store_id());
        Self { fs, log, files, clock, options, flusher }
    }

    /// The disk.
    #[doc(hidden)]
    pub fn fs(&self) -> Arc<dyn Fs> {
        self.fs.clone()
    }

    /// Compares the files with the log; see [`Adoption`]. To be called before anything else, and its commits are to be made
    /// before [`start`](Self::start).
    pub fn adopt(&self) -> Result<Adoption, ArchiveError> {
        adopt::adopt(&*self.fs, &self.log, &self.flusher)
    }

    /// Compares the files with the log, and makes the log know what is there.
    pub async fn take_over(&self) -> Result<Adoption, ArchiveError> {
        let adoption = self.adopt()?;
        for (tp, file) in &adoption.commits {
            self.log.commit_file(*tp, file.clone())?.await?;
        }
        Ok(adoption)
    }

    /// Writes the next file of a partition, or makes it grow. To be committed by the caller. `None`: everything is in files.
    pub async fn write_next(&self, tp: Tp) -> Result<Option<(ArchiveFile, u64)>, ArchiveError> {
        let Some(collected) = Flusher::collect(&self.log, tp).await? else { return Ok(None) };
        Ok(Some((self.flusher.write(&collected)?, collected.events())))
    }

    /// Puts everything that is durable now in a partition into files.
    pub async fn flush(&self, tp: Tp) -> Result<Flushed, ArchiveError> {
        let end = self.log.bounds(tp)?.end;
        let mut flushed = Flushed::default();
        while self.log.archive(tp)?.end < end {
            let Some((file, events)) = self.write_next(tp).await? else { break };
            self.log.commit_file(tp, file)?.await?;
            flushed.files += 1;
            flushed.events += events;
        }
        Ok(flushed)
    }

    /// Removes the files whose time is over, or that are too many.
    pub async fn retain(&self, topic: &Topic) -> Result<(), ArchiveError> {
        for tp in topic.partitions() {
            let archive = self.log.archive(tp)?;
            let mut bytes: u64 = archive.files.values().map(|file| file.bytes).sum();
            let oldest_kept =
                topic.config.retention_us.map(|us| self.clock.now_us().saturating_sub_unsigned(us)).unwrap_or(i64::MIN);
            let mut gone = Vec::new();
            for file in archive.files.values() {
                let is_too_old = file.append_max_us < oldest_kept;
                let is_too_much =
                    topic.config.retention_bytes.is_some_and(|max| bytes > max) && gone.len() + 1 < archive.files.len();
                if !is_too_old && !is_too_much {
                    break;
                }
                bytes -= file.bytes;
                gone.push(file);
            }
            let Some(last) = gone.last() else { continue };
            self.log.trim(tp, last.end)?.await?;
            for file in gone {
                self.remove(topic, tp, file)?;
            }
        }
        Ok(())
    }

    /// Removes a file that was trimmed.
    pub fn remove(&self, topic: &Topic, tp: Tp, file: &ArchiveFile) -> Result<(), ArchiveError> {
        let path = place::path(topic.name.as_str(), tp.partition, file.append_min_us, file.base);
        self.files.forget(&path);
        self.flusher.remove_if_there(&path)?;
        self.remove_empty_dirs(&path);
        Ok(())
    }

    /// Removes the files of topics that were deleted and had this name.
    pub fn sweep(&self, name: &str) -> Result<(), ArchiveError> {
        for path in adopt::sweep(&*self.fs, &self.log, &self.flusher, name)? {
            self.files.forget(&path);
            self.remove_empty_dirs(&path);
        }
        Ok(())
    }

    /// Folders without files are of no use to anyone, and harm nobody.
    fn remove_empty_dirs(&self, path: &str) {
        let mut dir = path;
        while let Some((around, _)) = dir.rsplit_once('/').filter(|(around, _)| *around != place::DATA_DIR) {
            // What was removed from it must stay removed: a file that comes back after a crash in a folder that does not
            // would be seen by nobody until the folder is made again.
            let is_empty = self.fs.list(around).is_ok_and(|entries| entries.is_empty());
            if !is_empty
                || self.fs.sync_dir(around, SyncSite::ArchiveRemoved).is_err()
                || self.fs.remove_dir(around).is_err()
            {
                return;
            }
            self.flusher.forget_dir(around);
            dir = around;
        }
    }

    /// Works until it is stopped, then flushes everything once more. Errors are said in the log and tried again: what is in no
    /// file stays in the log.
    pub fn start(self, stop: impl Future<Output = ()> + Send) -> (ArchiverHandle, impl Future<Output = ()> + Send) {
        let (sender, requests) = mpsc::channel(REQUESTS_MAX);
        let changes = self.log.changes();
        (ArchiverHandle(sender), self.run(requests, changes, stop))
    }

    async fn run(
        self,
        mut requests: mpsc::Receiver<FlushRequest>,
        mut changes: broadcast::Receiver<nodata_log::engine::Changes>,
        stop: impl Future<Output = ()> + Send,
    ) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut trouble = Trouble::default();
        let mut stop = std::pin::pin!(stop);
        loop {
            tokio::select! {
                () = &mut stop => break,
                request = requests.recv() => match request {
                    Some(FlushRequest { topic, done }) => {
                        // Whoever asked may have gone.
                        let _ = done.send(self.flush_topics(topic).await);
                    }
                    None => break,
                },
                changed = changes.recv() => {
                    let swept = match changed {
                        Ok(changed) => changed.iter().try_for_each(|change| match change {
                            Change::TopicDeleted(_, name) => self.sweep(name.as_str()),
                            _ => Ok(()),
                        }),
                        Err(RecvError::Lagged(_)) => self.sweep_all(),
                        Err(RecvError::Closed) => Ok(()),
                    };
                    trouble.note(swept);
                }
                _ = tick.tick() => trouble.note(self.tick().await),
            }
        }
        trouble.note(self.flush_topics(None).await.map(drop));
    }

    fn sweep_all(&self) -> Result<(), ArchiveError> {
        let entries = self.fs.list(place::DATA_DIR).map_err(crate::error::io_error("list", place::DATA_DIR))?;
        let mut names = entries.iter().filter_map(|entry| entry.name.strip_prefix("topic="));
        names.try_for_each(|name| self.sweep(name))
    }

    async fn flush_topics(&self, topic: Option<Name>) -> Result<Flushed, ArchiveError> {
        let topics = match topic {
            Some(name) => vec![self.log.topic(&name)?],
            None => self.log.topics(),
        };
        let mut flushed = Flushed::default();
        for tp in topics.iter().flat_map(Topic::partitions) {
            let Flushed { files, events } = match self.flush(tp).await {
                // It was deleted meanwhile.
                Err(ArchiveError::Log(LogError::UnknownTopicId { .. })) => continue,
                flushed => flushed?,
            };
            flushed.files += files;
            flushed.events += events;
        }
        Ok(flushed)
    }

    /// Whether what waits has waited for long enough. A topic to which an event comes now and then would otherwise leave more
    /// footers than events.
    fn is_old(&self, waiting: &Unarchived, now_us: TimestampUs) -> bool {
        let age_us = now_us.saturating_sub(waiting.oldest_us);
        let age_max_us = self.options.flush_age.as_micros() as i64;
        if age_us < age_max_us || waiting.bytes >= GROWTH_BYTES {
            return age_us >= age_max_us;
        }
        let archive = self.log.archive(waiting.tp).unwrap_or_default();
        let covered_us = archive.open_file().map_or(0, |open| open.append_max_us - open.append_min_us);
        age_us >= (covered_us / GROWTH_PART).clamp(age_max_us, age_max_us.saturating_mul(GROWTH_AGES_MAX))
    }

    /// What is due now.
    pub async fn tick(&self) -> Result<(), ArchiveError> {
        let now_us = self.clock.now_us();
        let today = place::date(now_us);
        let crowding = self.log.crowding();
        let mut due = self.log.unarchived();
        due.retain(|waiting| {
            crowding.contains(&waiting.tp)
                || waiting.bytes >= self.options.flush_bytes
                || self.is_old(waiting, now_us)
                || place::date(waiting.oldest_us) != today
        });
        due.sort_by_key(|waiting| waiting.oldest_us);
        for waiting in due {
            match self.flush(waiting.tp).await {
                Err(ArchiveError::Log(LogError::UnknownTopicId { .. })) => {}
                flushed => drop(flushed?),
            }
        }
        for topic in self.log.topics() {
            if topic.config.retention_us.is_some() || topic.config.retention_bytes.is_some() {
                self.retain(&topic).await?;
            }
        }
        Ok(())
    }
}

/// Says an error once, and once when it is over.
#[derive(Default)]
struct Trouble(Option<String>);

impl Trouble {
    fn note(&mut self, result: Result<(), ArchiveError>) {
        match result {
            Ok(()) if self.0.take().is_some() => tracing::info!("events are put into files again"),
            Ok(()) => {}
            Err(error) => {
                let text = error.to_string();
                if self.0.as_ref() != Some(&text) {
                    tracing::warn!(%error, "events could not be put into files; they stay in the log, and it is tried again");
                    self.0 = Some(text);
                }
            }
        }
    }
}
