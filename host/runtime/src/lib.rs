#![doc = include_str!("../README.md")]

// The nouns.
mod contract; // what host and component promise each other, by name
mod deployment; // what a deployment decides for its instances
mod digest; // the name of a component
mod input; // what a call is given
pub mod limits; // every bound, with its reason
mod output; // what a call gives back
mod ports; // what a component says that it needs
mod secret; // a value that is for one component

// The way of an upload.
mod accept; // what must be true of it
mod asks; // what it wants, in words
mod cache; // compiled components on the disk
mod compile; // in a child that can be killed
mod inspect; // what a file is, before it is compiled

// The way of a call.
mod call_error; // why it failed, in words
mod collector; // gathers what is emitted
mod extras; // what a component exports beside its role
mod guest; // everything of the host that belongs to one instance
mod imports; // what a component may import, one file for each interface
mod instance; // a running component
mod program; // a component that is ready to run
mod rows; // rows as a guest gives them, and their checks
mod state; // tables, as one call sees them

// What goes on beside it.
mod engine; // wasmtime, and the thread that ticks
mod guest_log; // what components print
mod guest_metrics; // what they count
mod http; // requests of components to the outside
mod memory; // how much they have
mod runtime; // the component host of a server
mod stdio; // lines for the log
mod threads;
mod ticker; // whoever computes gives way at intervals // where guests run, each in its share of the time

pub use crate::http::{HttpAnswer, HttpClient, HttpGetError, HttpGrant, HttpGrantError};
pub use accept::{AcceptError, AcceptStage, ComponentInfo};
pub use asks::{Ask, Grant, asks};
pub use call_error::{CallError, CallErrorReason};
pub use compile::{CompileError, CompileLimits, Compiler, child_main};
pub use contract::{Extra, Role};
pub use deployment::{Deployment, InstanceLimits};
pub use digest::{Digest, DigestError};
pub use guest_log::{GuestLog, LogCounts, LogLine, LogSource};
pub use guest_metrics::{GuestMetrics, MetricSeries, MetricValue, MetricsSnapshot};
pub use input::{Input, InputError};
pub use instance::{Groups, Instance, SourceStatus};
pub use output::{Emitted, Output, Port, Rejected};
pub use ports::{DescribedPort, Direction};
pub use program::{InstanceSettings, Program, TrialError};
pub use runtime::{Runtime, RuntimeOptions, StartError, inspect_component};
pub use secret::Secret;
pub use threads::{Share, Work, WorkEnded};
