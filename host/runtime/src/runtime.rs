//! The component host of a server.

use crate::accept::{AcceptError, AcceptStage, ComponentInfo};
use crate::cache::Cache;
use crate::compile::Compiler;
use crate::contract;
use crate::deployment::{Deployment, InstanceLimits};
use crate::digest::Digest;
use crate::guest_log::GuestLog;
use crate::guest_metrics::GuestMetrics;
use crate::http::{HttpClient, HttpGrant, HttpMachine};
use crate::inspect::inspect;
use crate::instance::Instance;
use crate::limits::HOST_MEMORY_BYTES;
use crate::program::{Machine, Program, ProgramInner};
use crate::threads::{GuestThreads, Share, Work};
use bytes::Bytes;
use nodata_log::{Clock, ErrorKind};
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use thiserror::Error;
use tokio::sync::Semaphore;
use wasmtime::component::Component;

/// How a component host is set up.
pub struct RuntimeOptions {
    /// How to start the child that compiles.
    pub compiler: Compiler,
    /// Where compiled components are kept. It is made if it is not there, and nobody else may read or write it.
    pub cache_dir: PathBuf,
    /// Threads that run guests. 0: none, they run on the tokio runtime of whoever spawns them, as in a test that has one thread and
    /// turns its own clock.
    pub guest_threads: usize,
    /// Memory of all instances together.
    pub memory_bytes_max: u64,
    /// The time, for logs, for events without a timestamp, and for guests that ask.
    pub clock: Arc<dyn Clock>,
}

impl RuntimeOptions {
    /// One guest thread for each processor, and the memory of [`limits`](crate::limits).
    pub fn new(compiler: Compiler, cache_dir: impl Into<PathBuf>, clock: Arc<dyn Clock>) -> Self {
        let guest_threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { compiler, cache_dir: cache_dir.into(), guest_threads, memory_bytes_max: HOST_MEMORY_BYTES, clock }
    }
}

/// Why a component host could not be started.
#[derive(Debug, Error)]
pub enum StartError {
    #[error("the directory of compiled components {} cannot be used: {source}", dir.display())]
    Cache { dir: PathBuf, source: io::Error },
    #[error("the guest threads could not be started: {0}")]
    Threads(#[source] io::Error),
    #[error("the WebAssembly engine could not be started: {0}")]
    Engine(String),
}

impl StartError {
    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        match self {
            StartError::Cache { .. } | StartError::Threads(_) => ErrorKind::Unavailable,
            StartError::Engine(_) => ErrorKind::Internal,
        }
    }
}

/// The component host of a server: it accepts components, loads them and runs their instances. Cheap to clone.
///
/// Its methods want a tokio runtime around them, with I/O and time: the child that compiles is waited for there. Guests do
/// not run there but on threads of their own; see [`spawn`](Self::spawn).
#[derive(Clone)]
pub struct Runtime {
    shared: Arc<Shared>,
}

struct Shared {
    machine: Arc<Machine>,
    cache: Cache,
    compiler: Compiler,
    /// One compilation at a time: each uses a whole processor.
    compiling: Semaphore,
    /// What is loaded and in use, so that every task of a deployment shares the same code.
    loaded: Mutex<HashMap<Digest, Weak<ProgramInner>>>,
    threads: GuestThreads,
    http: Arc<HttpMachine>,
}

/// Looks at a component without a host: everything that can be checked before it is compiled.
pub fn inspect_component(bytes: &[u8]) -> Result<ComponentInfo, AcceptError> {
    let inspected = inspect(bytes)?;
    Ok(ComponentInfo {
        digest: Digest::of(bytes),
        bytes: bytes.len() as u64,
        roles: inspected.roles,
        extras: inspected.extras,
        contract: contract::version(),
        imports: inspected.imports,
        exports: inspected.exports,
        wit: inspected.wit,
    })
}

impl Runtime {
    /// Starts a component host.
    pub fn start(options: RuntimeOptions) -> Result<Self, StartError> {
        let RuntimeOptions { compiler, cache_dir, guest_threads, memory_bytes_max, clock } = options;
        let machine =
            Machine::start(memory_bytes_max, clock).map_err(|error| StartError::Engine(format!("{error:#}")))?;
        let cache = Cache::open(&cache_dir, machine.stream.fingerprint)
            .map_err(|source| StartError::Cache { dir: cache_dir, source })?;
        let threads = GuestThreads::start(guest_threads).map_err(StartError::Threads)?;
        let http = Arc::new(HttpMachine::start().map_err(StartError::Threads)?);
        let shared = Shared {
            machine: Arc::new(machine),
            cache,
            compiler,
            compiling: Semaphore::new(1),
            loaded: Mutex::default(),
            threads,
            http,
        };
        Ok(Self { shared: Arc::new(shared) })
    }

    /// Checks everything about an uploaded file, compiles it and tries it out.
    pub async fn accept(&self, bytes: Bytes) -> Result<(ComponentInfo, Program), AcceptError> {
        self.accept_and_tell(bytes, |_| {}).await
    }

    /// The same, and tells what is being done.
    pub async fn accept_and_tell(
        &self,
        bytes: Bytes,
        tell: impl Fn(AcceptStage) + Send + Sync,
    ) -> Result<(ComponentInfo, Program), AcceptError> {
        tell(AcceptStage::Checking);
        let file = bytes.clone();
        let info = blocking(move || inspect_component(&file)).await?;
        let program = self.load_and_tell(info.digest, move || Ok(bytes), &tell).await?;
        tell(AcceptStage::Trying);
        self.try_out(&program).await?;
        Ok((info, program))
    }

