//! Bits rot, blocks are lost, files are cut and gone.

use crate::check::{Said, after_repair, look, repair};
use crate::store::{Made, make};
use nodata_log::fs::simulated::{Chance, SimulatedFs};
use nodata_log::fs::{Fs, SyncSite, write_all_at};
use std::io::IoSlice;

/// Every file of a store, with its size.
pub(crate) fn files(fs: &SimulatedFs) -> Vec<(String, u64)> {
    let mut found = Vec::new();
    let mut dirs = vec![String::new()];
    while let Some(dir) = dirs.pop() {
        for entry in fs.list(&dir).unwrap() {
            let path = if dir.is_empty() { entry.name } else { format!("{dir}/{}", entry.name) };
            match entry.is_dir {
                true => dirs.push(path),
                false => found.push((path, entry.bytes)),
            }
        }
    }
    found.retain(|(path, _)| !path.contains("spare") && path != "LOCK");
    found.sort();
    found
}

pub(crate) fn overwrite(fs: &SimulatedFs, path: &str, at: u64, bytes: &[u8]) {
    let file = fs.open(path).unwrap();
    let end = file.size().unwrap();
    let bytes = &bytes[..bytes.len().min((end - at) as usize)];
    write_all_at(&*file, &mut [IoSlice::new(bytes)], at).unwrap();
    file.sync_data(SyncSite::Kept).unwrap();
}

/// Does one bad thing, and says what.
pub(crate) fn damage(fs: &SimulatedFs, chance: &mut Chance, only: fn(&str) -> bool) -> String {
    let files: Vec<(String, u64)> = files(fs).into_iter().filter(|(path, bytes)| only(path) && *bytes > 0).collect();
    // As often in each kind of file.
    let kinds = ["wal/", "data/", "meta.redb", "STORE"];
    let of_kind = |kind: &str| files.iter().filter(|(path, _)| path.starts_with(kind)).cloned().collect::<Vec<_>>();
    let kind = kinds[[0, 0, 0, 1, 1, 1, 2, 3][chance.below(8) as usize]];
    let mut some = of_kind(kind);
    if some.is_empty() {
        some = files.clone();
    }
    if some.is_empty() {
        return "nothing".to_owned();
    }
    let (path, bytes) = some[chance.below(some.len() as u64) as usize].clone();
    // What is gone at the end of the log, with all that says that it was there, cannot be missed.
    let is_last = files.iter().rfind(|(path, _)| path.starts_with("wal/")).is_some_and(|(last, _)| *last == path);
    let at = if is_last { 84 + chance.below(bytes.saturating_sub(84)) } else { chance.below(bytes) };
    match if is_last { [0, 7][chance.below(2) as usize] } else { chance.below(10) } {
        0..4 => {
            fs.flip_bit(&path, at, chance.below(8) as u32).unwrap();
            format!("a flipped bit at {at} of {path}")
        }
        4..6 => {
            let at = at / 512 * 512;
            let len = [512, 4096, 20_000][chance.below(3) as usize];
            overwrite(fs, &path, at, &vec![0; len]);
            format!("{len} zeros at {at} of {path}")
        }
        6 => {
            let noise: Vec<u8> = (0..200).map(|_| chance.below(256) as u8).collect();
            overwrite(fs, &path, at, &noise);
            format!("noise at {at} of {path}")
        }
        7..9 => {
            fs.truncate(&path, at).unwrap();
            format!("{path} cut to {at} of {bytes}")
        }
        _ => {
            fs.remove(&path).unwrap();
            fs.sync_dir(path.rsplit_once('/').map_or("", |(dir, _)| dir), SyncSite::KeptName).unwrap();
            format!("{path} removed")
        }
    }
}

/// Damages a store, repairs it, and checks everything. Answers with what was said, if there was something to say.
fn run(made: &Made, seed: u64, count: u64, only: fn(&str) -> bool) -> Option<Said> {
    let fs = made.fs.fork();
    let mut chance = Chance::new(seed);
    let what: Vec<String> = (0..count).map(|_| damage(&fs, &mut chance, only)).collect();
    let context = format!("seed {seed}: {}", what.join(", "));
    let survey = match look(&fs, made) {
        Ok(survey) => survey,
        Err(error) => {
            assert!(context.contains("STORE"), "{context}: {error}");
            return None;
        }
    };
    let said = Said::of(&survey);
    if survey.is_well() {
        drop(survey);
    } else {
        repair(&fs, made, survey).unwrap_or_else(|error| panic!("{context}: {error}\n{:#?}", said.findings));
    }
    after_repair(&fs, made, &said, &context);
    Some(said)
}

/// `NODATA_CRASH_RUNS=20000 cargo test --release -p nodata-archive --test repair` runs for an hour or so.
#[allow(clippy::disallowed_methods, reason = "a test has no settings")]
pub(crate) fn runs(few: u64) -> u64 {
    std::env::var("NODATA_CRASH_RUNS").ok().and_then(|runs| runs.parse().ok()).unwrap_or(few)
}

fn many(few: u64, count: u64, only: fn(&str) -> bool) -> (u64, u64, u64) {
    let (mut damaged, mut losing, mut inexact) = (0, 0, 0);
    for seed in 0..runs(few) {
        let made = make(seed);
        for nth in 0..6 {
            let Some(said) = run(&made, seed * 100 + nth, count, only) else { continue };
            damaged += u64::from(!said.findings.is_empty());
            losing += u64::from(said.lost_events() > 0);
            inexact += u64::from(!said.is_exact);
        }
    }
    (damaged, losing, inexact)
}

#[test]
fn a_store_that_is_well_is_left_alone() {
    for seed in 0..10 {
        let made = make(seed);
        let said = Said::of(&look(&made.fs, &made).unwrap());
        assert!(said.findings.is_empty(), "seed {seed}: {:#?}", said.findings);
        after_repair(&made.fs, &made, &said, &format!("seed {seed}"));
    }
}

#[test]
fn damage_anywhere_is_repaired_and_what_is_lost_is_said() {
    let (damaged, losing, inexact) = many(30, 1, |_| true);
    assert!(damaged > 60 && losing > 15 && inexact > 8, "it was real: {damaged}, {losing}, {inexact}");
}

#[test]
fn damage_in_several_places_is_repaired_and_what_is_lost_is_said() {
    let (damaged, losing, inexact) = many(20, 3, |path| path != "STORE");
    assert!(damaged > 60 && losing > 20 && inexact > 10, "it was real: {damaged}, {losing}, {inexact}");
}
