//! `nodata bench`: what a user would feel, measured from outside.
//!
//! The load comes from this process, the server is a process of its own on a fresh store, and both share the machine. Beside the
//! figures stand what the disk and what gRPC can do at most, measured in the same run.

mod aggregate; // into groups
mod consume; // reading, and from end to end
mod failures; // what failing costs
mod idle; // deployments that have nothing to do
mod limits; // what the disk and the network can do
mod neighbours; // beside what computes for ever
pub(crate) mod null; // a server that throws everything away
mod payload; // events
mod publish; // writing
mod replace; // one version by another
mod report; // medians, and how they are shown
mod target; // the server under test
mod topics; // many topics
mod transform; // through a component
mod upload; // from an upload to the first event
mod version; // of a component

use crate::cli::CliError;
use clap::{Args, Subcommand};
use std::path::PathBuf;

#[derive(Debug, Subcommand)]
pub(crate) enum BenchCommand {
    /// Measure publishing, durable and not.
    Publish(publish::PublishBench),
    /// Measure reading, and how long an event takes from end to end.
    Consume(consume::ConsumeBench),
    /// Measure what many topics cost.
    Topics(topics::TopicsBench),
    /// Measure events on their way through a component, in and out durable.
    Transform(transform::TransformBench),
    /// Measure events on their way into groups.
    Aggregate(aggregate::AggregateBench),
    /// Measure what failures of a component cost.
    Failures(failures::FailuresBench),
    /// Measure the time from an upload to the first event.
    Upload(upload::UploadBench),
    /// Measure how long events wait while a component is replaced.
    Replace(replace::ReplaceBench),
    /// Measure what deployments cost that have nothing to do.
    Idle(idle::IdleBench),
    /// Measure what a component costs others that computes for ever, and how soon it is ended.
    Neighbours(neighbours::NeighboursBench),
}

/// What every measurement has in common.
#[derive(Clone, Debug, Args)]
pub(crate) struct BenchCommon {
    /// Where the store is made, and removed afterwards: this decides which disk is measured [default: the current directory].
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// How often each case is measured. The cases take turns, and medians are shown.
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// How long one measurement takes.
    #[arg(long, value_name = "SECONDS", default_value_t = 3.0)]
    seconds: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

impl BenchCommon {
    fn check(&self) -> Result<(), CliError> {
        if self.rounds == 0 || !(self.seconds > 0.0 && self.seconds <= 3600.0) {
            return Err(CliError::invalid("give at least one round, and between 0 and 3600 seconds"));
        }
        Ok(())
    }
}

pub(crate) async fn run(command: BenchCommand) -> Result<(), CliError> {
    let json = match &command {
        BenchCommand::Publish(args) => args.common.json,
        BenchCommand::Consume(args) => args.common.json,
        BenchCommand::Topics(args) => args.common.json,
        BenchCommand::Transform(args) => args.common.json,
        BenchCommand::Aggregate(args) => args.common.json,
        BenchCommand::Failures(args) => args.common.json,
        BenchCommand::Upload(args) => args.common.json,
        BenchCommand::Replace(args) => args.common.json,
        BenchCommand::Idle(args) => args.common.json,
        BenchCommand::Neighbours(args) => args.common.json,
    };
    let done = match command {
        BenchCommand::Publish(args) => publish::run(args).await,
        BenchCommand::Consume(args) => consume::run(args).await,
        BenchCommand::Topics(args) => topics::run(args).await,
        BenchCommand::Transform(args) => transform::run(args).await,
        BenchCommand::Aggregate(args) => aggregate::run(args).await,
        BenchCommand::Failures(args) => failures::run(args).await,
        BenchCommand::Upload(args) => upload::run(args).await,
        BenchCommand::Replace(args) => replace::run(args).await,
        BenchCommand::Idle(args) => idle::run(args).await,
        BenchCommand::Neighbours(args) => neighbours::run(args).await,
    };
    done.map_err(|error| error.told_as_json(json))
}
