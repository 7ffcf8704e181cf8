//! Keeps restarts short, and lets go of the log that is not needed any more.

use super::Shared;
use crate::checkpoint::{Changed, Checkpoint, Mark};
use crate::frame::Lsn;
use crate::segment::segment_path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

#[derive(Default)]
pub(super) struct CheckpointerState {
    /// Bytes of log since the last checkpoint.
    pub(super) log_bytes: u64,
    pub(super) state_bytes: u64,
    pub(super) asked: bool,
}

impl Shared {
    pub(super) fn is_checkpoint_due(&self, state: &CheckpointerState) -> bool {
        state.asked
            || state.log_bytes >= self.options.checkpoint_log_bytes
            || state.state_bytes >= self.options.checkpoint_state_bytes
    }

    pub(super) fn run_checkpointer(&self) {
        loop {
            let state = self.checkpointer.lock().unwrap_or_else(PoisonError::into_inner);
            let (state, _) = self
                .checkpoint_due
                .wait_timeout_while(state, self.options.checkpoint_interval, |state| {
                    !self.is_checkpoint_due(state) && !self.is_stopping()
                })
                .unwrap_or_else(PoisonError::into_inner);
            drop(state);
            let stops = self.is_stopping();
            if stops {
                // The last one: after the syncer is done.
                drop(self.syncer());
            }
            if let Err(error) = self.write_checkpoint() {
                // The log has everything; only the next start takes longer.
                tracing::warn!(error, "the checkpoint could not be written; it is tried again");
                if !stops {
                    std::thread::sleep(Duration::from_secs(1));
                }
            }
            if stops {
                return;
            }
        }
    }

    /// Writes what changed, and lets go of the segments that are not needed any more.
    pub(super) fn write_checkpoint(&self) -> Result<(), String> {
        let dirty;
        let (mark, changed, flush, unneeded) = {
            let mut durable = self.durable.write().unwrap_or_else(PoisonError::into_inner);
            let mut tables = self.tables.write().unwrap_or_else(PoisonError::into_inner);
            let mut state = self.checkpointer.lock().unwrap_or_else(PoisonError::into_inner);
            state.asked = false;
            state.log_bytes = 0;
            state.state_bytes = 0;
            let unneeded = durable.segments.unneeded(&durable.state, self.options.hot_bytes);
            if durable.dirty.is_empty() && tables.is_flushed() && unneeded == 0 {
                return Ok(());
            }
            dirty = std::mem::take(&mut durable.dirty);
            let changed = Changed::new(&dirty, &durable.state, self.clock.now_us());
            let mark = Mark {
                applied_lsn: durable.lsn,
                durable_lsn: durable.lsn,
                start_lsn: durable.segments.start_lsn(unneeded).unwrap_or(durable.start_lsn),
                epoch: self.epoch,
                next_topic: durable.state.next_topic,
                version: durable.state.version,
            };
            (mark, changed, tables.begin_flush(), unneeded)
        };
        let written = self
            .checkpoint()
            .and_then(|checkpoint| checkpoint.write(mark, &changed, &flush).map_err(|error| error.to_string()));
        match written {
            Ok(()) => {
                self.tables.write().unwrap_or_else(PoisonError::into_inner).end_flush();
                self.let_go(unneeded, mark.start_lsn);
                Ok(())
            }
            Err(error) => {
                let mut durable = self.durable.write().unwrap_or_else(PoisonError::into_inner);
                durable.dirty.merge(dirty);
                self.tables.write().unwrap_or_else(PoisonError::into_inner).undo_flush(flush);
                // redb takes nothing more after an error of its file; the next attempt opens it anew.
                *self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner) = None;
                Err(error)
            }
        }
    }

    /// Forgets the oldest segments, now that the checkpoint says that the log begins behind them.
    fn let_go(&self, count: usize, start_lsn: Lsn) {
        let gone = {
            let mut durable = self.durable.write().unwrap_or_else(PoisonError::into_inner);
            durable.start_lsn = start_lsn;
            let gone = durable.segments.take(count);
            self.note_log_bytes(durable.segments.bytes());
            let kept = durable.segments.first().unwrap_or(0);
            for tp in gone.iter().flat_map(|segment| segment.ends.keys()) {
                if let Some(tail) = durable.tails.get(tp) {
                    tail.forget_segments(kept);
                }
            }
            self.files.forget(kept);
            gone
        };
        for segment in gone {
            let path = segment_path(segment.number);
            if let Err(error) = self.spares.recycle(&path, segment.bytes) {
                // The next start removes it.
                tracing::warn!(path, %error, "a segment that is not needed any more could not be removed");
            }
        }
        self.note_space();
    }

    pub(super) fn checkpoint(&self) -> Result<Arc<Checkpoint>, String> {
        let mut held = self.checkpoint.lock().unwrap_or_else(PoisonError::into_inner);
        match &*held {
            Some(checkpoint) => Ok(checkpoint.clone()),
            None => {
                let opened = Arc::new(Checkpoint::open(&*self.fs).map_err(|error| error.to_string())?);
                *held = Some(opened.clone());
                Ok(opened)
            }
        }
    }
}
