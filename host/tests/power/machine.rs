//! A machine with a server on it: its disk, its mains, and what an operator does between two lives.

use crate::disk::{Before, Disk, Done, Lost};
use crate::harness::{Server, Starting, run};
use crate::mount::{self, Mount};
use nodata_log::fs::simulated::Chance;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Events are in files soon, the log keeps nothing that is in files, and each segment but the one that is written is more log
/// than there should be: so every life flushes, writes checkpoints and lets go of segments.
const OPTIONS: [&str; 8] = ["--archive-after", "1", "--keep-log", "0", "--log-max", "64", "--guest-threads", "2"];

pub(crate) struct Machine {
    disk: Arc<Disk>,
    server: Option<Server>,
    mount: Option<Mount>,
    dir: Arc<TempDir>,
    address: String,
    /// What this life is called in messages.
    pub(crate) context: String,
}

impl Machine {
    /// A machine with an empty disk; fails where the kernel mounts nothing for this user.
    pub(crate) fn new() -> io::Result<Self> {
        mount::sweep();
        let disk = Arc::new(Disk::new());
        let dir = Arc::new(tempfile::tempdir()?);
        let mount = Some(Mount::new(disk.clone(), dir.path())?);
        Ok(Self { disk, server: None, mount, dir, address: "127.0.0.1:0".to_owned(), context: String::new() })
    }

    pub(crate) fn server(&mut self) -> &mut Server {
        self.server.as_mut().unwrap()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    pub(crate) fn done(&self) -> Done {
        self.disk.done()
    }

    /// Starts the server, which must succeed.
    pub(crate) fn start(&mut self) {
        match Starting::spawn(self.dir.clone(), &self.address, &OPTIONS).ready() {
            Ok(server) => {
                self.address = server.address().to_owned();
                self.server = Some(server);
            }
            Err(said) => panic!("{}: the server does not start: {said}", self.context),
        }
    }

    /// What the server said of its start.
    pub(crate) fn check_start(&mut self) {
        let said = self.server().said();
        assert!(!said.contains("made anew"), "{}: the checkpoint is lost: {said}", self.context);
        assert!(!said.contains("is not part of the store"), "{}: there is a file of nobody: {said}", self.context);
    }

    /// Starts the server, and the power goes after so many changes: while it starts, or later.
    pub(crate) fn start_until_cut(&mut self, changes: u64, before: Before) {
        self.cut_after(changes, before);
        let starting = Starting::spawn(self.dir.clone(), &self.address, &OPTIONS);
        let process = Pid::from_raw(starting.id() as i32).unwrap();
        let started = std::thread::spawn(|| starting.ready());
        while !self.disk.is_off() && !started.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        let was_cut = self.disk.is_off();
        if was_cut {
            // It may have ended by itself just before; the next start finds out why.
            let _ = kill_process(process, Signal::KILL);
            self.disk.release();
        }
        match started.join().unwrap() {
            Ok(server) => {
                self.address = server.address().to_owned();
                self.server = Some(server);
            }
            Err(said) => assert!(was_cut, "{}: the server does not start: {said}", self.context),
        }
    }

    /// The power goes after so many changes.
    pub(crate) fn cut_after(&mut self, changes: u64, before: Before) {
        self.disk.cut_after(changes, before);
    }

    /// Whether there is power. Then the server is there, too.
    pub(crate) fn is_on(&mut self) -> bool {
        if self.disk.is_off() {
            return false;
        }
        let is_there = !self.server().has_ended();
        assert!(is_there || self.disk.is_off(), "{}: the server has ended by itself", self.context);
        is_there
    }

    /// Waits until the power is gone.
    pub(crate) fn wait_until_cut(&mut self) {
        while self.is_on() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// The same while the server stops in order, which it may be done with before.
    pub(crate) fn wait_until_cut_or_stopped(&mut self) {
        while !self.disk.is_off() && !self.server().has_ended() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Ends the server as `kill -9` does. Answers with whether it was still there.
    fn kill(&mut self) -> bool {
        self.disk.cut();
        let Some(mut server) = self.server.take() else { return false };
        let was_there = !server.has_ended();
        if was_there {
            server.signal("KILL");
        }
        // What it is waiting for does not come any more.
        self.disk.release();
        server.wait();
        was_there
    }

    /// The server is killed and the machine goes on: what was written is there, and still waits for a sync.
    pub(crate) fn end_process(&mut self) {
        self.kill();
        self.restart();
    }

    /// The machine loses power and gets it back.
    pub(crate) fn lose_power(&mut self, chance: &mut Chance) -> Lost {
        self.kill();
        self.mount = None;
        let lost = self.disk.forget(chance);
        self.restart();
        lost
    }

    fn restart(&mut self) {
        self.mount = None;
        self.disk.power_on();
        self.mount = Some(Mount::new(self.disk.clone(), self.dir.path()).unwrap());
    }

    /// What `nodata fsck` finds while no server runs. Nothing that matters may be wrong, in any life.
    pub(crate) fn check_store(&self) -> Value {
        let data = self.dir.path().join("data");
        let ran = run(&["fsck", "--json", "--data", &data.to_string_lossy()], &[], self.dir.path(), b"");
        assert_eq!(ran.code, 0, "{}: {}{}", self.context, ran.out, ran.err);
        let report: Value = serde_json::from_str(&ran.out).unwrap();
        assert!(report["log"]["checkpoint_rebuilt"].is_null(), "{}: the checkpoint is lost: {report:#}", self.context);
        report
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            let place = std::env::temp_dir().join(format!("nodata-power-{}", std::process::id()));
            match self.disk.save(&place) {
                Ok(()) => eprintln!("{}: the disk as it was is in {}", self.context, place.display()),
                Err(error) => eprintln!("{}: the disk could not be saved: {error}", self.context),
            }
        }
        // Before the folder that it is mounted on is removed.
        self.mount = None;
    }
}
