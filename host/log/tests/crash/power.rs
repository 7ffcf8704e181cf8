//! The power goes, or the process is killed, at every point.

use crate::workload::{History, open_with, step};
use nodata_log::OpenError;
use nodata_log::fs::SyncSite;
use nodata_log::fs::simulated::{Chance, Crash, Faults, SimulatedFs};

/// How a life of the process ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The machine loses power: what no sync covered is partly there.
    Power,
    /// The process is killed: everything written is there, and still waits for a sync.
    Kill,
}

/// One run: some lives of the process on one disk, each with a random user, and a check at every start.
pub(crate) struct Run {
    pub(crate) seed: u64,
    pub(crate) steps: u64,
    pub(crate) lost_syncs: Option<SyncSite>,
    pub(crate) short_writes: bool,
    /// How each life ends, and at which call of the disk if that is to be in the middle of something.
    pub(crate) lives: Vec<(End, Option<u64>)>,
}

impl Run {
    /// Lives the lives, and answers with the number of calls that each took.
    pub(crate) fn live(&self) -> Vec<u64> {
        let fs = SimulatedFs::new(Faults::default());
        let mut chance = Chance::new(self.seed);
        let mut history = History::default();
        let mut calls = Vec::new();
        for (life, (end, crash_at)) in self.lives.iter().enumerate() {
            let context = format!("seed {} life {life} {end:?} {crash_at:?}", self.seed);
            fs.set_faults(Faults {
                crash_at: *crash_at,
                short_writes: self.short_writes,
                lost_syncs: self.lost_syncs,
                ..Faults::default()
            });
            self.one_life(&fs, &mut history, &mut chance, life as u64, &context);
            calls.push(fs.calls());
            history.collect();
            match end {
                End::Power => {
                    let sector_bytes = [512, 4096][chance.below(2) as usize];
                    fs.crash(Crash { seed: chance.number(), sector_bytes });
                }
                End::Kill => fs.kill(),
            }
        }
        // The last start, with nothing going wrong.
        let context = format!("seed {} at the end", self.seed);
        fs.set_faults(Faults { lost_syncs: self.lost_syncs, ..Faults::default() });
        let log = open_with(&fs, &history.files, u64::MAX).unwrap_or_else(|error| panic!("{context}: {error}"));
        history.check(&log, &context);
        calls
    }

    fn one_life(&self, fs: &SimulatedFs, history: &mut History, chance: &mut Chance, life: u64, context: &str) {
        let log = match open_with(fs, &history.files, self.seed.wrapping_mul(1000) + life) {
            Ok(log) => log,
            Err(OpenError::Io { source, .. }) if source.to_string() == "simulated power loss" => return,
            // redb wraps the error of its file in a text of its own.
            Err(OpenError::Checkpoint { what, .. }) if what.contains("simulated power loss") => return,
            Err(error) => panic!("{context}: {error}"),
        };
        history.check(&log, context);
        for _ in 0..self.steps {
            if step(&log, history, chance).is_err() {
                return;
            }
        }
        if chance.percent(20) {
            log.by_hand().mark().ok();
            drop(log.by_hand().checkpoint());
        }
    }
}

/// Where the calls of one life end, by trying it without a crash.
fn calls_of_last_life(seed: u64, steps: u64, before: &[(End, Option<u64>)]) -> u64 {
    let lives = before.iter().copied().chain([(End::Power, None)]).collect();
    let calls = Run { seed, steps, lost_syncs: None, short_writes: false, lives }.live();
    *calls.last().unwrap()
}

#[test]
fn a_crash_at_every_call_of_the_first_life_loses_nothing_that_was_promised() {
    for seed in 0..6 {
        let calls = calls_of_last_life(seed, 60, &[]);
        for crash_at in 0..calls {
            let lives = vec![(End::Power, Some(crash_at)), (End::Power, None)];
            Run { seed, steps: 60, lost_syncs: None, short_writes: false, lives }.live();
        }
    }
}

#[test]
fn a_crash_at_every_call_of_a_later_life_loses_nothing_that_was_promised() {
    for seed in 100..104 {
        for before in [End::Power, End::Kill] {
            let before = (before, None);
            let calls = calls_of_last_life(seed, 50, &[before]);
            for crash_at in 0..calls {
                let lives = vec![before, (End::Power, Some(crash_at)), (End::Kill, None)];
                Run { seed, steps: 50, lost_syncs: None, short_writes: false, lives }.live();
            }
        }
    }
}

/// Many lives on one disk: what one leaves behind must not confuse a later one.
#[test]
fn many_crashes_on_one_disk_lose_nothing_that_was_promised() {
    for seed in 1000..1000 + runs() {
        let mut chance = Chance::new(seed);
        let lives = (0..12)
            .map(|_| {
                let end = if chance.percent(30) { End::Kill } else { End::Power };
                (end, chance.percent(70).then(|| chance.below(150)))
            })
            .collect();
        Run { seed, steps: 80, lost_syncs: None, short_writes: true, lives }.live();
    }
}

/// `NODATA_CRASH_RUNS=100000 cargo test --release -p nodata-log --test crash many_crashes` runs for an hour or so.
#[allow(clippy::disallowed_methods, reason = "a test has no settings")]
fn runs() -> u64 {
    std::env::var("NODATA_CRASH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(60)
}

/// The same seed is the same run: without that, a failure could not be looked at.
#[test]
fn a_run_can_be_repeated() {
    let run = || Run {
        seed: 5,
        steps: 80,
        lost_syncs: None,
        short_writes: true,
        lives: vec![(End::Power, Some(100)), (End::Kill, None), (End::Power, None)],
    };
    assert_eq!(run().live(), run().live());
}
