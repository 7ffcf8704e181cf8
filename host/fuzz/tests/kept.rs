//! Every input that is kept runs through its target, in an ordinary build, so that what was found once stays found.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says on what")]

use nodata_fuzz::{TARGETS, seeds};
use std::fs;
use std::path::{Path, PathBuf};

/// Where inputs are kept: made by `cargo xtask seeds`, and found.
const FOLDERS: [&str; 2] = ["corpus", "regressions"];

fn folder(kind: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(kind)
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn run_kept(target: &str) {
    let mut ran = 0;
    for path in FOLDERS.iter().flat_map(|kind| entries(&folder(kind).join(target))) {
        let input = fs::read(&path).unwrap();
        // Said when the test fails.
        eprintln!("{}", path.display());
        nodata_fuzz::target(target).unwrap().check(&input);
        ran += 1;
    }
    assert!(ran > 0, "no input is kept for `{target}`");
}

macro_rules! targets {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                run_kept(stringify!($name));
            }
        )*

        #[test]
        fn every_target_has_a_test_and_every_folder_a_target() {
            let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
            assert_eq!([$(stringify!($name)),*].as_slice(), names);
            for path in FOLDERS.iter().flat_map(|kind| entries(&folder(kind))) {
                let name = path.file_name().unwrap().to_str().unwrap();
                assert!(names.contains(&name), "{}: no target has this name", path.display());
            }
        }
    };
}

targets! { batch frame segment recovery parquet publish }

/// What the encoders write now, which may be more than what is kept.
#[test]
fn seeds_hold() {
    for target in &TARGETS {
        for seed in seeds::of(target.name) {
            target.check(&seed);
        }
    }
}

#[test]
fn kept_inputs_are_small() {
    for path in FOLDERS.iter().flat_map(|kind| entries(&folder(kind))).flat_map(|dir| entries(&dir)) {
        let bytes = fs::metadata(&path).unwrap().len();
        assert!(bytes <= 4096, "{} has {bytes} bytes", path.display());
    }
}
