//! What an operator decides about a server: plain data, complete and checked.

use nodata_runtime::limits::HOST_MEMORY_BYTES;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeSettings {
    /// Where the store is. It is made if it is not there.
    pub data: PathBuf,
    /// Where gRPC is served. Port 0 takes a free one.
    pub listen: SocketAddr,
    /// Threads that run components.
    pub guest_threads: usize,
    /// Memory of all instances of components together.
    pub guest_memory_bytes: u64,
    /// Memory for recent events.
    pub ring_bytes: u64,
    /// Bytes of log that are kept for readers although everything in them is in files.
    pub hot_bytes: u64,
    /// Bytes of log at which publishers wait for the archive; `None` decides by the space on the disk.
    pub log_bytes_max: Option<u64>,
    /// Events become part of a Parquet file after this time, however few they are.
    pub archive_after: Duration,
    /// Where the key of the secrets is; `None`: beside the store.
    pub secrets_key: Option<PathBuf>,
    /// Registries of images that may be asked: `HOST`, `HOST:PORT`, or `*` for all of the internet.
    pub registry_allow: Vec<String>,
    /// Those that are asked without TLS.
    pub registry_insecure: Vec<String>,
    /// Where it is written who this server is in registries.
    pub registry_auth: Option<PathBuf>,
    /// Public keys of minisign. With any, only components are taken that one of them signed.
    pub component_keys: Vec<PathBuf>,
    /// A program that is asked about each image.
    pub verify_image: Option<PathBuf>,
    /// A directory whose components are taken when their files change.
    pub watch: Option<PathBuf>,
}

impl ServeSettings {
    /// The defaults, for a store at this place.
    pub fn new(data: PathBuf, listen: SocketAddr) -> Self {
        Self {
            data,
            listen,
            guest_threads: std::thread::available_parallelism().map_or(1, usize::from),
            guest_memory_bytes: HOST_MEMORY_BYTES,
            ring_bytes: nodata_log::limits::RING_BYTES,
            hot_bytes: nodata_log::limits::HOT_BYTES,
            log_bytes_max: None,
            archive_after: Duration::from_secs(nodata_archive::limits::FLUSH_AGE_SECS),
            secrets_key: None,
            registry_allow: Vec::new(),
            registry_insecure: Vec::new(),
            registry_auth: None,
            component_keys: Vec::new(),
            verify_image: None,
            watch: None,
        }
    }
}
