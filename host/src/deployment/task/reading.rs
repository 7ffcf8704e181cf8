//! What comes next of the input of a task.

use super::{Task, TaskEnd, Trouble, ticks_of};
use crate::deployment::rebuild::Follow;
use crate::limits::INPUT_BYTES;
use nodata_log::{LogError, ReadLimits, StoredBatch};
use nodata_runtime::{Input, InputError};
use std::ops::Range;

impl Task {
    /// Of a task that follows another one: how far it may go, and when it does not follow any more.
    pub(super) fn look_ahead(&mut self) {
        let Some(Follow { task, start, has_ended }) = self.follow else { return };
        let until = self.settings.log.task_position(task).next.unwrap_or(start);
        if has_ended && self.position >= until {
            self.follow = None;
            self.ticks = ticks_of(&self.settings, self.stage);
            self.settings.note(&format!("it goes on at offset {}, where the revision before ended", self.position));
        }
        if !has_ended && self.position >= until {
            self.settings.status.update(|report| report.has_caught_up = true);
        }
        self.until = self.follow.is_some().then_some(until);
    }

    /// Whether what was read is enough for a call.
    pub(super) fn is_full(&self) -> bool {
        let (mut rows, mut bytes) = (0, 0);
        for stored in &self.ahead {
            let count = stored.batch.len();
            let left = count - stored.offsets.rows_before(self.position, count);
            rows += left;
            bytes += stored.batch.payload_bytes() as u64 * left as u64 / count as u64;
        }
        rows >= self.pace.events() || bytes >= INPUT_BYTES
    }

    /// Reads what comes next, behind what was read before.
    pub(super) async fn read(&mut self) -> Result<(), LogError> {
        let limits = ReadLimits { bytes_max: INPUT_BYTES, events_max: self.pace.events() };
        loop {
            let from = self.ahead.back().map_or(self.position, |stored| stored.last() + 1);
            let chunk = match self.settings.log.read(self.settings.source, from, limits).await {
                // What was read before is processed first.
                Err(LogError::OutOfRange { .. }) if !self.ahead.is_empty() => return Ok(()),
                Err(LogError::OutOfRange { earliest, .. }) if from < earliest => {
                    let note = format!("events {from} to {} are gone: the topic keeps them no longer", earliest - 1);
                    self.settings.note(&note);
                    self.position = earliest;
                    self.settings.status.update(|report| report.position = earliest);
                    continue;
                }
                chunk => chunk?,
            };
            self.ahead.extend(chunk.batches);
            if !self.ahead.is_empty() || chunk.next == self.position {
                return Ok(());
            }
            // Events were lost here. That they are passed over is committed with what comes behind them.
            self.position = chunk.next;
            self.settings.status.update(|report| report.position = chunk.next);
        }
    }

    /// The next rows, as many as the pace allows. They stay in `ahead` until they are committed.
    pub(super) fn next_input(&mut self) -> Result<Option<Input>, TaskEnd> {
        let mut pieces: Vec<(StoredBatch, Range<usize>)> = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        let rows_max = self.pace.events().min(self.search.rows_max());
        for stored in &self.ahead {
            let count = stored.batch.len();
            let from = stored.offsets.rows_before(self.position, count);
            if from >= count {
                continue;
            }
            let last = self.until.map_or(count, |until| stored.offsets.rows_before(until, count));
            let batch_bytes = (stored.batch.payload_bytes() as u64).max(1);
            // By the size of its events on average. One batch is always taken, however large its events are.
            let fit = if rows == 0 {
                count
            } else {
                (INPUT_BYTES.saturating_sub(bytes) * count as u64 / batch_bytes) as usize
            };
            let to = (from + fit.min(rows_max - rows)).min(last);
            if from >= to {
                break;
            }
            rows += to - from;
            bytes += batch_bytes * (to - from) as u64 / count as u64;
            pieces.push((stored.clone(), from..to));
        }
        match Input::new(self.input.clone(), self.settings.source.partition, pieces) {
            Ok(input) => Ok(Some(input)),
            Err(InputError::Empty) => Ok(None),
            // One batch of the log is never larger than an input may be.
            Err(error) => {
                let trouble = Trouble { reason: error.to_string(), attempts: 0, last_lines: Vec::new() };
                Err(TaskEnd::Failed(self.failure(trouble)))
            }
        }
    }
}
