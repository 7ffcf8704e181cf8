//! What the components of a deployment print.
//!
//! A bounded ring of lines: a component that prints without end costs a fixed amount of memory, and says so in its own
//! log. Lines are text that a terminal can show: what is not UTF-8 and what would move the cursor is replaced.

use crate::limits::{LOG_BYTES_MAX, LOG_LINE_BYTES_MAX, LOG_LINES_MAX, LOG_LINES_PER_SECOND};
use nodata_log::{Clock, TimestampUs};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::watch;

/// Who wrote a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogSource {
    Stdout,
    Stderr,
    /// This host, about the component.
    Host,
}

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// Counts the lines of this log, from 1.
    pub number: u64,
    pub time_us: TimestampUs,
    pub source: LogSource,
    /// The input partition of the task that wrote it.
    pub partition: u32,
    pub text: String,
}

/// The log of a deployment.
pub struct GuestLog {
    clock: Arc<dyn Clock>,
    lines_per_second: AtomicU32,
    ring: Mutex<Ring>,
    last: watch::Sender<u64>,
}

#[derive(Default)]
struct Ring {
    lines: VecDeque<LogLine>,
    bytes: usize,
    last: u64,
    /// The second that is being counted, by its beginning.
    second_us: TimestampUs,
    lines_in_second: u32,
    /// Lines that were not taken and not told of, and where the last one came from.
    dropped: u64,
    dropped_from: u32,
    counts: LogCounts,
}

/// What came of the lines of components, so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogCounts {
    pub written: u64,
    /// More than were allowed in a second.
    pub dropped: u64,
}

impl GuestLog {
    /// An empty log.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        let lines_per_second = AtomicU32::new(LOG_LINES_PER_SECOND);
        Self { clock, lines_per_second, ring: Mutex::default(), last: watch::Sender::new(0) }
    }

    /// How many lines components may write in a second, from now on.
    pub fn set_lines_per_second(&self, lines: u32) {
        self.lines_per_second.store(lines, Ordering::Relaxed);
    }

    /// How many lines components wrote so far.
    pub fn counts(&self) -> LogCounts {
        self.ring().counts
    }

    /// Adds a line that this host has to say about the component.
    pub fn note(&self, partition: u32, text: &str) {
        self.write(LogSource::Host, partition, text.as_bytes());
    }

    pub(crate) fn write(&self, source: LogSource, partition: u32, text: &[u8]) {
        let now_us = self.clock.now_us();
        let lines_per_second = self.lines_per_second.load(Ordering::Relaxed);
        let mut ring = self.ring();
        if !(0..1_000_000).contains(&now_us.wrapping_sub(ring.second_us)) {
            ring.tell_dropped(now_us, lines_per_second);
            ring.second_us = now_us;
            ring.lines_in_second = 0;
        }
        // The host is not what floods a log.
        if source != LogSource::Host {
            if ring.lines_in_second >= lines_per_second {
                ring.dropped += 1;
                ring.counts.dropped += 1;
                ring.dropped_from = partition;
                return;
            }
            ring.lines_in_second += 1;
            ring.counts.written += 1;
        }
        ring.push(now_us, source, partition, readable(text));
        let last = ring.last;
        drop(ring);
        self.last.send_replace(last);
    }

    /// The lines after this number that are still there, in order.
    pub fn since(&self, number: u64) -> Vec<LogLine> {
        let mut ring = self.ring();
        ring.tell_dropped(self.clock.now_us(), self.lines_per_second.load(Ordering::Relaxed));
        let first = ring.lines.front().map_or(0, |line| line.number);
        let known = (number + 1).saturating_sub(first) as usize;
        ring.lines.iter().skip(known).cloned().collect()
    }

    /// The number of the last line, as it moves: wait for it, then ask for what is new since.
    pub fn follow(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // A line is pushed whole or not at all, so a panic elsewhere leaves nothing half done.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ring {
    fn push(&mut self, time_us: TimestampUs, source: LogSource, partition: u32, text: String) {
        self.last += 1;
        self.bytes += text.len();
        self.lines.push_back(LogLine { number: self.last, time_us, source, partition, text });
        while self.lines.len() > LOG_LINES_MAX || self.bytes > LOG_BYTES_MAX {
            let Some(oldest) = self.lines.pop_front() else { break };
            self.bytes -= oldest.text.len();
        }
    }

    fn tell_dropped(&mut self, now_us: TimestampUs, lines_per_second: u32) {
        let dropped = std::mem::take(&mut self.dropped);
        if dropped > 0 {
            let text = format!("{dropped} lines dropped: more than {lines_per_second} in a second");
            self.push(now_us, LogSource::Host, self.dropped_from, text);
        }
    }
}

