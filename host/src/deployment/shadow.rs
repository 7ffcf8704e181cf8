//! A revision that is tried beside the one that works: it is given the same input with the same state, and commits nothing. What it
//! would have done is compared with what was done.

use crate::limits::{DIFFERENCE_BYTES_MAX, DIFFERENCES_MAX};
use nodata_log::{EventRef, Offset, StateChange, TimestampUs};
use nodata_runtime::{Emitted, Groups, Input, Output, Port};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What became of a shadow on one task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShadowReport {
    /// What is tried.
    pub revision: u32,
    /// Calls that were given to both, and the events of those that were about some.
    pub calls: u64,
    pub events: u64,
    /// Calls that were not compared, because the one that works left some of its rows for the next call.
    pub not_compared: u64,
    /// Calls in which the two differ, by what differs. A call may be in several.
    pub differ_in_outputs: u64,
    pub differ_in_rejects: u64,
    pub differ_in_state: u64,
    /// Calls that the shadow failed at.
    pub failed: u64,
    /// The first differences.
    pub differences: Vec<Difference>,
    /// Why it is not asked any more.
    pub ended: Option<String>,
}

/// Something that the two do differently.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub call: Called,
    pub what: String,
}

/// What both were asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Called {
    /// To process these events.
    Events {
        first: Offset,
        last: Offset,
    },
    /// To emit what comes of so many groups of windows that are closed.
    Close {
        groups: usize,
    },
    Tick {
        now_us: TimestampUs,
    },
}

/// A call that both are given.
#[derive(Clone, Copy)]
pub(crate) enum Call<'a> {
    Process(&'a Input),
    Close(&'a Groups),
    Tick { now_us: TimestampUs, watermark_us: Option<TimestampUs> },
}

impl Call<'_> {
    fn events(self) -> u64 {
        match self {
            Call::Process(input) => input.len() as u64,
            Call::Close(_) | Call::Tick { .. } => 0,
        }
    }

    fn called(self) -> Called {
        match self {
            Call::Process(input) => Called::Events { first: input.first_offset(), last: input.last_offset() },
            Call::Close(groups) => Called::Close { groups: groups.keys.len() },
            Call::Tick { now_us, .. } => Called::Tick { now_us },
        }
    }
}

impl ShadowReport {
    /// Compares what both did when they were called.
    pub(crate) fn compare(&mut self, call: Call<'_>, ports: &[Port], works: &Output, shadow: &Output) {
        self.calls += 1;
        self.events += call.events();
        for (counter, difference) in [
            (&mut self.differ_in_outputs, outputs(ports, works, shadow)),
            (&mut self.differ_in_rejects, rejects(call, works, shadow)),
            (&mut self.differ_in_state, state(works, shadow)),
        ] {
            let Some(what) = difference else { continue };
            *counter += 1;
            note(&mut self.differences, call, what);
        }
    }

    /// The shadow failed where the other one did not.
    pub(crate) fn fail(&mut self, call: Call<'_>, why: &str) {
        self.calls += 1;
        self.events += call.events();
        self.failed += 1;
        note(&mut self.differences, call, format!("the shadow fails: {why}"));
    }
}

fn note(differences: &mut Vec<Difference>, call: Call<'_>, mut what: String) {
    if differences.len() < DIFFERENCES_MAX {
        what.truncate(what.floor_char_boundary(DIFFERENCE_BYTES_MAX));
        differences.push(Difference { call: call.called(), what });
    }
}

/// The events of each partition behind each port, in order.
fn events(output: &Output) -> BTreeMap<(usize, u32), Vec<EventRef<'_>>> {
    let mut events: BTreeMap<(usize, u32), Vec<EventRef<'_>>> = BTreeMap::new();
    for Emitted { port, partition, batch } in &output.batches {
        events.entry((*port, *partition)).or_default().extend(batch.events());
    }
    events
}

