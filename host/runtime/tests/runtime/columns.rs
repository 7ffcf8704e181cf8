//! Events there and back: as columns, as events, as slices, forwarded.

use crate::harness::{NOW, Running, batch, events, setup, show_event, stored};
use nodata_log::{Event, Name, Offsets};
use nodata_runtime::Input;
use std::sync::Arc;

/// One of each kind: what is there and what is not, in every column.
fn varied() -> Vec<Event> {
    let mut full = Event::new("value").with_key("key").with_id("id-1");
    full.headers = vec![("trace".to_owned(), "abc".into()), ("empty".to_owned(), "".into())];
    full.timestamp_us = Some(5);
    let mut headers_only = Event { value: None, ..Event::default() };
    headers_only.headers = vec![("trace".to_owned(), "\u{0}ÿ".into())];
    let empty_key = Event::new("").with_key("");
    let many = (0..20).map(|n| Event::new(format!("v{n}")).with_key(format!("k{}", n % 3)));
    [full, headers_only, Event::new("plain"), empty_key].into_iter().chain(many).collect()
}

fn shown(events: &[Event]) -> String {
    events.iter().map(show_event).collect::<Vec<_>>().join("\n")
}

async fn comes_back(running: &mut Running, input: Input) -> String {
    let output = running.try_call(input).await.unwrap();
    assert_eq!(output.batches.len(), 1);
    running.show(&output)
}

async fn check_copies(guest: &'static str) {
    let mut running = setup(guest).start().await;
    let all = varied();
    assert_eq!(comes_back(&mut running, batch(&all)).await, shown(&all));
    // A column that no event uses.
    let plain = events(&["a", "b", "c"]);
    assert_eq!(comes_back(&mut running, batch(&plain)).await, shown(&plain));
    // Each event alone: every bitmap has one bit.
    for event in &all {
        let one = std::slice::from_ref(event);
        assert_eq!(comes_back(&mut running, batch(one)).await, shown(one));
    }
    // A part of one batch, and parts of several.
    let part = batch(&all).slice(1..7).unwrap();
    assert_eq!(comes_back(&mut running, part).await, shown(&all[1..7]));
    let pieces = [(stored(1, &all), 2..4), (stored(90, &plain), 0..3), (stored(100, &all), 0..1)];
    let several = Input::new(Name::new("orders").unwrap(), 3, pieces).unwrap();
    let expected = [&all[2..4], &plain, &all[0..1]].concat();
    assert_eq!(comes_back(&mut running, several).await, shown(&expected));
}

#[tokio::test]
async fn columns_come_back_as_they_were() {
    check_copies("copies-columns").await;
}

#[tokio::test]
async fn events_come_back_as_they_were() {
    check_copies("copies-events").await;
}

#[tokio::test]
async fn events_come_back_through_the_sdk_as_they_were() {
    check_copies("copies").await;
}

#[tokio::test]
async fn slices_are_clamped() {
    let slices = "0+2 1+1 2+100 3+1 9+9 0+4294967295 4294967295+4294967295 1+0";
    let expected = "0+2: a b\n1+1: b\n2+100: c\n3+1: \n9+9: \n0+4294967295: a b c\n4294967295+4294967295: \n1+0: ";
    setup("reads-slices").config("slices", slices).check(&["a", "b", "c"], expected).await;
}

#[tokio::test]
async fn a_batch_says_where_it_comes_from() {
    let mut running = setup("tells-facts").limits(|limits| limits.output_bytes = 1000).start().await;
    let mut stored = stored(0, &events(&["a", "bb", "c"]));
    stored.offsets = Offsets::Each(Arc::new([7, 9, 100]));
    let input = Input::new(Name::new("orders").unwrap(), 3, [(stored, 1..3)]).unwrap().with_attempt(4);
    let output = running.try_call(input).await.unwrap();
    let mut facts = vec![
        "topic orders partition 3".to_owned(),
        "2 rows 3 bytes attempt 4".to_owned(),
        "offsets [9, 100]".to_owned(),
    ];
    facts.push(format!("now {NOW}"));
    // What was said before is spent.
    facts.push(format!("remaining {}", 1000 - facts.concat().len()));
    assert_eq!(running.show(&output), facts.join("\n"));
    assert_eq!((output.events, output.bytes), (5, facts.concat().len() as u64));
}

#[tokio::test]
async fn rows_are_forwarded_without_being_touched() {
    let all = varied();
    let ports = [("", 1, 1000), ("late", 4, 1000)];
    let forwards = || setup("forwards").ports(&ports);

    let mut running = forwards().config("rows", "0 1 2 3 3 0").start().await;
    let expected = [&all[0..4], &all[3..4], &all[0..1]].concat();
    assert_eq!(comes_back(&mut running, batch(&all)).await, shown(&expected));

    // Equal keys to equal places, events without a key to the partition they came from.
    let mut running = forwards().config("rows", "2 4 5 7 8").config("port", "late").start().await;
    let output = running.try_call(batch(&all)).await.unwrap();
    let expected = "late/3 plain\nlate/3 k0:v0\nlate/3 k0:v3\nlate/1 k1:v1\nlate/1 k1:v4";
    assert_eq!(running.show(&output), expected);
}

#[tokio::test]
async fn a_row_that_is_not_there_is_refused() {
    let refused = "EmitError::Invalid(\"there is no input row 3; the batch has 3\")";
    setup("forwards").config("rows", "0 1 2 3").check(&["a", "b", "c"], refused).await;
    let unknown = "EmitError::UnknownPort(\"lost\")";
    setup("forwards").config("rows", "0").config("port", "lost").check(&["a"], unknown).await;
}
