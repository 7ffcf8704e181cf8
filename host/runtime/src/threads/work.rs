//! What was given to the threads, as whoever gave it sees it.

use std::any::Any;
use std::pin::Pin;
use std::task::{Context, Poll};
use thiserror::Error;
use tokio::sync::oneshot;

/// Something that runs on the guest threads: a future of what comes of it. Dropping this does not end it.
pub struct Work<T>(pub(super) oneshot::Receiver<Result<T, Box<dyn Any + Send>>>);

/// Why nothing came of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum WorkEnded {
    #[error("it panicked")]
    Panicked,
    #[error("the guest threads were stopped")]
    Stopped,
}

impl<T> Future for Work<T> {
    type Output = Result<T, WorkEnded>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx).map(|told| match told {
            Ok(Ok(output)) => Ok(output),
            Ok(Err(_)) => Err(WorkEnded::Panicked),
            Err(_) => Err(WorkEnded::Stopped),
        })
    }
}