/// Text that a terminal can show, at most as long as a line may be.
pub(crate) fn readable(text: &[u8]) -> String {
    let text = &text[..text.len().min(LOG_LINE_BYTES_MAX)];
    let mut readable = String::with_capacity(text.len());
    for c in String::from_utf8_lossy(text).chars() {
        let c = if c.is_control() && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
        if readable.len() + c.len_utf8() > LOG_LINE_BYTES_MAX {
            break;
        }
        readable.push(c);
    }
    readable
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicI64, Ordering};

    #[derive(Default)]
    struct HandTurned(AtomicI64);

    impl Clock for HandTurned {
        fn now_us(&self) -> TimestampUs {
            self.0.load(Ordering::Relaxed)
        }
    }

    fn log() -> (GuestLog, Arc<HandTurned>) {
        let clock = Arc::new(HandTurned::default());
        (GuestLog::new(clock.clone()), clock)
    }

    fn texts(lines: &[LogLine]) -> Vec<&str> {
        lines.iter().map(|line| line.text.as_str()).collect()
    }

    #[test]
    fn lines_are_numbered_and_followed() {
        let (log, clock) = log();
        let mut follow = log.follow();
        clock.0.store(7, Ordering::Relaxed);
        log.write(LogSource::Stdout, 3, b"one");
        log.write(LogSource::Stderr, 3, b"two");
        assert!(follow.has_changed().unwrap());
        assert_eq!(*follow.borrow_and_update(), 2);
        let lines = log.since(0);
        let first = LogLine { number: 1, time_us: 7, source: LogSource::Stdout, partition: 3, text: "one".to_owned() };
        assert_eq!(lines[0], first);
        assert_eq!(texts(&log.since(1)), ["two"]);
        assert_eq!(texts(&log.since(2)), [""; 0]);
        assert_eq!(texts(&log.since(9)), [""; 0]);
    }

    #[test]
    fn the_oldest_lines_go_first() {
        let (log, clock) = log();
        for n in 0..LOG_LINES_MAX + 5 {
            clock.0.fetch_add(1_000_000, Ordering::Relaxed);
            log.note(0, &n.to_string());
        }
        let lines = log.since(0);
        assert_eq!(lines.len(), LOG_LINES_MAX);
        assert_eq!(lines[0].text, "5");
        assert_eq!(texts(&log.since(lines[0].number)), texts(&lines[1..]));

        let long = "x".repeat(LOG_LINE_BYTES_MAX);
        for _ in 0..100 {
            log.note(0, &long);
        }
        let lines = log.since(0);
        assert_eq!(lines.iter().map(|line| line.text.len()).sum::<usize>(), LOG_BYTES_MAX);
    }

    #[test]
    fn a_flood_is_counted_and_told() {
        let (log, clock) = log();
        let flood = LOG_LINES_PER_SECOND + 10;
        for _ in 0..flood {
            log.write(LogSource::Stdout, 2, b"again");
        }
        log.note(2, "the host is not limited");
        clock.0.store(1_000_000, Ordering::Relaxed);
        log.write(LogSource::Stdout, 2, b"later");
        let lines = log.since(u64::from(LOG_LINES_PER_SECOND));
        let told = "10 lines dropped: more than 200 in a second";
        assert_eq!(texts(&lines), ["the host is not limited", told, "later"]);

        // Whoever looks is told, also when nothing more comes.
        for _ in 0..flood {
            log.write(LogSource::Stdout, 2, b"again");
        }
        assert_eq!(
            log.since(0).last().map(|line| line.text.as_str()),
            Some("11 lines dropped: more than 200 in a second")
        );
    }

    #[test]
    fn how_many_lines_are_too_many_is_set() {
        let (log, clock) = log();
        log.set_lines_per_second(2);
        (0..5).for_each(|_| log.write(LogSource::Stderr, 0, b"again"));
        assert_eq!(log.counts(), LogCounts { written: 2, dropped: 3 });
        clock.0.store(1_000_000, Ordering::Relaxed);
        assert_eq!(texts(&log.since(2)), ["3 lines dropped: more than 2 in a second"]);
        // What was told counts once, and a note of the host is no line of a component.
        log.note(0, "a note");
        log.write(LogSource::Stderr, 0, b"later");
        assert_eq!(log.counts(), LogCounts { written: 3, dropped: 3 });
    }

    #[test]
    fn lines_are_cut_and_cannot_move_the_cursor() {
        assert_eq!(readable(b"a\tb"), "a\tb");
        assert_eq!(readable(b"\x1b[2J\xff"), "\u{fffd}[2J\u{fffd}");
        assert_eq!(readable(&vec![b'x'; LOG_LINE_BYTES_MAX + 1]).len(), LOG_LINE_BYTES_MAX);
        assert_eq!(readable(&vec![0xff; LOG_LINE_BYTES_MAX]).len(), LOG_LINE_BYTES_MAX / 3 * 3);
    }
}
