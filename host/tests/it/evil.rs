//! Components that do their worst, each beside a neighbour that reads the same topic: the evil one has a reason that reads well and
//! nothing else, and its neighbour gives what it always gives.

use crate::forged;
use crate::harness::{Server, component};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// What a server may have more than before when all that was evil is gone. The program of the one that was tried is among it, and
/// what an allocator keeps for later.
const MORE_BYTES: u64 = 32 << 20;

/// It computes for so long and no longer.
const BRIEF: [&str; 2] = ["--call-cpu", "50ms"];

/// It waits for so long and no longer.
const SHORT: [&str; 2] = ["--call-time", "100ms"];

const TRANSFORM: [&str; 2] = ["--transform", "in:out"];
const SINK: [&str; 2] = ["--sink", "in"];
const SOURCE: [&str; 2] = ["--source", "out"];
const AGGREGATE: [&str; 2] = ["--aggregate", "in"];

/// It does not tick while it is looked at.
const QUIET: [&str; 2] = ["--tick", "24h"];

/// A server with a neighbour.
struct Street {
    server: Server,
    /// What the neighbour was given.
    published: RefCell<Vec<String>>,
    /// What the server had when there was nobody but the neighbour.
    memory_bytes: u64,
}

impl Street {
    fn new() -> Self {
        let server = Server::start();
        for topic in ["in", "out", "copies"] {
            server.ok(&["topic", "create", topic]);
        }
        server.deploy("copies", "in:copies", &["--name", "neighbour"]);
        server.ok(&["component", "push", &component("evil")]);
        let street = Self { server, published: RefCell::default(), memory_bytes: 0 };
        street.neighbour_is_served();
        Self { memory_bytes: street.server.memory_bytes(), ..street }
    }

    /// Publishes an event to everybody; answers with its offset.
    fn publish(&self) -> usize {
        let mut published = self.published.borrow_mut();
        let offset = published.len();
        published.push(format!("event {offset}"));
        self.server.publish("in", &[&published[offset]]);
        offset
    }

    /// The neighbour is given an event, and everything that it was given so far has come out, in order and once.
    fn neighbour_is_served(&self) {
        self.publish();
        let task = self.server.wait_until_done("neighbour")["tasks"][0].clone();
        assert_eq!(self.server.values("copies"), *self.published.borrow());
        let bad = ["attempts", "events_rejected", "events_skipped"].map(|count| &task[count]);
        assert_eq!((&task["state"], bad), (&json!("running"), [&json!(0); 3]));
    }

    /// What the component of evil is told.
    fn config(export: &str, evil: &str) -> [String; 4] {
        ["--config".to_owned(), format!("in={export}"), "--config".to_owned(), format!("evil={evil}")]
    }

    fn deploy(&self, export: &str, evil: &str, more: &[&[&str]]) -> crate::harness::Ran {
        let config = Self::config(export, evil);
        let mut args = vec!["add-component", "--component", "evil", "--on-error", "then=pause"];
        args.extend(config.iter().map(String::as_str));
        args.extend(more.iter().copied().flatten());
        self.server.run(&args)
    }

    /// Nothing of the evil one is in memory, its reason is this, and a person can read it. Then it is deleted, and its neighbour is
    /// served.
    fn ends(&self, described: &Value, reason: &str) {
        let task = &described["tasks"][0];
        assert_eq!(task["reason"].as_str().unwrap(), reason);
        assert_eq!(described["usage"]["memory_bytes"], 0, "{described:#}");
        let text = self.server.ok(&["deployment", "describe", "evil"]);
        let attempts = task["attempts"].as_u64().unwrap();
        let attempts = if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") };
        let readable = reason.replace(|c: char| c.is_control(), "\u{fffd}");
        let line = format!("partition 0 is failed after {attempts}: {readable}\n");
        assert!(text.contains(&line), "{line}{text}");
        assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
        self.server.ok(&["deployment", "delete", "evil"]);
        self.neighbour_is_served();
    }

    /// It is evil in a call about an event, and paused with this reason.
    fn fails(&self, export: &str, evil: &str, more: &[&[&str]], says: &str) -> Value {
        self.deploy(export, evil, more).ok();
        let offset = self.publish();
        // While it is evil.
        self.neighbour_is_served();
        let described = self.server.wait_until_failed("evil");
        self.ends(&described, &format!("{says} (event {offset} of `in`, partition 0)"));
        described
    }

