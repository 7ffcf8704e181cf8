//! Why a request about a deployment was refused.

use crate::deployment::budget::BudgetError;
use crate::limits::{PROBATION_MAX, TICK_US_MIN};
use crate::registry::RegistryError;
use crate::secrets::SecretError;
use nodata_log::{ErrorKind, LogError, Name, NameError, Offset};
use nodata_runtime::{HttpGrantError, TrialError};
use thiserror::Error;

/// Why a request about a deployment was refused.
#[derive(Debug, Error)]
pub enum DeploymentError {
    #[error("deployment `{name}` does not exist")]
    Unknown { name: String },
    #[error("deployment `{name}` exists already")]
    Exists { name: String },
    #[error("deployment `{name}` was deleted, and its positions and state are kept")]
    Kept { name: String },
    #[error("nothing is kept of a deployment `{name}`")]
    NothingKept { name: String },
    #[error("what is kept of deployment `{name}` does not fit: {what}")]
    Misfit { name: String, what: String },
    #[error("deployment `{name}` has {count} task{}, there is none for partition {partition}", if *count == 1 { "" } else { "s" })]
    NoTask { name: String, partition: u32, count: usize },
    #[error("deployment `{name}` is a source, which can only begin at its beginning: give `earliest`")]
    SourcePosition { name: String },
    #[error("deployment `{name}` is being deleted")]
    Deleting { name: String },
    #[error("deployment `{name}` is being updated: revision {revision} has not proved itself yet")]
    Updating { name: String, revision: u32 },
    #[error("the state of deployment `{name}` cannot be made anew beside it: {what}")]
    NoRebuild { name: String, what: &'static str },
    #[error("a {role} keeps nothing that could be made anew without its effects")]
    RebuildRole { role: &'static str },
    #[error("what a {role} does is seen elsewhere, so there is nothing that a shadow could be compared by")]
    ShadowRole { role: &'static str },
    #[error("deployment `{name}` has no shadow")]
    NoShadow { name: String },
    #[error("somebody else changed deployment `{name}` at the same time; look at it, and try again")]
    Changing { name: String },
    #[error("deployment `{name}` runs this component with this configuration already")]
    NothingNew { name: String },
    #[error("deployment `{name}` has no {what} `{given}` that could be taken away; it has: {known}")]
    NotThere { name: String, what: &'static str, given: String, known: String },
    #[error("{what} `{given}` is given to deployment `{name}` and taken away at once")]
    Contradiction { name: String, what: &'static str, given: String },
    #[error("deployment `{name}` has no {what} to go back to; it has: {known}")]
    NoRevision { name: String, what: String, known: String },
    #[error("component `{component}` cannot go on from what deployment `{name}` remembers: {what}")]
    Unreadable { name: String, component: String, what: String },
    #[error(
        "there is no way back from component `{component}`: revision {revision} could not go on from what it remembers: {what}"
    )]
    NoWayBack { component: String, revision: u32, what: String },
    #[error("a canary of {partitions} partitions; deployment `{name}` works on {count}, and some must be left")]
    Canary { name: String, partitions: u32, count: u32 },
    #[error("a probation of {us} us; at most {} are allowed", PROBATION_MAX.as_micros())]
    Probation { us: u64 },
    #[error("component `{component}` is no {role}; it is {}", if roles.is_empty() { "nothing that can be deployed".to_owned() } else { roles.join(", ") })]
    Role { component: String, role: &'static str, roles: Vec<String> },
    #[error("component `{component}` {error}")]
    Trial { component: String, error: TrialError },
    #[error("a tick every {us} us; at least {TICK_US_MIN} are needed")]
    Tick { us: u64 },
    #[error("component `{component}` does not tick, and the deployment says how often")]
    NoTicker { component: String },
    #[error("topic `{topic}` does not exist")]
    NoTopic { topic: Name },
    #[error("component `{component}` needs a topic behind port \"{port}\"; its ports are: {ports}")]
    UnwiredPort { component: String, port: String, ports: String },
    #[error("component `{component}` has no port \"{port}\"; its ports are: {ports}")]
    UnknownPort { component: String, port: String, ports: String },
    #[error("port \"{port}\" of component `{component}` asks for a topic that there cannot be: {what}")]
    PortTopic { component: String, port: String, what: String },
    #[error("deployment `{name}` is replaying its dead letters")]
    Replaying { name: String },
    #[error("dead letter {at} does not fit topic `{topic}`: {what}; those before it were replayed")]
    Letter { at: Offset, topic: Name, what: String },
    #[error("{what}: {count}, at most {max} are allowed")]
    TooMuch { what: &'static str, count: usize, max: usize },
    #[error("{what} of {value} us; {allowed}")]
    Window { what: &'static str, value: i64, allowed: &'static str },
    #[error("`{name}` is no aggregate")]
    NotAnAggregate { name: String },
    #[error("the groups cannot be shown: {reason}")]
    Render { reason: String },
    #[error(
        "the component says which group an event is in, so a session may be in any of the {partitions} partitions of \
         topic `{topic}`"
    )]
    Sessions { topic: Name, partitions: u32 },
    #[error(
        "deployment `{name}` puts groups together from several partitions, and cannot go on elsewhere in some of them"
    )]
    ResetParts { name: String },
    #[error("a source writes to a topic, and none was given")]
    NoOutput,
    #[error(transparent)]
    HttpGrant(#[from] HttpGrantError),
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("the deployment would read what it writes: topic `{topic}` is its input and behind port \"{port}\"")]
    Loop { topic: String, port: String },
    #[error(
        "offset {offset} is out of range in partition {partition} of `{topic}`: the earliest is {earliest}, the end is {end}"
    )]
    Start { topic: Name, partition: u32, offset: Offset, earliest: Offset, end: Offset },
    #[error(transparent)]
    Budget(#[from] BudgetError),
    #[error(transparent)]
    Registry(#[from] RegistryError),
    #[error(transparent)]
    Log(#[from] LogError),
}

impl From<NameError> for DeploymentError {
    fn from(error: NameError) -> Self {
        LogError::from(error).into()
    }
}

impl DeploymentError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            DeploymentError::Unknown { .. }
            | DeploymentError::NothingKept { .. }
            | DeploymentError::NoRevision { .. }
            | DeploymentError::NoShadow { .. }
            | DeploymentError::NoTask { .. }
            | DeploymentError::NoTopic { .. } => ErrorKind::NotFound,
            DeploymentError::Exists { .. }
            | DeploymentError::Kept { .. }
            | DeploymentError::Deleting { .. }
            | DeploymentError::Updating { .. }
            | DeploymentError::Changing { .. }
            | DeploymentError::Replaying { .. } => ErrorKind::Conflict,
            DeploymentError::Role { .. }
            | DeploymentError::Misfit { .. }
            | DeploymentError::NothingNew { .. }
            | DeploymentError::NotThere { .. }
            | DeploymentError::Contradiction { .. }
            | DeploymentError::ShadowRole { .. }
            | DeploymentError::RebuildRole { .. }
            | DeploymentError::NoRebuild { .. }
            | DeploymentError::Unreadable { .. }
            | DeploymentError::NoWayBack { .. }
            | DeploymentError::Canary { .. }
            | DeploymentError::Probation { .. }
            | DeploymentError::SourcePosition { .. }
            | DeploymentError::TooMuch { .. }
            | DeploymentError::NoOutput
            | DeploymentError::Sessions { .. }
            | DeploymentError::ResetParts { .. }
            | DeploymentError::Tick { .. }
            | DeploymentError::NoTicker { .. }
            | DeploymentError::UnwiredPort { .. }
            | DeploymentError::UnknownPort { .. }
            | DeploymentError::PortTopic { .. }
            | DeploymentError::HttpGrant(_)
            | DeploymentError::Budget(_)
            | DeploymentError::Window { .. }
            | DeploymentError::NotAnAggregate { .. }
            | DeploymentError::Render { .. }
            | DeploymentError::Loop { .. }
            | DeploymentError::Letter { .. }
            | DeploymentError::Start { .. } => ErrorKind::Invalid,
            DeploymentError::Trial { error, .. } => error.kind(),
            DeploymentError::Registry(error) => error.kind(),
            DeploymentError::Secret(error) => error.kind(),
            DeploymentError::Log(error) => error.kind(),
        }
    }

    /// A word that a program can match.
    pub fn reason(&self) -> &'static str {
        match self {
            DeploymentError::Unknown { .. } => "UNKNOWN_DEPLOYMENT",
            DeploymentError::Exists { .. } => "DEPLOYMENT_EXISTS",
            DeploymentError::Kept { .. } => "KEPT",
            DeploymentError::NothingKept { .. } => "NOTHING_KEPT",
            DeploymentError::Misfit { .. } => "MISFIT",
            DeploymentError::NoTask { .. } => "NO_TASK",
            DeploymentError::SourcePosition { .. } => "SOURCE_POSITION",
            DeploymentError::Deleting { .. } => "DELETING",
            DeploymentError::Updating { .. } => "UPDATING",
            DeploymentError::RebuildRole { .. } => "REBUILD_ROLE",
            DeploymentError::NoRebuild { .. } => "NO_REBUILD",
            DeploymentError::ShadowRole { .. } => "SHADOW_ROLE",
            DeploymentError::NoShadow { .. } => "NO_SHADOW",
            DeploymentError::Changing { .. } => "CHANGING",
            DeploymentError::NothingNew { .. } => "NOTHING_NEW",
            DeploymentError::NotThere { .. } => "NOT_THERE",
            DeploymentError::Contradiction { .. } => "CONTRADICTION",
            DeploymentError::NoRevision { .. } => "NO_REVISION",
            DeploymentError::Unreadable { .. } => "STATE",
            DeploymentError::NoWayBack { .. } => "NO_WAY_BACK",
            DeploymentError::Canary { .. } => "CANARY",
            DeploymentError::Probation { .. } => "PROBATION",
            DeploymentError::Replaying { .. } => "REPLAYING",
            DeploymentError::Letter { .. } => "DEAD_LETTER",
            DeploymentError::Role { .. } => "ROLE",
            DeploymentError::Trial { .. } => "TRIAL",
            DeploymentError::Tick { .. } => "TICK",
            DeploymentError::NoTicker { .. } => "NO_TICKER",
            DeploymentError::NoTopic { .. } => "UNKNOWN_TOPIC",
            DeploymentError::UnwiredPort { .. } => "UNWIRED_PORT",
            DeploymentError::UnknownPort { .. } => "UNKNOWN_PORT",
            DeploymentError::PortTopic { .. } => "TOPIC_CONFIG",
            DeploymentError::TooMuch { .. } => "TOO_MUCH",
            DeploymentError::Window { .. } => "WINDOW",
            DeploymentError::NotAnAggregate { .. } => "NO_AGGREGATE",
            DeploymentError::Render { .. } => "RENDER",
            DeploymentError::NoOutput => "NO_OUTPUT",
            DeploymentError::Sessions { .. } => "SESSIONS",
            DeploymentError::ResetParts { .. } => "RESET_PARTS",
            DeploymentError::HttpGrant(_) => "HTTP_GRANT",
            DeploymentError::Budget(_) => "BUDGET",
            DeploymentError::Loop { .. } => "LOOP",
            DeploymentError::Start { .. } => "OUT_OF_RANGE",
            DeploymentError::Registry(error) => error.reason(),
            DeploymentError::Secret(error) => error.reason(),
            DeploymentError::Log(error) => error.reason(),
        }
    }
}
