//! What a deployment has used since the server started.

use nodata_runtime::Share;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What was used since the server started, and what is used now. Bytes are those of ids, keys, values and headers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Processor time of guest threads: the component, and what the host does for it there.
    pub cpu: Duration,
    /// Of the instances that there are.
    pub memory_bytes: u64,
    /// The most that one instance had after a call.
    pub memory_bytes_peak: u64,
    pub events_in: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    /// Now, and also what was there before the server started.
    pub state_bytes: u64,
}

/// What only a deployment has, and not each of its tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SharedUsage {
    pub log_lines: u64,
    pub log_lines_dropped: u64,
    /// Observations that were not taken.
    pub metrics_dropped: u64,
    pub http_requests: u64,
}

impl Usage {
    /// Together with that of another task.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            cpu: self.cpu + other.cpu,
            memory_bytes: self.memory_bytes + other.memory_bytes,
            memory_bytes_peak: self.memory_bytes_peak.max(other.memory_bytes_peak),
            events_in: self.events_in + other.events_in,
            bytes_in: self.bytes_in + other.bytes_in,
            bytes_out: self.bytes_out + other.bytes_out,
            state_bytes: self.state_bytes + other.state_bytes,
        }
    }
}

/// What a task uses. It goes on counting when the task is started again.
pub(crate) struct TaskUsage {
    /// Its part of the share of its deployment.
    pub(crate) share: Share,
    memory_bytes_peak: AtomicU64,
    events_in: AtomicU64,
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
}

impl TaskUsage {
    pub(crate) fn new(deployment: &Share) -> Self {
        let count = AtomicU64::default;
        Self {
            share: deployment.part(),
            memory_bytes_peak: count(),
            events_in: count(),
            bytes_in: count(),
            bytes_out: count(),
        }
    }

    /// Something was committed.
    pub(crate) fn count(&self, events_in: u64, bytes_in: u64, bytes_out: u64) {
        self.events_in.fetch_add(events_in, Ordering::Relaxed);
        self.bytes_in.fetch_add(bytes_in, Ordering::Relaxed);
        self.bytes_out.fetch_add(bytes_out, Ordering::Relaxed);
    }

    /// An instance has so much memory.
    pub(crate) fn has_memory(&self, bytes: u64) {
        self.memory_bytes_peak.fetch_max(bytes, Ordering::Relaxed);
    }

    pub(crate) fn of_now(&self, memory_bytes: u64, state_bytes: u64) -> Usage {
        let count = |of: &AtomicU64| of.load(Ordering::Relaxed);
        Usage {
            cpu: self.share.cpu(),
            memory_bytes,
            memory_bytes_peak: count(&self.memory_bytes_peak),
            events_in: count(&self.events_in),
            bytes_in: count(&self.bytes_in),
            bytes_out: count(&self.bytes_out),
            state_bytes,
        }
    }
}
