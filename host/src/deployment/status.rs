//! How a task is doing, for whoever asks.

use crate::deployment::shadow::ShadowReport;
use crate::deployment::spec::TaskFailure;
use nodata_log::Offset;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// What a task does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TaskState {
    #[default]
    Starting,
    /// Processing, or waiting for events.
    Running,
    /// Waiting to try a batch again.
    Retrying,
    /// An operator paused it.
    Paused,
    /// Its component failed.
    Failed,
    /// A source that will never have more.
    Finished,
}

/// How a task is doing.
#[derive(Clone, Debug, Default)]
pub struct TaskReport {
    pub state: TaskState,
    pub position: Offset,
    /// Tries of the batch at `position` that failed.
    pub attempts: u32,
    pub reason: String,
    pub last_lines: Vec<String>,
    pub events_in: u64,
    pub events_out: u64,
    pub events_rejected: u64,
    pub events_skipped: u64,
    pub events_late: u64,
    pub ticks: u64,
    pub ticks_left_out: u64,
    pub memory_bytes: u64,
    /// Of one that makes state anew: it has been where the one is that works.
    pub has_caught_up: bool,
    /// What became of a shadow, if there is one.
    pub shadow: Option<ShadowReport>,
}

impl TaskReport {
    /// Counts also what a task before it counted.
    pub(crate) fn count_on(&mut self, before: &Self) {
        self.events_in += before.events_in;
        self.events_out += before.events_out;
        self.events_rejected += before.events_rejected;
        self.events_skipped += before.events_skipped;
        self.events_late += before.events_late;
        self.ticks += before.ticks;
        self.ticks_left_out += before.ticks_left_out;
    }

    /// It is paused because its component failed. What it has counted stays.
    pub(crate) fn fail(&mut self, failure: &TaskFailure) {
        self.retry(failure.attempts, failure.reason.clone(), failure.last_lines.clone());
        (self.state, self.position, self.memory_bytes) = (TaskState::Failed, failure.position, 0);
    }

    /// Something is tried again.
    pub(crate) fn retry(&mut self, attempts: u32, reason: String, last_lines: Vec<String>) {
        self.state = TaskState::Retrying;
        (self.attempts, self.reason, self.last_lines) = (attempts, reason, last_lines);
    }

    /// Whatever was wrong is over.
    pub(crate) fn recover(&mut self) {
        self.retry(0, String::new(), Vec::new());
        self.state = TaskState::Running;
    }
}

/// The report of a task, as it changes.
#[derive(Debug)]
pub(crate) struct TaskStatus {
    report: Mutex<TaskReport>,
    state: watch::Sender<TaskState>,
}

impl Default for TaskStatus {
    fn default() -> Self {
        Self { report: Mutex::default(), state: watch::Sender::new(TaskState::Starting) }
    }
}

impl TaskStatus {
    /// Of a task that starts where another one was: what that one counted is counted on, and nothing else is known yet.
    pub(crate) fn after(before: &Self) -> Self {
        let status = Self::default();
        status.lock().count_on(&before.lock());
        status
    }

    pub(crate) fn report(&self) -> TaskReport {
        self.lock().clone()
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut TaskReport)) {
        let mut report = self.lock();
        change(&mut report);
        let state = report.state;
        drop(report);
        self.state.send_if_modified(|known| std::mem::replace(known, state) != state);
    }

    fn lock(&self) -> MutexGuard<'_, TaskReport> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
