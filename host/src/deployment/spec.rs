//! What should run: a deployment as an operator decided it, kept as a metadata entry.

use crate::deployment::aggregate::Aggregation;
use crate::deployment::budget::Budget;
use crate::deployment::parts::PartsTopic;
use crate::deployment::rebuild::{Followed, Rebuild};
use crate::deployment::revision::{Change, Revision, Rollout, Shadow};
use crate::limits::DEPLOYMENT_NAME_BYTES_MAX;
use nodata_log::task::TaskEpoch;
use nodata_log::{LogError, MetaEntry, Name, Offset, OwnerId, TimestampUs, Topic, TopicId, Tp};
use nodata_runtime::{HttpGrant, Role};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Keys of deployments.
pub(crate) const SPECS: &str = "deployment/";
/// In the number of a task that puts parts together. No topic has so many partitions.
pub(crate) const TOGETHER: u32 = 1 << 31;
/// Keys of tasks that are paused because their component failed.
pub(crate) const FAILURES: &str = "deployment-failure/";

/// What a component is deployed as.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeploymentRole {
    #[default]
    Transform,
    Sink,
    /// It has no input. Its one task is named after partition 0 of the first topic that it writes to.
    Source,
    Aggregate,
}

impl DeploymentRole {
    /// Whether what a component does is seen in its outputs and its state, and nowhere else.
    pub(crate) fn is_seen(self) -> bool {
        matches!(self, DeploymentRole::Transform | DeploymentRole::Aggregate)
    }

    pub(crate) fn of_component(self) -> Role {
        match self {
            DeploymentRole::Transform => Role::Transform,
            DeploymentRole::Sink => Role::Sink,
            DeploymentRole::Source => Role::Source,
            DeploymentRole::Aggregate => Role::Aggregate,
        }
    }
}

/// What is done about calls that fail.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorPolicy {
    /// How often a call is tried again that asks for it, before it has failed for good. `None`: until it succeeds.
    pub retries: Option<u32>,
    pub then: OnPoison,
}

/// What becomes of an event that cannot be processed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnPoison {
    /// It is put aside, with the reason.
    #[default]
    DeadLetter,
    /// It is passed over and counted.
    Skip,
    /// The task waits for an operator.
    Pause,
}

/// Dead letters that tasks process again: those of this topic, from one offset to before another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    pub topic: u32,
    pub from: Offset,
    pub until: Offset,
}

/// What should run.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentSpec {
    pub name: String,
    /// Names positions and state in the log. Never used again.
    pub owner: u64,
    /// Which one of its revisions it is; each update makes one more.
    #[serde(default = "first")]
    pub revision: u32,
    pub component: String,
    pub digest: String,
    #[serde(default)]
    pub role: DeploymentRole,
    /// For a source, the topic that its task is named after.
    pub input: String,
    /// A topic of the same name that is made later is another one.
    pub input_id: u32,
    /// Of an aggregate.
    #[serde(default)]
    pub aggregation: Option<Aggregation>,
    /// Of an aggregate whose groups are in several partitions.
    #[serde(default)]
    pub parts: Option<PartsTopic>,
    /// Of a component that ticks: how often.
    #[serde(default)]
    pub tick_us: Option<u64>,
    /// Topics by port.
    pub outputs: BTreeMap<String, String>,
    pub config: BTreeMap<String, String>,
    /// Secrets that it may read: what its component calls them, and their names here.
    #[serde(default)]
    pub secrets: BTreeMap<String, String>,
    /// HTTP requests that it may send.
    #[serde(default)]
    pub allow_http: Vec<String>,
    /// How much it may use.
    #[serde(default)]
    pub budget: Budget,
    /// Earlier versions knew only the pause, and what they deployed goes on as they would.
    #[serde(default = "pause")]
    pub on_error: ErrorPolicy,
    /// Where each partition began when the deployment was made. Partitions that are added later begin at their first event.
    pub start: Vec<Offset>,
    pub created_us: TimestampUs,
    pub paused: bool,
    /// Dead letters that tasks process again.
    #[serde(default)]
    pub replay: Option<Replay>,
    /// When it was deleted, if its positions and its state were to be kept.
    #[serde(default)]
    pub kept_us: Option<TimestampUs>,
    /// The newest of its revisions there ever was. A number is of one revision for ever.
    #[serde(default)]
    pub newest_revision: u32,
    /// An update that is not over.
    #[serde(default)]
    pub rollout: Option<Rollout>,
    /// A revision that is tried beside it.
    #[serde(default)]
    pub shadow: Option<Shadow>,
    /// A revision that makes its state anew.
    #[serde(default)]
    pub rebuild: Option<Rebuild>,
    /// Whose work it goes on with, as soon as it is where that ended.
    #[serde(default)]
    pub follows: Option<Followed>,
    /// The revision that made the state there is, if one did: those of before worked with another one.
    #[serde(default)]
    pub state_since: u32,
    /// Owners whose positions and state are forgotten when their tasks have ended.
    #[serde(default)]
    pub forgotten: Vec<u64>,
    /// What happened to it, the latest last.
    #[serde(default)]
    pub history: Vec<Change>,
    /// It is on its way out: tasks stop, then positions and state are forgotten, then this entry goes.
    pub deleting: bool,
}

impl DeploymentSpec {
    pub(crate) fn owner(&self) -> OwnerId {
        OwnerId(self.owner)
    }

    pub(crate) fn input_id(&self) -> TopicId {
        TopicId(self.input_id)
    }

