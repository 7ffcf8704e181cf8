//! One run: a scenario, the lives of a process on one disk, and what is true at each start and at the end.

use crate::expected::Expected;
use crate::found::{self, Seen};
use crate::life::{self, Process};
use nodata::deployment::{ErrorPolicy, OnPoison, Window};
use nodata_log::fs::simulated::{Chance, Crash, Faults, SimulatedFs};
use nodata_log::{EmbeddedLog, Log, Name, Offset, OwnerId, TaskKey, Topic};
use std::collections::BTreeMap;

pub(crate) const JOB: &str = "job";
pub(crate) const PARTITIONS_OUT: u32 = 3;

/// What is deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Transform,
    Sink,
    Aggregate { window: Window, lateness_us: i64 },
    Source { to: u64 },
}

#[derive(Clone, Debug)]
pub(crate) struct Scenario {
    pub(crate) seed: u64,
    pub(crate) job: Job,
    pub(crate) policy: ErrorPolicy,
    pub(crate) partitions: u32,
}

impl Scenario {
    fn new(seed: u64, chance: &mut Chance) -> Self {
        let window = match chance.below(3) {
            0 => Window::None,
            1 => Window::Sliding { size_us: 1000, slide_us: 1000 },
            _ => Window::Sliding { size_us: 1000, slide_us: 400 },
        };
        let job = match chance.below(8) {
            0..3 => Job::Transform,
            3..6 => Job::Aggregate { window, lateness_us: 300 * chance.below(3) as i64 },
            6 => Job::Sink,
            _ => Job::Source { to: 60 + chance.below(100) },
        };
        let then =
            [OnPoison::DeadLetter, OnPoison::DeadLetter, OnPoison::Skip, OnPoison::Pause][chance.below(4) as usize];
        let then = if matches!(job, Job::Source { .. }) { OnPoison::DeadLetter } else { then };
        // As often as it takes an event that says `later`.
        let retries = chance.percent(50).then_some(2);
        Self { seed, job, policy: ErrorPolicy { retries, then }, partitions: 1 + chance.below(3) as u32 }
    }

    pub(crate) fn has_windows(&self) -> bool {
        matches!(self.job, Job::Aggregate { window, .. } if window != Window::None)
    }

    fn lateness_us(&self) -> i64 {
        if let Job::Aggregate { lateness_us, .. } = self.job { lateness_us } else { 0 }
    }
}

/// What a task does between two resets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) from: Offset,
    pub(crate) to: Offset,
    /// It begins with nothing remembered.
    pub(crate) forgets: bool,
}

/// What a task was told, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct Told {
    /// Those that are over.
    spans: Vec<Span>,
    from: Offset,
    forgets: bool,
    /// A reset of which nobody knows whether it happened: where to, and whether it forgets.
    pub(crate) unsure: Option<(Offset, bool)>,
}

impl Told {
    /// It was told to go on elsewhere when it was at this offset.
    pub(crate) fn reset(&mut self, at: Offset, to: Offset, forgets: bool) {
        self.spans.push(Span { from: self.from, to: at, forgets: self.forgets });
        (self.from, self.forgets, self.unsure) = (to, forgets, None);
    }
}

pub(crate) struct Story {
    pub(crate) scenario: Scenario,
    pub(crate) chance: Chance,
    pub(crate) told: BTreeMap<u32, Told>,
    /// Events so far, for their names.
    pub(crate) events: u64,
    /// The latest time of an event.
    pub(crate) latest: i64,
    fs: SimulatedFs,
}

impl Story {
    pub(crate) fn new(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let scenario = Scenario::new(seed, &mut chance);
        let told = (0..scenario.partitions).map(|partition| (partition, Told::default())).collect();
        Self { scenario, chance, told, events: 0, latest: 0, fs: SimulatedFs::new(Faults::default()) }
    }

    /// A reset that nobody had time to finish is one all the same.
    pub(crate) fn tell_of_a_reset(mut self) {
        let policy = ErrorPolicy { retries: None, then: OnPoison::Pause };
        self.scenario = Scenario { seed: 0, job: Job::Transform, policy, partitions: 1 };
        Process::start(&self.fs, &self.scenario, 0).unwrap().fail_and_be_reset(&self);
        self.fs.crash(Crash { seed: 1, sector_bytes: 512 });
        Process::start(&self.fs, &self.scenario, 1).unwrap().come_to(&self, 2);
    }

    pub(crate) fn tell(mut self) {
        let lives = 2 + self.chance.below(3);
        for life in 0..lives {
            // After few calls of the disk as often as after many.
            let bits = self.chance.below(10);
            let crash_at = (life > 0 && self.chance.percent(40)).then(|| self.chance.below(1 << bits));
            self.fs.set_faults(Faults { crash_at, ..Faults::default() });
            if let Some(process) = Process::start(&self.fs, &self.scenario, life) {
                process.run(&mut self, false);
            }
            if crash_at.is_some() || self.chance.percent(50) {
                self.fs.crash(Crash { seed: self.chance.number(), sector_bytes: 512 });
            } else {
                self.fs.kill();
            }
        }
        self.fs.set_faults(Faults::default());
        let process = Process::start(&self.fs, &self.scenario, lives).unwrap();
        process.run(&mut self, true);
    }

