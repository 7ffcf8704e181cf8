//! Deployments against a model that never fails.
//!
//! The supervisor, its tasks and real components run on the real log, on a disk that loses power. Between them and the log stands one
//! that fails ([`faults`]): reads that go wrong, commits that are refused before they happened, commits that happened and whose
//! answer is lost, answers that come late, someone else who takes a task over, all at random. The process is killed, or the power goes,
//! and it starts again. Events tell the component to fail too, in every way there is, and operators reset and pause what runs.
//!
//! What must come of it is said by a few lines that know nothing of all that ([`expected`]): each event is processed once, in order. At
//! every start, and at the end, outputs, state and dead letters are those of exactly the events before the position of each task.
//!
//! Everything is in one thread, with a clock that goes on when nobody has anything to do, so a run takes no longer than its work
//! and the same seed is nearly the same run: only how long a call takes, and how it is given way to, is up to the machine.
//!
//! ```text
//! NODATA_CRASH_RUNS=10000 cargo test --release -p nodata --test model    for a night
//! NODATA_CRASH_SEED=7 NODATA_CRASH_RUNS=1 cargo test -p nodata --test model    one run of this seed
//! ```

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says why")]

mod expected;
mod faults;
mod found;
mod guests;
mod life;
mod story;

use guests::GUESTS;
use std::sync::LazyLock;
use story::Story;

#[allow(clippy::disallowed_methods, reason = "a test has no settings")]
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

#[test]
fn a_failure_from_before_a_reset_means_nothing_after_a_crash() {
    LazyLock::force(&GUESTS);
    Story::new(0).tell_of_a_reset();
}

#[test]
fn whatever_fails_each_event_is_processed_once() {
    LazyLock::force(&GUESTS);
    let first = number("NODATA_CRASH_SEED", 0);
    for seed in first..first + number("NODATA_CRASH_RUNS", 40) {
        // Said when the test fails.
        eprintln!("seed {seed}");
        Story::new(seed).tell();
    }
}