    /// The partitions that its tasks work on.
    pub(crate) fn sources(&self, input: &Topic) -> impl Iterator<Item = Tp> + use<> {
        let count = if self.role == DeploymentRole::Source { 1 } else { input.config.partitions };
        let parts = self.parts.into_iter().flat_map(PartsTopic::sources);
        input.partitions().take(count as usize).chain(parts).collect::<Vec<_>>().into_iter()
    }

    /// The number of a task: its partition, and others for those that put parts together.
    pub(crate) fn number(&self, source: Tp) -> u32 {
        match self.parts {
            Some(parts) if parts.id() == source.topic => source.partition | TOGETHER,
            _ => source.partition,
        }
    }

    /// The topic that tasks put parts together from.
    pub fn parts_topic(&self) -> String {
        format!("{}.parts", self.name)
    }

    /// The HTTP requests that it may send. They were checked when it was deployed.
    pub(crate) fn http_grants(&self) -> Vec<HttpGrant> {
        self.allow_http.iter().filter_map(|grant| grant.parse().ok()).collect()
    }

    /// Whether it was deleted, and this is what is kept of it.
    pub fn is_kept(&self) -> bool {
        self.kept_us.is_some()
    }

    /// What its tasks are to know of it: not that it stops, where it began, or how an update goes on.
    pub(crate) fn as_run(&self) -> Self {
        Self {
            start: Vec::new(),
            paused: false,
            replay: None,
            kept_us: None,
            newest_revision: 0,
            rollout: None,
            shadow: None,
            rebuild: None,
            follows: None,
            state_since: 0,
            forgotten: Vec::new(),
            history: Vec::new(),
            deleting: false,
            ..self.clone()
        }
    }

    /// Where the rejected events go.
    pub fn dead_letters(&self) -> String {
        format!("{}.dlq", self.name)
    }

    /// Whether it works with such a revision now: with the one that is meant, the one that an update takes over from, one that is tried
    /// beside it, or one that makes its state anew.
    pub(crate) fn works_with(&self, is_such: impl Fn(&Revision) -> bool) -> bool {
        is_such(&self.as_revision())
            || self.rollout.as_ref().is_some_and(|rollout| is_such(&rollout.from))
            || self.shadow.as_ref().is_some_and(|shadow| is_such(&shadow.revision))
            || self.rebuild.as_ref().is_some_and(|rebuild| is_such(&rebuild.revision))
    }

    /// Whether it reads from a topic or writes to it.
    pub(crate) fn uses(&self, topic: &str) -> bool {
        let is_parts = self.parts.is_some() && self.parts_topic() == topic;
        self.input == topic
            || is_parts
            || self.outputs.values().any(|output| output == topic)
            || self.dead_letters() == topic
    }

    pub(crate) fn key(&self) -> String {
        spec_key(&self.name)
    }

    pub(crate) fn to_bytes(&self) -> Result<bytes::Bytes, LogError> {
        encode(&self.key(), self)
    }

    pub(crate) fn read(key: &str, entry: &MetaEntry) -> Result<Self, LogError> {
        decode(key, &entry.value)
    }

    /// Checks a name.
    pub(crate) fn check_name(name: &str) -> Result<Name, LogError> {
        let checked = Name::new(name)?;
        if name.len() > DEPLOYMENT_NAME_BYTES_MAX {
            let (bytes, bytes_max) = (name.len(), DEPLOYMENT_NAME_BYTES_MAX);
            return Err(LogError::MetaTooLarge { key: name.chars().take(32).collect(), bytes, bytes_max });
        }
        Ok(checked)
    }
}

fn first() -> u32 {
    1
}

fn pause() -> ErrorPolicy {
    ErrorPolicy { retries: None, then: OnPoison::Pause }
}

/// Why a task is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TaskFailure {
    /// The first event of the batch that failed.
    pub position: Offset,
    pub attempts: u32,
    pub reason: String,
    pub last_lines: Vec<String>,
    pub time_us: TimestampUs,
    /// The failure of whoever worked for the task under this epoch, and of nobody later. Earlier versions did not write it down.
    #[serde(default)]
    pub epoch: Option<TaskEpoch>,
}

impl TaskFailure {
    pub(crate) fn to_bytes(&self, key: &str) -> Result<bytes::Bytes, LogError> {
        encode(key, self)
    }

    pub(crate) fn read(key: &str, entry: &MetaEntry) -> Result<Self, LogError> {
        decode(key, &entry.value)
    }
}

pub(crate) fn spec_key(name: &str) -> String {
    format!("{SPECS}{name}")
}

pub(crate) fn failure_prefix(name: &str) -> String {
    format!("{FAILURES}{name}/")
}

pub(crate) fn failure_key(name: &str, partition: u32) -> String {
    format!("{FAILURES}{name}/{partition}")
}

pub(crate) fn encode(key: &str, value: &impl Serialize) -> Result<bytes::Bytes, LogError> {
    serde_json::to_vec(value).map(Into::into).map_err(|error| damaged(key, &error))
}

pub(crate) fn decode<T: for<'a> Deserialize<'a>>(key: &str, value: &[u8]) -> Result<T, LogError> {
    serde_json::from_slice(value).map_err(|error| damaged(key, &error))
}

fn damaged(key: &str, error: &serde_json::Error) -> LogError {
    LogError::Damaged { place: format!("metadata entry `{key}`"), what: error.to_string() }
}

#[cfg(test)]
impl DeploymentSpec {
    /// One that a test completes.
    pub(crate) fn nothing() -> Self {
        Self { revision: 1, newest_revision: 1, ..Self::default() }
    }
}
