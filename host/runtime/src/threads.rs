//! The threads that run guests.
//!
//! Guests compute, and whoever computes keeps a thread for a whole tick. On threads of their own they cannot hold up the
//! network or the log.

use crate::limits::GUEST_NICE;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::task::JoinHandle;

/// A runtime for guests and nothing else. Dropping it abandons what still runs.
pub(crate) struct GuestThreads {
    /// `None`: guests run where whoever spawns them is.
    handle: Option<Handle>,
    /// `None` when it was stopped.
    runtime: Mutex<Option<Runtime>>,
}

impl GuestThreads {
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        if count == 0 {
            return Ok(Self { handle: None, runtime: Mutex::default() });
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(count)
            .thread_name("nodata-guest")
            .on_thread_start(give_way)
            .enable_time()
            .build()?;
        Ok(Self { handle: Some(runtime.handle().clone()), runtime: Mutex::new(Some(runtime)) })
    }

    pub(crate) fn spawn<F>(&self, future: F) -> JoinHandle<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        match &self.handle {
            Some(threads) => threads.spawn(future),
            None => tokio::spawn(future),
        }
    }

    /// Drops every task at its next pause and waits for the threads, at most so long.
    pub(crate) async fn stop(&self, patience: Duration) {
        if let Some(runtime) = self.take() {
            // Waiting blocks, which a thread of the caller's runtime must not.
            let stopped = tokio::task::spawn_blocking(move || runtime.shutdown_timeout(patience)).await;
            if let Err(error) = stopped {
                tracing::error!(%error, "stopping the guest threads failed");
            }
        }
    }

    fn take(&self) -> Option<Runtime> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for GuestThreads {
    fn drop(&mut self) {
        // The last owner may well be an asynchronous task, which must not wait for threads.
        if let Some(runtime) = self.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lowers the priority of this thread. On Linux, "process 0" means the calling thread.
fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(None, GUEST_NICE) {
        tracing::debug!(%error, "the priority of a guest thread could not be lowered");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::oneshot;

    #[test]
    fn guests_run_apart_and_give_way() {
        let threads = GuestThreads::start(1).unwrap();
        let who = threads.spawn(async {
            let name = std::thread::current().name().map(str::to_owned);
            (name, rustix::process::getpriority_process(None).unwrap())
        });
        let (name, nice) = threads.handle.as_ref().unwrap().block_on(who).unwrap();
        assert_eq!(name.as_deref(), Some("nodata-guest"));
        assert!(nice >= GUEST_NICE, "{nice}");
        assert_ne!(rustix::process::getpriority_process(None).unwrap(), nice);
    }

    #[tokio::test]
    async fn stopping_ends_every_task() {
        let threads = GuestThreads::start(1).unwrap();
        let (alive, ended) = oneshot::channel::<()>();
        let task = threads.spawn(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        threads.stop(Duration::from_secs(60)).await;
        assert!(ended.await.is_err());
        assert!(task.await.unwrap_err().is_cancelled());
        // Nothing starts any more, and nothing panics.
        assert!(threads.spawn(async {}).await.unwrap_err().is_cancelled());
        threads.stop(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn without_threads_guests_run_where_they_are_spawned() {
        let threads = GuestThreads::start(0).unwrap();
        let here = std::thread::current().id();
        assert_eq!(threads.spawn(async { std::thread::current().id() }).await.unwrap(), here);
        threads.stop(Duration::ZERO).await;
    }

    #[tokio::test]
    async fn dropping_it_inside_of_a_task_is_allowed() {
        drop(GuestThreads::start(1).unwrap());
    }
}
