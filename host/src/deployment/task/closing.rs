//! Windows of an aggregate that are closed, and time that goes on by itself.

use super::{Blame, CallFailure, InPlace, Task, TaskEnd, Trouble};
use crate::deployment::aggregate::{self, Aggregation};
use crate::deployment::parts::{self, Stage};
use crate::deployment::shadow::Call;
use crate::limits::{CLOSE_GROUPS_MAX, RETRY_FIRST, RETRY_MAX};
use nodata_runtime::Groups;
use std::time::{Duration, Instant};

impl Task {
    /// Closes the windows that no event can come for any more, each once: its end is committed with what the component makes of it.
    pub(super) async fn close_windows(&mut self) -> Result<(), TaskEnd> {
        let Some(mut how) = self.settings.spec.aggregation else { return Ok(()) };
        if self.stage == Stage::Together {
            // Each partition allowed for it already.
            how.lateness_us = 0;
        }
        let mut most = CLOSE_GROUPS_MAX;
        let mut wait = RETRY_FIRST;
        let mut hard = 0;
        while !self.settings.stop.is_cancelled() {
            let due = aggregate::due(how, self.time, &*self.settings.log, self.lease.task, most)?;
            let Some((groups, state, grown)) = due else { break };
            let (error, blame) = match self.close(&groups).await {
                Ok(mut closed) => {
                    closed.state.extend(state);
                    closed.grown += grown;
                    self.settle(0).await?;
                    if self.commit_in_place(closed).await? {
                        self.is_well();
                        self.attempts = 0;
                        hard = 0;
                        most = CLOSE_GROUPS_MAX;
                        continue;
                    }
                    // Too much at once: fewer next time.
                    if most > 1 {
                        most = (groups.keys.len() / 2).max(1);
                        continue;
                    }
                    let reason = "what the component emits for one window is too large".to_owned();
                    let trouble = Trouble { reason, attempts: self.attempts, last_lines: Vec::new() };
                    return Err(TaskEnd::Failed(self.failure(trouble)));
                }
                Err(CallFailure::Log(error)) => return Err(error.into()),
                Err(CallFailure::Start(error)) => (error, Blame::Nobody),
                Err(CallFailure::Call(error)) => {
                    let blame = Blame::of(&error);
                    (error, blame)
                }
            };
            self.attempts += 1;
            let reason = format!("{error} (closing {} windows of `{}`)", groups.keys.len(), self.input);
            let trouble = Trouble { reason, attempts: self.attempts, last_lines: error.stderr().to_vec() };
            let said = format!("attempt {}: {}", self.attempts, trouble.reason);
            self.settings.note(&said);
            self.is_in_trouble(&trouble);
            match blame {
                Blame::Later | Blame::Nobody => {
                    self.settings.rest(wait).await;
                    wait = (wait * 2).min(RETRY_MAX);
                }
                Blame::Events if hard == 0 || most > 1 => {
                    self.instance = None;
                    if hard > 0 {
                        most = (groups.keys.len() / 2).max(1);
                    }
                    hard += 1;
                }
                // There is no event to put aside: results would be missing. An operator decides.
                Blame::Events | Blame::Host => return Err(TaskEnd::Failed(self.failure(trouble))),
            }
        }
        self.tell().await
    }

    /// What becomes of closed windows: what the component makes of them, or parts for who puts them together.
    async fn close(&mut self, groups: &Groups) -> Result<InPlace, CallFailure> {
        if let Stage::Part(to) = self.stage {
            return Ok(InPlace { appends: parts::emit(to, groups)?, ..InPlace::default() });
        }
        let mut instance = self.take_instance().await?;
        let begun = Instant::now();
        let closed = instance.close(groups).await;
        self.keep_instance(instance, closed.is_err());
        let closed = closed?;
        self.ask_shadow(Call::Close(groups), &closed, begun.elapsed()).await?;
        Ok(self.in_place(closed))
    }

    /// Says how far its partition is in time to whom it gave parts, if there is something new to say.
    async fn tell(&mut self) -> Result<(), TaskEnd> {
        let (Stage::Part(to), Some(how)) = (self.stage, self.settings.spec.aggregation) else { return Ok(()) };
        if self.settings.stop.is_cancelled() {
            return Ok(());
        }
        let watermark = self.time.latest.map(|_| self.time.watermark(how.lateness_us));
        let Some(progress) = parts::news(how.window, watermark, self.told, self.is_idle) else { return Ok(()) };
        let (appends, state) = parts::tell(to, self.settings.source.partition, progress)?;
        self.settle(0).await?;
        if self.commit_in_place(InPlace { appends, state, ..InPlace::default() }).await? {
            self.told = Some(progress);
        }
        Ok(())
    }

    /// How time goes on by itself. Who puts parts together is told.
    pub(super) fn idles(&self) -> Option<Aggregation> {
        self.settings.spec.aggregation.filter(|_| self.stage != Stage::Together && self.follow.is_none())
    }

    /// Nothing came for a while: the time of the partition goes on by itself.
    pub(super) fn pass_time(&mut self) {
        let passed = i64::try_from(self.time_since.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.time.latest = self.time.latest.map(|latest| latest.saturating_add(passed));
        self.time_since = Instant::now();
        self.is_idle = true;
    }
}

/// Until an aggregate whose time goes on by itself should look at the clock: so long after it did the last time, whatever else it did
/// meanwhile.
pub(super) async fn idle(aggregation: Option<Aggregation>, since: Instant) {
    match aggregation.and_then(|how| how.idle_us) {
        Some(idle_us) => tokio::time::sleep(Duration::from_micros(idle_us).saturating_sub(since.elapsed())).await,
        None => std::future::pending().await,
    }
}
