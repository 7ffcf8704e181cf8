//! Compiling in a child, and keeping what was compiled.

use crate::harness::{Still, compiler, guest};
use bytes::Bytes;
use nodata_log::ErrorKind;
use nodata_log::model::ModelLog;
use nodata_runtime::{
    AcceptError, CompileError, Compiler, Deployment, Digest, GuestLog, InstanceLimits, InstanceSettings, Runtime,
    RuntimeOptions, Share,
};
use std::fs;
use std::io::{Read as _, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

fn start(compiler: Compiler, dir: &Path) -> Runtime {
    Runtime::start(RuntimeOptions::new(compiler, dir, Arc::new(Still))).unwrap()
}

/// A compiler that is a shell script.
fn script(script: &str) -> Compiler {
    Compiler::new("/bin/sh", ["-c", script])
}

/// Why this compiler does not compile a component.
async fn failure(compiler: Compiler) -> CompileError {
    let dir = tempfile::tempdir().unwrap();
    match start(compiler, dir.path()).accept(guest("tells-facts")).await {
        Err(AcceptError::Compile(error)) => error,
        other => panic!("{other:?}"),
    }
}

fn nobody_reads() -> std::io::Result<Bytes> {
    panic!("the file was read")
}

#[tokio::test]
async fn what_was_compiled_is_found_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = guest("tells-facts");
    let (info, _) = start(compiler(), dir.path()).accept(file.clone()).await.unwrap();

    let cannot_compile = start(script("exit 1"), dir.path());
    let program = cannot_compile.load(info.digest, nobody_reads).await.unwrap();
    assert_eq!(program.digest(), info.digest);
    cannot_compile.accept(file.clone()).await.unwrap();

    // What is damaged is not run but made again.
    drop(program);
    let compiled = fs::read_dir(dir.path()).unwrap().next().unwrap().unwrap().path();
    let mut damaged = fs::read(&compiled).unwrap();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 1;
    fs::write(&compiled, damaged).unwrap();
    let read = {
        let file = file.clone();
        move || Ok(file)
    };
    let error = cannot_compile.load(info.digest, read.clone()).await.unwrap_err();
    assert!(matches!(error, AcceptError::Compile(CompileError::Crashed { .. })), "{error}");
    start(compiler(), dir.path()).load(info.digest, read).await.unwrap();
    cannot_compile.load(info.digest, nobody_reads).await.unwrap();

    cannot_compile.forget(info.digest).await.unwrap();
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_component_is_compiled_once_however_many_ask() {
    let dir = tempfile::tempdir().unwrap();
    let counted = dir.path().join("counted");
    let child = env!("CARGO_BIN_EXE_nodata-compile-child");
    let runtime = start(script(&format!("echo >> {}; exec {child}", counted.display())), &dir.path().join("cache"));
    let file = guest("tells-facts");
    let tasks = [(); 4].map(|()| {
        let (runtime, file) = (runtime.clone(), file.clone());
        tokio::spawn(async move { runtime.accept(file).await })
    });
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(fs::read(&counted).unwrap().len(), 1);
}

#[tokio::test]
async fn another_file_under_the_same_name_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let digest = Digest::of(b"something else");
    let error = start(compiler(), dir.path()).load(digest, || Ok(guest("tells-facts"))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains(&digest.to_string()), "{error}");
}

