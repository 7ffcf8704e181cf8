//! Standard output and standard error of an instance: lines for the log of its deployment.
//!
//! Writing is done when the guest's call returns, on the guest's own thread, so that the message of a panic is there when
//! the trap that follows is reported.

use crate::guest_log::{GuestLog, LogSource, readable};
use crate::limits::{LOG_LINE_BYTES_MAX, STDERR_TAIL_LINES};
use bytes::Bytes;
use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use tokio::io::AsyncWrite;
use wasmtime_wasi::cli::{IsTerminal, StdoutStream};
use wasmtime_wasi::p2::{DynOutputStream, OutputStream, Pollable, StreamResult};

/// Bytes that a guest may write at once, as WASI suggests.
const WRITE_BYTES_MAX: usize = 64 << 10;

/// One of the two streams of an instance. Clones write to the same lines.
#[derive(Clone)]
pub(crate) struct GuestStream {
    lines: Arc<Mutex<Lines>>,
}

struct Lines {
    log: Arc<GuestLog>,
    source: LogSource,
    partition: u32,
    /// The line that has not ended yet, as far as it will be kept.
    open: Vec<u8>,
    is_open: bool,
    /// The last lines, also those that the log did not take.
    tail: VecDeque<String>,
}

impl GuestStream {
    pub(crate) fn new(log: Arc<GuestLog>, source: LogSource, partition: u32) -> Self {
        let lines = Lines { log, source, partition, open: Vec::new(), is_open: false, tail: VecDeque::new() };
        Self { lines: Arc::new(Mutex::new(lines)) }
    }

    /// The last lines. A line that was not ended ends here.
    pub(crate) fn tail(&self) -> Vec<String> {
        let mut lines = self.lines();
        if lines.is_open {
            lines.end();
        }
        lines.tail.iter().cloned().collect()
    }

    fn write_bytes(&self, bytes: &[u8]) {
        let mut lines = self.lines();
        let mut pieces = bytes.split(|&byte| byte == b'\n');
        // There is always a last piece, behind the last newline: it opens the next line.
        let last = pieces.next_back().unwrap_or_default();
        for piece in pieces {
            lines.add(piece);
            lines.end();
        }
        if !last.is_empty() {
            lines.add(last);
        }
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lines {
    fn add(&mut self, piece: &[u8]) {
        let room = LOG_LINE_BYTES_MAX - self.open.len();
        self.open.extend_from_slice(&piece[..piece.len().min(room)]);
        self.is_open = true;
    }

    fn end(&mut self) {
        let line = self.open.strip_suffix(b"\r").unwrap_or(&self.open);
        self.log.write(self.source, self.partition, line);
        if self.tail.len() == STDERR_TAIL_LINES {
            self.tail.pop_front();
        }
        self.tail.push_back(readable(line));
        self.open.clear();
        self.is_open = false;
    }
}

impl Drop for Lines {
    /// What was printed without an end of line is not lost with its instance.
    fn drop(&mut self) {
        if self.is_open {
            self.end();
        }
    }
}

impl IsTerminal for GuestStream {
    fn is_terminal(&self) -> bool {
        false
    }
}

impl StdoutStream for GuestStream {
    fn async_stream(&self) -> Box<dyn AsyncWrite + Send + Sync> {
        Box::new(self.clone())
    }

    fn p2_stream(&self) -> DynOutputStream {
        Box::new(self.clone())
    }
}

impl OutputStream for GuestStream {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        self.write_bytes(&bytes);
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        Ok(())
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        Ok(WRITE_BYTES_MAX)
    }
}

#[wasmtime_wasi::async_trait]
impl Pollable for GuestStream {
    async fn ready(&mut self) {}
}

impl AsyncWrite for GuestStream {
    fn poll_write(self: Pin<&mut Self>, _cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.write_bytes(bytes);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_log::SystemClock;

    fn written(pieces: &[&str]) -> (Vec<String>, Vec<String>) {
        let log = Arc::new(GuestLog::new(Arc::new(SystemClock)));
        let stream = GuestStream::new(log.clone(), LogSource::Stderr, 1);
        for piece in pieces {
            stream.write_bytes(piece.as_bytes());
        }
        let logged = log.since(0).into_iter().map(|line| line.text).collect();
        (logged, stream.tail())
    }

    #[test]
    fn bytes_become_lines() {
        let (logged, tail) = written(&["on", "e\n\ntwo\r\nthr", "ee"]);
        assert_eq!(logged, ["one", "", "two"]);
        assert_eq!(tail, ["one", "", "two", "three"]);
    }

    #[test]
    fn a_line_without_end_is_cut() {
        let (logged, _) = written(&["x".repeat(3000).as_str(), "y".repeat(3000).as_str(), "z\nnext\n"]);
        assert_eq!(logged[0], "x".repeat(3000) + &"y".repeat(1096));
        assert_eq!(logged[1], "next");
    }

    #[test]
    fn the_tail_is_kept_when_the_log_is_full() {
        let flood: String = (0..1000).map(|n| format!("line {n}\n")).collect();
        let (logged, tail) = written(&[&flood]);
        assert_eq!(logged.len(), 201);
        assert_eq!(tail.len(), STDERR_TAIL_LINES);
        assert_eq!(tail.last().unwrap(), "line 999");
    }
}
