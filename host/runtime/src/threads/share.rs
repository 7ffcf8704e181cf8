//! How much of the guest threads a deployment has, and what it has used of them.

use crate::limits::{CPU_WEIGHT, CPU_WEIGHT_MAX, CPU_WEIGHT_MIN};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// A share of the time of the guest threads. Where there is not enough for all, whoever has twice the weight has twice the time, with
/// however many tasks. Cheap to clone; all clones are one share.
#[derive(Clone)]
pub struct Share {
    common: Arc<Common>,
    /// Of a part: what it has used itself.
    own_nanos: Option<Arc<AtomicU64>>,
}

struct Common {
    /// Tells shares apart, and decides between two that are equally far.
    number: u64,
    weight: AtomicU32,
    nanos: AtomicU64,
}

impl Default for Share {
    fn default() -> Self {
        Self::new(CPU_WEIGHT)
    }
}

impl Share {
    /// A new one.
    pub fn new(weight: u32) -> Self {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        let share = Self {
            common: Arc::new(Common { number, weight: AtomicU32::new(1), nanos: AtomicU64::new(0) }),
            own_nanos: None,
        };
        share.set_weight(weight);
        share
    }

    /// The same share, with the processor time of whoever uses this counted apart too.
    pub fn part(&self) -> Self {
        Self { common: self.common.clone(), own_nanos: Some(Arc::default()) }
    }

    /// From now on.
    pub fn set_weight(&self, weight: u32) {
        self.common.weight.store(weight.clamp(CPU_WEIGHT_MIN, CPU_WEIGHT_MAX), Ordering::Relaxed);
    }

    /// Processor time of guest threads that was used; of a part, by the part. Without guest threads nobody counts.
    pub fn cpu(&self) -> Duration {
        let nanos = self.own_nanos.as_deref().unwrap_or(&self.common.nanos);
        Duration::from_nanos(nanos.load(Ordering::Relaxed))
    }

    pub(super) fn spend(&self, spent: Duration) {
        let spent = spent.as_nanos() as u64;
        self.common.nanos.fetch_add(spent, Ordering::Relaxed);
        if let Some(own) = &self.own_nanos {
            own.fetch_add(spent, Ordering::Relaxed);
        }
    }

    pub(super) fn number(&self) -> u64 {
        self.common.number
    }

    pub(super) fn weight(&self) -> u32 {
        self.common.weight.load(Ordering::Relaxed)
    }
}
