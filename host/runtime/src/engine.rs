//! The engine that runs components, and the thread that ticks for it.
//!
//! The process that serves cannot compile: its engine has no compiler. A child process has one, with the same settings
//! otherwise, and what the child makes fits this engine (see `compile`).

use crate::limits::{BACKTRACE_FRAMES_MAX, FIBER_STACK_BYTES, GUEST_STACK_BYTES};
use crate::ticker::{Pulse, Ticker};
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::num::NonZeroUsize;
use std::sync::Arc;
use wasmparser::WasmFeatures;
use wasmtime::{Config, Engine, EngineWeak, WasmBacktraceDetails};

/// What a component may be made of: what the toolchains we know produce. Left out on purpose are 64-bit memories, threads,
/// garbage collection and exceptions: code that nobody here uses is code that can only hurt.
pub(crate) const FEATURES: WasmFeatures = WasmFeatures::WASM2
    .difference(WasmFeatures::GC_TYPES)
    .union(WasmFeatures::EXTENDED_CONST)
    .union(WasmFeatures::TAIL_CALL)
    .union(WasmFeatures::MULTI_MEMORY)
    .union(WasmFeatures::COMPONENT_MODEL);

/// The settings of both engines.
fn config() -> Config {
    let mut config = Config::new();
    config
        .wasm_features(FEATURES.complement(), false)
        .wasm_features(FEATURES, true)
        // The contract is synchronous. Without this, a call is a switch to a fiber and nothing else.
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(GUEST_STACK_BYTES)
        .async_stack_size(FIBER_STACK_BYTES)
        // The names of functions come from the name section; where the file and line would be is not even kept.
        .wasm_backtrace_details(WasmBacktraceDetails::Disable)
        .wasm_backtrace_max_frames(NonZeroUsize::new(BACKTRACE_FRAMES_MAX))
        .generate_address_map(false);
    config
}

/// The engine of the child, which compiles and never runs anything.
pub(crate) fn compiling() -> wasmtime::Result<Engine> {
    Engine::new(&config())
}

/// The engine of the serving process, which runs and never compiles anything.
fn running() -> wasmtime::Result<Engine> {
    let mut config = config();
    config.enable_compiler(false);
    Engine::new(&config)
}

/// Everything that decides whether code from one engine can run in another. The part that names the processor is only
/// known to an engine that compiles.
pub(crate) fn fingerprint(compiling: &Engine) -> u64 {
    let mut hasher = DefaultHasher::new();
    compiling.precompile_compatibility_hash().hash(&mut hasher);
    hasher.finish()
}

/// The engine, with the thread that ticks for it. Dropping it ends the thread.
pub(crate) struct StreamEngine {
    pub(crate) engine: Engine,
    /// Of the code that this engine can run.
    pub(crate) fingerprint: u64,
    ticker: Ticker,
}

impl StreamEngine {
    pub(crate) fn start() -> wasmtime::Result<Self> {
        let engine = running()?;
        let fingerprint = fingerprint(&compiling()?);
        let ticker = Ticker::start(turn(engine.weak()))?;
        Ok(Self { engine, fingerprint, ticker })
    }

    /// What calls are announced to, so that they are ticked for.
    pub(crate) fn pulse(&self) -> Arc<Pulse> {
        self.ticker.pulse()
    }
}

/// Turns the epoch of an engine, which is what makes guests give way. This does not keep the engine alive.
fn turn(engine: EngineWeak) -> impl FnMut() -> bool + Send {
    move || engine.upgrade().inspect(Engine::increment_epoch).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A component of nothing, in the binary format.
    const EMPTY: &[u8] = b"\0asm\x0d\0\x01\0";

    #[test]
    fn what_the_child_compiles_runs_here() {
        let child = compiling().unwrap();
        let running = running().unwrap();
        let code = child.precompile_component(EMPTY).unwrap();
        #[expect(unsafe_code, reason = "compiled two lines above")]
        let component = unsafe { wasmtime::component::Component::deserialize(&running, &code) };
        assert!(component.is_ok());
        assert_eq!(fingerprint(&child), fingerprint(&compiling().unwrap()));
    }

    #[test]
    fn the_serving_process_cannot_compile() {
        let refused = running().unwrap().precompile_component(EMPTY).unwrap_err();
        assert!(refused.to_string().contains("compiler"), "{refused}");
    }

    #[test]
    fn other_settings_have_another_fingerprint() {
        let mut other = config();
        other.epoch_interruption(false);
        assert_ne!(fingerprint(&Engine::new(&other).unwrap()), fingerprint(&compiling().unwrap()));
    }

    #[test]
    fn the_ticker_ends_with_its_owner_and_does_not_keep_the_engine() {
        let stream = StreamEngine::start().unwrap();
        let weak = stream.engine.weak();
        drop(stream);
        assert!(weak.upgrade().is_none());
    }
}