    /// It is evil in a call about no event, and paused with this reason.
    fn fails_by_itself(&self, export: &str, evil: &str, more: &[&[&str]], reason: &str) {
        self.deploy(export, evil, more).ok();
        self.neighbour_is_served();
        let described = self.server.wait_until_failed("evil");
        self.ends(&described, reason);
    }

    /// It is not deployed, for this reason.
    fn is_refused(&self, export: &str, evil: &str, more: &[&[&str]], code: i32, says: &str) {
        assert_eq!(self.deploy(export, evil, more).failed(code), format!("error: component `evil` {says}\n"));
        self.neighbour_is_served();
    }

    /// An instance of it never starts, and for as long as that is so it is tried again.
    fn is_tried_again(&self, says: &str) {
        let tried = |described: &Value| described["tasks"][0]["attempts"].as_u64() > Some(1);
        let described = self.server.wait_until("evil", tried);
        let reason = described["tasks"][0]["reason"].as_str().unwrap();
        assert_eq!(reason.rsplit_once(" (event ").unwrap().0, says);
        assert_eq!((&described["state"], &described["usage"]["memory_bytes"]), (&json!("retrying"), &json!(0)));
        self.neighbour_is_served();
        self.server.ok(&["deployment", "delete", "evil"]);
    }

    /// An aggregate of it cannot be shown, and goes on.
    fn is_not_shown(&self, export: &str, evil: &str, more: &[&[&str]], says: &str) {
        self.deploy(export, evil, &[&[&AGGREGATE[..], &QUIET], more].concat()).ok();
        self.publish();
        self.server.wait_until_done("evil");
        let said = self.server.run(&["aggregate", "scan", "evil"]).failed(2);
        assert_eq!(said, format!("error: the groups cannot be shown: {says}\n"));
        self.neighbour_is_served();
        assert_eq!(self.server.wait_until_done("evil")["state"], "running");
        self.server.ok(&["deployment", "delete", "evil"]);
    }

    /// A file is not taken, for this reason.
    fn is_not_taken(&self, file: &Path, says: &str) {
        let file = file.to_str().unwrap();
        let args = ["add-component", "--file", file, "--name", "evil", "--transform", "in:out"];
        assert_eq!(self.server.run(&args).failed(2), format!("error: {says}\n"));
        self.neighbour_is_served();
    }

    /// The same, of a file with these bytes.
    fn are_not_taken(&self, bytes: &[u8], says: &str) {
        self.is_not_taken(&self.write(bytes), says);
    }

    fn write(&self, bytes: &[u8]) -> std::path::PathBuf {
        let path = self.server.dir().path().join("evil.wasm");
        std::fs::write(&path, bytes).unwrap();
        path
    }

    /// A component of these bytes is taken, and paused with this reason when it is given an event.
    fn fails_of(&self, bytes: &[u8], says: &str) {
        let file = self.write(bytes).display().to_string();
        let args = ["add-component", "--file", &file, "--name", "evil", "--on-error", "then=pause"];
        self.server.ok(&[&args[..], &TRANSFORM].concat());
        let offset = self.publish();
        self.neighbour_is_served();
        let described = self.server.wait_until_failed("evil");
        self.ends(&described, &format!("{says} (event {offset} of `in`, partition 0)"));
    }

