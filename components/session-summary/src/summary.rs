//! What is kept of a session.
//!
//! Events come in any order within the lateness, and parts of a session are put together in any order. So everything here is a
//! smallest, a greatest, a sum, or the first so many of a fixed order: what is kept is the same whichever way it came about.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::{BTreeMap, BTreeSet};

/// How much is kept, at most.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Bounds {
    pub(crate) distinct: usize,
    pub(crate) path: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Summary {
    form: Form,
    /// The times of the first event and of the last; `None`: there was none.
    pub(crate) span_us: Option<(i64, i64)>,
    pub(crate) events: u64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) first: BTreeMap<String, Moment>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) last: BTreeMap<String, Moment>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) distinct: BTreeMap<String, Distinct>,
    #[serde(default, skip_serializing_if = "Path::is_empty")]
    pub(crate) path: Path,
}

/// The form of what is written. One that is written otherwise has another number.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Form;

/// A value, and its place among those of other events: by time, then by id, then by the value. Where it came from is no part of it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Moment {
    pub(crate) time_us: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    /// In JSON.
    pub(crate) value: String,
}

/// Different values, in the order of their JSON: the first so many.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Distinct {
    pub(crate) values: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) is_cut: bool,
}

/// Values in the order of their moments: the first so many.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Path {
    pub(crate) moments: Vec<Moment>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub(crate) is_cut: bool,
}

impl Summary {
    /// An event of this time.
    pub(crate) fn saw(&mut self, time_us: i64) {
        let (first, last) = self.span_us.unwrap_or((time_us, time_us));
        self.span_us = Some((first.min(time_us), last.max(time_us)));
        self.events += 1;
    }

    /// A value that may be the first of its field.
    pub(crate) fn begins(&mut self, field: &str, moment: Moment) {
        match self.first.get_mut(field) {
            Some(first) => *first = moment.min(first.clone()),
            None => drop(self.first.insert(field.to_owned(), moment)),
        }
    }

    /// A value that may be the last of its field.
    pub(crate) fn ends(&mut self, field: &str, moment: Moment) {
        match self.last.get_mut(field) {
            Some(last) => *last = moment.max(last.clone()),
            None => drop(self.last.insert(field.to_owned(), moment)),
        }
    }

    pub(crate) fn has(&mut self, field: &str, value: String, bounds: Bounds) {
        match self.distinct.get_mut(field) {
            Some(distinct) => distinct.add([value], bounds.distinct),
            None => self.distinct.entry(field.to_owned()).or_default().add([value], bounds.distinct),
        }
    }

    pub(crate) fn passes(&mut self, moment: Moment, bounds: Bounds) {
        self.path.add(moment, bounds.path);
    }

    pub(crate) fn merge(&mut self, other: Self, bounds: Bounds) {
        self.span_us = match (self.span_us, other.span_us) {
            (Some((first, last)), Some((other_first, other_last))) => {
                Some((first.min(other_first), last.max(other_last)))
            }
            (own, other) => own.or(other),
        };
        self.events += other.events;
        other.first.into_iter().for_each(|(field, moment)| self.begins(&field, moment));
        other.last.into_iter().for_each(|(field, moment)| self.ends(&field, moment));
        for (field, other) in other.distinct {
            let own = self.distinct.entry(field).or_default();
            own.is_cut |= other.is_cut;
            own.add(other.values, bounds.distinct);
        }
        self.path.is_cut |= other.path.is_cut;
        other.path.moments.into_iter().for_each(|moment| self.path.add(moment, bounds.path));
    }
}

impl Distinct {
    fn add(&mut self, values: impl IntoIterator<Item = String>, most: usize) {
        self.values.extend(values);
        while self.values.len() > most {
            self.values.pop_last();
            self.is_cut = true;
        }
    }
}

impl Path {
    fn is_empty(&self) -> bool {
        self.moments.is_empty() && !self.is_cut
    }

    fn add(&mut self, moment: Moment, most: usize) {
        let at = self.moments.partition_point(|other| *other <= moment);
        self.moments.insert(at, moment);
        if self.moments.len() > most {
            self.moments.truncate(most);
            self.is_cut = true;
        }
    }
}

impl Form {
    const NUMBER: u8 = 1;
}

impl Serialize for Form {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(Self::NUMBER)
    }
}

impl<'de> Deserialize<'de> for Form {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u8::deserialize(deserializer)? {
            Self::NUMBER => Ok(Self),
            other => Err(D::Error::custom(format_args!(
                "a summary of form {other}; this version knows form {}",
                Self::NUMBER
            ))),
        }
    }
}

fn is_false(is: &bool) -> bool {
    !is
}
