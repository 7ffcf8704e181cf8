//! The command line: one file for each command, with its arguments and one function that runs it.
//!
//! Data goes to standard output, everything else to standard error. A reader that closes its pipe is no failure.

mod add_component; // add-component
mod aggregate; // aggregate scan
mod bench; // bench publish|consume|transform
mod budget; // what a deployment may use
mod component; // component push|pull|list|versions|delete|inspect
mod consume; // consume
mod deployment; // deployment list|describe|pause|resume|reset|delete|logs
mod dlq; // dlq list|show|replay
mod error; // how a command fails
mod fsck; // fsck
mod grants; // what a component asks for and a deployment is granted
mod out; // how a command prints
mod progress; // what is being done about a component
mod publish; // publish
mod secret; // secret put|list|delete
mod serve; // serve
mod shadow; // deployment shadow
mod topic; // topic create|list|describe|update|delete
mod update; // deployment update|rollback
mod usage; // what a deployment has used

use clap::{Args, Parser, Subcommand};
use error::CliError;
use nodata_client::Client;
use out::Out;
use std::ffi::OsString;
use std::process::ExitCode;

/// Takes events in, keeps them durably, and runs WebAssembly components on them.
///
/// Exit codes: 0 done, 1 failed, 2 the request is wrong, 130 interrupted.
#[derive(Debug, Parser)]
#[command(name = "nodata", version, max_term_width = 100, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a server.
    Serve(serve::ServeArgs),
    Fsck(fsck::FsckArgs),
    #[command(flatten)]
    Client(ClientCommand),
    /// The commands that talk to a server, under the name that older users know.
    #[command(name = "client")]
    ClientAlias {
        #[command(subcommand)]
        command: ClientCommand,
    },
    /// Compile a component: started by the server, for the server.
    #[command(name = "__compile", hide = true)]
    Compile,
    /// Take every event and throw it away: started by `bench`, to know what gRPC can do.
    #[command(name = "__null", hide = true)]
    Null,
}

#[derive(Debug, Subcommand)]
#[allow(clippy::large_enum_variant, reason = "a process has one of them")]
enum ClientCommand {
    /// Create, list, describe, update and delete topics.
    #[command(subcommand)]
    Topic(topic::TopicCommand),
    /// Publish events from a file or standard input.
    Publish(publish::PublishArgs),
    /// Print the events of a topic.
    Consume(consume::ConsumeArgs),
    /// Upload a component and run it on a topic.
    AddComponent(add_component::AddComponentArgs),
    /// Upload, pull, list, inspect and delete components.
    #[command(subcommand)]
    Component(component::ComponentCommand),
    /// List, describe, update, roll back, shadow, pause, resume, reset and delete deployments, and read their logs.
    #[command(subcommand)]
    Deployment(deployment::DeploymentCommand),
    /// Keep, list and delete secrets.
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Show what aggregates hold.
    #[command(subcommand)]
    Aggregate(aggregate::AggregateCommand),
    /// List, show and replay the events that deployments could not process.
    #[command(subcommand)]
    Dlq(dlq::DlqCommand),
    /// Measure a server, its disk and its network.
    #[command(subcommand)]
    Bench(bench::BenchCommand),
}

/// What every command that talks to a server has in common.
#[derive(Clone, Debug, Args)]
pub(crate) struct Common {
    /// The server to talk to.
    #[arg(long, env = "NODATA_SERVER", default_value = "127.0.0.1:7070", value_name = "HOST:PORT", global = true)]
    server: String,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

impl Common {
    async fn connect(&self) -> Result<Client, CliError> {
        Client::connect(&self.server).await.map_err(|error| {
            CliError::from(error).hint("start one with `nodata serve`, or name one with `--server` or NODATA_SERVER")
        })
    }

    fn out(&self) -> Out {
        Out::new(self.json)
    }
}

/// Runs the command that the arguments say.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no failures; clap prints each where it belongs.
            let _ = error.print();
            return if error.use_stderr() { ExitCode::from(2) } else { ExitCode::SUCCESS };
        }
    };
    let result = match cli.command {
        Command::Compile => return nodata_runtime::child_main(),
        Command::Null => bench::null::run(),
        Command::Serve(args) => serve::run(args),
        Command::Fsck(args) => fsck::run(args),
        Command::Client(command) | Command::ClientAlias { command } => run_client(command),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => error.report(),
    }
}

fn run_client(command: ClientCommand) -> Result<(), CliError> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start threads: {error}")))?;
    let result = runtime.block_on(async {
        tokio::select! {
            // The end of a command comes before an interruption at the same moment.
            biased;
            result = async {
                match command {
                    ClientCommand::Topic(command) => topic::run(command).await,
                    ClientCommand::Publish(args) => publish::run(args).await,
                    ClientCommand::Consume(args) => consume::run(args).await,
                    ClientCommand::AddComponent(args) => add_component::run(args).await,
                    ClientCommand::Component(command) => component::run(command).await,
                    ClientCommand::Deployment(command) => deployment::run(command).await,
                    ClientCommand::Secret(command) => secret::run(command).await,
                    ClientCommand::Aggregate(command) => aggregate::run(command).await,
                    ClientCommand::Dlq(command) => dlq::run(command).await,
                    ClientCommand::Bench(command) => bench::run(command).await,
                }
            } => result,
            _ = tokio::signal::ctrl_c() => Err(CliError::interrupted()),
        }
    });
    // A read of standard input may never return, and nobody waits for it.
    runtime.shutdown_background();
    result
}