    /// Nobody is left but the neighbour, to whom nothing ever happened, and the memory of the server is back.
    fn is_as_before(&self) {
        let Self { server, memory_bytes, .. } = self;
        self.neighbour_is_served();
        let deployments = server.json(&["deployment", "list"]);
        assert_eq!(deployments.as_array().unwrap().len(), 1);
        assert_eq!(server.ok(&["deployment", "logs", "neighbour"]), "");
        assert_eq!(server.json(&["dlq", "list"]), json!([]));
        assert!(!server.said().contains("thread '"), "{}", server.said());
        while server.memory_bytes() > memory_bytes + MORE_BYTES {
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

#[test]
fn what_is_evil_in_a_call_fails_with_its_reason_and_alone() {
    let street = Street::new();
    let fails = |evil: &str, more: &[&str], says: &str| {
        street.fails("process", evil, &[&TRANSFORM, &QUIET, more], &format!("the component {says}"))
    };
    let cpu = "used more than 50 ms of processor time";
    fails("spins", &BRIEF, cpu);
    fails("grows", &["--memory", "32MiB"], "wanted more than 32 MiB of memory");
    fails("recurses", &[], "failed: its stack is full: calls are nested deeper than 1024 KiB of stack allow");
    fails("sleeps", &SHORT, "took longer than 100 ms");
    fails("panics", &[], "panicked at guests/examples/evil.rs:75:21: told to");
    fails("exits", &[], "ended itself with exit code 1");
    fails("draws random numbers", &BRIEF, cpu);
    fails("asks the time", &BRIEF, cpu);
    fails("opens tables", &[], "failed: cannot allocate another handle: store handle limit exceeded");
    fails("writes state", &["--state-bytes", "1MiB"], "refuses the batch: there is no room for more state");
    fails("scans state", &BRIEF, cpu);
    fails("asks for all rows again and again", &BRIEF, cpu);
    fails("emits without end", &[], "refuses the batch: there is no room for more");
    fails("forwards without end", &[], "refuses the batch: there is no room for more");
    fails("forwards what is not there", &[], "refuses the batch: there is no input row 4294967295; the batch has 1");
    fails("rejects without end", &BRIEF, cpu);
    fails("checkpoints", &[], "refuses the batch: only a source has checkpoints");

    let described = fails("floods the log", &[&BRIEF[..], &["--log-rate", "10"]].concat(), cpu);
    let usage = &described["usage"];
    assert!(usage["log_lines"].as_u64() >= Some(10) && usage["log_lines_dropped"].as_u64() > Some(50), "{usage}");
    fails("prints a line without end", &BRIEF, cpu);
    let described = fails("floods metrics", &[&BRIEF[..], &["--metric-series", "10"]].concat(), cpu);
    assert_eq!(described["metrics"].as_array().unwrap().len(), 10);
    assert!(described["usage"]["metrics_dropped"].as_u64() > Some(100), "{}", described["usage"]);

    // What it says is cut, and cannot write over what others say.
    let talk = "talk ".repeat(4096 / 5 + 1);
    fails("talks", &[], &format!("refuses the batch: {}", &talk[..4096]));
    let port = "\u{1b}[2Jsecrets";
    fails("emits to a port that it was not given", &[], &format!("refuses the batch: there is no port \"{port}\""));
    fails("moves the cursor", &[], "refuses the batch: \u{1b}[2J\u{1b}[Hall is well\r\u{8}\u{7}");
    street.is_as_before();
}

#[test]
fn whatever_export_never_returns_the_others_are_served() {
    let street = Street::new();
    let cpu = "the component used more than 50 ms of processor time";
    let memory = "the component wanted more than 32 MiB of memory";
    let spins = |role: &[&str], export: &str| {
        street.fails(export, "spins", &[role, &QUIET, &BRIEF], cpu);
    };
    let waits = |role: &[&str], export: &str| {
        street.fails(export, "sleeps", &[role, &QUIET, &SHORT], "the component took longer than 100 ms");
    };
    spins(&TRANSFORM, "save");
    for export in ["write", "flush"] {
        spins(&SINK, export);
        waits(&SINK, export);
    }
    for export in ["keys", "accumulate"] {
        spins(&AGGREGATE, export);
    }
    // The beginning and the end of an instance.
    for (evil, more, says) in [("spins", BRIEF, cpu), ("grows", ["--memory", "32MiB"], memory)] {
        let refused = |export: &str, what: &str| {
            street.is_refused(export, evil, &[&TRANSFORM, &more], 1, &format!("does not {what}: {says}"));
        };
        refused("open", "open");
        refused("describe", "describe its ports");

        street.deploy("open, later", evil, &[&TRANSFORM, &QUIET, &more]).ok();
        street.publish();
        street.is_tried_again(&format!("the component does not open: {says}"));

        street.deploy("restore", evil, &[&TRANSFORM, &QUIET, &more]).ok();
        street.publish();
        let digest = street.server.wait_until_done("evil")["digest"].as_str().unwrap()[..12].to_owned();
        street.server.ok(&["deployment", "pause", "evil"]);
        street.server.ok(&["deployment", "resume", "evil"]);
        street.publish();
        let from = format!("the component does not open: it cannot go on from the memory that {digest} saved: {says}");
        street.is_tried_again(&from);

        street.deploy("close", evil, &[&TRANSFORM, &QUIET, &more]).ok();
        street.publish();
        street.server.wait_until_done("evil");
        street.server.ok(&["deployment", "pause", "evil"]);
        assert_eq!(street.server.described("evil")["usage"]["memory_bytes"], 0);
        let last = street.server.ok(&["deployment", "logs", "evil", "--tail", "1"]);
        assert!(last.ends_with(&format!("closing an instance failed: {says}\n")), "{last}");
        street.server.ok(&["deployment", "delete", "evil"]);
        street.neighbour_is_served();

        let ticks = format!("{says} (a tick of partition 0 of `in`)");
        street.fails_by_itself("on-tick", evil, &[&TRANSFORM, &["--tick", "50ms"], &more], &ticks);
        for export in ["source open", "poll", "committed"] {
            street.fails_by_itself(export, evil, &[&SOURCE, &more], says);
        }
        street.is_not_shown("render", evil, &[&more], says);
    }
    street.fails_by_itself("poll", "sleeps", &[&SOURCE, &SHORT], "the component took longer than 100 ms");
    let emitted = "the component refuses the batch: there is no room for more";
    street.fails_by_itself("poll", "emits without end", &[&SOURCE], emitted);
    let checkpoint = "the component refuses the batch: a checkpoint of 1048576 bytes, at most 65536 are allowed";
    street.fails_by_itself("poll", "checkpoints too much", &[&SOURCE], checkpoint);
    street.is_as_before();
}

#[test]
fn windows_and_parts_that_cannot_be_put_together_are_told() {
    let street = Street::new();
    let cpu = "the component used more than 50 ms of processor time";
    // A window is closed when time has passed.
    let windows = ["--window", "tumbling=10ms", "--idle", "20ms"];
    let closing = format!("{cpu} (closing 1 windows of `in`)");
    street.deploy("finish", "spins", &[&AGGREGATE, &QUIET, &BRIEF, &windows]).ok();
    street.publish();
    let described = street.server.wait_until_failed("evil");
    street.ends(&described, &closing);

    let server = &street.server;
    // Two sessions, and an event between them that makes them one.
    server.ok(&["topic", "create", "visits"]);
    let sessions = ["--aggregate", "visits", "--window", "session=10s", "--lateness", "1h"];
    street.deploy("merge", "spins", &[&sessions, &QUIET, &BRIEF]).ok();
    for second in [0, 15, 8] {
        let line = format!("{{\"at\":\"2013-01-01T00:00:{second:02}Z\"}}\n");
        server.run_with(&["publish", "visits", "--time-field", "at"], line.as_bytes()).ok();
    }
    let described = server.wait_until_failed("evil");
    street.ends(&described, &format!("{cpu} (event 2 of `visits`, partition 0)"));

    // One group in two partitions, which a reader is shown together.
    server.ok(&["topic", "create", "parts", "--partitions", "2"]);
    street.deploy("merge", "spins", &[&["--aggregate", "parts"], &QUIET, &BRIEF]).ok();
    server.publish_to("parts", 0, &["a"]);
    server.publish_to("parts", 1, &["b"]);
    server.wait_until_done("evil");
    let said = server.run(&["aggregate", "scan", "evil"]).failed(2);
    assert_eq!(said, format!("error: the groups cannot be shown: {cpu}\n"));
    server.ok(&["deployment", "delete", "evil"]);
    street.is_as_before();
}

#[test]
fn columns_that_are_none_are_refused_wherever_they_come_from() {
    let street = Street::new();
    let wrong = |export: &str, what: &str| {
        format!("the component returned something wrong from `{export}`: the column: {what}")
    };
    for (evil, what) in [
        ("answers with nothing", "0 offsets, 1 elements need 2"),
        ("answers with too few", "1 offsets, 1 elements need 2"),
        ("answers with too many", "3 offsets, 1 elements need 2"),
        ("goes backwards", "the first offset is 1, not 0"),
        ("goes too far", "the first offset is 4294967295, not 0"),
        ("lies about its data", "the last offset is 1, the data has 0 bytes"),
        ("lies about its nulls", "a validity of 101 bytes, 1 elements need 1 or none"),
    ] {
        street.fails("accumulate", evil, &[&AGGREGATE, &QUIET], &wrong("accumulate", what));
        if evil.starts_with("lies") {
            street.fails("keys", evil, &[&AGGREGATE, &QUIET], &wrong("keys", what));
            street.is_not_shown("render", evil, &[], &wrong("render", what));
        }
    }
    let large = "the component returned something wrong from `accumulate`: an accumulator of 20971520 bytes, at most 4194304 are \
                 allowed";
    street.fails("accumulate", "answers with a large one", &[&AGGREGATE, &QUIET], large);
    street.is_not_shown("render", "answers with nulls", &[], &wrong("render", "element 0 is null"));
    let much = "the component failed: too much data is being copied between the host and the guest: fuel allocated for hostcalls has been exhausted";
    street.fails("accumulate", "answers with much", &[&AGGREGATE, &QUIET], much);
    street.fails("keys", "answers with much", &[&AGGREGATE, &QUIET], much);
    street.is_not_shown("render", "answers with much", &[], much);
    street.fails("save", "saves much", &[&TRANSFORM, &QUIET], much);

    street.is_as_before();
}

#[test]
fn what_is_large_is_shown_as_often_as_it_is_asked_for() {
    let street = Street::new();
    let server = &street.server;
    street.deploy("render", "answers with a large one", &[&AGGREGATE, &QUIET]).ok();
    street.publish();
    server.wait_until_done("evil");
    let look = |times: usize| {
        for _ in 0..times {
            assert!(server.ok(&["aggregate", "scan", "evil"]).len() > 20 << 20);
        }
        server.memory_bytes()
    };
    // Each thread may keep one for later, and that is all.
    let kept = look(6);
    let later = look(6);
    assert!(later < kept + MORE_BYTES, "{kept} {later}");
    street.neighbour_is_served();
}

#[test]
fn what_a_component_says_of_its_memory_is_checked() {
    let street = Street::new();
    let fails = |bytes: &[u8], says: &str| street.fails_of(bytes, &format!("the component failed: {says}"));
    fails(&forged::answers_at(0xffff_fff0, &[]), "pointer out of bounds of memory");
    fails(&forged::answers_at(17, &[]), "return pointer not aligned");
    fails(&forged::answers_at(16, &[7]), "invalid expected discriminant");
    fails(&forged::answers_at(16, &[1, 0, 0, 0, 9]), "unexpected discriminant: 9");
    fails(&forged::fails_with_words_at(32, 3), "invalid utf-8 sequence of 1 bytes from index 0");
    fails(&forged::fails_with_words_at(0xffff_0000, 100), "string pointer/length out of bounds of memory");
    fails(&forged::fails_with_words_at(0, u32::MAX), "string pointer/length out of bounds of memory");
    let (own, nobody, other) = ("(local.get $out)", "(i32.const 77)", "(local.get $input)");
    let (none, well) = ((0, 0), 512);
    fails(&forged::forwards(nobody, none, none, well), "unknown handle index 77");
    fails(
        &forged::forwards(other, none, none, well),
        "handle index 1 used with the wrong type, expected guest-defined resource but found a different guest-defined resource",
    );
    fails(&forged::forwards(own, (0xffff_fff0, 100), none, well), "string pointer/length out of bounds of memory");
    fails(&forged::forwards(own, (0, 2), none, well), "invalid utf-8 sequence of 1 bytes from index 0");
    fails(&forged::forwards(own, none, (0, 0x7fff_ffff), well), "list pointer/length out of bounds of memory");
    fails(&forged::forwards(own, none, (1, 1), well), "list pointer is not aligned");
    fails(&forged::forwards(own, none, none, 0xffff_fffc), "pointer out of bounds");
    let twice = "(call $drop-batch (local.get $input)) (call $drop-batch (local.get $input))";
    fails(&forged::does(twice), "unknown handle index 1");
    fails(&forged::does(""), "borrow handles still remain at the end of the call");
    street.is_as_before();
}

#[test]
fn what_cannot_be_a_component_is_refused_while_others_are_served() {
    let street = Street::new();
    let refused = |bytes: &[u8], says: &str| street.are_not_taken(bytes, says);
    let hint = "hint: upload the .wasm file that your build made";
    refused(b"", &format!("the file is empty\n{hint}"));
    refused(b"hello\n", &format!("this is not a WebAssembly component; it looks like text\n{hint}"));
    refused(
        &forged::text("(module)"),
        "this is a core WebAssembly module, not a component\nhint: build for `wasm32-wasip2`, or make a component of it: \
         `wasm-tools component new module.wasm -o component.wasm`",
    );
    // What the server made of the neighbour itself.
    let compiled = std::fs::read_dir(street.server.data().join("cache")).unwrap().next().unwrap().unwrap().path();
    let says = "this is machine code that wasmtime made of a component (.cwasm)\nhint: upload the .wasm file it was made from; \
                this host compiles it itself";
    street.is_not_taken(&compiled, says);
    let newer = "built against nodata:streaming 0.1.9; this host offers 0.1.0\nhint: build it against nodata:streaming 0.1.0, or \
                 use a newer host";
    street.is_not_taken(Path::new(&component("wants-newer-host")), newer);

    // Too much of something.
    let functions = "(func)".repeat(200_001);
    refused(&forged::has(&functions), "the component has 200001 functions, at most 200000 are allowed");
    let nops = format!("(func {})", "nop ".repeat(2 << 20));
    refused(&forged::has(&nops), "the component has 2097154 bytes in one function, at most 2097152 are allowed");
    let nested = format!("{}{}", "(component ".repeat(90), ")".repeat(90));
    refused(&forged::text(&nested), "the component has 17 levels of components in components, at most 16 are allowed");
    let instances = format!("(component (core module $m) {})", "(core instance (instantiate $m))".repeat(10_000));
    refused(&forged::text(&instances), "the component has 10000 instances, at most 200 are allowed");
    let locals = format!("(func (local {}))", "i64 ".repeat(50_001));
    refused(&forged::has(&locals), "the component is not valid: too many locals: locals exceed maximum (at byte 577)");
    refused(
        &forged::has("(memory 16384)"),
        "the component does not start: the component wanted more than 256 MiB of memory",
    );
    refused(
        &forged::has("(table 100000000 funcref)"),
        "the component does not start: the component wanted a table of more than 100000 elements",
    );

    // What it does when it is started.
    let starts = |what: &str, says: &str| {
        refused(&forged::starts_with(what), &format!("the component does not start: the component {says}"));
    };
    starts("unreachable", "failed: it reached code that cannot be reached, which is how a panic or an abort ends");
    starts("(call $start)", "failed: its stack is full: calls are nested deeper than 1024 KiB of stack allow");
    starts("(loop $again (br $again))", "used more than 5 s of processor time");

    // What takes the compiler long, and what comes out of it is nothing bad.
    let blocks = format!("(func {}{})", "(block ".repeat(30_000), ")".repeat(30_000));
    let table = format!("(func (param i32) (block (br_table {} (local.get 0))))", "0 ".repeat(60_000));
    for bomb in [blocks, table.repeat(10)] {
        let file = street.write(&forged::has(&bomb)).display().to_string();
        let taken = std::thread::scope(|scope| {
            let taken = scope.spawn(|| street.server.command(&["component", "push", &file]).status().unwrap());
            while !taken.is_finished() {
                street.server.publish("out", &["meanwhile"]);
            }
            taken.join().unwrap()
        });
        assert!(taken.success());
        street.neighbour_is_served();
    }
    street.is_as_before();
}

#[test]
fn the_world_is_empty_and_closed() {
    let street = Street::new();
    let server = &street.server;
    let tried = |guest: &str| {
        let before = server.values("out").len();
        server.deploy(guest, "in:out", &[]);
        street.publish();
        server.wait_until_done(guest);
        server.ok(&["deployment", "delete", guest]);
        server.values("out").split_off(before)
    };
    let world = ["file", "directory", "new file", "variables", "arguments", "tcp", "udp", "name", "input"];
    assert_eq!(tried("asks-for-the-world"), world.map(|what| format!("{what}: denied")));
    assert_eq!(tried("asks-for-http"), ["Err(ErrorCode::HttpRequestDenied)"; 2]);
    street.is_as_before();
}

/// A receiver that reads a little of a request and then does this, for everybody who comes. Its threads end with the process.
fn receiver(does: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let does = Arc::new(does);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (mut stream, does) = (stream.unwrap(), does.clone());
            std::thread::spawn(move || {
                let _ = stream.read(&mut [0; 4096]);
                does(&mut stream);
            });
        }
    });
    address
}

