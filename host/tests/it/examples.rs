//! The pages of the components: what they show is what happens, and what they say of the configuration is what the code asks for.
//!
//! An example is a block of `console`: commands after `$ `, which go on after `> `, and what they print, if the page shows it. There
//! `…` is whatever a build, a machine or a day makes different.

use crate::harness::{NODATA, Server, components};
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Those that are no components to use: guests of the tests, and what components have in common.
const NO_PAGE: [&str; 2] = ["guests", "json-fields"];
/// Those whose other side is another server. It is started by tests of their own, in files of these names.
const ELSEWHERE: [&str; 3] = ["clickhouse", "http-poll", "webhook"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../components")
}

/// The components, by the names of their folders.
fn shipped() -> Vec<String> {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let crates = entries.filter(|path| path.join("Cargo.toml").exists());
    let mut names: Vec<String> = crates.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    names.retain(|name| !NO_PAGE.contains(&name.as_str()));
    names.sort();
    names
}

/// Those whose page can be followed with nothing but this server.
fn shipped_alone() -> Vec<String> {
    shipped().into_iter().filter(|name| !ELSEWHERE.contains(&name.as_str())).collect()
}

fn page(name: &str) -> String {
    let path = folder().join(name).join("README.md");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// A command, and the lines that it prints.
#[derive(Debug, Default, PartialEq)]
struct Step {
    command: String,
    expected: Vec<String>,
}

/// The steps of all examples of a page, in order.
fn steps(page: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut is_example = false;
    for line in page.lines() {
        if let Some(language) = line.trim_start().strip_prefix("```") {
            is_example = language == "console";
        } else if !is_example {
            continue;
        } else if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step { command: command.to_owned(), expected: Vec::new() });
        } else {
            let step = steps.last_mut().unwrap_or_else(|| panic!("no command before {line:?}"));
            match line.strip_prefix("> ") {
                Some(more) if step.expected.is_empty() => step.command = format!("{}\n{more}", step.command),
                _ => step.expected.push(line.to_owned()),
            }
        }
    }
    steps
}

/// Whether a line is as expected, where `…` is anything.
fn is_like(line: &str, expected: &str) -> bool {
    let mut parts = expected.split('…');
    let Some(mut rest) = line.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = expected.contains('…').then(|| parts.next_back()).flatten() else { return rest.is_empty() };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

/// A place where the commands of a page work as they stand there.
fn place(server: &Server) -> PathBuf {
    let place = server.dir().path().join("place");
    for target in ["wasm32-wasip1", "wasm32-wasip2"] {
        let built = place.join("target").join(target).join("release");
        fs::create_dir_all(&built).unwrap();
        for name in shipped() {
            let file = components().join(format!("{name}.wasm"));
            std::os::unix::fs::symlink(
                file.canonicalize().unwrap(),
                built.join(format!("{}.wasm", name.replace('-', "_"))),
            )
            .unwrap();
        }
    }
    place
}

/// What a command of a page prints.
fn run(server: &Server, place: &Path, command: &str) -> Vec<String> {
    let bin = Path::new(NODATA).parent().unwrap().display().to_string();
    let output = Command::new("sh")
        .args(["-e", "-c", &format!("PATH=\"{bin}:$PATH\"\n{command}")])
        .env("NODATA_SERVER", server.address())
        .current_dir(place)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command}\n{out}{err}");
    out.trim_end().lines().map(str::to_owned).collect()
}

/// Waits until there is nothing left to do for any deployment that has an input.
fn wait_until_done(server: &Server) {
    for deployment in server.json(&["deployment", "list"]).as_array().unwrap() {
        if deployment["source"] == Value::Null {
            server.wait_until_done(deployment["name"].as_str().unwrap());
        }
    }
}

