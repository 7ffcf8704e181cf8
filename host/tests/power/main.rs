//! A real server on a disk that loses power: `nodata serve`, as it is shipped, on a file system that drops and tears what was
//! not synced.
//!
//! Users publish and write down what was acknowledged, two transforms run one behind the other, consumers follow, files are
//! written, grow, are sealed and removed, and the log lets go of what is in them. At a random change of the disk the power
//! goes. When it is back, `nodata fsck` must find nothing wrong, the server must start, and everything that anyone was told
//! must be true. [`disk`] says what such a disk may do.
//!
//! ```text
//! NODATA_CRASH_RUNS=100 cargo test --release -p nodata --test power -- --nocapture    about an hour
//! NODATA_CRASH_SEED=7 cargo test -p nodata --test power                               one run of this seed
//! ```
//!
//! A seed decides when the power goes and what is lost of what there is at that moment; threads and clocks decide the rest, so
//! a run with the same seed is similar and not the same. A failure leaves the disk as it was, and says where.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says why")]

mod disk;
mod file;
#[path = "../it/flights.rs"]
mod flights;
#[path = "../it/harness.rs"]
#[expect(dead_code, reason = "the stories of users need more of it")]
mod harness;
mod machine;
mod mount;
mod names;
#[path = "../it/outside.rs"]
#[expect(dead_code, reason = "the stories of users need more of it")]
mod outside;
mod users;

use disk::{Before, Lost};
use harness::component;
use machine::Machine;
use nodata_log::fs::simulated::Chance;
use outside::seen_outside;
use std::io::{self, Write as _};
use std::time::Duration;
use users::{COUNTS, FLIGHTS, LATE, NOISE, NOISE_PARTITIONS, Users};

/// Lives of one run.
const LIVES: u64 = 10;

/// In these lives a whole segment is filled, so that it is used again.
const BULK_EVERY: u64 = 5;

#[allow(clippy::disallowed_methods, reason = "a test has no settings")]
fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|number| number.parse().ok()).unwrap_or(default)
}

/// Also when the runner keeps what tests print to itself.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

fn say_skipped(why: &io::Error) {
    say(&format!("skipped: FUSE cannot be used here, which takes /dev/fuse, and root or fusermount3: {why}"));
}

/// When the power goes: after up to 2^`bits` changes, after few as often as after many.
fn moment(chance: &mut Chance, bits: u64) -> (u64, Before) {
    let bits = chance.below(bits + 1);
    (chance.below(1 << bits), if chance.percent(70) { Before::Sync } else { Before::Change })
}

/// Why a life is over.
#[derive(Clone, Copy, Debug)]
enum End {
    /// The power goes.
    Power,
    /// The process is killed, and the machine goes on.
    Kill,
    /// The power goes while the server stops in order.
    Stop,
}

#[test]
fn what_was_acknowledged_survives_the_loss_of_power() {
    let first = number("NODATA_CRASH_SEED", 1);
    for seed in first..first + number("NODATA_CRASH_RUNS", 1) {
        match Machine::new() {
            Ok(machine) => run(seed, machine),
            Err(why) => return say_skipped(&why),
        }
    }
}

