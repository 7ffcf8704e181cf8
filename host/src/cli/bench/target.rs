//! The server under test: a process of its own, so that its processor time and memory can be told from the load's.

use crate::cli::CliError;
use nodata_client::Client;
use nodata_client::proto::CreateTopicRequest;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Clock ticks of a second in `/proc`; it has been 100 on Linux for ever.
const TICKS: f64 = 100.0;

/// Whoever does nothing for so long has nothing to do.
const SETTLED: Duration = Duration::from_millis(500);

/// A running server with a store of its own, which goes with it.
pub(crate) struct Target {
    child: Child,
    address: String,
    dir: Option<TempDir>,
}

impl Target {
    /// Starts a server on an empty store in this directory.
    pub(crate) fn start(dir: &Path) -> Result<Self, CliError> {
        Self::start_with(dir, &[])
    }

    /// The same with more options.
    pub(crate) fn start_with(dir: &Path, options: &[&str]) -> Result<Self, CliError> {
        let store = tempfile::Builder::new().prefix("nodata-bench-").tempdir_in(dir).map_err(|error| {
            CliError::failed(format!("cannot make a directory for the store in {}: {error}", dir.display()))
        })?;
        let data = store.path().join("data");
        let mut target = Self::serve(&data, options)?;
        target.dir = Some(store);
        Ok(target)
    }

    /// Starts a server that throws everything away.
    pub(crate) fn start_null() -> Result<Self, CliError> {
        Self::spawn(&["__null"], None)
    }

    fn serve(data: &Path, options: &[&str]) -> Result<Self, CliError> {
        let args = [&["serve", "--listen", "127.0.0.1:0", "--log", "error"], options, &["--data"]].concat();
        Self::spawn(&args, Some(data))
    }

    fn spawn(args: &[&str], data: Option<&Path>) -> Result<Self, CliError> {
        let failed = |error: std::io::Error| CliError::failed(format!("cannot start a server: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let mut command = Command::new(program);
        command.args(args).args(data).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let mut line = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut line).map_err(failed)?;
        }
        match line.trim().strip_prefix("nodata is ready on ") {
            Some(address) => Ok(Self { address: address.to_owned(), child, dir: None }),
            None => Err(CliError::failed("the server under test did not start; its messages are above")),
        }
    }

    /// Ends the server in order and starts it again on the same store, with these options. Answers with the time until it was
    /// ready.
    pub(crate) fn restart(&mut self, options: &[&str]) -> Result<Duration, CliError> {
        let Some(dir) = self.dir.take() else { return Err(CliError::failed("this server has no store")) };
        self.stop();
        let begun = std::time::Instant::now();
        let data = dir.path().join("data");
        let again = Self::serve(&data, options);
        let took = begun.elapsed();
        let again = again?;
        *self = again;
        self.dir = Some(dir);
        Ok(took)
    }

