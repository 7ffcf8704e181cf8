//! What a component exports beside its role.

use crate::harness::{Running, Setup, batch, events, guest, runtime, setup};
use nodata_runtime::{AcceptError, Extra, inspect_component};

fn lifecycle(open: &str, close: &str) -> Setup {
    setup("opens-and-closes").config("open", open).config("close", close)
}

/// The words of the guest, without what the host says.
fn said(running: &Running) -> Vec<String> {
    let lines = running.logged().into_iter();
    lines.filter_map(|line| Some(line.strip_prefix("Stdout 3: ")?.to_owned())).collect()
}

#[tokio::test]
async fn an_instance_opens_before_its_first_call_and_closes_once() {
    let mut running = lifecycle("", "").start().await;
    assert_eq!(said(&running), ["opens"]);
    running.call(&["a"]).await;
    running.call(&["b"]).await;
    running.let_go().await.unwrap();
    assert_eq!(said(&running), ["opens", "closes"]);
}

#[tokio::test]
async fn an_instance_that_does_not_open_has_not_started() {
    for how in ["transient", "permanent"] {
        let error = lifecycle(how, "").try_start().await.err().unwrap();
        assert_eq!(error.to_string(), "the component does not open: told to");
        assert!(!error.instance_lives());
    }
    let error = lifecycle("panic", "").try_start().await.err().unwrap();
    assert!(error.to_string().starts_with("the component does not open: the component panicked at "), "{error}");
    let error = lifecycle("write", "").try_start().await.err().unwrap();
    let read = "while a component begins or ends, state can only be read";
    assert!(error.to_string().ends_with(read), "{error}");
}

#[tokio::test]
async fn a_trap_ends_an_instance_without_a_goodbye() {
    let mut running = lifecycle("", "").start().await;
    running.try_call(batch(&events(&["panic"]))).await.unwrap_err();
    running.let_go().await.unwrap();
    assert_eq!(said(&running), ["opens"]);

    let mut running = lifecycle("", "panic").start().await;
    let error = running.let_go().await.unwrap_err();
    assert!(error.words().ends_with(": told to"), "{error}");
    let mut running = lifecycle("", "write").start().await;
    running.let_go().await.unwrap();
    assert!(said(&running)[2].contains("can only be read"), "{:?}", said(&running));
}

#[tokio::test]
async fn a_component_is_tried_out_before_it_is_deployed() {
    assert_eq!(lifecycle("", "panic").try_out().await, "it is well");
    assert_eq!(lifecycle("permanent", "").try_out().await, "does not open: told to");
    assert_eq!(lifecycle("transient", "").try_out().await, "it is well");
    let said = lifecycle("panic", "").try_out().await;
    assert!(said.starts_with("does not open: the component panicked at ") && said.ends_with(": told to"), "{said}");
    // The others have nothing to say.
    assert_eq!(setup("panics").try_out().await, "it is well");
}

#[tokio::test]
async fn a_component_says_what_it_needs_around_it() {
    let ports = |how: &str| setup("describes-ports").config("ports", how).try_out();
    let all = "Input input: what is copied, Text, partitions 2, required\nOutput : the copies, Json, required\n\
               Output bad: what was never there, Bytes, partitions 3";
    assert_eq!(ports("").await, all);
    let refused = |what: &str| format!("does not describe its ports: {what}");
    assert_eq!(ports("permanent").await, refused("told to"));
    assert_eq!(ports("many").await, refused("103 of them, at most 64 are allowed"));
    assert_eq!(ports("twice").await, refused("\"bad\" is there twice"));
    let long = format!("name `{}…` has 201 bytes, at most 200 are allowed", "x".repeat(32));
    assert_eq!(ports("long").await, refused(&long));
    let said = ports("panic").await;
    assert!(said.starts_with(&refused("the component panicked at ")), "{said}");
}

