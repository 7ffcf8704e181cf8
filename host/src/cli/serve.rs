//! `nodata serve`

use crate::cli::CliError;
use crate::cli::out::has_terminal;
use crate::server::Server;
use crate::settings::ServeSettings;
use clap::Args;
use nodata_runtime::Compiler;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// Run a server.
///
/// Prints `nodata is ready on HOST:PORT` to standard output when it answers, and everything else to standard error. SIGTERM and
/// SIGINT stop it in order; a second one ends it at once, which loses nothing either.
#[derive(Debug, Args)]
pub(crate) struct ServeArgs {
    /// The directory of the store. It is made if it is not there.
    #[arg(long, env = "NODATA_DATA", default_value = "nodata-data", value_name = "DIR")]
    data: PathBuf,
    /// The address to serve gRPC on. Port 0 takes a free one.
    #[arg(long, env = "NODATA_LISTEN", default_value = "127.0.0.1:7070", value_name = "HOST:PORT")]
    listen: SocketAddr,
    /// Threads that run components [default: one for each processor].
    #[arg(long, value_name = "N")]
    guest_threads: Option<usize>,
    /// MiB of memory for all components together.
    #[arg(long, value_name = "MIB", default_value_t = nodata_runtime::limits::HOST_MEMORY_BYTES >> 20)]
    guest_memory: u64,
    /// Seconds after which events are in Parquet files. Where only a few wait, they may wait ten times as long.
    #[arg(long, value_name = "SECONDS", default_value_t = nodata_archive::limits::FLUSH_AGE_SECS)]
    archive_after: u64,
    /// MiB of log that are kept although all their events are in files: reading from the log is cheaper.
    #[arg(long, value_name = "MIB", default_value_t = nodata_log::limits::HOT_BYTES >> 20)]
    keep_log: u64,
    /// MiB of log at which publishers wait until it is in Parquet files [default: 8192, or a quarter of the free space].
    #[arg(long, value_name = "MIB")]
    log_max: Option<u64>,
    /// The file with the key that secrets are encrypted with. It is made when the first secret is put, and whoever has it and the
    /// store has the secrets [default: secrets.key in the directory of the store].
    #[arg(long, env = "NODATA_SECRETS_KEY", value_name = "FILE")]
    secrets_key: Option<PathBuf>,
    /// A registry of images that components may be pulled from: HOST, HOST:PORT, or `*` for all of the internet. Without it, none. Can be
    /// given several times.
    #[arg(long, value_name = "HOST")]
    registry_allow: Vec<String>,
    /// The same, for one that is asked without TLS, such as localhost:5000.
    #[arg(long, value_name = "HOST")]
    registry_insecure: Vec<String>,
    /// The file that says who this server is in registries, as docker, podman and oras write it. Nobody else may be able to read it.
    #[arg(long, env = "NODATA_REGISTRY_AUTH", value_name = "FILE")]
    registry_auth: Option<PathBuf>,
    /// A public key of minisign. With it, only components are taken that are signed with it. Can be given several times.
    #[arg(long, value_name = "FILE")]
    component_key: Vec<PathBuf>,
    /// A program that is asked about each image before it is downloaded, with the reference and the digest of the manifest as
    /// arguments. If it fails, the image is refused.
    #[arg(long, value_name = "PROGRAM")]
    verify_image: Option<PathBuf>,
    /// For authors: take each `NAME.wasm` in this directory when the file changes, as component NAME, and have the deployments of it go
    /// on with what it is now, without a probation.
    #[arg(long, value_name = "DIR")]
    watch: Option<PathBuf>,
    /// What to say while running: error, warn, info, debug, or a filter such as `nodata=debug`.
    #[arg(long, env = "NODATA_LOG", default_value = "info", value_name = "FILTER")]
    log: String,
}

pub(crate) fn run(args: ServeArgs) -> Result<(), CliError> {
    let filter = EnvFilter::try_new(&args.log)
        .map_err(|error| CliError::invalid(format!("`{}` is no filter for messages: {error}", args.log)))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(has_terminal())
        .with_target(false)
        .init();
    raise_open_files();

    let mut settings = ServeSettings::new(args.data, args.listen);
    settings.guest_threads = args.guest_threads.unwrap_or(settings.guest_threads).max(1);
    settings.hot_bytes = args.keep_log << 20;
    settings.log_bytes_max = args.log_max.map(|mib| mib << 20);
    settings.archive_after = Duration::from_secs(args.archive_after);
    settings.secrets_key = args.secrets_key;
    settings.registry_allow = args.registry_allow;
    settings.registry_insecure = args.registry_insecure;
    settings.registry_auth = args.registry_auth;
    settings.component_keys = args.component_key;
    settings.verify_image = args.verify_image;
    settings.watch = args.watch;
    settings.guest_memory_bytes = args.guest_memory << 20;
    let program = std::env::current_exe()
        .map_err(|error| CliError::failed(format!("cannot find this program, which compiles components: {error}")))?;
    let compiler = Compiler::new(program, ["__compile"]);

    let runtime = tokio::runtime::Builder::new_multi_thread()
        .thread_name("nodata-io")
        .enable_all()
        .build()
        .map_err(|error| CliError::failed(format!("cannot start threads: {error}")))?;
    runtime.block_on(async {
        let signals = |error| CliError::failed(format!("cannot listen to signals: {error}"));
        let mut terminate = signal(SignalKind::terminate()).map_err(signals)?;
        let mut interrupt = signal(SignalKind::interrupt()).map_err(signals)?;
        let data = settings.data.display().to_string();
        let mut server = Server::start(settings, compiler).await?;
        tell(&server, &data);
        let mut out = io::stdout().lock();
        // Whoever started this may have closed its end; the server serves all the same.
        let _ = writeln!(out, "nodata is ready on {}", server.address()).and_then(|()| out.flush());
        drop(out);

        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            error = server.failed() => return Err(error.into()),
        }
        tracing::info!("stopping: no new requests, tasks finish the batch in hand");
        tokio::select! {
            () = server.stop() => {}
            _ = terminate.recv() => tracing::warn!("ended at once; what was acknowledged is safe"),
            _ = interrupt.recv() => tracing::warn!("ended at once; what was acknowledged is safe"),
        }
        tracing::info!("stopped");
        Ok(())
    })
}

fn tell(server: &Server, data: &str) {
    let report = server.report();
    if report.is_new {
        tracing::info!(data, "made a new store");
    } else {
        let (segments, mib) = (report.segments, report.log_bytes >> 20);
        tracing::info!(data, segments, mib, replayed = report.replayed, "opened the store");
    }
    if report.torn_bytes > 0 {
        let bytes = report.torn_bytes;
        tracing::info!(
            bytes,
            "dropped a write that was not finished when the last server ended; nobody was told it was safe"
        );
    }
    let adoption = server.adoption();
    if !adoption.commits.is_empty() || adoption.removed > 0 {
        let (taken_over, removed) = (adoption.commits.len(), adoption.removed);
        tracing::info!(taken_over, removed, "files were ahead of the log, or left over, when the last server ended");
    }
    for path in &adoption.foreign {
        tracing::warn!(path, "this file is not part of the store; whoever lists the folder reads it too");
    }
    if let Some(why) = &report.checkpoint_rebuilt {
        tracing::warn!(why, "the checkpoint could not be used and was made anew from the log; nothing is lost");
    }
}

/// Segments, components and connections each hold a file open, and the usual soft limit is 1024.
fn raise_open_files() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files could not be raised");
    }
}
