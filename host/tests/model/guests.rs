//! The components, compiled once for all runs.

use bytes::Bytes;
use nodata_log::{Clock, TimestampUs};
use nodata_runtime::{Compiler, Program, Runtime, RuntimeOptions};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, LazyLock};

/// A clock that is turned by whoever looks at it. Its microseconds are odd as often as even, by which a source fails.
#[derive(Debug, Default)]
pub(crate) struct TurnedClock(AtomicI64);

impl Clock for TurnedClock {
    fn now_us(&self) -> TimestampUs {
        1_700_000_000_000_000 + self.0.fetch_add(997, Ordering::Relaxed)
    }
}

pub(crate) struct Guests {
    /// Its guests run where they are spawned.
    pub(crate) runtime: Runtime,
    files: BTreeMap<&'static str, (Bytes, Program)>,
}

impl Guests {
    pub(crate) fn file(&self, name: &str) -> Bytes {
        self.files[name].0.clone()
    }
}

pub(crate) const TRANSFORM: &str = "does-as-told";
pub(crate) const AGGREGATE: &str = "counts-as-told";
pub(crate) const SINK: &str = "tells-what-it-delivers";
pub(crate) const SOURCE: &str = "counts-to";

pub(crate) static GUESTS: LazyLock<Guests> = LazyLock::new(|| {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("compiled-components");
    let compiler = Compiler::new(env!("CARGO_BIN_EXE_nodata"), ["__compile"]);
    let options = RuntimeOptions::new(compiler, cache, Arc::new(TurnedClock::default()));
    let runtime = Runtime::start(RuntimeOptions { guest_threads: 0, ..options }).unwrap();
    let compiling = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let files = [TRANSFORM, AGGREGATE, SINK, SOURCE].map(|name| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../target/components/{name}.wasm"));
        let hint = "build the components with `cargo xtask components`";
        let file = Bytes::from(fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}: {hint}", path.display())));
        // It is loaded as long as somebody holds it.
        let (_, program) = compiling.block_on(runtime.accept(file.clone())).unwrap();
        (name, (file, program))
    });
    Guests { runtime, files: files.into() }
});