fn outputs(ports: &[Port], works: &Output, shadow: &Output) -> Option<String> {
    let (left, right) = (events(works), events(shadow));
    let places: std::collections::BTreeSet<_> = left.keys().chain(right.keys()).copied().collect();
    for place in places {
        let [left, right] = [&left, &right].map(|events| events.get(&place).map_or(&[][..], Vec::as_slice));
        let is_same = |(one, other): (&EventRef<'_>, &EventRef<'_>)| {
            // Both were given the time of their call.
            let is_same_time = one.timestamp_us == other.timestamp_us
                || one.timestamp_us == works.begun_us && other.timestamp_us == shadow.begun_us;
            (one.id(), one.key, one.value) == (other.id(), other.key, other.value)
                && one.headers().eq(other.headers())
                && is_same_time
        };
        let same = left.iter().zip(right).take_while(|(one, other)| is_same((one, other))).count();
        if same == left.len() && same == right.len() {
            continue;
        }
        let port = ports.get(place.0).map_or("", |port| port.name.as_str());
        let (emits, would) = (left.len(), right.len());
        let mut what = format!("port \"{port}\", partition {}: ", place.1);
        if emits != would {
            let _ = write!(what, "{emits} events, the shadow {would}; ");
        }
        let shown = |event: Option<&EventRef<'_>>| event.map_or("nothing".to_owned(), show);
        let _ = write!(what, "event {same}: {}; the shadow: {}", shown(left.get(same)), shown(right.get(same)));
        return Some(what);
    }
    None
}

/// An event for a person.
fn show(event: &EventRef<'_>) -> String {
    let mut text = String::new();
    if let Some(key) = event.key {
        let _ = write!(text, "{} = ", bytes(key));
    }
    let _ = match event.value {
        Some(value) => write!(text, "{}", bytes(value)),
        None => write!(text, "(a tombstone)"),
    };
    for (name, value) in event.headers() {
        let _ = write!(text, " {name}: {}", bytes(value));
    }
    text
}

fn bytes(bytes: &[u8]) -> String {
    let shown = &bytes[..bytes.len().min(DIFFERENCE_BYTES_MAX / 4)];
    let text = String::from_utf8_lossy(shown).escape_debug().to_string();
    if shown.len() < bytes.len() { format!("{text}… ({} bytes)", bytes.len()) } else { text }
}

fn rejects(call: Call<'_>, works: &Output, shadow: &Output) -> Option<String> {
    let Call::Process(input) = call else { return None };
    let rows = |output: &Output| output.rejected.iter().map(|one| one.row).collect::<Vec<_>>();
    let (left, right) = (rows(works), rows(shadow));
    if left == right {
        return None;
    }
    let row = left.iter().find(|row| !right.contains(row)).or(right.iter().find(|row| !left.contains(row)))?;
    let offset = input.events().nth(*row as usize).map_or(input.first_offset(), |(offset, _)| offset);
    let by = if left.contains(row) { "it is rejected, and not by the shadow" } else { "only the shadow rejects it" };
    Some(format!("{} events are rejected, by the shadow {}; event {offset}: {by}", left.len(), right.len()))
}

/// Whatever both would have in their tables then.
fn state(works: &Output, shadow: &Output) -> Option<String> {
    let of = |output: &Output| {
        let of_table = |change: &StateChange| {
            let table = change.table.clone();
            change
                .entries
                .iter()
                .map(move |(key, value)| ((table.clone(), key.clone()), value.clone()))
                .collect::<Vec<_>>()
        };
        output.state.iter().flat_map(of_table).collect::<BTreeMap<_, _>>()
    };
    let (left, right) = (of(works), of(shadow));
    let differs = left.iter().find(|(key, value)| right.get(*key) != Some(*value)).map(|(key, _)| key);
    let (table, key) = differs.or(right.keys().find(|key| !left.contains_key(*key)))?;
    let shown = |value: Option<&Option<bytes::Bytes>>| match value {
        None => "is not written".to_owned(),
        Some(None) => "is deleted".to_owned(),
        Some(Some(value)) => format!("is {}", bytes(value)),
    };
    let entry = (table.clone(), key.clone());
    Some(format!(
        "state table {table}, key {}: it {}; of the shadow it {}",
        bytes(key),
        shown(left.get(&entry)),
        shown(right.get(&entry))
    ))
}