    /// Loads a component that was accepted before. The file is only read if it has to be compiled again.
    pub async fn load(
        &self,
        digest: Digest,
        read: impl FnOnce() -> io::Result<Bytes> + Send + 'static,
    ) -> Result<Program, AcceptError> {
        self.load_and_tell(digest, read, |_| {}).await
    }

    async fn load_and_tell(
        &self,
        digest: Digest,
        read: impl FnOnce() -> io::Result<Bytes> + Send + 'static,
        tell: impl Fn(AcceptStage) + Send + Sync,
    ) -> Result<Program, AcceptError> {
        if let Some(program) = self.loaded(digest) {
            return Ok(program);
        }
        if let Some(component) = self.cached(digest).await? {
            return self.keep(digest, &component);
        }
        tell(AcceptStage::Waiting);
        let Ok(_permit) = self.shared.compiling.acquire().await else { return Err(AcceptError::Stopping) };
        // Somebody else may have compiled it while this one waited.
        let mut component = self.cached(digest).await?;
        if component.is_none() {
            tell(AcceptStage::Compiling);
            self.compile(digest, read).await?;
            component = self.cached(digest).await?;
        }
        match component {
            Some(component) => self.keep(digest, &component),
            None => Err(AcceptError::Cache(io::ErrorKind::NotFound.into())),
        }
    }

    async fn compile(
        &self,
        digest: Digest,
        read: impl FnOnce() -> io::Result<Bytes> + Send + 'static,
    ) -> Result<(), AcceptError> {
        let bytes = blocking(move || {
            let bytes = read().map_err(AcceptError::Read)?;
            match Digest::of(&bytes) {
                found if found == digest => Ok(bytes),
                found => Err(AcceptError::OtherDigest { expected: digest, found }),
            }
        });
        let code = self.shared.compiler.compile(bytes.await?, self.shared.machine.stream.fingerprint).await?;
        let shared = self.shared.clone();
        blocking(move || shared.cache.store(digest, &code).map_err(AcceptError::Cache)).await
    }

    async fn cached(&self, digest: Digest) -> Result<Option<Component>, AcceptError> {
        let shared = self.shared.clone();
        blocking(move || shared.cache.load(&shared.machine.stream.engine, digest).map_err(AcceptError::Cache)).await
    }

    fn loaded(&self, digest: Digest) -> Option<Program> {
        Some(Program { inner: self.programs().get(&digest)?.upgrade()? })
    }

    fn keep(&self, digest: Digest, component: &Component) -> Result<Program, AcceptError> {
        let program = Program::link(digest, component, self.shared.machine.clone())?;
        let mut programs = self.programs();
        programs.retain(|_, program| program.strong_count() > 0);
        programs.insert(digest, Arc::downgrade(&program.inner));
        Ok(program)
    }

    fn programs(&self) -> MutexGuard<'_, HashMap<Digest, Weak<ProgramInner>>> {
        self.shared.loaded.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts an instance that is granted nothing and throws it away.
    async fn try_out(&self, program: &Program) -> Result<(), AcceptError> {
        let deployment = Arc::new(Deployment {
            config: BTreeMap::new(),
            secrets: BTreeMap::new(),
            ports: Arc::new([]),
            log: Arc::new(GuestLog::new(self.shared.machine.clock.clone())),
            metrics: Arc::new(GuestMetrics::default()),
            http: None,
            limits: InstanceLimits::default(),
        });
        let share = Share::default();
        for role in program.roles() {
            let (program, deployment) = (program.inner.clone(), deployment.clone());
            let started = self.spawn(&share, async move {
                Instance::try_start(&program, role, deployment, 0, None).await.map(|started| started.map(drop))
            });
            match started.await {
                Ok(started) => started.map_err(AcceptError::Start)??,
                Err(_) => return Err(AcceptError::Stopping),
            }
        }
        Ok(())
    }

    /// Forgets what was compiled of a component. What is running goes on.
    pub async fn forget(&self, digest: Digest) -> Result<(), AcceptError> {
        let shared = self.shared.clone();
        blocking(move || shared.cache.forget(digest).map_err(AcceptError::Cache)).await
    }

    /// What sends the HTTP requests of a deployment; `None` if it may not send any.
    pub fn http_client(&self, grants: &[HttpGrant]) -> Option<HttpClient> {
        (!grants.is_empty()).then(|| HttpClient::new(self.shared.http.clone(), grants.to_vec()))
    }

    /// Runs a future on the guest threads, in the time of this share: the place for everything that calls an [`Instance`]. It goes on
    /// when the answer is dropped.
    pub fn spawn<F>(&self, share: &Share, future: F) -> Work<F::Output>
    where
        F: Future + Send + 'static,
        F::Output: Send + 'static,
    {
        self.shared.threads.spawn(share, future)
    }

    /// Bytes of linear memory of all instances together.
    pub fn memory_bytes(&self) -> u64 {
        self.shared.machine.memory.used()
    }

    /// Ends the guest threads: every task is dropped at its next pause. Waits for that at most so long.
    pub async fn stop(&self, patience: Duration) {
        self.shared.threads.stop(patience).await;
    }
}

/// Runs what reads files or computes for long where that holds nobody up.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, AcceptError> + Send + 'static,
) -> Result<T, AcceptError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // A panic while looking at a file somebody sent is the file's problem, not the server's.
        Err(error) if error.is_panic() => Err(AcceptError::NotValid { message: "looking at it failed".to_owned() }),
        Err(_) => Err(AcceptError::Stopping),
    }
}
