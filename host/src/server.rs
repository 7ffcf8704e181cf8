//! The server: the one place where the rooms are built and handed to each other.
//!
//! It starts from the vault outward: the log recovers, the runtime starts, tasks go on from their positions, the door opens
//! last. It stops from the street inward: the door closes, tasks finish the batch in hand, the log flushes, the process ends.

use crate::api::{self, ApiParts};
use crate::deployment::{DeploymentsParts, Supervisor};
use crate::images::{Credentials, CredentialsError, ImageSettings, Images};
use crate::limits::{self, DOOR_PATIENCE, TASK_PATIENCE};
use crate::registry::{Policy, PolicyError, Registry};
use crate::secrets::{SecretError, Secrets};
use crate::settings::ServeSettings;
use crate::watch::Watch;
use nodata_archive::{Adoption, ArchiveError, ArchiveFiles, ArchiveOptions, Archiver, ArchiverHandle};
use nodata_log::fs::Fs;
use nodata_log::fs::real::RealFs;
use nodata_log::{Clock, EmbeddedLog, ErrorKind, Log, MetadataStore, OpenError, Options, RecoveryReport, SystemClock};
use nodata_runtime::{Compiler, HttpGrantError, Runtime, RuntimeOptions, StartError};
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Why a server could not be started, or ended.
#[derive(Debug, Error)]
pub enum ServerError {
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error("cannot {doing} {place}: {source}")]
    Io { doing: &'static str, place: String, source: io::Error },
    #[error(transparent)]
    Runtime(#[from] StartError),
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Secrets(#[from] SecretError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Policy(#[from] PolicyError),
    #[error("`{registry}` is no registry: {source}")]
    Registry { registry: String, source: HttpGrantError },
    #[error("serving failed: {0}")]
    Serve(#[from] tonic::transport::Error),
}

impl ServerError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            ServerError::Open(error) => error.kind(),
            ServerError::Archive(error) => error.kind(),
            ServerError::Runtime(error) => error.kind(),
            ServerError::Secrets(error) => error.kind(),
            ServerError::Credentials(_) | ServerError::Policy(_) => ErrorKind::Unavailable,
            ServerError::Registry { .. } => ErrorKind::Invalid,
            ServerError::Io { .. } | ServerError::Serve(_) => ErrorKind::Unavailable,
        }
    }

    /// What to do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            ServerError::Io { doing: "listen on", .. } => {
                Some("is another server running there? `--listen 127.0.0.1:0` takes a free port".to_owned())
            }
            ServerError::Open(OpenError::InUse { .. }) => {
                Some("stop that server, or give this one another directory with `--data`".to_owned())
            }
            ServerError::Secrets(error) => error.hint(),
            ServerError::Credentials(error) => error.hint(),
            ServerError::Registry { .. } => {
                Some("give HOST or HOST:PORT, such as registry.example or localhost:5000".to_owned())
            }
            _ => None,
        }
    }
}

/// A running server.
pub struct Server {
    address: SocketAddr,
    report: RecoveryReport,
    stop: CancellationToken,
    door: JoinHandle<Result<(), tonic::transport::Error>>,
    supervisor: JoinHandle<()>,
    runtime: Runtime,
    archive: ArchiveThread,
    adoption: Adoption,
    log: Arc<EmbeddedLog>,
}

impl Server {
    /// Starts a server. It answers when this returns.
    pub async fn start(settings: ServeSettings, compiler: Compiler) -> Result<Self, ServerError> {
        let images = ImageSettings {
            allow: settings.registry_allow.iter().map(|registry| registry.to_ascii_lowercase()).collect(),
            insecure: settings.registry_insecure.iter().map(|registry| registry.to_ascii_lowercase()).collect(),
            credentials: settings.registry_auth.as_deref().map(Credentials::read).transpose()?.unwrap_or_default(),
        };
        let policy = Policy::read(&settings.component_keys, settings.verify_image.clone())?;
        if let Some(dir) = &settings.watch {
            Watch::check(dir).map_err(io_error("watch", &dir.display().to_string()))?;
        }
        let place = settings.data.display().to_string();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);

        let fs: Arc<dyn Fs> = Arc::new(RealFs::new(&settings.data).map_err(io_error("create", &place))?);
        let files = Arc::new(ArchiveFiles::new(fs.clone()));
        let options = Options {
            ring_bytes: settings.ring_bytes,
            hot_bytes: settings.hot_bytes,
            log_bytes_max: settings.log_bytes_max.unwrap_or_else(|| log_bytes_max(&settings.data)),
            archive: Some(files.clone()),
            ..Options::new(chance())
        };
        let (log, report) = EmbeddedLog::open(options, &place, fs.clone(), clock.clone())?;
        log.start().map_err(io_error("start the threads of", &place))?;
        let log = Arc::new(log);
        let options = ArchiveOptions { flush_age: settings.archive_after, ..ArchiveOptions::default() };
        let archiver = Archiver::new(fs.clone(), log.clone(), files, clock.clone(), options);
        let adoption = archiver.take_over().await?;
        let (archive, archiver) = ArchiveThread::start(archiver).map_err(io_error("start the threads of", &place))?;

