//! Hands what libFuzzer makes up to the target that `NODATA_FUZZ_TARGET` names. `cargo xtask fuzz` builds and runs it.

#![no_main]

use nodata_fuzz::{Target, seeds};
use std::ffi::OsStr;
use std::path::Path;
use std::sync::OnceLock;

static TARGET: OnceLock<&'static Target> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var_os("NODATA_FUZZ_TARGET").unwrap_or_default();
        let target = nodata_fuzz::target(&name.to_string_lossy());
        let target = TARGET.get_or_init(|| target.unwrap_or_else(|| panic!("NODATA_FUZZ_TARGET names no target: {name:?}")));
        if let Some(dir) = std::env::var_os("NODATA_FUZZ_SEEDS") {
            write_seeds(target, &dir);
            std::process::exit(0);
        }
        // libFuzzer's own hook ends the process at every panic, also at those that the reader of Parquet files catches.
        nodata_fuzz::watch_panics();
    },
    |input: &[u8]| {
        let check = || TARGET.get().map(|target| target.check(input));
        if std::panic::catch_unwind(check).is_err() {
            // What was wrong is said already. libFuzzer keeps the input and ends.
            std::process::abort();
        }
    }
);

/// Writes the inputs that the encoders make into a folder, and does nothing else.
fn write_seeds(target: &Target, dir: &OsStr) {
    for (number, seed) in seeds::of(target.name).iter().enumerate() {
        let path = Path::new(dir).join(format!("{number:02}"));
        std::fs::write(&path, seed).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }
}
