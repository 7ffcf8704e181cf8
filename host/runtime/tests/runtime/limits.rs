//! Guests that take too much. Every one of them ends its instance and nothing else.

use crate::harness::{Setup, Still, batch, compiler, events, setup};
use nodata_log::ErrorKind;
use nodata_runtime::{Runtime, RuntimeOptions};
use std::sync::Arc;
use std::time::Duration;

/// The guest fails so, its instance has ended, and says so from then on.
async fn check_ends(setup: Setup, values: &[&str], expected: &str) -> nodata_runtime::CallError {
    let (mut running, error) = setup.check_fails(values, expected).await;
    assert!(!error.instance_lives() && !running.instance().is_alive());
    assert_eq!(running.instance().memory_bytes(), 0);
    let again = running.try_call(batch(&events(values))).await.unwrap_err();
    assert_eq!(again.to_string(), "the instance has ended; start another one");
    assert_eq!(again.kind(), ErrorKind::Unavailable);
    error
}

#[tokio::test]
async fn a_panic_says_what_and_where() {
    let mut running = setup("panics").start().await;
    let output = running.call(&["fine"]).await;
    assert_eq!(running.show(&output), "fine");
    let error = running.try_call(batch(&events(&["a", "boom", "b"]))).await.unwrap_err();
    let expected = "the component panicked at guests/examples/panics.rs:10:5: assertion `left != right` failed: the word was said\n  \
                    left: \"boom\"\n right: \"boom\"";
    assert_eq!(error.to_string(), expected);
    assert!(error.stderr().contains(&"looking at boom".to_owned()), "{:?}", error.stderr());
    assert!(error.frames().iter().any(|frame| frame == "panics::look_at"), "{:?}", error.frames());
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(!running.instance().is_alive());
}

#[tokio::test]
async fn whoever_computes_for_ever_is_ended() {
    let spins = setup("spins").limits(|limits| limits.call_cpu = Duration::from_millis(30));
    let error = check_ends(spins, &["a"], "the component used more than 30 ms of processor time").await;
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert!(!error.frames().is_empty());
    let calls = setup("counts-forever").limits(|limits| limits.call_cpu = Duration::from_millis(30));
    check_ends(calls, &["a"], "the component used more than 30 ms of processor time").await;
}

#[tokio::test]
async fn whoever_computes_gives_way_to_others() {
    // One guest thread: the second guest gets its turn only because the first one pauses.
    let dir = tempfile::tempdir().unwrap();
    let mut options = RuntimeOptions::new(compiler(), dir.path(), Arc::new(Still));
    options.guest_threads = 1;
    let runtime = Runtime::start(options).unwrap();
    let on = |mut setup: Setup| {
        setup.runtime = runtime.clone();
        setup
    };
    let mut copies = on(setup("copies-columns")).start().await;
    let mut spins = on(setup("spins")).limits(|limits| limits.call_cpu = Duration::from_secs(3600)).start().await;
    let spinning = tokio::spawn(async move { spins.try_call(batch(&events(&["a"]))).await.map(drop) });
    for _ in 0..10 {
        assert_eq!(copies.call(&["b"]).await.events, 1);
    }
    assert!(!spinning.is_finished());
    spinning.abort();
    runtime.stop(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn whoever_waits_for_ever_is_ended() {
    let sleeps = setup("sleeps").config("seconds", 3600).limits(|limits| limits.call_wall = Duration::from_millis(50));
    let error = check_ends(sleeps, &["a"], "the component took longer than 50 ms").await;
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    setup("sleeps").config("seconds", 0.02).check(&["a"], "awake").await;
}

#[tokio::test]
async fn memory_has_a_ceiling() {
    let grows =
        |mebibytes| setup("grows").config("mebibytes", mebibytes).limits(|limits| limits.memory_bytes = 32 << 20);
    let mut running = grows(4).start().await;
    running.call(&["a", "b", "c"]).await;
    let memory = running.instance().memory_bytes();
    assert!((12 << 20..32 << 20).contains(&memory), "{memory}");

    let wanted = "the component wanted more than 32 MiB of memory";
    let error = check_ends(grows(4), &["a"; 9], wanted).await;
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    check_ends(grows(100), &["a"], wanted).await;

    // Who asks politely is refused politely, and an old refusal is not the reason of a later failure.
    grows(20).config("politely", "yes").check(&["a", "b"], "granted\nrefused").await;
}

#[tokio::test]
async fn all_instances_together_have_a_ceiling() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = RuntimeOptions::new(compiler(), dir.path(), Arc::new(Still));
    options.memory_bytes_max = 24 << 20;
    let runtime = Runtime::start(options).unwrap();
    let grows = || {
        let mut setup = setup("grows").config("mebibytes", 16);
        setup.runtime = runtime.clone();
        setup
    };
    let mut one = grows().start().await;
    one.call(&["a"]).await;
    let used = runtime.memory_bytes();
    assert!(used > 16 << 20, "{used}");
    let wanted = "all components together wanted more than 24 MiB of memory";
    let (_, error) = grows().check_fails(&["a"], wanted).await;
    assert_eq!(error.kind(), ErrorKind::Exhausted);
    assert_eq!(runtime.memory_bytes(), used);
    drop(one);
    assert_eq!(runtime.memory_bytes(), 0);
    grows().start().await.call(&["a"]).await;
}

#[tokio::test]
async fn a_component_too_large_to_start_says_so() {
    let started = setup("copies-columns").limits(|limits| limits.memory_bytes = 1 << 16).try_start().await;
    let error = started.err().unwrap();
    assert_eq!(error.to_string(), "the component wanted more than 0.0625 MiB of memory");
}

#[tokio::test]
async fn the_stack_has_an_end() {
    let expected = "the component failed: its stack is full: calls are nested deeper than 1024 KiB of stack allow";
    let error = check_ends(setup("recurses"), &["a"], expected).await;
    assert_eq!(error.frames().len(), 32);
    assert!(error.frames()[0].contains("deeper"), "{:?}", error.frames());
}

#[tokio::test]
async fn chance_is_given_in_portions() {
    let floods = |bytes: u64| setup("asks-for-randomness").config("bytes", bytes);
    floods(1 << 20).check(&["a"], "1048576 bytes").await;
    let (running, error) = {
        let mut running = floods(1 << 30).start().await;
        let error = running.try_call(batch(&events(&["a"]))).await.unwrap_err();
        (running, error)
    };
    assert!(error.to_string().starts_with("the component failed: "), "{error}");
    assert!(!running.instance().is_alive());
}

#[tokio::test]
async fn handles_are_lent_for_one_call() {
    let expected = "the component failed: borrow handles still remain at the end of the call";
    check_ends(setup("keeps-borrow"), &["a"], expected).await;
}

#[tokio::test]
async fn things_of_the_host_are_counted() {
    setup("leaks-tables").config("tables", 9000).check(&["a"], "a").await;
    let expected = "the component failed: cannot allocate another handle: store handle limit exceeded";
    check_ends(setup("leaks-tables"), &["a"], expected).await;
}

#[tokio::test]
async fn whoever_exits_has_ended() {
    let error = check_ends(setup("exits"), &["a"], "the component ended itself with exit code 1").await;
    assert_eq!(error.stderr(), ["good bye"]);
}
