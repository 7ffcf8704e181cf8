//! Ticks: calls at intervals, between two batches.

use super::{Blame, CallFailure, Task, TaskEnd, Trouble, last_lines};
use crate::deployment::shadow::Call;
use crate::deployment::spec::OnPoison;
use crate::deployment::status::TaskState;
use crate::deployment::windows::Window;
use crate::limits::{PROBATION_RETRIES, RETRY_FIRST, RETRY_MAX, TICK_TRIES};
use nodata_log::TimestampUs;
use nodata_runtime::{CallErrorReason, Output};
use std::time::{Duration, Instant};

impl Task {
    /// Ticks if it is time. What comes of it is committed, and the position stays where it is.
    pub(super) async fn tick(&mut self) -> Result<(), TaskEnd> {
        let now_us = self.settings.clock.now_us();
        if !self.ticks.as_mut().is_some_and(|ticks| ticks.is_due(now_us)) {
            return Ok(());
        }
        let (mut attempts, mut soft, mut hard) = (0, 0, 0);
        let mut wait = RETRY_FIRST;
        while !self.settings.stop.is_cancelled() {
            let (what, last_lines, blame) = match self.call_tick().await {
                Ok(output) => {
                    if self.commit_tick(output).await? {
                        self.has_ticked();
                        return Ok(());
                    }
                    ("what the component emits is too large".to_owned(), Vec::new(), Blame::Events)
                }
                Err(CallFailure::Log(error)) => return Err(error.into()),
                Err(CallFailure::Start(error)) => (error.to_string(), error.stderr().to_vec(), Blame::Nobody),
                Err(CallFailure::Call(error)) => {
                    let what = match error.reason() {
                        CallErrorReason::Permanent(words) => format!("the component refuses the tick: {words}"),
                        _ => error.to_string(),
                    };
                    (what, last_lines(&error), Blame::of(&error))
                }
            };
            attempts += 1;
            self.tick_failed = true;
            let reason = format!("{what} (a tick of partition {} of `{}`)", self.settings.source.partition, self.input);
            let trouble = Trouble { reason, attempts, last_lines };
            let said = format!("attempt {attempts}: {}", trouble.reason);
            self.settings.note(&said);
            self.settle(0).await?;
            self.is_in_trouble(&trouble);
            match blame {
                Blame::Host => return Err(TaskEnd::Failed(self.failure(trouble))),
                Blame::Nobody => {}
                Blame::Later => {
                    soft += 1;
                    if soft == PROBATION_RETRIES {
                        self.blame_at_once(&trouble)?;
                    }
                    if self.settings.spec.on_error.retries.is_some_and(|most| soft > most) {
                        return self.leave_out(trouble);
                    }
                }
                Blame::Events => {
                    self.instance = None;
                    hard += 1;
                    if hard >= TICK_TRIES {
                        return self.leave_out(trouble);
                    }
                    continue;
                }
            }
            self.settings.rest(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
        }
        Ok(())
    }

    async fn call_tick(&mut self) -> Result<Output, CallFailure> {
        let (now_us, watermark_us) = (self.settings.clock.now_us(), self.watermark());
        let mut instance = self.take_instance().await?;
        let begun = Instant::now();
        let ticked = instance.tick(now_us, watermark_us).await;
        self.keep_instance(instance, ticked.is_err());
        let ticked = ticked?;
        self.ask_shadow(Call::Tick { now_us, watermark_us }, &ticked, begun.elapsed()).await?;
        Ok(ticked)
    }

    /// Of an aggregate with windows, when there was an event.
    fn watermark(&self) -> Option<TimestampUs> {
        let how = self.settings.spec.aggregation.filter(|how| how.window != Window::None)?;
        self.time.latest.map(|_| self.time.watermark(how.lateness_us))
    }

    /// Commits what came of a tick; false if it is too much. One that did nothing costs nothing.
    async fn commit_tick(&mut self, output: Output) -> Result<bool, TaskEnd> {
        let done = self.in_place(output);
        if done.appends.is_empty() && done.state.is_empty() && self.memory.change(done.memory.as_ref())?.is_none() {
            return Ok(true);
        }
        self.settle(0).await?;
        self.commit_in_place(done).await
    }

    fn has_ticked(&mut self) {
        let was_failing = std::mem::take(&mut self.tick_failed);
        self.settings.status.update(|report| {
            report.ticks += 1;
            if was_failing {
                report.recover();
            }
        });
    }

    /// Goes on without this tick, or pauses the task.
    fn leave_out(&mut self, trouble: Trouble) -> Result<(), TaskEnd> {
        self.blame_at_once(&trouble)?;
        if self.settings.spec.on_error.then == OnPoison::Pause {
            return Err(TaskEnd::Failed(self.failure(trouble)));
        }
        let note = format!("the tick is left out: {}", trouble.reason);
        self.settings.note(&note);
        self.settings.status.update(|report| {
            report.ticks_left_out += 1;
            report.state = TaskState::Running;
            report.attempts = 0;
            report.reason = format!("the last tick was left out: {}", trouble.reason);
        });
        Ok(())
    }
}

/// Until the next tick; for ever, if there is none.
pub(super) async fn next_tick(wait: Option<Duration>) {
    match wait {
        Some(wait) => tokio::time::sleep(wait).await,
        None => std::future::pending().await,
    }
}
