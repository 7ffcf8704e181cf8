//! The threads that run guests.
//!
//! Guests compute, and whoever computes keeps a thread for a whole tick. On threads of their own they cannot hold up the network or
//! the log. Among each other they share these threads by weight: see [`Share`] and [`Turns`].

mod share; // how much of the time a deployment has
mod turns; // whose turn it is
mod work; // what was given to the threads

use crate::limits::GUEST_NICE;
use async_task::{Runnable, ScheduleInfo, WithInfo};
use futures::FutureExt as _;
use rustix::time::ClockId;
pub use share::Share;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use turns::Turns;
pub use work::{Work, WorkEnded};

/// Threads for guests and nothing else. Dropping this abandons what still runs.
pub(crate) struct GuestThreads {
    /// `None`: guests run where whoever spawns them is.
    pool: Option<Arc<Pool>>,
}

struct Pool {
    waiting: Mutex<Waiting>,
    /// A thread without work waits here, one for each that is woken.
    work: Condvar,
    /// Whoever stops the threads waits here for the last one.
    ended: Condvar,
    /// Asks every task to end.
    stop: CancellationToken,
    timers: Timers,
}

struct Waiting {
    turns: Turns<Runnable>,
    /// Threads that wait for work.
    idle: usize,
    threads: usize,
    /// Tasks that have not ended.
    tasks: usize,
    /// Threads end as soon as no task is left.
    stopping: bool,
    /// What is not running by now does not run any more.
    abandoned: bool,
}

/// Wakes guests that wait for a time.
struct Timers {
    handle: Handle,
    runtime: Option<Runtime>,
}

impl Drop for Timers {
    fn drop(&mut self) {
        // The last owner may well be an asynchronous task, which must not wait for threads.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl GuestThreads {
    pub(crate) fn start(count: usize) -> io::Result<Self> {
        if count == 0 {
            return Ok(Self { pool: None });
        }
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("nodata-timers").enable_time().build()?;
        let pool = Arc::new(Pool {
            waiting: Mutex::new(Waiting {
                turns: Turns::default(),
                idle: 0,
                threads: 0,
                tasks: 0,
                stopping: false,
                abandoned: false,
            }),
            work: Condvar::new(),
            ended: Condvar::new(),
            stop: CancellationToken::new(),
            timers: Timers { handle: runtime.handle().clone(), runtime: Some(runtime) },
        });
        let threads = Self { pool: Some(pool.clone()) };
        for _ in 0..count {
            let thread = Thread::new(pool.clone());
            std::thread::Builder::new().name("nodata-guest".to_owned()).spawn(move || thread.run())?;
        }
        Ok(threads)
    }

    /// Runs a future as work of whoever has this share. It goes on when the answer is dropped.
    pub(crate) fn spawn<F>(&self, share: &Share, future: F) -> Work<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        let (told, work) = oneshot::channel();
        let Some(pool) = &self.pool else {
            tokio::spawn(async move {
                // Nobody may wait for it.
                let _ = told.send(AssertUnwindSafe(future).catch_unwind().await);
            });
            return Work(work);
        };
        let (task, stop) = (TaskGuard::new(pool.clone()), pool.stop.child_token());
        let future = async move {
            let _task = task;
            if let Some(ended) = stop.run_until_cancelled_owned(AssertUnwindSafe(future).catch_unwind()).await {
                let _ = told.send(ended);
            }
        };
        let (pool, share) = (pool.clone(), share.clone());
        let schedule = WithInfo(move |runnable, info: ScheduleInfo| pool.take(&share, runnable, &info));
        let (runnable, task) = async_task::spawn(future, schedule);
        task.detach();
        runnable.schedule();
        Work(work)
    }

