//! State tables: what a call sees, and what is left of it.

use crate::harness::{Running, batch, events, setup};

async fn check(running: &mut Running, actions: &[&str], expected: &[&str]) {
    let output = running.call(actions).await;
    assert_eq!(running.show(&output), expected.join("\n"));
    running.commit(output).await;
}

#[tokio::test]
async fn a_call_sees_its_own_writes_and_what_was_committed() {
    let mut running = setup("keeps-state").start().await;
    check(
        &mut running,
        &["get a", "put a 1", "get a", "put-many b 2 c 3 d - c 4", "get-many c x a d b", "scan a - 10"],
        &["none", "ok", "1", "ok", "4 none 1 none 2", "a=1 b=2 c=4"],
    )
    .await;
    // The next call sees what was committed, and puts its own on top.
    check(
        &mut running,
        &["get-many a b c", "delete a", "put bb 5", "scan a c 10", "scan a - 2", "scan - a 10", "put c ", "get c"],
        &["1 2 4", "ok", "ok", "b=2 bb=5", "b=2 bb=5", "", "ok", ""],
    )
    .await;
    check(&mut running, &["get-many a b bb c", "scan a - 10"], &["none 2 5 ", "b=2 bb=5 c="]).await;
}

#[tokio::test]
async fn writes_of_a_failed_call_are_gone() {
    let mut running = setup("keeps-state").start().await;
    check(&mut running, &["put a 1"], &["ok"]).await;
    let error = running.try_call(batch(&events(&["put a 2", "put b 2", "fail"]))).await.unwrap_err();
    assert_eq!(error.to_string(), "the component asks to try again later: as asked");
    check(&mut running, &["scan a - 10"], &["a=1"]).await;
}

#[tokio::test]
async fn writes_that_were_not_committed_are_not_there() {
    let mut running = setup("keeps-state").start().await;
    let output = running.call(&["put a 1", "put b 2", "delete b"]).await;
    let entries: Vec<_> = output.state.iter().flat_map(|change| &change.entries).collect();
    assert_eq!(output.state[0].table.as_str(), "kept");
    assert_eq!(entries, [&("a".into(), Some("1".into())), &("b".into(), None)]);
    check(&mut running, &["get a"], &["none"]).await;
}

#[tokio::test]
async fn refusals_are_answers() {
    let mut running = setup("keeps-state").limits(|limits| limits.state_write_bytes = 100).start().await;
    let long = "k".repeat(4097);
    check(
        &mut running,
        &[
            "put-large a 90",
            "put-large b 90",
            "put-large a 95",
            "put  x",
            &format!("get {long}"),
            "put-many a 1 - 2",
            "put-many a",
            "open not/a-name",
            "open another",
        ],
        &[
            "ok",
            "Error::QuotaExceeded",
            "ok",
            "Error::Denied(\"an empty key\")",
            "Error::Denied(\"a key of 4097 bytes, at most 4096 are allowed\")",
            "Error::Denied(\"keys: element 1 is null\")",
            "Error::Denied(\"1 keys and 0 values\")",
            "Error::Denied(\"name `not/a-name` contains '/'; allowed are letters, digits, `_`, `.` and `-`\")",
            "ok",
        ],
    )
    .await;
}

#[tokio::test]
async fn the_sdk_says_the_same() {
    let mut running = setup("uses-state").start().await;
    check(
        &mut running,
        &[
            "get a",
            "put a 1",
            "put-many b=2 c=3",
            "delete b",
            "get-many a b c",
            "scan a c",
            "scan-all",
            "open not/a-name",
        ],
        &[
            "None",
            "put",
            "put",
            "deleted",
            "[Some(\"1\"), None, Some(\"3\")]",
            "a=1",
            "a=1 c=3",
            "Denied(\"name `not/a-name` contains '/'; allowed are letters, digits, `_`, `.` and `-`\")",
        ],
    )
    .await;
    check(&mut running, &["get a", "scan-all"], &["Some(\"1\")", "a=1 c=3"]).await;
}