#[test]
fn a_receiver_that_is_evil_keeps_up_only_who_asks_it() {
    let street = Street::new();
    let server = &street.server;
    for topic in ["asks", "answers"] {
        server.ok(&["topic", "create", topic]);
    }
    let add = |name: &str, address: &str, more: &[&str]| {
        let grant = format!("http://{address}");
        let args = ["--name", name, "--allow-http", &grant, "--on-error", "then=pause"];
        server.deploy("asks-as-told", "asks:answers", &[&args[..], more].concat());
        server.publish("asks", &[&format!("GET http://{address}/")]);
        street.neighbour_is_served();
    };
    // What it answers, or that it does not.
    let answered = |address: &str, says: &str| {
        add("asks", address, &["--config", "timeout-ms=300"]);
        server.wait_until_done("asks");
        assert_eq!(server.values("answers").pop().unwrap(), says);
        server.ok(&["deployment", "delete", "asks"]);
        street.neighbour_is_served();
    };
    let secret = receiver(|_| unreachable!("nobody may come here"));
    let to = format!("http://{secret}/");
    let redirects = receiver(move |stream| {
        let _ = write!(stream, "HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
    });
    answered(&redirects, &format!("302 to http://{secret}/, 0 bytes"));
    let endless = receiver(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[0; 65536]).is_ok() {}
    });
    let larger = format!("permanent(\"GET http://{endless}/: the answer is larger than 62914560 bytes\")");
    add("asks", &endless, &[]);
    server.wait_until_done("asks");
    assert_eq!(server.values("answers").pop().unwrap(), larger);
    server.ok(&["deployment", "delete", "asks"]);
    let header = receiver(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n");
        while stream.write_all(&[b'x'; 4096]).is_ok() {}
    });
    answered(&header, &format!("permanent(\"GET http://{header}/: the header of the answer is too large\")"));
    let drips = receiver(|stream| {
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(b"x").is_ok() {
            std::thread::sleep(Duration::from_millis(10));
        }
    });
    answered(&drips, &format!("transient(\"GET http://{drips}/: no answer in time\")"));

    // Whoever waits for as long as it takes has no longer than a call has, and is not at fault.
    let silent = receiver(|stream| drop(stream.read(&mut [0])));
    add("asks", &silent, &SHORT);
    let tried = |described: &Value| described["tasks"][0]["attempts"].as_u64() > Some(1);
    let described = server.wait_until("asks", tried);
    assert_eq!(described["state"], "retrying");
    let reason = described["tasks"][0]["reason"].as_str().unwrap();
    assert!(reason.starts_with("the component took longer than 100 ms (event "), "{reason}");
    server.ok(&["deployment", "delete", "asks"]);
    street.neighbour_is_served();
}

