//! The model: what comes of events, one after the other, when nothing fails.

use crate::found::{Seen, Sent};
use crate::story::{Job, PARTITIONS_OUT, Scenario, Span};
use nodata::deployment::{OnPoison, Window};
use nodata_log::{Offset, TimestampUs, partition_of_key};
use std::collections::BTreeMap;

/// What there is of one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Expected {
    /// In order, with the partition that each goes to.
    pub(crate) out: Vec<(u32, String)>,
    pub(crate) late: Vec<(u32, String)>,
    pub(crate) letters: Vec<(Offset, String)>,
    /// Events that a transform numbered, or that a sink delivered.
    pub(crate) count: u64,
    /// Groups: key, start and end of the window.
    pub(crate) groups: BTreeMap<Group, u64>,
    latest: Option<TimestampUs>,
}

pub(crate) type Group = (TimestampUs, String, TimestampUs);

impl Expected {
    /// Events between two resets. `None`: a task cannot have come past one of them.
    pub(crate) fn play(
        &mut self,
        scenario: &Scenario,
        partition: u32,
        events: &[(Offset, Sent)],
        span: &Span,
    ) -> Option<()> {
        if span.forgets {
            (self.count, self.latest) = (0, None);
            self.groups.clear();
        }
        for (offset, event) in events.iter().filter(|(offset, _)| (span.from..span.to).contains(offset)) {
            self.event(scenario, partition, *offset, event)?;
        }
        Some(())
    }

    fn event(&mut self, scenario: &Scenario, partition: u32, offset: Offset, event: &Sent) -> Option<()> {
        let word = event.value.split(' ').next().unwrap();
        let is_poison = matches!(word, "panic" | "refuse" | "never");
        let to = |key: &Option<String>| match key {
            Some(key) => partition_of_key(key.as_bytes(), PARTITIONS_OUT),
            None => partition % PARTITIONS_OUT,
        };
        // Of an aggregate: the windows it belongs to, and those that are still open.
        let windows = match scenario.job {
            Job::Aggregate { window, .. } => windows(window, event.at),
            _ => Vec::new(),
        };
        let lateness_us = if let Job::Aggregate { lateness_us, .. } = scenario.job { lateness_us } else { 0 };
        let watermark = self.latest.map_or(TimestampUs::MIN, |latest| latest - lateness_us);
        let open: Vec<(TimestampUs, TimestampUs)> =
            windows.iter().copied().filter(|(_, end)| *end > watermark).collect();
        // The group is the key, and the component does not see what is in none.
        let has_group = event.key.is_some();
        let is_in_none = matches!(scenario.job, Job::Aggregate { .. }) && (!has_group || open.is_empty());
        if is_poison && !is_in_none {
            match scenario.policy.then {
                OnPoison::DeadLetter => self.letters.push((offset, event.value.clone())),
                OnPoison::Skip => {}
                OnPoison::Pause => return None,
            }
            return Some(());
        }
        self.latest = self.latest.max(Some(event.at));
        if is_in_none {
            if has_group {
                self.late.push((to(&event.key), event.value.clone()));
            }
        } else if word == "aside" {
            self.letters.push((offset, event.value.clone()));
        } else if let Job::Aggregate { .. } = scenario.job {
            for (start, end) in open {
                *self.groups.entry((end, event.key.clone().unwrap(), start)).or_default() += 1;
            }
        } else {
            self.count += 1;
            let times = match word {
                "nothing" => 0,
                "twice" => 2,
                _ => 1,
            };
            if scenario.job == Job::Transform {
                let out = (to(&event.key), format!("{} {}", self.count, event.value));
                self.out.extend(std::iter::repeat_n(out, times));
            }
        }
        Some(())
    }

    /// Closes the windows that end so early, the first ones first, at most so many.
    pub(crate) fn close(&mut self, lateness_us: i64, most: usize) {
        let watermark = self.latest.map_or(TimestampUs::MIN, |latest| latest - lateness_us);
        for _ in 0..most {
            let Some(first) = self.groups.first_entry().filter(|group| group.key().0 <= watermark) else { break };
            let ((end, key, _), count) = first.remove_entry();
            let to = partition_of_key(key.as_bytes(), PARTITIONS_OUT);
            self.out.push((to, format!("{key}: {count} at {end}")));
        }
    }

    /// What of it can be seen.
    pub(crate) fn seen(&self) -> Seen {
        let by_partition = |all: &[(u32, String)]| {
            let mut by_partition: BTreeMap<u32, Vec<String>> = BTreeMap::new();
            for (partition, value) in all {
                by_partition.entry(*partition).or_default().push(value.clone());
            }
            by_partition
        };
        Seen {
            out: by_partition(&self.out),
            late: by_partition(&self.late),
            letters: self.letters.clone(),
            count: self.count,
            groups: {
                let shown = |((end, key, start), count): (&Group, &u64)| (*start, *end, format!("{key}: {count}"));
                let mut groups: Vec<_> = self.groups.iter().map(shown).collect();
                groups.sort();
                groups
            },
        }
    }
}

/// Start and end of each window that an event is in.
fn windows(window: Window, at: TimestampUs) -> Vec<(TimestampUs, TimestampUs)> {
    match window {
        Window::None => vec![(TimestampUs::MIN, TimestampUs::MAX)],
        Window::Sliding { size_us, slide_us } => {
            let starts = (0..).map(|n| (at / slide_us - n) * slide_us).take_while(|start| start + size_us > at);
            starts.map(|start| (start, start + size_us)).collect()
        }
        Window::Session { .. } => unreachable!("no scenario has sessions"),
    }
}