    /// The keys of its tasks. A source has one, which is named after what it writes to.
    pub(crate) fn tasks(&self, log: &EmbeddedLog) -> Vec<TaskKey> {
        let topic = if matches!(self.scenario.job, Job::Source { .. }) { "out" } else { "in" };
        let Ok(topic) = log.topic(&Name::new(topic).unwrap()) else { return Vec::new() };
        let key = |source| TaskKey { owner: OwnerId(life::OWNER), source };
        topic.partitions().take(self.told.len()).map(key).collect()
    }

    /// What there is of each task is what comes of the events before its position.
    pub(crate) fn check(&mut self, log: &EmbeddedLog, when: &str) {
        if let Job::Source { to } = self.scenario.job {
            return self.check_source(log, to, when);
        }
        for task in self.tasks(log) {
            let seen = found::seen(log, &self.scenario, task);
            let partition = task.source.partition;
            let position = log.task_position(task).next;
            let events = found::sent(log, task.source);
            let told = &self.told[&partition];
            let at = position.unwrap_or(told.from);
            let mut as_told = told.clone();
            as_told.unsure = None;
            let end = log.bounds(task.source).unwrap().end;
            let known = self.expected(&as_told, partition, &events, at, &seen);
            let moved = told.unsure.filter(|_| known.as_ref() != Some(&seen)).and_then(|(to, forgets)| {
                (0..=end).find_map(|from| {
                    let mut moved = told.clone();
                    moved.reset(from, to, forgets);
                    (self.expected(&moved, partition, &events, at, &seen).as_ref() == Some(&seen)).then_some(moved)
                })
            });
            let found = match moved {
                Some(moved) => moved,
                None => {
                    let context = format!("seed {} {when}, partition {partition} at {position:?}", self.scenario.seed);
                    let events: Vec<_> = events.iter().map(|(at, sent)| format!("{at} {sent:?}")).collect();
                    assert_eq!(
                        Some(&seen),
                        known.as_ref(),
                        "{context}: {:?} {told:?}\n{}",
                        self.scenario,
                        events.join("\n")
                    );
                    as_told
                }
            };
            self.told.insert(partition, found);
        }
    }

    /// What should be seen of a task that is there. Windows are closed one call after the other, so some may still be open.
    fn expected(
        &self,
        told: &Told,
        partition: u32,
        events: &[(Offset, found::Sent)],
        at: Offset,
        seen: &Seen,
    ) -> Option<Seen> {
        let mut expected = Expected::default();
        for span in &told.spans {
            expected.play(&self.scenario, partition, events, span)?;
        }
        let last = Span { from: told.from, to: at, forgets: told.forgets };
        expected.play(&self.scenario, partition, events, &last)?;
        if self.scenario.has_windows() {
            let closed = seen.out.values().map(Vec::len).sum();
            expected.close(self.scenario.lateness_us(), closed);
        }
        Some(expected.seen())
    }

    /// Whether everything that should come of it is there.
    pub(crate) fn is_done(&self, log: &EmbeddedLog) -> bool {
        if let Job::Source { to } = self.scenario.job {
            return numbers(log).len() as u64 >= to;
        }
        for task in self.tasks(log) {
            let position = log.task_position(task).next;
            let seen = found::seen(log, &self.scenario, task);
            let end = log.bounds(task.source).unwrap().end;
            if position.unwrap_or(self.told[&task.source.partition].from) < end {
                return false;
            }
            if self.scenario.has_windows() {
                let events = found::sent(log, task.source);
                let told = &self.told[&task.source.partition];
                let mut all = Expected::default();
                for span in told.spans.iter().chain([&Span { from: told.from, to: end, forgets: told.forgets }]) {
                    if all.play(&self.scenario, task.source.partition, &events, span).is_none() {
                        return true;
                    }
                }
                all.close(self.scenario.lateness_us(), usize::MAX);
                if seen.out.values().map(Vec::len).sum::<usize>() < all.out.len() {
                    return false;
                }
            }
        }
        true
    }

    /// Numbers come in order for each key, and none is left out or comes twice.
    fn check_source(&self, log: &EmbeddedLog, to: u64, when: &str) {
        let numbers = numbers(log);
        let mut sorted = numbers.clone();
        sorted.sort_unstable();
        let expected: Vec<u64> = (0..sorted.len() as u64).collect();
        assert_eq!(sorted, expected, "seed {} {when}: {:?}", self.scenario.seed, self.scenario);
        assert!(sorted.len() as u64 <= to);
        for key in 0..7 {
            let own: Vec<u64> = numbers.iter().copied().filter(|number| number % 7 == key).collect();
            assert!(own.is_sorted(), "seed {} {when}, key {key}: {own:?}", self.scenario.seed);
        }
    }
}

/// What a source has brought in: in order in each partition.
fn numbers(log: &EmbeddedLog) -> Vec<u64> {
    let topic: Topic = log.topic(&Name::new("out").unwrap()).unwrap();
    let values = topic.partitions().flat_map(|tp| found::sent(log, tp));
    values.map(|(_, sent)| sent.value.parse().unwrap()).collect()
}
