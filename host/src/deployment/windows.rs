//! Which group and window an event belongs to, in event time.
//!
//! The watermark of a partition is the greatest timestamp so far, less the lateness that is allowed. A window is closed when the
//! watermark has reached its end, and an event is late for a window that was closed before it came. All of this is decided event
//! by event, so the results do not depend on how events happen to be divided into batches.

use bytes::Bytes;
use nodata_log::TimestampUs;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};

/// How events are divided in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Window {
    /// Not at all.
    None,
    /// Windows of one size, one beginning every `slide_us`. Tumbling: they are equal.
    Sliding { size_us: i64, slide_us: i64 },
    /// An event less than this away from others is in one session with them.
    Session { gap_us: i64 },
}

/// A window: from its start to before its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Span {
    pub(crate) start: TimestampUs,
    pub(crate) end: TimestampUs,
}

impl Span {
    /// All of time.
    pub(crate) const ALL: Self = Self { start: TimestampUs::MIN, end: TimestampUs::MAX };
}

/// The event time of a partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventTime {
    /// The greatest timestamp so far.
    pub(crate) latest: Option<TimestampUs>,
}

impl EventTime {
    /// Windows that end here or earlier are closed.
    pub(crate) fn watermark(self, lateness_us: i64) -> TimestampUs {
        self.latest.map_or(TimestampUs::MIN, |latest| latest.saturating_sub(lateness_us))
    }

    pub(crate) fn observe(&mut self, timestamp: TimestampUs) {
        self.latest = self.latest.max(Some(timestamp));
    }
}

/// A group of a batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) key: Bytes,
    pub(crate) span: Span,
    /// What is stored of it: one window that is the same or, of sessions, all that have grown together, in order.
    pub(crate) stored: Vec<Span>,
}

/// Where the rows of a batch belong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plan {
    pub(crate) groups: Vec<Group>,
    /// Row and group, in order of the rows within each group.
    pub(crate) members: Vec<(u32, u32)>,
    /// Rows that came too late for every window they belong to.
    pub(crate) late: Vec<u32>,
    pub(crate) time: EventTime,
}

/// The sessions of a key in one batch, and before.
#[derive(Debug, Default)]
struct Sessions {
    open: Vec<Session>,
}

#[derive(Debug)]
struct Session {
    span: Span,
    stored: Vec<Span>,
    rows: Vec<u32>,
}

impl Plan {
    /// Divides rows, each with its key, where `None` is in no group, and its timestamp. `stored` gives the sessions of a key that are
    /// not closed; of other windows it is not asked.
    pub(crate) fn new<E>(
        window: Window,
        lateness_us: i64,
        time: EventTime,
        rows: impl IntoIterator<Item = (Option<Bytes>, TimestampUs)>,
        mut stored: impl FnMut(&Bytes) -> Result<Vec<Span>, E>,
    ) -> Result<Self, E> {
        let mut plan = Self { time, ..Self::default() };
        let mut places: HashMap<(Bytes, Span), u32> = HashMap::new();
        let mut sessions: BTreeMap<Bytes, Sessions> = BTreeMap::new();
        for (row, (key, timestamp)) in (0..).zip(rows) {
            let watermark = plan.time.watermark(lateness_us);
            plan.time.observe(timestamp);
            let Some(key) = key else { continue };
            match window {
                Window::None => plan.add(&mut places, row, key, Span::ALL),
                Window::Sliding { size_us, slide_us } => {
                    let mut is_late = true;
                    for span in spans(timestamp, size_us, slide_us).filter(|span| span.end > watermark) {
                        plan.add(&mut places, row, key.clone(), span);
                        is_late = false;
                    }
                    if is_late {
                        plan.late.push(row);
                    }
                }
                Window::Session { gap_us } => {
                    let span = Span { start: timestamp, end: timestamp.saturating_add(gap_us) };
                    if span.end <= watermark {
                        plan.late.push(row);
                        continue;
                    }
                    let of_key = match sessions.get_mut(&key) {
                        Some(known) => known,
                        None => {
                            let open = stored(&key)?.into_iter();
                            let open =
                                open.map(|span| Session { span, stored: vec![span], rows: Vec::new() }).collect();
                            sessions.entry(key).or_insert(Sessions { open })
                        }
                    };
                    of_key.add(row, span, watermark);
                }
            }
        }
        for (key, Sessions { open }) in sessions {
            for Session { span, mut stored, mut rows } in open {
                if rows.is_empty() {
                    continue;
                }
                stored.sort();
                rows.sort_unstable();
                let group = plan.groups.len() as u32;
                plan.groups.push(Group { key: key.clone(), span, stored });
                plan.members.extend(rows.into_iter().map(|row| (row, group)));
            }
        }
        Ok(plan)
    }

