//! The walls between the rooms: who may name what. Everything here reads the sources as text.

use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The files of a folder that end so, with their paths from the root of the repository.
fn files(folder: &str, end: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(end) {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

/// Whether a line of code names this: as a word, and not in a comment.
fn names(line: &str, word: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    code.match_indices(word).any(|(at, _)| {
        let is_part = |c: char| c.is_alphanumeric() || c == '_';
        let before = code[..at].chars().next_back().is_some_and(is_part);
        let after = code[at + word.len()..].chars().next().is_some_and(is_part);
        !before && !after
    })
}

/// The lines under `folders` that name one of `words`, outside of `allowed`: paths, or the beginnings of paths.
fn crossings(folders: &[&str], words: &[&str], allowed: &[&str]) -> Vec<String> {
    let sources = folders.iter().flat_map(|folder| files(folder, ".rs"));
    let outside = sources.filter(|(name, _)| !allowed.iter().any(|allowed| name.starts_with(allowed)));
    outside
        .flat_map(|(name, text)| {
            let lines: Vec<String> = text
                .lines()
                .enumerate()
                .filter(|(_, line)| words.iter().any(|word| names(line, word)))
                .map(|(number, line)| format!("{name}:{}: {}", number + 1, line.trim()))
                .collect();
            lines
        })
        .collect()
}

#[track_caller]
fn check(what: &str, folders: &[&str], words: &[&str], allowed: &[&str]) {
    let found = crossings(folders, words, allowed);
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
    // A wall around nothing would hold whatever happens.
    let inside = crossings(folders, words, &[]);
    assert!(allowed.is_empty() || !inside.is_empty(), "nobody names {words:?} any more: this check proves nothing");
}

const HOST: [&str; 3] = ["host/src", "host/log/src", "host/runtime/src"];

#[test]
fn only_these_open_files() {
    let allowed = [
        "host/log/src/fs/real.rs",        // the files of the log
        "host/runtime/src/cache.rs",      // compiled code
        "host/runtime/src/compile.rs",    // the directory of the child that compiles
        "host/src/cli/bench/target.rs",   // /proc
        "host/src/cli/component.rs",      // the file that a person names
        "host/src/cli/publish.rs",        // the same
        "host/src/images/credentials.rs", // who the server is in registries
        "host/src/registry/policy.rs",    // the keys of those who sign
        "host/src/secrets.rs",            // the key of the secrets
        "host/src/watch.rs",              // the components of an author
    ];
    let words = ["std::fs", "tokio::fs", "OpenOptions", "File::open", "File::create"];
    check("files are opened by `Fs` and by a few that have a reason", &HOST, &words, &allowed);
}

#[test]
fn wasmtime_ends_at_the_runtime() {
    let words = ["wasmtime", "wasmtime_wasi", "wasmparser", "wit_component"];
    let folders = ["host/src", "host/log/src", "host/runtime/src", "proto/src", "sdk/rust/client/src"];
    check("wasmtime is named outside of the runtime", &folders, &words, &["host/runtime/src/"]);
}

#[test]
fn requests_of_components_leave_in_one_place() {
    let words = ["hyper", "hyper_util", "hyper_rustls", "rustls", "TcpStream", "lookup_host"];
    check("requests leave where grants are checked", &HOST, &words, &["host/runtime/src/http/"]);
}

#[test]
fn wire_types_end_at_the_door() {
    let allowed = ["host/src/api/", "host/src/cli/", "host/src/server.rs"];
    let words = ["tonic", "prost", "nodata_proto", "nodata_client"];
    check("wire types are named behind the door", &HOST, &words, &allowed);
}

#[test]
fn nobody_looks_up() {
    check("the command line is above everything", &HOST, &["crate::cli"], &["host/src/cli/"]);
    check(
        "the door is above the deployments",
        &HOST,
        &["crate::api"],
        &["host/src/api/", "host/src/server.rs", "host/src/cli/bench/null.rs"],
    );
    check("the server is built by the command line", &HOST, &["crate::server"], &["host/src/cli/"]);
}

#[test]
fn the_log_and_the_runtime_build_alone() {
    let manifest = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let depends_on = |path: &str, crates: &[&str]| -> Vec<String> {
        let manifest = manifest(path);
        let dependencies = manifest.split("[dependencies]").nth(1).unwrap().split("\n[").next().unwrap();
        let named = dependencies.lines().filter_map(|line| line.split(['=', '.', ' ']).next());
        named.filter(|name| crates.contains(name)).map(str::to_owned).collect()
    };
    let heavy = ["arrow", "hyper", "nodata-proto", "nodata-runtime", "parquet", "tonic", "wasmtime"];
    assert_eq!(depends_on("host/log/Cargo.toml", &heavy), Vec::<String>::new(), "the log builds in seconds");
    let door = ["nodata-client", "nodata-proto", "prost", "tonic"];
    assert_eq!(depends_on("host/runtime/Cargo.toml", &door), Vec::<String>::new(), "the runtime serves nobody");
    assert_eq!(depends_on("host/log/Cargo.toml", &["redb"]), ["redb"], "the manifest is read as it is written");
}

#[test]
fn every_story_is_told() {
    let main = fs::read_to_string(root().join("host/tests/it/main.rs")).unwrap();
    let untold: Vec<String> = files("host/tests/it", ".rs")
        .into_iter()
        .filter_map(|(name, _)| Some(name.rsplit_once('/')?.1.strip_suffix(".rs")?.to_owned()))
        .filter(|name| name != "main" && !main.contains(&format!("mod {name};")))
        .collect();
    assert!(untold.is_empty(), "files that main.rs does not name: {}", untold.join(", "));
}

#[test]
fn every_guest_has_a_test() {
    let folders = ["host/tests/it", "host/runtime/tests/runtime", "host/runtime/benches"];
    let tests: String = folders.iter().flat_map(|folder| files(folder, ".rs")).map(|(_, text)| text).collect();
    let untested: Vec<String> = files("components/guests/examples", ".rs")
        .into_iter()
        .filter_map(|(name, _)| Some(name.rsplit_once('/')?.1.strip_suffix(".rs")?.to_owned()))
        .filter(|name| !tests.contains(&format!("\"{name}\"")))
        .collect();
    assert!(untested.is_empty(), "guests that no test starts: {}", untested.join(", "));
}
