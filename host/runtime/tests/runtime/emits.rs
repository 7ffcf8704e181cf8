//! What is taken and what is refused.

use crate::harness::setup;

#[tokio::test]
async fn every_wrong_emit_is_answered_in_words() {
    let expected = "\
no rows: ok
lost: unknown port \"lost\"
short keys: keys: 0 offsets, 1 elements need 2
late start: values: the first offset is 1, not 0
descending: values: element 1 begins at 2 and ends before, at 1
long data: values: the last offset is 1, the data has 2 bytes
validity: keys: a validity of 2 bytes, 1 elements need 1 or none
timestamps: timestamps: 2 for 1 rows
id: row 0: the id is not UTF-8
row offsets: headers: the last row offset is 2, there are 1 names
null name: header names: element 0 is null
large row: row 0: 101 bytes (id, key, value and headers), at most 100 are allowed
lost event: unknown port \"lost\"
empty id: row 1: the id is empty; leave it out instead
long id: row 1: the id has 257 bytes, at most 256 are allowed
same header: row 1: header `h` is given twice; header names are unique in an event
no header name: row 1: a header has an empty name
large event: row 1: 101 bytes (id, key, value and headers), at most 100 are allowed
no such row: there is no input row 7; the batch has 2";
    setup("emits-nonsense").ports(&[("", 1, 100)]).check(&["a", "b"], expected).await;
}

#[tokio::test]
async fn a_budget_is_answered_and_not_a_trap() {
    let emits = |mebibytes| setup("emits-large").config("mebibytes", mebibytes);
    let mut running = emits(12).start().await;
    let output = running.call(&["go"]).await;
    assert_eq!(output.bytes, (12 << 20) + "Ok(()), 20971520 left".len() as u64);
    // One event of 16 MiB and one byte is more than a topic takes, which is looked at first.
    let refused = "Err(EmitError::Invalid(\"row 0: 17825792 bytes (id, key, value and headers), at most 16777216 are \
                   allowed\")), 33554432 left";
    emits(17).check(&["go"], refused).await;
    let refused = "Err(EmitError::BudgetExceeded), 33554432 left";
    emits(33).ports(&[("", 1, u32::MAX)]).check(&["go"], refused).await;
}

#[tokio::test]
async fn more_than_one_host_call_may_take_is_a_trap() {
    let setup = setup("emits-large").config("mebibytes", 65);
    let expected = "the component failed: too much data is being copied between the host and the guest: fuel allocated for \
                    hostcalls has been exhausted";
    let (running, _) = setup.check_fails(&["go"], expected).await;
    assert!(!running.instance().is_alive());
}

#[tokio::test]
async fn rows_are_rejected_with_their_reason() {
    let long = format!("0 {}", "é".repeat(600));
    let mut running = setup("rejects-as-told").start().await;
    let output = running.call(&["1 first", &long, "1 last", "3 there is no such row"]).await;
    let expected = format!("row 0 rejected: 0 {}\nrow 1 rejected: 1 last", "é".repeat(511));
    assert_eq!(running.show(&output), expected + "\nrow 3 rejected: 3 there is no such row");
    let output = running.call(&["9 there is no such row"]).await;
    assert_eq!((running.show(&output).as_str(), output.rejects_ignored), ("", 1));
}
