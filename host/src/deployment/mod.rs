//! What runs: deployments as operators decided them, and the tasks that make them true.

mod control; // what an operator asks for
mod dead_letters; // rejected events
mod outputs; // the topics behind the ports
mod pace; // how many events at once
mod replay; // dead letters, once more
mod search; // which event it is that cannot be processed
mod source; // a deployment that brings events in
mod spec; // what should run
mod status; // how it is doing
mod supervisor; // makes it run
mod task; // one deployment on one partition

pub use control::{
    DeployRequest, DeployedAs, DeploymentError, DeploymentView, Deployments, DeploymentsParts, StartAt, TaskView,
};
pub use replay::DeadLetters;
pub use spec::{DeploymentRole, DeploymentSpec, ErrorPolicy, OnPoison, TaskFailure};
pub use status::{TaskReport, TaskState};
pub use supervisor::Supervisor;
