//! How much memory instances have, each and all together.

use crate::limits::{MEMORIES_MAX, STORE_INSTANCES_MAX, TABLE_ELEMENTS_MAX, TABLES_MAX};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use wasmtime::ResourceLimiter;

/// The memory of all instances together.
#[derive(Debug)]
pub(crate) struct HostMemory {
    used: AtomicU64,
    max: u64,
}

impl HostMemory {
    pub(crate) fn new(max: u64) -> Arc<Self> {
        Arc::new(Self { used: AtomicU64::new(0), max })
    }

    pub(crate) fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let taken = |used: u64| used.checked_add(bytes).filter(|&used| used <= self.max);
        self.used.fetch_update(Ordering::Relaxed, Ordering::Relaxed, taken).is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A growth that was refused. A guest mostly traps soon after, and this is the reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The instance would have more than this.
    Instance { bytes_max: u64 },
    /// All instances together would have more than this.
    Host { bytes_max: u64 },
    /// A table would have more elements than this.
    Table { elements_max: usize },
}

/// The memory of one instance: the sum of its linear memories. Dropping it gives the memory back.
#[derive(Debug)]
pub(crate) struct InstanceMemory {
    host: Arc<HostMemory>,
    used: u64,
    max: u64,
    refusal: Option<Refusal>,
}

impl InstanceMemory {
    pub(crate) fn new(host: Arc<HostMemory>, max: u64) -> Self {
        Self { host, used: 0, max, refusal: None }
    }

    /// Bytes of linear memory now. They never become fewer while the instance lives.
    pub(crate) fn used(&self) -> u64 {
        self.used
    }

    /// The last growth that was refused since this was asked.
    pub(crate) fn take_refusal(&mut self) -> Option<Refusal> {
        self.refusal.take()
    }

    fn grow(&mut self, bytes: u64) -> Result<(), Refusal> {
        if self.used.checked_add(bytes).is_none_or(|after| after > self.max) {
            return Err(Refusal::Instance { bytes_max: self.max });
        }
        if !self.host.take(bytes) {
            return Err(Refusal::Host { bytes_max: self.host.max });
        }
        self.used += bytes;
        Ok(())
    }
}

impl Drop for InstanceMemory {
    fn drop(&mut self) {
        self.host.give_back(self.used);
    }
}

impl ResourceLimiter for InstanceMemory {
    fn memory_growing(&mut self, current: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        // The engine refuses this one by itself, after asking.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        Ok(self.grow((desired - current) as u64).map_err(|refusal| self.refusal = Some(refusal)).is_ok())
    }

    fn table_growing(&mut self, _current: usize, desired: usize, _maximum: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS_MAX {
            self.refusal = Some(Refusal::Table { elements_max: TABLE_ELEMENTS_MAX });
            return Ok(false);
        }
        Ok(true)
    }

    fn instances(&self) -> usize {
        STORE_INSTANCES_MAX
    }

    fn tables(&self) -> usize {
        TABLES_MAX
    }

    fn memories(&self) -> usize {
        MEMORIES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: usize = 1 << 16;

    #[test]
    fn memories_are_summed_and_given_back() {
        let host = HostMemory::new(10 * PAGE as u64);
        let mut one = InstanceMemory::new(host.clone(), 6 * PAGE as u64);
        assert!(one.memory_growing(0, 2 * PAGE, None).unwrap());
        assert!(one.memory_growing(0, 3 * PAGE, None).unwrap());
        assert!(one.memory_growing(3 * PAGE, 4 * PAGE, None).unwrap());
        assert_eq!(one.used(), 6 * PAGE as u64);
        assert!(!one.memory_growing(2 * PAGE, 3 * PAGE, None).unwrap());
        assert_eq!(one.take_refusal(), Some(Refusal::Instance { bytes_max: 6 * PAGE as u64 }));
        assert_eq!(one.take_refusal(), None);

        let mut other = InstanceMemory::new(host.clone(), 6 * PAGE as u64);
        assert!(other.memory_growing(0, 4 * PAGE, None).unwrap());
        assert!(!other.memory_growing(4 * PAGE, 5 * PAGE, None).unwrap());
        assert_eq!(other.take_refusal(), Some(Refusal::Host { bytes_max: 10 * PAGE as u64 }));
        assert_eq!(host.used(), 10 * PAGE as u64);

        drop(one);
        assert_eq!(host.used(), 4 * PAGE as u64);
        assert!(other.memory_growing(4 * PAGE, 5 * PAGE, None).unwrap());
        drop(other);
        assert_eq!(host.used(), 0);
    }

    #[test]
    fn what_the_guest_itself_excludes_is_not_our_refusal() {
        let mut memory = InstanceMemory::new(HostMemory::new(u64::MAX), u64::MAX);
        assert!(!memory.memory_growing(PAGE, 2 * PAGE, Some(PAGE)).unwrap());
        assert_eq!(memory.take_refusal(), None);
        assert_eq!(memory.used(), 0);
    }

    #[test]
    fn tables_are_bounded() {
        let mut memory = InstanceMemory::new(HostMemory::new(0), 0);
        assert!(memory.table_growing(0, TABLE_ELEMENTS_MAX, None).unwrap());
        assert!(!memory.table_growing(0, TABLE_ELEMENTS_MAX + 1, None).unwrap());
        assert_eq!(memory.take_refusal(), Some(Refusal::Table { elements_max: TABLE_ELEMENTS_MAX }));
    }
}
