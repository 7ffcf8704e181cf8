//! Starts servers, runs commands, and cleans up after them.

use nodata_client::{Client, ClientOptions, Event, PublisherOptions};
use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;
use tempfile::TempDir;

/// The program under test.
pub(crate) const NODATA: &str = env!("CARGO_BIN_EXE_nodata");

/// A server that has not said yet that it is ready.
pub(crate) struct Starting(Server);

impl Starting {
    pub(crate) fn spawn(dir: Arc<TempDir>, listen: &str, more: &[&str]) -> Self {
        Self::spawn_with_env(dir, listen, more, &[])
    }

    fn spawn_with_env(dir: Arc<TempDir>, listen: &str, more: &[&str], env: &[(&str, &str)]) -> Self {
        let mut child = Command::new(NODATA)
            .args(["serve", "--listen", listen, "--data"])
            .arg(dir.path().join("data"))
            .args(more)
            .env_remove("NODATA_LOG")
            .envs(env.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let said = Arc::new(Mutex::new(String::new()));
        let stderr = BufReader::new(child.stderr.take().unwrap());
        let listens = std::thread::spawn({
            let said = said.clone();
            move || {
                for line in stderr.lines().map_while(Result::ok) {
                    let mut said = said.lock().unwrap();
                    said.push_str(&line);
                    said.push('\n');
                }
            }
        });
        let more = more.iter().map(|option| (*option).to_owned()).collect();
        Self(Server { address: listen.to_owned(), child, said, listens: Some(listens), dir, more })
    }

    /// The process.
    #[allow(dead_code, reason = "only the test that loses power asks")]
    pub(crate) fn id(&self) -> u32 {
        self.0.child.id()
    }

    /// Waits until it is ready, or answers with what it said when it ended before.
    pub(crate) fn ready(self) -> Result<Server, String> {
        let Self(mut server) = self;
        let mut ready = String::new();
        BufReader::new(server.child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        match ready.trim_end().strip_prefix("nodata is ready on ") {
            Some(address) => {
                server.address = address.to_owned();
                Ok(server)
            }
            None => {
                server.wait();
                Err(server.said())
            }
        }
    }
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    address: String,
    said: Arc<Mutex<String>>,
    listens: Option<JoinHandle<()>>,
    dir: Arc<TempDir>,
    more: Vec<String>,
}

impl Server {
    /// Starts a server on an empty store.
    pub(crate) fn start() -> Self {
        Self::start_in(Arc::new(tempfile::tempdir().unwrap()), "127.0.0.1:0")
    }

    /// Starts a server on an empty store, with more options. They are kept when it is started again.
    pub(crate) fn start_with(more: &[&str]) -> Self {
        match Self::try_start(Arc::new(tempfile::tempdir().unwrap()), "127.0.0.1:0", more) {
            Ok(server) => server,
            Err(said) => panic!("the server did not start: {said}"),
        }
    }

    /// Starts a server on an empty store, with more in its environment. It is not there when it is started again.
    pub(crate) fn start_with_env(env: &[(&str, &str)]) -> Self {
        let starting = Starting::spawn_with_env(Arc::new(tempfile::tempdir().unwrap()), "127.0.0.1:0", &[], env);
        starting.ready().unwrap_or_else(|said| panic!("the server did not start: {said}"))
    }

    /// Starts a server on a store that may be there.
    pub(crate) fn start_in(dir: Arc<TempDir>, listen: &str) -> Self {
        match Self::try_start(dir, listen, &[]) {
            Ok(server) => server,
            Err(said) => panic!("the server did not start: {said}"),
        }
    }

    /// Starts a server, or answers with what it said when it did not.
    pub(crate) fn try_start(dir: Arc<TempDir>, listen: &str, more: &[&str]) -> Result<Self, String> {
        Starting::spawn(dir, listen, more).ready()
    }

    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// The directory around the store.
    pub(crate) fn dir(&self) -> Arc<TempDir> {
        self.dir.clone()
    }

    /// The store.
    pub(crate) fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    /// What the server wrote to its standard error so far.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    /// The memory that the process has, in bytes, as the system counts it.
    #[allow(dead_code, reason = "only the test of evil components asks")]
    pub(crate) fn memory_bytes(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let kibibytes = status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
        kibibytes.unwrap().parse::<u64>().unwrap() << 10
    }

    /// Waits until the server has said this: what it writes comes here a moment later.
    pub(crate) fn wait_until_it_says(&self, text: &str) {
        while !self.said().contains(text) {
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) async fn client(&self) -> Client {
        connect(&self.address).await
    }

    /// Ends the server as `kill -9` does, and starts it again at the same address.
    pub(crate) fn kill_and_restart(&mut self) {
        self.child.kill().unwrap();
        self.restart();
    }

    /// Waits for the end of the server, and starts it again at the same address.
    fn restart(&mut self) {
        self.child.wait().unwrap();
        let (dir, address) = (self.dir.clone(), self.address.clone());
        let more = std::mem::take(&mut self.more);
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        *self = Self::try_start(dir, &address, &more).unwrap_or_else(|said| panic!("it did not start again: {said}"));
    }

    /// Stops the server in order, and starts it again at the same address.
    pub(crate) fn stop_and_restart(&mut self) {
        self.signal("TERM");
        self.restart();
    }

    /// Whether the process has ended.
    #[allow(dead_code, reason = "only the test that loses power asks")]
    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&format!("-{name}"), &pid]).status().unwrap().success());
    }

    /// Waits for the end of the server.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = self.child.wait().unwrap();
        if let Some(listens) = self.listens.take() {
            listens.join().unwrap();
        }
        status
    }

    /// A command against this server, which nobody listens to.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(NODATA);
        command.args(args).env("NODATA_SERVER", &self.address).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs a command against this server.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        self.run_with(args, b"")
    }

    /// Runs a command with this on its standard input.
    pub(crate) fn run_with(&self, args: &[&str], input: &[u8]) -> Ran {
        run(args, &[("NODATA_SERVER", &self.address)], self.dir.path(), input)
    }

    /// Runs a command that must succeed, and answers with what it printed.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        self.run(args).ok()
    }

    /// Runs a command that must succeed, and answers with the JSON that it printed.
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.ok(&[args, &["--json"]].concat())).unwrap()
    }

    /// Publishes these values, in one request.
    pub(crate) fn publish(&self, topic: &str, values: &[&str]) {
        self.run_with(&["publish", topic, "--format", "text"], (values.join("\n") + "\n").as_bytes()).ok();
    }

    /// Publishes to one partition.
    pub(crate) fn publish_to(&self, topic: &str, partition: u32, values: &[&str]) {
        block_on(async {
            let options = PublisherOptions { partition: Some(partition), ..PublisherOptions::default() };
            let publisher = self.client().await.publisher(topic, options);
            for value in values {
                publisher.send(Event::new((*value).to_owned())).await.unwrap();
            }
            publisher.flush().await.unwrap();
        });
    }

    /// The values of a topic, in order.
    pub(crate) fn values(&self, topic: &str) -> Vec<String> {
        self.ok(&["consume", topic, "--raw"]).lines().map(str::to_owned).collect()
    }

    /// Runs a component that was built on a topic.
    pub(crate) fn deploy(&self, component: &str, transform: &str, more: &[&str]) {
        let file = self::component(component);
        self.ok(&[&["add-component", "--file", &file, "--transform", transform], more].concat());
    }

    pub(crate) fn described(&self, deployment: &str) -> Value {
        self.json(&["deployment", "describe", deployment])
    }

    /// Waits until a deployment is so.
    pub(crate) fn wait_until(&self, deployment: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        loop {
            let described = self.described(deployment);
            if is_so(&described) {
                return described;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until a deployment has processed every event there is.
    pub(crate) fn wait_until_done(&self, deployment: &str) -> Value {
        self.wait_until(deployment, |described| {
            assert_ne!(described["state"], "failed", "{described:#}");
            described["lag"] == 0
        })
    }

    /// Waits until a task of a deployment is paused because its component failed.
    pub(crate) fn wait_until_failed(&self, deployment: &str) -> Value {
        self.wait_until(deployment, |described| described["state"] == "failed")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A test that fails shows what the server said.
        if std::thread::panicking() {
            eprintln!("--- the server said\n{}---", self.said());
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What a command did.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ran {
    fn of(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// What it printed, if it succeeded.
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.out, self.err);
        self.out
    }

    /// What it said, if it failed with this code.
    pub(crate) fn failed(self, code: i32) -> String {
        assert_eq!(self.code, code, "{}{}", self.out, self.err);
        assert_eq!(self.out, "", "a command that fails prints no data");
        // How far it had come is not why it failed.
        self.err.split_inclusive('\n').filter(|line| !line.starts_with("component ")).collect()
    }
}

/// Runs the program.
pub(crate) fn run(args: &[&str], env: &[(&str, &str)], dir: &Path, input: &[u8]) -> Ran {
    let mut child = Command::new(NODATA)
        .args(args)
        .env_remove("NODATA_SERVER")
        .envs(env.iter().copied())
        .current_dir(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writes = std::thread::spawn(move || {
        // A command that fails does not read to the end.
        let _ = stdin.write_all(&input);
    });
    let output = child.wait_with_output().unwrap();
    writes.join().unwrap();
    Ran::of(output)
}

/// The file of a component that was built.
pub(crate) fn component(name: &str) -> String {
    let path = components().join(format!("{name}.wasm"));
    assert!(path.exists(), "{} is missing: build the components with `cargo xtask components`", path.display());
    path.display().to_string()
}

/// The same component with another digest: a section of its file says this.
pub(crate) fn another_version(of: &str, server: &Server, says: &str) -> String {
    let mut file = std::fs::read(component(of)).unwrap();
    let says = says.as_bytes();
    // The number of the section, the length of it, and the length of its name.
    file.extend([0, says.len() as u8 + 1, says.len() as u8]);
    file.extend(says);
    let path = server.dir().path().join(format!("{of}-{}.wasm", String::from_utf8_lossy(says)));
    std::fs::write(&path, file).unwrap();
    path.display().to_string()
}

/// Where components are built.
pub(crate) fn components() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/components")
}

/// Lines of JSON.
pub(crate) fn json_lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// A client that is patient with a server that starts again.
pub(crate) async fn connect(address: &str) -> Client {
    let options = ClientOptions { retry_for: Duration::from_secs(120), ..ClientOptions::default() };
    Client::connect_with(address, options).await.unwrap()
}

/// A runtime for a client.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

/// A Python with the readers that are not ours.
pub(crate) fn python(script: &str) -> Command {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("../target/readers/bin/python");
    assert!(python.exists(), "{} is not there; `cargo xtask test` makes it", python.display());
    let mut command = Command::new(python);
    command.arg(root.join("tests/outside").join(script));
    command
}