#[tokio::test]
async fn what_a_tick_does_is_one_unit_without_an_input() {
    let mut running = setup("counts-ticks").ports(&[("", 8, 1 << 20)]).start().await;
    // Events without a key stay with the partition, here as elsewhere.
    let first = running.tick(7).await.unwrap();
    assert_eq!(running.show(&first), "/3 tick 1");
    assert_eq!(first.state.len(), 1);
    // What was not committed did not happen.
    let again = running.tick(8).await.unwrap();
    assert_eq!(running.show(&again), "/3 tick 1");
    running.commit(again).await;
    let second = running.tick(9).await.unwrap();
    assert_eq!(running.show(&second), "/3 tick 2");
    let copied = running.call(&["a"]).await;
    assert_eq!(running.show(&copied), "/3 a");

    let mut running = setup("counts-ticks").config("fails", "always permanent").start().await;
    let error = running.tick(7).await.unwrap_err();
    assert_eq!(error.words(), "told to");
    let output = running.call(&["a"]).await;
    assert_eq!((running.show(&output).as_str(), output.state.len()), ("a", 0), "nothing of a failed tick is left");

    // A component that does not tick is not asked to.
    let mut running = setup("copies").start().await;
    assert!(running.tick(7).await.is_err());
}

#[tokio::test]
async fn memory_is_saved_with_each_call_and_another_instance_goes_on_from_it() {
    let mut running = setup("keeps-a-sum").start().await;
    let output = running.call(&["5", "3"]).await;
    assert_eq!(running.show(&output), "5\n8");
    assert_eq!(output.memory.as_deref(), Some(&[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..]));
    let ticked = running.tick(7).await.unwrap();
    assert_eq!(ticked.memory.as_ref().unwrap()[8], 1);

    let mut another = setup("keeps-a-sum").start().await;
    another.restore(ticked.memory.unwrap(), "0123456789abcdef").await.unwrap();
    assert_eq!(said(&another), ["restored 8 by 0123456789abcdef"]);
    let (output, ticked) = (another.call(&["1"]).await, another.tick(8).await.unwrap());
    assert_eq!((another.show(&output), another.show(&ticked)), ("9".to_owned(), "tick 2".to_owned()));

    let error = another.restore("x".into(), "0123456789abcdef").await.unwrap_err();
    let expected =
        "the component does not open: it cannot go on from the memory that 0123456789ab saved: that is no sum";
    assert_eq!(error.to_string(), expected);
    // A component that keeps nothing saves nothing.
    let output = setup("copies").start().await.call(&["a"]).await;
    assert_eq!(output.memory, None);
}

#[tokio::test]
async fn a_call_whose_memory_cannot_be_saved_has_failed() {
    let failed = |value| async move {
        let mut running = setup("keeps-a-sum").start().await;
        running.try_call(batch(&events(&[value]))).await.unwrap_err().words()
    };
    assert_eq!(failed("unsaved").await, "told not to save");
    assert_eq!(failed("large").await, "it saves 1048577 bytes of memory, at most 1048576 are allowed");
}

#[tokio::test]
async fn extras_are_named_and_must_be_what_the_contract_says() {
    let found = |name| inspect_component(&guest(name)).unwrap().extras;
    assert_eq!(found("copies"), []);
    assert_eq!(found("opens-and-closes"), [Extra::Lifecycle]);
    assert_eq!(found("ticks-outside"), [Extra::Lifecycle, Extra::Ticker]);
    assert_eq!(found("tells-the-watermark"), [Extra::Lifecycle, Extra::Ticker]);
    assert_eq!(found("keeps-a-sum"), [Extra::Lifecycle, Extra::Ticker, Extra::Snapshot]);
    assert_eq!(found("describes-ports"), [Extra::Lifecycle, Extra::Ports]);

    let error = runtime().accept(guest("other-lifecycle")).await.err().unwrap();
    let begin = "`nodata:streaming/lifecycle@0.1.0` is not what the contract says: ";
    assert!(matches!(error, AcceptError::Export { .. }) && error.to_string().starts_with(begin), "{error}");

    let with = |role: &str, extra: &str| {
        let exports = [role, extra].map(|name| format!("(export \"nodata:streaming/{name}@0.1.0\" (instance $i))"));
        wat::parse_str(format!("(component (instance $i) {})", exports.concat())).unwrap()
    };
    for (role, extra, what) in [
        ("source-reader", "grouper", "source"),
        ("source-reader", "ticker", "source"),
        ("source-reader", "snapshot", "source"),
    ] {
        let error = inspect_component(&with(role, extra)).unwrap_err();
        let expected = format!("the component exports `nodata:streaming/{extra}@0.1.0`, which is nothing for a {what}");
        assert_eq!(error.to_string(), expected);
    }
    assert_eq!(inspect_component(&with("transformer", "ticker")).unwrap().extras, [Extra::Ticker]);
}
