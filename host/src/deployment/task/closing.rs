//! Windows of an aggregate that are closed, and time that goes on by itself.

use super::{Blame, CallFailure, Task, TaskEnd, Trouble};
use crate::deployment::aggregate::{self, Aggregation};
use crate::limits::{CLOSE_GROUPS_MAX, RETRY_FIRST, RETRY_MAX};
use std::time::{Duration, Instant};

impl Task {
    /// Closes the windows that no event can come for any more, each once: its end is committed with what the component makes of it.
    pub(super) async fn close_windows(&mut self) -> Result<(), TaskEnd> {
        let Some(how) = self.settings.spec.aggregation else { return Ok(()) };
        let mut most = CLOSE_GROUPS_MAX;
        let mut wait = RETRY_FIRST;
        let mut hard = 0;
        while !self.settings.stop.is_cancelled() {
            let due = aggregate::due(how, self.time, &*self.settings.log, self.lease.task, most)?;
            let Some((groups, state)) = due else { break };
            let closed = match self.take_instance().await {
                Ok(mut instance) => {
                    let closed = instance.close(&groups).await;
                    self.keep_instance(instance);
                    closed.map_err(CallFailure::Call)
                }
                Err(failure) => Err(failure),
            };
            let (error, blame) = match closed {
                Ok(mut output) => {
                    output.state.extend(state);
                    self.settle(0).await?;
                    if self.commit_in_place(output).await? {
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
            self.settings.guest_log.note(self.settings.source.partition, &said);
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
        Ok(())
    }

    /// Nothing came for a while: the time of the partition goes on by itself.
    pub(super) fn pass_time(&mut self) {
        let passed = i64::try_from(self.time_since.elapsed().as_micros()).unwrap_or(i64::MAX);
        self.time.latest = self.time.latest.map(|latest| latest.saturating_add(passed));
        self.time_since = Instant::now();
    }
}

/// Until an aggregate whose time goes on by itself should look at the clock.
pub(super) async fn idle(aggregation: Option<Aggregation>) {
    match aggregation.and_then(|how| how.idle_us) {
        Some(idle_us) => tokio::time::sleep(Duration::from_micros(idle_us)).await,
        None => std::future::pending().await,
    }
}