    fn add(&mut self, places: &mut HashMap<(Bytes, Span), u32>, row: u32, key: Bytes, span: Span) {
        let group = *places.entry((key, span)).or_insert_with_key(|(key, span)| {
            self.groups.push(Group { key: key.clone(), span: *span, stored: vec![*span] });
            self.groups.len() as u32 - 1
        });
        self.members.push((row, group));
    }
}

impl Sessions {
    /// Adds an event; sessions that it reaches become one with it, but none that is closed.
    fn add(&mut self, row: u32, span: Span, watermark: TimestampUs) {
        let mut whole = Session { span, stored: Vec::new(), rows: vec![row] };
        let mut at = 0;
        while at < self.open.len() {
            let other = &self.open[at];
            let touches = other.span.start <= whole.span.end && whole.span.start <= other.span.end;
            if touches && other.span.end > watermark {
                let other = self.open.swap_remove(at);
                whole.span.start = whole.span.start.min(other.span.start);
                whole.span.end = whole.span.end.max(other.span.end);
                whole.stored.extend(other.stored);
                whole.rows.extend(other.rows);
                // What it has become may reach one that it did not before.
                at = 0;
            } else {
                at += 1;
            }
        }
        self.open.push(whole);
    }
}

/// The windows around a moment, the earliest last.
fn spans(timestamp: TimestampUs, size_us: i64, slide_us: i64) -> impl Iterator<Item = Span> {
    let last = timestamp.saturating_sub(timestamp.rem_euclid(slide_us));
    let starts = std::iter::successors(Some(last), move |start| start.checked_sub(slide_us));
    starts
        .take_while(move |start| timestamp.saturating_sub(*start) < size_us)
        .map(move |start| Span { start, end: start.saturating_add(size_us) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    type Rows = Vec<(u8, i64)>;

    fn rows() -> impl Strategy<Value = Rows> {
        prop::collection::vec((0u8..4, 0i64..200), 0..60)
    }

    fn window() -> impl Strategy<Value = Window> {
        prop_oneof![
            Just(Window::None),
            (1i64..40).prop_map(|size_us| Window::Sliding { size_us, slide_us: size_us }),
            (1i64..40, 1i64..40)
                .prop_map(|(one, other)| Window::Sliding { size_us: one.max(other), slide_us: one.min(other) }),
            (1i64..30).prop_map(|gap_us| Window::Session { gap_us }),
        ]
    }

    /// Results by key and window: the rows in them.
    type Results = BTreeMap<(u8, Span), Vec<u32>>;

    /// Plays events in batches, as a task does, and answers with all windows, closed or not, and with the late rows.
    fn play(window: Window, lateness: i64, rows: &Rows, batches: &[usize]) -> (Results, BTreeSet<u32>) {
        let mut open: Results = BTreeMap::new();
        let mut closed: Vec<((u8, Span), Vec<u32>)> = Vec::new();
        let mut late = BTreeSet::new();
        let mut time = EventTime::default();
        let mut at = 0;
        let mut sizes = batches.iter().copied().cycle();
        while at < rows.len() {
            let end = (at + sizes.next().unwrap_or(1)).min(rows.len());
            let given = rows[at..end].iter().map(|(key, time)| (Some(Bytes::from(vec![*key])), *time));
            let stored = |key: &Bytes| {
                Ok::<_, Infallible>(open.keys().filter(|(of, _)| [*of] == key[..]).map(|(_, span)| *span).collect())
            };
            let plan = Plan::new(window, lateness, time, given, stored).unwrap();
            late.extend(plan.late.iter().map(|row| row + at as u32));
            let mut found: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
            for (row, group) in plan.members {
                found.entry(group).or_default().push(row + at as u32);
            }
            for (number, group) in (0..).zip(plan.groups) {
                let key = group.key[0];
                let mut all: Vec<u32> =
                    group.stored.iter().filter_map(|span| open.remove(&(key, *span))).flatten().collect();
                all.extend(found.remove(&number).unwrap_or_default());
                all.sort_unstable();
                open.insert((key, group.span), all);
            }
            time = plan.time;
            let watermark = time.watermark(lateness);
            let gone: Vec<(u8, Span)> = open.keys().filter(|(_, span)| span.end <= watermark).copied().collect();
            closed.extend(gone.into_iter().map(|at| (at, open.remove(&at).unwrap_or_default())));
            at = end;
        }
        let mut all = open;
        for (at, rows) in closed {
            assert!(all.insert(at, rows).is_none(), "a window is closed once");
        }
        (all, late)
    }

    proptest! {
        #[test]
        fn results_do_not_depend_on_batches(
            window in window(),
            lateness in 0i64..100,
            rows in rows(),
            batches in prop::collection::vec(1usize..20, 1..5),
        ) {
            prop_assert_eq!(play(window, lateness, &rows, &batches), play(window, lateness, &rows, &[1]));
        }

        /// With enough lateness nothing is late, and then windows hold exactly what their definition says.
        #[test]
        fn nothing_is_missing_when_nothing_is_late(window in window(), rows in rows()) {
            let (found, late) = play(window, 1000, &rows, &[7]);
            prop_assert_eq!(late.len(), 0);
            let expected: Results = match window {
                Window::None => by(&rows, |_| vec![Span::ALL]),
                Window::Sliding { size_us, slide_us } => by(&rows, |time| {
                    let starts = (-50..250).filter(|start| start % slide_us == 0);
                    let spans = starts.map(|start| Span { start, end: start + size_us });
                    spans.filter(|span| span.start <= time && time < span.end).collect()
                }),
                Window::Session { gap_us } => sessions(&rows, gap_us),
            };
            prop_assert_eq!(found, expected);
        }
    }

    fn by(rows: &Rows, spans: impl Fn(i64) -> Vec<Span>) -> Results {
        let mut results = Results::new();
        for (row, (key, time)) in (0..).zip(rows) {
            for span in spans(*time) {
                results.entry((*key, span)).or_default().push(row);
            }
        }
        results
    }

    fn sessions(rows: &Rows, gap: i64) -> Results {
        let mut results = Results::new();
        for key in 0..4 {
            let mut own: Vec<(i64, u32)> =
                (0..).zip(rows).filter(|(_, (of, _))| *of == key).map(|(row, (_, time))| (*time, row)).collect();
            own.sort_unstable();
            for session in own.chunk_by(|one, next| next.0 - one.0 <= gap) {
                let span = Span { start: session[0].0, end: session[session.len() - 1].0 + gap };
                let mut rows: Vec<u32> = session.iter().map(|(_, row)| *row).collect();
                rows.sort_unstable();
                results.insert((key, span), rows);
            }
        }
        results
    }

    #[test]
    fn an_event_is_late_when_its_window_was_closed_before_it() {
        let window = Window::Sliding { size_us: 10, slide_us: 10 };
        let (found, late) = play(window, 5, &vec![(0, 3), (0, 15), (0, 9), (0, 14)], &[4]);
        assert_eq!(late, [2].into());
        let spans: Vec<_> = found.iter().map(|((_, span), rows)| (span.start, span.end, rows.len())).collect();
        assert_eq!(spans, [(0, 10, 1), (10, 20, 2)]);
    }
}
