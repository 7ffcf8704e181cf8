//! What runs: deployments as operators decided them, and the tasks that make them true.

mod account; // how much state a task has
mod aggregate; // accumulators in the state of a task
mod altered; // what an update adds and takes away
mod budget; // how much it may use
mod control; // what an operator asks for
mod dead_letters; // rejected events
mod error; // why it is refused
mod kept; // what one that was deleted leaves to another
mod live; // what runs for a deployment
mod memory; // what instances keep
mod outputs; // the topics behind the ports
mod pace; // how many events at once
mod parts; // groups that are in several partitions
mod rebuild; // state that is made anew
mod replay; // dead letters, once more
mod reset; // where else they go on
mod revision; // what a deployment runs, by number
mod revisions; // what can be gone back to
mod rollout; // how an update goes on
mod scan; // what an aggregate holds
mod search; // which event it is that cannot be processed
mod shadow; // a revision that commits nothing
mod source; // a deployment that brings events in
mod spec; // what should run
mod status; // how it is doing
mod supervisor; // makes it run
mod task; // one deployment on one partition
mod ticks; // when a task ticks
mod trial; // what a component has to say before it is deployed
mod update; // another revision takes over
mod usage; // what it has used
mod view; // how it is doing, for whoever asks
mod windows; // groups in time
mod wiring; // the topics around a component

pub use aggregate::Aggregation;
pub use altered::Altered;
pub use budget::{Budget, BudgetError};
pub use control::{Begin, DeployRequest, DeployedAs, Deployments, DeploymentsParts, StartAt};
pub use error::DeploymentError;
pub use rebuild::Rebuild;
pub use replay::DeadLetters;
pub use reset::{KeepOrForget, Moved, ResetRequest};
pub use revision::{Change, Changed, Revision, Rollout, Shadow};
pub use scan::GroupView;
pub use shadow::{Called, Difference, ShadowReport};
pub use spec::{DeploymentRole, DeploymentSpec, ErrorPolicy, OnPoison, TaskFailure};
pub use status::{TaskReport, TaskState};
pub use supervisor::Supervisor;
pub use update::UpdateRequest;
pub use usage::{SharedUsage, Usage};
pub use view::{DeploymentView, TaskView};
pub use windows::Window;
