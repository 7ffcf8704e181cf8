//! Which segments there are, and which of them are still needed.
//!
//! A segment goes when everything in it is somewhere else: its events in files or trimmed, what it says about anything else in
//! the checkpoint. They go from the oldest on, because recovery reads the log as one piece. Some are kept although they need
//! not be, for readers.

use crate::frame::Lsn;
use crate::state::State;
use crate::topic::{Offset, Tp};
use std::collections::{HashMap, HashSet, VecDeque};

/// A segment that was written to.
#[derive(Clone, Debug, Default)]
pub(crate) struct SegmentUse {
    pub(crate) number: u64,
    pub(crate) base_lsn: Lsn,
    /// Of the file.
    pub(crate) bytes: u64,
    /// For each partition that has events in it, the offset after the last of them.
    pub(crate) ends: HashMap<Tp, Offset>,
}

/// All of them, oldest first. The last one is being written, or was last.
#[derive(Debug, Default)]
pub(crate) struct Segments(VecDeque<SegmentUse>);

impl Segments {
    /// Notes a segment that is written to; false if it is known.
    pub(crate) fn begin(&mut self, segment: SegmentUse) -> bool {
        let is_new = self.0.back().is_none_or(|last| last.number < segment.number);
        if is_new {
            self.0.push_back(segment);
        }
        is_new
    }

    /// Notes events in the last segment.
    pub(crate) fn note(&mut self, tp: Tp, end: Offset) {
        if let Some(last) = self.0.back_mut() {
            last.ends.insert(tp, end);
        }
    }

    /// The file of the last segment is made shorter.
    pub(crate) fn shorten(&mut self, bytes: u64) {
        if let Some(last) = self.0.back_mut() {
            last.bytes = bytes;
        }
    }

    /// Where the log begins.
    pub(crate) fn start_lsn(&self, skipped: usize) -> Option<Lsn> {
        self.0.get(skipped).map(|first| first.base_lsn)
    }

    /// Bytes of all files.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.iter().map(|segment| segment.bytes).sum()
    }

    /// The partitions that are the reason for which the segments are kept that begin in the first `bytes` of the log.
    pub(crate) fn holders(&self, state: &State, bytes: u64) -> HashSet<Tp> {
        let mut begins_at = 0;
        let oldest = self.0.iter().take_while(|segment| {
            let is_older = begins_at < bytes;
            begins_at += segment.bytes;
            is_older
        });
        oldest.flat_map(|segment| &segment.ends).filter(|end| !is_elsewhere(state, *end)).map(|(tp, _)| *tp).collect()
    }

    /// How many of the oldest are not needed, if everything before now is in the checkpoint.
    pub(crate) fn unneeded(&self, state: &State, hot_bytes: u64) -> usize {
        let mut left = self.bytes();
        let older = self.0.len().saturating_sub(1);
        self.0
            .iter()
            .take(older)
            .take_while(|segment| {
                left -= segment.bytes;
                left >= hot_bytes && segment.ends.iter().all(|end| is_elsewhere(state, end))
            })
            .count()
    }

    /// Takes out the oldest ones.
    pub(crate) fn take(&mut self, count: usize) -> Vec<SegmentUse> {
        self.0.drain(..count).collect()
    }

    /// The number of the first one.
    pub(crate) fn first(&self) -> Option<u64> {
        self.0.front().map(|segment| segment.number)
    }
}

/// Whether the events of a partition before an offset are in files, or trimmed, or its topic is gone.
fn is_elsewhere(state: &State, (tp, end): (&Tp, &Offset)) -> bool {
    let archived = state.archives.get(tp).map_or(0, |archive| archive.end);
    archived >= *end || !state.topics.contains_key(&tp.topic)
}
