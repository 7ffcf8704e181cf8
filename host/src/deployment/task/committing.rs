//! What a task has done becomes durable.

use super::{Committed, Task, TaskEnd};
use crate::deployment::dead_letters;
use bytes::Bytes;
use futures::FutureExt as _;
use nodata_log::{Appended, Batch, Offset, Pending, StateChange, Tp, Transaction};
use nodata_runtime::{Input, Output};

/// A commit that is on its way.
pub(super) struct InFlight {
    pub(super) pending: Pending<Appended>,
    pub(super) next: Offset,
    pub(super) counts: Counts,
}

#[derive(Clone, Copy)]
pub(super) struct Counts {
    pub(super) events_in: u64,
    pub(super) events_out: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) rejected: u64,
    pub(super) skipped: u64,
    pub(super) late: u64,
}

/// What came of something else than the next input, to be committed where the position is.
#[derive(Default)]
pub(super) struct InPlace {
    pub(super) appends: Vec<(Tp, Batch)>,
    pub(super) state: Vec<StateChange>,
    pub(super) grown: i64,
    pub(super) events_out: u64,
    pub(super) bytes_out: u64,
    /// What the instance keeps then.
    pub(super) memory: Option<Bytes>,
}

impl Task {
    /// What a call did that was about no input.
    pub(super) fn in_place(&self, output: Output) -> InPlace {
        let Output { batches, events: events_out, bytes: bytes_out, state, state_grown: grown, memory, .. } = output;
        InPlace { appends: self.outputs.appends(batches), state, grown, events_out, bytes_out, memory }
    }

    /// Commits what came of something else than the next input; false if it is too much.
    pub(super) async fn commit_in_place(&mut self, done: InPlace) -> Result<bool, TaskEnd> {
        let InPlace { mut appends, mut state, grown, mut events_out, mut bytes_out, memory } = done;
        if self.follow.is_some() {
            appends.clear();
            (events_out, bytes_out) = (0, 0);
        }
        state.extend(self.memory.change(memory.as_ref())?);
        state.extend(self.account.change(grown)?);
        let transaction = self.lease.transaction(self.expect, self.position, appends, state);
        match self.settings.commit(transaction).await? {
            Committed::InOrder(pending) => {
                self.memory.keep(memory);
                self.account = self.account.with(grown);
                pending.await?;
                self.expect = Some(self.position);
                self.settings.status.update(|report| report.events_out += events_out);
                self.settings.usage.count(0, 0, bytes_out);
                Ok(true)
            }
            // What the instance keeps is of a call that did not happen.
            Committed::TooLarge(_) => {
                self.instance = None;
                Ok(false)
            }
            Committed::Stopped => {
                self.instance = None;
                Ok(true)
            }
        }
    }

    pub(super) async fn transaction(
        &mut self,
        input: &Input,
        next: Offset,
        output: Output,
        last_lines: &[String],
    ) -> Result<Transaction, TaskEnd> {
        let mut appends = self.outputs.appends(output.batches);
        if !output.rejected.is_empty() {
            let spec = &self.settings.spec;
            let dead = dead_letters::append(&*self.settings.log, spec, input, &output.rejected, last_lines).await?;
            appends.push(dead);
        }
        Ok(self.lease.transaction(self.expect, next, appends, output.state))
    }

    /// Waits until no more than so many commits are on their way, and counts those that are done.
    pub(super) async fn settle(&mut self, most: usize) -> Result<(), TaskEnd> {
        while let Some(mut first) = self.in_flight.pop_front() {
            let done = if self.in_flight.len() >= most {
                first.pending.await
            } else {
                match (&mut first.pending).now_or_never() {
                    Some(done) => done,
                    None => {
                        self.in_flight.push_front(first);
                        return Ok(());
                    }
                }
            };
            done?;
            let InFlight { next, counts, .. } = first;
            self.settings.status.update(|report| {
                report.position = next;
                report.events_in += counts.events_in;
                report.events_out += counts.events_out;
                report.events_rejected += counts.rejected;
                report.events_skipped += counts.skipped;
                report.events_late += counts.late;
            });
            self.settings.usage.count(counts.events_in, counts.bytes_in, counts.bytes_out);
        }
        Ok(())
    }
}
