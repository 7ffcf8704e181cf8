//! What a deployment decides for all of its instances.

use crate::guest_log::GuestLog;
use crate::guest_metrics::GuestMetrics;
use crate::http::HttpClient;
use crate::limits::{
    CALL_CPU, CALL_WALL, INSTANCE_MEMORY_BYTES, OUTPUT_BYTES_MAX, OUTPUT_EVENTS_MAX, START_CPU, START_WALL,
    STATE_BYTES, STATE_WRITE_BYTES_MAX,
};
use crate::output::Port;
use crate::secret::Secret;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// A deployment, as far as its instances know it: what they are granted and what they may use. What is not here, they do
/// not have.
#[derive(Clone)]
pub struct Deployment {
    /// What `config.get` answers.
    pub config: BTreeMap<String, String>,
    /// What `config.secret` answers.
    pub secrets: BTreeMap<String, Secret>,
    /// Where instances may emit to. The numbers of ports in an output are places in this list.
    pub ports: Arc<[Port]>,
    pub log: Arc<GuestLog>,
    pub metrics: Arc<GuestMetrics>,
    /// Sends its HTTP requests. `None`: it may not send any.
    pub http: Option<HttpClient>,
    pub limits: InstanceLimits,
}

/// What an instance may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceLimits {
    /// All linear memories together.
    pub memory_bytes: u64,
    /// Processor time until it has started.
    pub start_cpu: Duration,
    /// Until it has started, by the clock.
    pub start_wall: Duration,
    /// Processor time of a call.
    pub call_cpu: Duration,
    /// A call by the clock.
    pub call_wall: Duration,
    /// Bytes a call may emit; at most [`OUTPUT_BYTES_MAX`].
    pub output_bytes: u64,
    /// Events a call may emit; at most [`OUTPUT_EVENTS_MAX`].
    pub output_events: u64,
    /// Bytes a call may write to state tables; at most [`STATE_WRITE_BYTES_MAX`].
    pub state_write_bytes: u64,
    /// Bytes of keys and values that the state tables of a task may have, as whoever counts them says.
    pub state_bytes: u64,
}

impl Default for InstanceLimits {
    fn default() -> Self {
        Self {
            memory_bytes: INSTANCE_MEMORY_BYTES,
            start_cpu: START_CPU,
            start_wall: START_WALL,
            call_cpu: CALL_CPU,
            call_wall: CALL_WALL,
            output_bytes: OUTPUT_BYTES_MAX,
            output_events: OUTPUT_EVENTS_MAX,
            state_write_bytes: STATE_WRITE_BYTES_MAX,
            state_bytes: STATE_BYTES,
        }
    }
}

impl InstanceLimits {
    /// The same, with nothing above what a transaction can hold.
    pub(crate) fn within_ceilings(self) -> Self {
        Self {
            output_bytes: self.output_bytes.min(OUTPUT_BYTES_MAX),
            output_events: self.output_events.min(OUTPUT_EVENTS_MAX),
            state_write_bytes: self.state_write_bytes.min(STATE_WRITE_BYTES_MAX),
            ..self
        }
    }
}