    fn stop(&mut self) {
        if let Some(pid) = rustix::process::Pid::from_raw(self.child.id() as i32) {
            // One that has ended already is as good.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        }
        let _ = self.child.wait();
    }

    /// Ends the server at once, whatever it does.
    pub(crate) fn kill(mut self) {
        // One that has ended already is as good.
        let _ = self.child.kill();
    }

    pub(crate) async fn connect(&self) -> Result<Client, CliError> {
        Ok(Client::connect(&self.address).await?)
    }

    /// Waits until the server has nothing to do any more, such as writing what it was given, and the disk neither.
    pub(crate) async fn settle(&self) {
        loop {
            rustix::fs::sync();
            let before = self.usage();
            tokio::time::sleep(SETTLED).await;
            let now = self.usage();
            if now.cpu_s - before.cpu_s <= 1.0 / TICKS && now.written_bytes == before.written_bytes {
                return;
            }
        }
    }

    /// Makes a topic.
    pub(crate) async fn topic(&self, name: &str, partitions: u32) -> Result<(), CliError> {
        let request = CreateTopicRequest { name: name.to_owned(), partitions, ..Default::default() };
        self.connect().await?.topics().create_topic(request).await?;
        Ok(())
    }

    /// Bytes of the file in which the log keeps what it derives, state tables most of all, once the server has stopped in order.
    pub(crate) fn stop_and_measure_state(mut self) -> u64 {
        self.stop();
        let folder = self.dir.as_ref().map(|dir| dir.path().join("data"));
        let bytes = folder.and_then(|folder| fs::metadata(folder.join("meta.redb")).ok());
        bytes.map_or(0, |file| file.len())
    }

    /// What the threads that there are now have used so far.
    pub(crate) fn threads(&self) -> Threads {
        Threads::of(self.child.id())
    }

    pub(crate) fn usage(&self) -> Usage {
        Usage::of(&self.child.id().to_string())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    pub(crate) cpu_s: f64,
    pub(crate) memory_bytes: f64,
    pub(crate) peak_memory_bytes: f64,
    pub(crate) written_bytes: f64,
}

impl Usage {
    /// Of this process.
    pub(crate) fn own() -> Self {
        Self::of("self")
    }

    /// What cannot be read counts as nothing.
    fn of(process: &str) -> Self {
        let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|number| number.parse::<f64>().ok()).unwrap_or_default()
        };
        let stat = read("stat");
        // The name of the program is in parentheses and may hold anything; user and system time are the 14th and 15th field.
        let behind_name = stat.rsplit(')').next().unwrap_or_default();
        let ticks: f64 =
            behind_name.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
        Self {
            cpu_s: ticks / TICKS,
            memory_bytes: field(&read("status"), "VmRSS:") * 1024.0,
            peak_memory_bytes: field(&read("status"), "VmHWM:") * 1024.0,
            written_bytes: field(&read("io"), "write_bytes:"),
        }
    }
}

/// What each thread of a process has used so far, finer than [`Usage`] is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Threads(HashMap<OsString, Thread>);

/// What threads have used.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Thread {
    /// The system counts it in nanoseconds.
    pub(crate) cpu_s: f64,
    /// How often one had waited, and went on.
    pub(crate) wakes: f64,
}

impl Threads {
    /// What cannot be read counts as nothing.
    fn of(process: u32) -> Self {
        let thread = |dir: fs::DirEntry| {
            let read = |file: &str| fs::read_to_string(dir.path().join(file)).unwrap_or_default();
            let first = |text: &str| text.split_whitespace().next().and_then(|number| number.parse::<f64>().ok());
            let status = read("status");
            let wakes = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            let cpu_s = first(&read("schedstat")).unwrap_or_default() / 1e9;
            (dir.file_name(), Thread { cpu_s, wakes: wakes.and_then(first).unwrap_or_default() })
        };
        let threads = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
        Self(threads.map(thread).collect())
    }

    /// What all of them have used since. One that has ended meanwhile is not seen any more, and what it had before is not taken off.
    pub(crate) fn since(&self, before: &Self) -> Thread {
        self.0.iter().fold(Thread::default(), |all, (id, now)| {
            let then = before.0.get(id).copied().unwrap_or_default();
            Thread { cpu_s: all.cpu_s + now.cpu_s - then.cpu_s, wakes: all.wakes + now.wakes - then.wakes }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_ends_takes_nothing_with_it() {
        let of = |threads: &[(&str, f64)]| {
            let thread = |&(id, wakes): &(&str, f64)| (OsString::from(id), Thread { cpu_s: wakes / 8.0, wakes });
            Threads(threads.iter().map(thread).collect())
        };
        let used = of(&[("1", 14.0), ("3", 2.0)]).since(&of(&[("1", 10.0), ("2", 100.0)]));
        assert_eq!((used.cpu_s, used.wakes), (0.75, 6.0));
        // This one works now.
        let before = Threads::of(std::process::id());
        let end = std::time::Instant::now() + Duration::from_millis(20);
        while std::time::Instant::now() < end {}
        assert!(Threads::of(std::process::id()).since(&before).cpu_s > 0.0);
    }
}