    /// Drops every task at its next pause and waits for the threads, at most so long.
    pub(crate) async fn stop(&self, patience: Duration) {
        let Some(pool) = self.pool.clone() else { return };
        // Waiting blocks, which a thread of the caller's runtime must not.
        if let Err(error) = tokio::task::spawn_blocking(move || pool.stop(patience)).await {
            tracing::error!(%error, "stopping the guest threads failed");
        }
    }
}

impl Drop for GuestThreads {
    fn drop(&mut self) {
        if let Some(pool) = &self.pool {
            pool.begin_to_stop();
        }
    }
}

impl Pool {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        // Every change is whole before the lock is let go.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a task that can go on.
    fn take(&self, share: &Share, runnable: Runnable, info: &ScheduleInfo) {
        let mut waiting = self.waiting();
        if waiting.abandoned {
            drop(waiting);
            // Dropping it drops its future, and that may have something to say to other tasks.
            return drop(runnable);
        }
        waiting.turns.push(share, runnable);
        // A task that gives way does so on a thread that will look for the next one at once.
        let wakes = waiting.idle > 0 && !info.woken_while_running;
        drop(waiting);
        if wakes {
            self.work.notify_one();
        }
    }

    fn begin_to_stop(&self) {
        self.waiting().stopping = true;
        self.work.notify_all();
        self.stop.cancel();
    }

    fn stop(&self, patience: Duration) {
        self.begin_to_stop();
        let waiting = self.waiting();
        let ended = self.ended.wait_timeout_while(waiting, patience, |waiting| waiting.threads > 0);
        let (mut waiting, _) = ended.unwrap_or_else(PoisonError::into_inner);
        waiting.abandoned = true;
        let left = waiting.turns.take_all();
        drop(waiting);
        drop(left);
        self.work.notify_all();
    }
}

/// Counts a task as long as it is there.
struct TaskGuard(Arc<Pool>);

impl TaskGuard {
    fn new(pool: Arc<Pool>) -> Self {
        pool.waiting().tasks += 1;
        Self(pool)
    }
}

impl Drop for TaskGuard {
    fn drop(&mut self) {
        let mut waiting = self.0.waiting();
        waiting.tasks -= 1;
        let is_last = waiting.stopping && waiting.tasks == 0;
        drop(waiting);
        if is_last {
            self.0.work.notify_all();
        }
    }
}

/// One of the threads, counted as long as it is there.
struct Thread(Arc<Pool>);

impl Thread {
    fn new(pool: Arc<Pool>) -> Self {
        pool.waiting().threads += 1;
        Self(pool)
    }

    fn run(self) {
        give_way();
        let _entered = self.0.timers.handle.enter();
        let mut used = processor_time();
        let mut done = None;
        while let Some((share, runnable)) = self.next(done.take()) {
            // What panics is caught inside.
            runnable.run();
            let now = processor_time();
            let spent = now.saturating_sub(used);
            used = now;
            share.spend(spent);
            done = Some((share, spent));
        }
    }

    /// What comes next, after this was done; `None` at the end.
    fn next(&self, done: Option<(Share, Duration)>) -> Option<(Share, Runnable)> {
        let mut waiting = self.0.waiting();
        if let Some((share, spent)) = done {
            waiting.turns.done(&share, spent);
        }
        loop {
            if waiting.abandoned {
                return None;
            }
            if let Some(next) = waiting.turns.pop() {
                return Some(next);
            }
            if waiting.stopping && waiting.tasks == 0 {
                return None;
            }
            waiting.idle += 1;
            waiting = self.0.work.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            waiting.idle -= 1;
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.0.waiting().threads -= 1;
        self.0.ended.notify_all();
    }
}

/// What this thread has used so far.
fn processor_time() -> Duration {
    rustix::time::clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

/// Lowers the priority of this thread. On Linux, "process 0" means the calling thread.
fn give_way() {
    if let Err(error) = rustix::process::setpriority_process(None, GUEST_NICE) {
        tracing::debug!(%error, "the priority of a guest thread could not be lowered");
    }
}

#[cfg(test)]
mod tests;
