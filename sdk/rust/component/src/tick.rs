//! When a component is called at intervals.

/// The times of a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Tick {
    /// The time of the host, in microseconds since the Unix epoch.
    pub now_us: i64,
    /// Of an aggregate with windows: those that end here or earlier are closed. `None` in other components, and before the first
    /// event.
    pub watermark_us: Option<i64>,
}