#[tokio::test]
async fn a_child_that_fails_says_why() {
    let error = failure(Compiler::new("/no/such/program", [""; 0])).await;
    assert!(error.to_string().starts_with("the compiler /no/such/program could not be run: "), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);

    let error = failure(script("echo out of luck >&2; exit 7")).await;
    assert_eq!(error.to_string(), "the compiler ended with exit status: 7: out of luck");
    let error = failure(script("kill -SEGV $$")).await;
    assert!(error.to_string().contains("signal: 11"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Internal);

    let error = failure(script("cat > /dev/null; printf 12345678")).await;
    assert_eq!(error.to_string(), "the compiler /bin/sh is of another build than this process; restart the server");
    let error = failure(script("cat > /dev/null; cat /dev/zero")).await;
    assert_eq!(error.to_string(), "the compiled component has more than 256 MiB");
    let error = failure(script("cat > /dev/null")).await;
    assert!(error.to_string().ends_with("could not be run: unexpected end of file"), "{error}");
}

#[tokio::test]
async fn a_child_that_takes_too_much_is_ended() {
    let mut slow = script("sleep 3600");
    slow.limits.wall = Duration::from_millis(50);
    assert_eq!(failure(slow).await.to_string(), "compiling takes longer than 0.05 s");

    let spinning = script("ulimit -S -t 1; while :; do :; done");
    assert_eq!(failure(spinning).await.to_string(), "compiling takes more than 120 s of processor time");
}

/// A component that is hard to compile: one function without end.
fn hard() -> Bytes {
    let body = "local.get 0 i32.const 7 i32.add local.tee 0 i32.load local.set 0 ".repeat(300_000);
    wat::parse_str(format!("(component (core module (memory 1) (func (param i32) {body})))")).unwrap().into()
}

#[tokio::test]
async fn a_component_that_takes_too_much_is_named() {
    let hard = hard();
    let failure = async |change: &dyn Fn(&mut Compiler)| {
        let dir = tempfile::tempdir().unwrap();
        let mut compiler = compiler();
        change(&mut compiler);
        let read = hard.clone();
        let loaded = start(compiler, dir.path()).load(Digest::of(&hard), move || Ok(read)).await;
        let error = loaded.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        error.to_string()
    };
    let text = failure(&|compiler| compiler.limits.cpu_secs = 1).await;
    assert_eq!(text, "compiling takes more than 1 s of processor time");
    let text = failure(&|compiler| compiler.limits.memory_bytes = 64 << 20).await;
    assert_eq!(text, "compiling takes more than 64 MiB of memory");
    let text = failure(&|compiler| compiler.limits.memory_bytes = 1 << 20).await;
    assert_eq!(text, "compiling takes more than 1 MiB of memory");
}

#[tokio::test]
async fn a_child_inherits_no_environment() {
    let said = failure(script("env >&2; exit 1")).await.to_string();
    let variables: Vec<&str> = said.lines().filter_map(|line| line.split_once('=')).map(|(name, _)| name).collect();
    // The shell itself says where it is.
    assert_eq!(variables, ["the compiler ended with exit status: 1: PWD"], "{said}");
    assert!(said.ends_with("PWD=/"), "{said}");
}

#[test]
fn a_child_keeps_no_descriptor() {
    // The shell hands on one that does not close by itself.
    let child = env!("CARGO_BIN_EXE_nodata-compile-child");
    let mut child = Command::new("/bin/sh")
        .args(["-c", &format!("exec 7< /dev/null; exec {child}")])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let limits = [100u64.to_le_bytes(), (4u64 << 30).to_le_bytes()].concat();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&limits).unwrap();
    stdin.write_all(&guest("tells-facts")).unwrap();
    drop(stdin);
    // Its code is larger than a pipe, so after the first bytes it waits for the reader.
    let mut first = [0; 8];
    child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    let mut descriptors: Vec<String> = fs::read_dir(format!("/proc/{}/fd", child.id()))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    descriptors.sort();
    assert_eq!(descriptors, ["0", "1", "2"]);
    child.kill().unwrap();
    child.wait().unwrap();
}

#[tokio::test]
async fn a_start_without_end_is_ended() {
    let text = "(component
        (core module $m (func $start (loop (br 0))) (start $start) (func (export \"process\")))
        (core instance $c (instantiate $m))
        (func $process (canon lift (core func $c \"process\")))
        (instance $i (export \"process\" (func $process)))
        (export \"nodata:streaming/transformer@0.1.0\" (instance $i)))";
    let file = Bytes::from(wat::parse_str(text).unwrap());
    let dir = tempfile::tempdir().unwrap();
    let runtime = start(compiler(), dir.path());
    // Accepting it would find out too, after all the time that a start may take.
    let program = runtime.load(Digest::of(&file), move || Ok(file)).await.unwrap();
    let deployment = Arc::new(Deployment {
        config: [].into(),
        secrets: Default::default(),
        ports: Arc::new([]),
        log: Arc::new(GuestLog::new(Arc::new(Still))),
        metrics: Arc::default(),
        http: None,
        limits: InstanceLimits { start_cpu: Duration::from_millis(20), ..InstanceLimits::default() },
    });
    let settings = InstanceSettings {
        role: nodata_runtime::Role::Transform,
        deployment,
        task: crate::harness::TASK,
        log: Arc::new(ModelLog::new(Arc::new(Still))),
    };
    let started = runtime.spawn(&Share::default(), async move { program.instantiate(settings).await }).await.unwrap();
    assert_eq!(started.err().unwrap().to_string(), "the component used more than 20 ms of processor time");
}

#[tokio::test]
async fn a_directory_that_cannot_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    let error = Runtime::start(RuntimeOptions::new(compiler(), &file, Arc::new(Still))).err().unwrap();
    assert!(
        error.to_string().starts_with(&format!("the directory of compiled components {}", file.display())),
        "{error}"
    );
    assert_eq!(error.kind(), ErrorKind::Unavailable);
}
