//! Errors that a component returns, and instances that go on.

use crate::harness::{batch, events, setup};
use nodata_log::ErrorKind;
use nodata_runtime::CallErrorReason;
use std::time::Duration;

#[tokio::test]
async fn a_failed_call_leaves_nothing_and_the_instance_goes_on() {
    let mut running = setup("fails-as-told").start().await;
    let error = running.try_call(batch(&events(&["one", "transient the sea is rough"]))).await.unwrap_err();
    assert_eq!(error.to_string(), "the component asks to try again later: the sea is rough");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.instance_lives() && running.instance().is_alive());

    let error = running.try_call(batch(&events(&["permanent no such ship"]))).await.unwrap_err();
    assert_eq!(error.to_string(), "the component refuses the batch: no such ship");
    assert_eq!(error.kind(), ErrorKind::Invalid);

    let output = running.call(&["two"]).await;
    assert_eq!(running.show(&output), "two\nrow 0 rejected: also");
}

#[tokio::test]
async fn what_a_component_says_of_its_error_is_cut() {
    let mut running = setup("fails-as-told").start().await;
    let error = running.try_call(batch(&events(&["long 100000"]))).await.unwrap_err();
    assert_eq!(error.reason(), &CallErrorReason::Permanent("é".repeat(2048)));
}

#[tokio::test]
async fn a_call_that_is_given_up_ends_the_instance() {
    let mut running = setup("sleeps").config("seconds", 3600).start().await;
    assert!(running.give_up(batch(&events(&["a"])), Duration::from_millis(30)).await);
    assert!(!running.instance().is_alive());
}
