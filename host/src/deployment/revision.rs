//! What a deployment runs, by number: its component and what that is given. Each update makes one more.
//!
//! The entry of a deployment says what should run, how an update goes on, and what happened. Earlier revisions are entries of their
//! own, to be gone back to.

use crate::deployment::budget::Budget;
use crate::deployment::spec::{DeploymentSpec, ErrorPolicy, TOGETHER, decode, encode};
use crate::limits::{HISTORY_MAX, REASON_BYTES_MAX};
use nodata_log::{LogError, MetaEntry, TimestampUs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Keys of earlier revisions.
pub(crate) const REVISIONS: &str = "deployment-revision/";

/// What an update changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    pub number: u32,
    pub component: String,
    pub digest: String,
    pub config: BTreeMap<String, String>,
    pub secrets: BTreeMap<String, String>,
    pub allow_http: Vec<String>,
    #[serde(default)]
    pub budget: Budget,
    pub on_error: ErrorPolicy,
    pub tick_us: Option<u64>,
}

impl Revision {
    /// Whether it needs a version of a component.
    pub(crate) fn is_of(&self, component: &str, digest: &str) -> bool {
        (self.component.as_str(), self.digest.as_str()) == (component, digest)
    }

    /// For the history.
    pub(crate) fn said(&self, why: &str) -> String {
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        format!("revision {}, {} ({}){why}", self.number, self.component, self.digest)
    }

    /// The same but for its number.
    pub(crate) fn is_as(&self, other: &Self) -> bool {
        *self == Self { number: self.number, ..other.clone() }
    }

    pub(crate) fn to_bytes(&self, key: &str) -> Result<bytes::Bytes, LogError> {
        encode(key, self)
    }

    pub(crate) fn read(key: &str, entry: &MetaEntry) -> Result<Self, LogError> {
        decode(key, &entry.value)
    }
}

/// An update that is not over: the revision that takes over, and the one that is gone back to when it fails where that one does not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    pub from: Revision,
    /// It takes over on so many partitions, the first ones, and waits with the others until it has proved itself there. `None`: on all.
    pub canary: Option<u32>,
    /// How long all of its tasks have to go well.
    pub probation_us: u64,
    pub began_us: TimestampUs,
    /// Nothing was wrong with any task when it began, so whatever is wrong now is the fault of the new revision.
    pub was_well: bool,
}

impl Rollout {
    /// Whether the new revision works for a task.
    pub(crate) fn covers(&self, number: u32) -> bool {
        self.canary.is_none_or(|partitions| number < partitions && number & TOGETHER == 0)
    }
}

/// A revision that is given the same input and commits nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shadow {
    /// Its number is of the revision that it would be.
    pub revision: Revision,
    pub since_us: TimestampUs,
}

/// Something that happened to a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub at_us: TimestampUs,
    pub what: Changed,
    /// What is meant to run since.
    pub revision: u32,
    pub component: String,
    pub digest: String,
    /// In words, where there is something to say.
    pub why: String,
}

/// What happened to a deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Changed {
    Deployed,
    Updated,
    /// Another revision is tried beside it.
    Shadowed,
    /// And no longer.
    ShadowEnded,
    /// Another revision makes its state anew.
    Rebuilding,
    /// It has, and takes over.
    Rebuilt,
    /// It has not, and is gone.
    RebuildEnded,
    /// The canary went well, and the other partitions follow.
    CanaryPassed,
    /// The update is over, and went well.
    Passed,
    /// It failed where the one before did not.
    Failed,
    /// An operator went back.
    RolledBack,
}

impl DeploymentSpec {
    /// What runs, or is meant to when the update is over.
    pub(crate) fn as_revision(&self) -> Revision {
        Revision {
            number: self.revision,
            component: self.component.clone(),
            digest: self.digest.clone(),
            config: self.config.clone(),
            secrets: self.secrets.clone(),
            allow_http: self.allow_http.clone(),
            budget: self.budget,
            on_error: self.on_error,
            tick_us: self.tick_us,
        }
    }

    /// The same deployment with another revision.
    pub(crate) fn with(self, revision: Revision) -> Self {
        let Revision { number, component, digest, config, secrets, allow_http, budget, on_error, tick_us } = revision;
        Self { revision: number, component, digest, config, secrets, allow_http, budget, on_error, tick_us, ..self }
    }

    /// Nothing is tried beside it any more.
    pub(crate) fn end_shadow(&mut self, now_us: TimestampUs) {
        if let Some(shadow) = self.shadow.take() {
            self.has_changed(now_us, Changed::ShadowEnded, &format!("revision {}", shadow.revision.number));
        }
    }

    /// Writes down what happened. The oldest goes when there is too much.
    pub(crate) fn has_changed(&mut self, at_us: TimestampUs, what: Changed, why: &str) {
        let mut why = why.to_owned();
        why.truncate(why.floor_char_boundary(REASON_BYTES_MAX));
        let (revision, component, digest) = (self.revision, self.component.clone(), self.digest.clone());
        self.history.push(Change { at_us, what, revision, component, digest, why });
        let excess = self.history.len().saturating_sub(HISTORY_MAX);
        self.history.drain(..excess);
    }
}

pub(crate) fn revisions_prefix(deployment: &str) -> String {
    format!("{REVISIONS}{deployment}/")
}

pub(crate) fn revision_key(deployment: &str, number: u32) -> String {
    format!("{REVISIONS}{deployment}/{number}")
}