        let cache = settings.data.join("cache");
        let runtime = Runtime::start(RuntimeOptions {
            guest_threads: settings.guest_threads,
            memory_bytes_max: settings.guest_memory_bytes,
            ..RuntimeOptions::new(compiler, cache, clock.clone())
        })?;
        let meta: Arc<dyn MetadataStore> = log.clone();
        let events: Arc<dyn Log> = log.clone();
        let registry = Registry::open(fs, meta.clone(), runtime.clone(), clock.clone())
            .map_err(io_error("create the components of", &place))?;
        let images = Images::new(images, &runtime);
        let images = images.map_err(|(registry, source)| ServerError::Registry { registry, source })?;
        let registry = registry.with_images(images).with_policy(policy);

        let secrets = Secrets::open(&settings.data, settings.secrets_key, meta.clone(), clock.clone()).await?;

        let stop = CancellationToken::new();
        let (supervisor, deployments) = Supervisor::new(DeploymentsParts {
            log: events.clone(),
            meta,
            registry: registry.clone(),
            secrets: secrets.clone(),
            runtime: runtime.clone(),
            clock: clock.clone(),
            chance: Arc::new(chance),
        });
        let supervisor = tokio::spawn(supervisor.run(stop.clone()));

        let listening = settings.listen.to_string();
        let listener = TcpListener::bind(settings.listen).await.map_err(io_error("listen on", &listening))?;
        let address = listener.local_addr().map_err(io_error("listen on", &listening))?;
        if let Some(dir) = settings.watch {
            tokio::spawn(Watch::new(dir, registry.clone(), deployments.clone()).run(stop.clone()));
        }
        let parts = ApiParts { log: events, clock, registry, secrets, deployments, archiver };
        let door = tokio::spawn(api::serve(listener, parts, stop.clone()));
        Ok(Self { address, report, stop, door, supervisor, runtime, archive, adoption, log })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What the start found in the store.
    pub fn report(&self) -> &RecoveryReport {
        &self.report
    }

    /// What the start found in the folder of the files.
    pub fn adoption(&self) -> &Adoption {
        &self.adoption
    }

    /// Bytes that were written to the log since the start.
    pub fn written_bytes(&self) -> u64 {
        self.log.written_bytes()
    }

    /// Waits until the door closes by itself, which it only does when it fails.
    pub async fn failed(&mut self) -> ServerError {
        match (&mut self.door).await {
            Ok(Err(error)) => error.into(),
            _ => ServerError::Io {
                doing: "serve",
                place: self.address.to_string(),
                source: io::Error::other("the door closed by itself"),
            },
        }
    }

    /// Stops in order. What was acknowledged is safe whether this is called or not.
    pub async fn stop(self) {
        self.stop.cancel();
        if tokio::time::timeout(DOOR_PATIENCE, self.door).await.is_err() {
            tracing::warn!("some requests did not end in time");
        }
        if tokio::time::timeout(TASK_PATIENCE, self.supervisor).await.is_err() {
            tracing::warn!("some components did not end in time; what they did since their last commit is dropped");
        }
        self.runtime.stop(Duration::from_secs(1)).await;
        let (archive, log) = (self.archive, self.log);
        let stopped = tokio::task::spawn_blocking(move || {
            archive.stop();
            log.stop();
        });
        if let Err(error) = stopped.await {
            tracing::error!(%error, "the log did not stop in order");
        }
    }
}

/// A quarter of the free space: what is in the log must also fit as files.
fn log_bytes_max(data: &Path) -> u64 {
    let free = rustix::fs::statvfs(data).map_or(u64::MAX, |stat| stat.f_bavail.saturating_mul(stat.f_frsize));
    limits::LOG_BYTES_MAX.min(free / 4).max(limits::LOG_BYTES_MAX_MIN)
}

/// The thread that writes files. It yields to everyone else: who waits for an acknowledgement is waiting now.
struct ArchiveThread {
    stop: CancellationToken,
    thread: std::thread::JoinHandle<()>,
}

impl ArchiveThread {
    fn start(archiver: Archiver) -> io::Result<(Self, ArchiverHandle)> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        let stop = CancellationToken::new();
        let (handle, run) = archiver.start(stop.clone().cancelled_owned());
        let work = move || {
            if let Err(error) = rustix::process::setpriority_process(None, limits::ARCHIVE_NICE) {
                tracing::debug!(%error, "the priority of the archive could not be lowered");
            }
            runtime.block_on(run);
        };
        let thread = std::thread::Builder::new().name("nodata-archive".to_owned()).spawn(work)?;
        Ok((Self { stop, thread }, handle))
    }

    fn stop(self) {
        self.stop.cancel();
        // A thread that panicked has said so.
        let _ = self.thread.join();
    }
}

fn io_error(doing: &'static str, place: &str) -> impl FnOnce(io::Error) -> ServerError {
    let place = place.to_owned();
    move |source| ServerError::Io { doing, place, source }
}

/// A number that is used once.
fn chance() -> u64 {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => u64::from_le_bytes(bytes),
        // Without randomness of the system, the time has to do.
        Err(_) => SystemClock.now_us() as u64,
    }
}