#[track_caller]
fn check(name: &str) {
    let steps = steps(&page(name));
    assert!(
        steps.iter().any(|step| !step.expected.is_empty()),
        "the page of {name} has no example that shows something"
    );
    let server = Server::start();
    let place = place(&server);
    for Step { command, expected } in steps {
        let is_reading =
            ["nodata consume", "nodata aggregate", "nodata dlq"].iter().any(|reads| command.starts_with(reads));
        if is_reading {
            wait_until_done(&server);
        }
        let mut printed = run(&server, &place, &command);
        // Windows close a moment after the position has come to the end.
        while is_reading && printed.len() < expected.len() {
            std::thread::sleep(Duration::from_millis(20));
            printed = run(&server, &place, &command);
        }
        let is_as_shown = printed.len() == expected.len()
            && printed.iter().zip(&expected).all(|(line, expected)| is_like(line, expected));
        assert!(
            expected.is_empty() || is_as_shown,
            "the page of {name} shows something else than\n$ {command}\n{}",
            printed.join("\n")
        );
    }
}

/// Each example has a test of its own, and none is left out.
macro_rules! pages {
    ($($test:ident: $name:literal,)*) => {
        $(
            #[test]
            fn $test() {
                check($name);
            }
        )*

        #[test]
        fn every_component_has_a_page_that_is_tried() {
            assert_eq!(shipped_alone(), [$($name),*]);
        }
    };
}

pages! {
    aggregate_fields: "aggregate-fields",
    clock: "clock",
    deduplicate: "deduplicate",
    filter_rewrite: "filter-rewrite",
    late_flights: "late-flights",
    redact: "redact",
    route_by_field: "route-by-field",
    running_count: "running-count",
    session_summary: "session-summary",
    shape_json: "shape-json",
    shout: "shout",
}

#[test]
fn the_pages_are_found_from_the_first_one() {
    let first = fs::read_to_string(folder().join("README.md")).unwrap();
    let missing: Vec<String> =
        shipped().into_iter().filter(|name| !first.contains(&format!("({name}/README.md)"))).collect();
    assert!(missing.is_empty(), "components/README.md does not name {missing:?}");
}

/// The names between `start` and `end`.
fn between<'t>(text: &'t str, start: &str, end: char) -> BTreeSet<&'t str> {
    text.split(start).skip(1).filter_map(|rest| rest.split_once(end)).map(|(name, _)| name).collect()
}

#[test]
fn pages_name_every_entry_of_the_configuration_and_no_other() {
    for name in shipped_alone() {
        let mut code = String::new();
        for entry in fs::read_dir(folder().join(&name).join("src")).unwrap() {
            let text = fs::read_to_string(entry.unwrap().path()).unwrap();
            code.push_str(text.split("#[cfg(test)]").next().unwrap());
        }
        let asks = [
            "config::get(\"",
            "config::get_or(\"",
            "config::require(\"",
            "config::parse(\"",
            " fields(\"",
            "By::configured(\"",
        ];
        let asked: BTreeSet<&str> = asks.iter().flat_map(|ask| between(&code, ask, '"')).collect();
        let page = page(&name);
        let table = page.split("| config |").nth(1).unwrap_or_default().split("\n\n").next().unwrap_or_default();
        let told = between(table, "\n| `", '`');
        assert_eq!(told, asked, "the page of {name}, and what it asks for");
    }
}

#[test]
fn a_page_is_read_as_a_person_reads_it() {
    let page = "```console\n$ one\nout 1\nout 2\n$ two <<END\n> in\n> END\n```\n\n```sh\nnot this\n```\n";
    let step = |command: &str, expected: &[&str]| Step {
        command: command.to_owned(),
        expected: expected.iter().map(|line| (*line).to_owned()).collect(),
    };
    assert_eq!(steps(page), [step("one", &["out 1", "out 2"]), step("two <<END\nin\nEND", &[])]);
    for (line, expected) in [("abc", "abc"), ("abc", "a…c"), ("abcbd", "a…b…d"), ("ac", "a…c"), ("x", "…")] {
        assert!(is_like(line, expected), "{line} {expected}");
    }
    for (line, expected) in [("abc", "ab"), ("abc", "a…b"), ("abc", "b…c"), ("ab", "a…c…b"), ("", "a")] {
        assert!(!is_like(line, expected), "{line} {expected}");
    }
}
