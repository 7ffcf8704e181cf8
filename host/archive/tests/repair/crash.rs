//! The power goes in the middle of a repair, or the process is killed. Whoever runs it again comes to the same end, and nothing that
//! was damaged is thrown away.

use crate::check::{Said, after_repair, look, repair};
use crate::damage::{damage, files, runs};
use crate::store::{Made, make};
use nodata_log::fs::simulated::{Chance, Crash, Faults, SimulatedFs};
use nodata_log::fs::{Fs as _, SyncSite, read_file};
use std::collections::BTreeMap;

fn all_bytes(fs: &SimulatedFs) -> u64 {
    let spares = fs.list("wal").unwrap().into_iter().filter(|entry| entry.name.starts_with("spare"));
    files(fs).into_iter().map(|(_, bytes)| bytes).sum::<u64>() + spares.map(|entry| entry.bytes).sum::<u64>()
}

fn contents(fs: &SimulatedFs) -> BTreeMap<String, Vec<u8>> {
    files(fs).into_iter().map(|(path, _)| (path.clone(), read_file(fs, &path).unwrap())).collect()
}

/// Everything that was damaged is where it was, or is kept.
fn nothing_is_thrown_away(fs: &SimulatedFs, damaged: &BTreeMap<String, Vec<u8>>, context: &str) {
    let now = contents(fs);
    for (path, bytes) in damaged {
        let is_kept = now.iter().any(|(found, content)| {
            let name = found
                .strip_prefix("lost+found/")
                .and_then(|rest| rest.split_once('/'))
                .map_or(found.as_str(), |(_, name)| name);
            name == path && content == bytes
        });
        assert!(is_kept, "{context}: {path} is thrown away");
    }
}

/// How a repair is interrupted.
#[derive(Clone, Copy, Debug)]
enum End {
    Done,
    /// The power goes, or the process is killed, at this call of the disk.
    Crash(u64),
    /// This call fails.
    Error(u64),
    /// There is space for so many bytes more.
    Full(u64),
}

/// Damages a store, and repairs it with an interruption. Answers with the calls of the disk that it took.
fn run(made: &Made, seed: u64, end: End, lost_syncs: Option<SyncSite>) -> Option<u64> {
    let fs = made.fs.fork();
    let mut chance = Chance::new(seed);
    let what = damage(&fs, &mut chance, |path| path != "STORE");
    let context = format!("seed {seed}, {end:?}: {what}");
    let survey = look(&fs, made).unwrap_or_else(|error| panic!("{context}: {error}"));
    if survey.is_well() {
        return None;
    }
    let said = Said::of(&survey);
    let before = contents(&fs);
    let damaged: BTreeMap<String, Vec<u8>> =
        before.into_iter().filter(|(path, _)| survey.keeps().any(|kept| kept == path)).collect();
    let mut faults = Faults { lost_syncs, short_writes: true, ..Faults::default() };
    let expected = match end {
        End::Done => "",
        End::Crash(at) => {
            faults.crash_at = Some(at);
            "simulated power loss"
        }
        End::Error(at) => {
            faults.error_at = Some(at);
            "simulated I/O error"
        }
        End::Full(more) => {
            faults.capacity = Some(all_bytes(&fs) + more);
            "no storage space"
        }
    };
    fs.set_faults(faults);
    let repaired = repair(&fs, made, survey);
    let calls = fs.calls();
    if let Err(error) = &repaired {
        assert!(!matches!(end, End::Done) && error.contains(expected), "{context}: {error}");
    }
    if lost_syncs.is_none() && (chance.percent(30) || matches!(end, End::Error(_) | End::Full(_))) {
        fs.kill();
    } else {
        fs.crash(Crash { seed: chance.number(), sector_bytes: [512, 4096][chance.below(2) as usize] });
    }
    fs.set_faults(Faults::default());
    nothing_is_thrown_away(&fs, &damaged, &context);
    let survey = look(&fs, made).unwrap_or_else(|error| panic!("{context}: {error}"));
    if survey.is_well() {
        drop(survey);
    } else {
        assert!(repaired.is_err(), "{context}: it was repaired, and then {:#?}", survey.findings);
        let again = Said::of(&survey);
        assert_eq!(again.losses(), said.losses(), "{context}: it finds something else the second time");
        repair(&fs, made, survey).unwrap_or_else(|error| panic!("{context}: {error}"));
    }
    nothing_is_thrown_away(&fs, &damaged, &context);
    after_repair(&fs, made, &said, &context);
    Some(calls)
}

#[test]
fn a_crash_at_every_call_of_a_repair_changes_nothing_of_its_end() {
    let mut crashes = 0;
    for seed in 0..runs(4) {
        let made = make(seed);
        let seed = seed * 10;
        let Some(calls) = run(&made, seed, End::Done, None) else { continue };
        for at in 0..calls {
            run(&made, seed, End::Crash(at), None);
            crashes += 1;
        }
    }
    assert!(crashes > 100, "{crashes}");
}

#[test]
fn a_repair_that_fails_can_be_run_again() {
    for seed in 0..runs(4) {
        let made = make(seed);
        let seed = seed * 10 + 1;
        let Some(calls) = run(&made, seed, End::Done, None) else { continue };
        for at in (0..calls).step_by(3) {
            run(&made, seed, End::Error(at), None);
        }
        for more in [0, 4000, 20_000, 60_000, 120_000] {
            run(&made, seed, End::Full(more), None);
        }
    }
}

#[test]
fn a_missing_sync_is_noticed() {
    let sites = [
        SyncSite::Kept,
        SyncSite::KeptName,
        SyncSite::Repaired,
        SyncSite::RepairedName,
        SyncSite::Checkpoint,
        SyncSite::ArchiveFile,
        SyncSite::ArchiveDir,
        SyncSite::ArchiveName,
    ];
    let is_noticed = |site: &SyncSite| {
        (0..40).any(|seed| {
            let made = make(seed);
            (0..3).any(|nth| {
                let seed = seed * 10 + nth;
                let end = [End::Done, End::Crash(Chance::new(seed).below(60))][nth as usize % 2];
                let run = || run(&made, seed, end, Some(*site));
                std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_err()
            })
        })
    };
    let unnoticed: Vec<SyncSite> = sites.into_iter().filter(|site| !is_noticed(site)).collect();
    assert!(unnoticed.is_empty(), "nobody notices when these syncs do nothing: {unnoticed:?}");
}
