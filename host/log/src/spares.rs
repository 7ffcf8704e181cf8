//! Empty segments that are ready before they are needed.
//!
//! A segment that would be made when the last one is full would hold up everyone who waits for a sync. And a log that only
//! finds out that the disk is full when it must write could not keep what it was given: while two spares are ready, a full
//! disk is noticed before the log is.

use crate::fs::{Fs, FsFile, SyncSite};
use crate::limits;
use crate::segment::{SEGMENT_HEADER_BYTES, WAL_DIR, spare_path};
use crate::sequencer::Space;
use std::collections::VecDeque;
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A file that is ready to become a segment.
pub(crate) struct Spare {
    pub(crate) path: String,
    pub(crate) bytes: u64,
    pub(crate) file: Arc<dyn FsFile>,
}

pub(crate) struct Spares {
    fs: Arc<dyn Fs>,
    place: String,
    segment_bytes: u64,
    state: Mutex<SparesState>,
    changed: Condvar,
    /// Bytes of a group: an average in which the last ones count most.
    group_bytes: AtomicU64,
    has_preparer: AtomicBool,
    stopping: AtomicBool,
}

struct SparesState {
    ready: VecDeque<Spare>,
    /// The number of the next file.
    next: u64,
    is_full: bool,
    /// The syncer waits for one.
    is_wanted: bool,
    /// Bytes of the segment that is being written.
    active_left: u64,
}