fn run(seed: u64, mut machine: Machine) {
    let mut chance = Chance::new(seed);
    let mut losses: Vec<Lost> = Vec::new();
    machine.context = format!("seed {seed}");

    make_store(&mut machine, &mut chance, &mut losses);
    prepare(&mut machine);

    let mut users = Users::start(machine.address());
    for life in 0..LIVES {
        let is_bulk = life % BULK_EVERY == BULK_EVERY / 2;
        let end = match chance.below(10) {
            0..5 => End::Power,
            5..8 => End::Kill,
            _ => End::Stop,
        };
        machine.context = format!("seed {seed} life {life} to {end:?}");
        users.hurry(is_bulk);
        users.check(&machine.context, false);
        users.check_bounds(&machine.context);
        users.wait_for_acks(if is_bulk { 80_000 } else { 300 });
        users.hurry(false);

        let (changes, before) = moment(&mut chance, 10);
        if let End::Stop = end {
            machine.server().signal("TERM");
            machine.cut_after(changes, before);
            machine.wait_until_cut_or_stopped();
        } else {
            machine.cut_after(changes, before);
            machine.wait_until_cut();
        }
        match end {
            End::Kill => machine.end_process(),
            End::Power | End::Stop => losses.push(machine.lose_power(&mut chance)),
        }
        // Sometimes the next start does not get far. What a process that was killed has left in the page cache is lost only
        // if the power goes soon: a little later everything is in files.
        let is_often = matches!(end, End::Kill);
        if chance.percent(if is_often { 80 } else { 30 }) {
            let (changes, before) = moment(&mut chance, 9);
            machine.start_until_cut(changes, before);
            machine.wait_until_cut();
            losses.push(machine.lose_power(&mut chance));
        }
        machine.check_store();
        machine.start();
        machine.check_start();
    }

    machine.context = format!("seed {seed} at the end");
    users.finish();
    for deployment in [LATE, COUNTS] {
        machine.server().wait_until_done(deployment);
    }
    users.check(&machine.context, true);
    users.wait_for_followers(&machine.context);
    machine.server().ok(&["topic", "flush"]);
    stop(&mut machine);
    losses.push(machine.lose_power(&mut chance));
    let report = machine.check_store();
    assert_eq!(report["log"]["torn_bytes"], 0, "{}: {report:#}", machine.context);
    machine.start();
    machine.check_start();
    users.check(&machine.context, true);
    let seen: Vec<u64> = [FLIGHTS, LATE, COUNTS].iter().map(|topic| seen_outside(machine.server(), topic)).collect();
    // A file that was removed may have come back with the power; this start removed it again.
    stop(&mut machine);
    let report = machine.check_store();
    assert_eq!(report["problems"], serde_json::json!([]), "{}: {report:#}", machine.context);

    let done = machine.done();
    let count = |of: &dyn Fn(&(String, String, bool)) -> bool| done.renames.iter().filter(|rename| of(rename)).count();
    let is_file = |path: &str| path.starts_with("data/data/");
    let is_segment = |path: &str| path.starts_with("data/wal/0");
    let files = count(&|(_, to, replaced)| is_file(to) && !replaced);
    let generations = count(&|(_, to, replaced)| is_file(to) && *replaced);
    let files_removed = done.removals.iter().filter(|path| path.ends_with(".parquet")).count();
    let recycled = count(&|(from, to, _)| is_segment(from) && to.contains("spare"));
    let segments_removed = done.removals.iter().filter(|path| is_segment(path)).count();
    let sectors: u64 = losses.iter().map(|lost| lost.sectors).sum();
    let names: u64 = losses.iter().map(|lost| lost.names).sum();
    let real = losses.iter().filter(|lost| lost.sectors > 0).count();
    let acks = users.acks();
    say(&format!(
        "seed {seed}: {acks} events acknowledged, {seen:?} in files at the end, {LIVES} lives, power lost {} times, {real} \
         of them with data: {sectors} sectors and {names} names; {files} files begun, grown {generations} times, {files_removed} removed; \
         {segments_removed} segments removed, {recycled} used again, {} syncs of the checkpoint",
        losses.len(),
        done.syncs["data/meta.redb"],
    ));
    // A run in which little of this happened would prove little.
    assert!(real >= 3 && names > 3, "little was lost");
    assert!(files > 10 && generations > 50 && files_removed > 3, "few files were written, grew, or were removed");
    assert!(segments_removed > 3 && recycled > 0, "the log let go of little");
}

/// The power goes while a store is made, and while the first topics are.
fn make_store(machine: &mut Machine, chance: &mut Chance, losses: &mut Vec<Lost>) {
    machine.context.push_str(" while the store is made");
    let mut acknowledged = Vec::new();
    for trial in 0..4 {
        let (changes, before) = moment(chance, 6);
        machine.start_until_cut(changes, before);
        for number in 0.. {
            if !machine.is_on() {
                break;
            }
            let topic = format!("trial-{trial}-{number}");
            let mut create = machine.server().command(&["topic", "create", &topic]).spawn().unwrap();
            while machine.is_on() && create.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = create.kill();
            if create.wait().unwrap().success() {
                acknowledged.push(topic);
            }
        }
        losses.push(machine.lose_power(chance));
    }
    machine.start();
    for topic in acknowledged {
        machine.server().ok(&["topic", "delete", &topic]);
    }
}

/// Stops the server in order.
fn stop(machine: &mut Machine) {
    let server = machine.server();
    server.signal("TERM");
    assert!(server.wait().success(), "{}", machine.context);
}

/// Makes the topics and deploys the components.
fn prepare(machine: &mut Machine) {
    let server = machine.server();
    let data = server.data();
    let refused = server.run(&["fsck", "--data", &data.to_string_lossy()]).failed(2);
    assert!(refused.starts_with("error: another nodata server uses "), "the lock is held on this disk too: {refused}");
    for topic in [FLIGHTS, LATE, COUNTS] {
        server.ok(&["topic", "create", topic, "--partitions", "4"]);
    }
    let partitions = NOISE_PARTITIONS.to_string();
    server.ok(&["topic", "create", NOISE, "--partitions", &partitions, "--retention-size", "1MiB"]);
    for (name, from, to) in [("late-flights", FLIGHTS, LATE), ("running-count", LATE, COUNTS)] {
        let transform = format!("{from}:{to}");
        let file = component(name);
        server.ok(&["add-component", "--file", &file, "--name", to, "--transform", &transform, "--from", "earliest"]);
    }
}