#[test]
fn memory_that_was_taken_is_given_back() {
    let street = Street::new();
    let server = &street.server;
    street.deploy("process", "keeps", &[&TRANSFORM, &QUIET]).ok();
    street.publish();
    let described = server.wait_until_done("evil");
    let used = described["usage"]["memory_bytes"].as_u64().unwrap();
    assert!(used > 96 << 20, "{used}");
    // It is really there, and so it is seen when it has gone.
    let with = server.memory_bytes();
    assert!(with > street.memory_bytes + MORE_BYTES, "{} {with}", street.memory_bytes);
    server.ok(&["deployment", "delete", "evil"]);
    street.is_as_before();
}

#[test]
fn what_is_written_about_them_is_what_is_tried() {
    let read = |path: &str| std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
    let (readme, here) = (read("README.md"), read("tests/it/evil.rs"));
    let section = readme.split("## Evil components").nth(1).unwrap().split("\n## ").next().unwrap();
    let rows: Vec<&str> = section.lines().filter(|line| line.starts_with("| ")).skip(2).collect();
    assert!(rows.len() > 20, "{rows:#?}");
    // Without what a test of a line has to be broken by.
    let tried = here.replace("\\\n", "").split_whitespace().collect::<Vec<_>>().join(" ");
    for row in rows {
        let told = row.trim_end_matches(" |").rsplit(" | ").next().unwrap();
        assert!(tried.contains(told), "nothing of this table row is tried: {row}");
    }
}