impl Spares {
    pub(crate) fn new(fs: Arc<dyn Fs>, place: &str, segment_bytes: u64, ready: Vec<Spare>, next: u64) -> Self {
        let ready = ready.into();
        let state = SparesState { ready, next, is_full: false, is_wanted: false, active_left: 0 };
        Self {
            fs,
            place: place.to_owned(),
            segment_bytes,
            state: Mutex::new(state),
            changed: Condvar::new(),
            group_bytes: AtomicU64::new(0),
            has_preparer: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    fn state(&self) -> MutexGuard<'_, SparesState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// From now on someone calls [`run`](Self::run), and whoever needs a spare waits for them.
    pub(crate) fn expect_preparer(&self) {
        self.has_preparer.store(true, Ordering::SeqCst);
    }

    pub(crate) fn stop(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        self.changed.notify_all();
    }

    /// Keeps spares ready until the end. `changed` is called when there is more space, or none.
    pub(crate) fn run(&self, changed: impl Fn()) {
        let mut state = self.state();
        while !self.is_stopping() {
            if state.ready.len() >= limits::SPARE_SEGMENTS {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            drop(state);
            let made = self.prepare();
            changed();
            state = self.state();
            if !made {
                let waited = self.changed.wait_timeout(state, Duration::from_secs(1));
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
        }
    }

    /// Whether there are fewer than there should be.
    pub(crate) fn is_short(&self) -> bool {
        self.state().ready.len() < limits::SPARE_SEGMENTS
    }

    /// Makes one; false if there is no space for it.
    pub(crate) fn prepare(&self) -> bool {
        let number = self.state().take_number();
        let made = self.make(number, self.segment_bytes, |file| self.fill_gently(file));
        let mut state = self.state();
        let was_full = std::mem::replace(&mut state.is_full, made.is_err());
        match made {
            Ok(spare) => {
                state.is_wanted = false;
                state.ready.push_back(spare);
                drop(state);
                if was_full {
                    tracing::info!("there is space on the disk again");
                }
                self.changed.notify_all();
                true
            }
            Err(error) => {
                drop(state);
                if !was_full {
                    tracing::warn!(
                        place = %self.place,
                        %error,
                        "a new segment of the log could not be made; events are refused until it can"
                    );
                }
                self.changed.notify_all();
                false
            }
        }
    }

    /// Makes a file of this size, and fills it as it is told.
    fn make(&self, number: u64, bytes: u64, fill: impl FnOnce(&dyn FsFile) -> io::Result<()>) -> io::Result<Spare> {
        let path = spare_path(number);
        let file = self.fs.create(&path)?;
        let made = file.allocate(bytes).and_then(|()| file.sync_data(SyncSite::Spare)).and_then(|()| fill(&*file));
        match made {
            Ok(()) => Ok(Spare { path, bytes, file }),
            Err(error) => {
                // Half a spare is of no use, and the space may be needed.
                let _ = self.fs.remove(&path);
                Err(error)
            }
        }
    }

    /// Fills a spare with zeros while nobody needs it and the disk is little used. Half a filling is of use too.
    fn fill_gently(&self, file: &dyn FsFile) -> io::Result<()> {
        let mut at = 0;
        while at < self.segment_bytes {
            let is_of_use = self.group_bytes.load(Ordering::Relaxed) <= limits::FILL_GROUP_BYTES_MAX;
            if !is_of_use || self.state().is_wanted || self.is_stopping() {
                return Ok(());
            }
            let begun = Instant::now();
            let bytes = limits::FILL_BYTES.min(self.segment_bytes - at);
            file.fill(at, bytes)?;
            at += bytes;
            // Also when the log does nothing: a sync that comes now waits for all that the disk has not put away yet.
            std::thread::sleep(begun.elapsed() * limits::FILL_REST);
        }
        file.sync_data(SyncSite::Spare)
    }

    /// The file of the first segment: one that is there, or a new one of this size.
    pub(crate) fn first(&self, bytes: u64) -> io::Result<Spare> {
        let mut state = self.state();
        if let Some(spare) = state.ready.pop_front() {
            return Ok(spare);
        }
        let number = state.take_number();
        drop(state);
        self.make(number, bytes, |file| {
            file.fill(0, bytes)?;
            file.sync_data(SyncSite::Spare)
        })
    }

    /// A file for a segment that holds at least so many bytes. `None`: there is no space.
    pub(crate) fn take(&self, bytes_min: u64) -> io::Result<Option<Spare>> {
        let mut state = self.state();
        if bytes_min > self.segment_bytes {
            // A transaction as large as this is rare; it waits for a file of its own.
            let number = state.take_number();
            drop(state);
            let made = self.make(number, bytes_min.next_multiple_of(SEGMENT_HEADER_BYTES), |_| Ok(()));
            return match made {
                Ok(spare) => Ok(Some(spare)),
                Err(error) if is_disk_full(&error) => Ok(None),
                Err(error) => Err(error),
            };
        }
        loop {
            let fits = state.ready.iter().position(|spare| spare.bytes >= bytes_min);
            if let Some(spare) = fits.and_then(|at| state.ready.remove(at)) {
                drop(state);
                self.changed.notify_all();
                return Ok(Some(spare));
            }
            if !self.has_preparer.load(Ordering::SeqCst) {
                drop(state);
                if !self.prepare() {
                    return Ok(None);
                }
                state = self.state();
                continue;
            }
            if state.is_full || self.is_stopping() {
                return Ok(None);
            }
            state.is_wanted = true;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Makes a segment to which nothing was written a spare again.
    pub(crate) fn give_back(&self, path: &str, file: Arc<dyn FsFile>, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        let spare = spare_path(state.take_number());
        self.fs.rename(path, &spare)?;
        state.ready.push_back(Spare { path: spare, bytes, file });
        Ok(())
    }

    /// Takes a segment that is not needed any more: as a spare if there are few, else it is removed. What it held stays in it;
    /// the salt of the next segment makes it meaningless. Overwriting blocks that were written before costs the file system
    /// no journal.
    pub(crate) fn recycle(&self, path: &str, bytes: u64) -> io::Result<()> {
        let mut state = self.state();
        if bytes != self.segment_bytes || state.ready.len() >= limits::SPARE_SEGMENTS {
            drop(state);
            return self.fs.remove(path);
        }
        let file = self.fs.open(path)?;
        let spare = spare_path(state.take_number());
        self.fs.rename(path, &spare)?;
        state.ready.push_back(Spare { path: spare, bytes, file });
        drop(state);
        self.changed.notify_all();
        Ok(())
    }

    /// Waits until there are more, or for a second.
    pub(crate) fn wait_for_change(&self) {
        let state = self.state();
        if !self.is_stopping() {
            drop(self.changed.wait_timeout(state, Duration::from_secs(1)));
        }
    }

    pub(crate) fn note_group(&self, bytes: u64) {
        let average = self.group_bytes.load(Ordering::Relaxed);
        self.group_bytes.store(average - average / 8 + bytes / 8, Ordering::Relaxed);
    }

    pub(crate) fn note_active_left(&self, bytes: u64) {
        self.state().active_left = bytes;
    }

    /// How much the log can still take.
    pub(crate) fn space(&self) -> Space {
        let state = self.state();
        let usable = |spare: &Spare| spare.bytes.saturating_sub(SEGMENT_HEADER_BYTES);
        Space { is_full: state.is_full, left: state.active_left + state.ready.iter().map(usable).sum::<u64>() }
    }

    /// Where spares are, for messages.
    pub(crate) fn place(&self) -> String {
        format!("{}/{WAL_DIR}", self.place)
    }
}

impl SparesState {
    fn take_number(&mut self) -> u64 {
        self.next += 1;
        self.next - 1
    }
}

pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
