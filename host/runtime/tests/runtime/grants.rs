//! What a deployment gives its instances, and that they have nothing else.

use crate::harness::{NOW, batch, events, setup};
use nodata_runtime::{LogSource, MetricValue};

#[tokio::test]
async fn configuration_is_what_the_deployment_says() {
    let expected = "[(\"a\", \"1\"), (\"b\", \"\")]\nSome(\"1\") None None\nNone";
    setup("reads-config").config("b", "").config("a", "1").secret("b", "x").check(&["x"], expected).await;
    setup("reads-config").secret("a", "x").check(&["x"], "[]\nNone None None\nSome([120])").await;
}

#[tokio::test]
async fn metrics_count_at_once_and_are_bounded() {
    let mut running = setup("measures").start().await;
    for _ in 0..2 {
        running.try_call(batch(&events(&["a", "b", "c"]))).await.unwrap_err();
    }
    let snapshot = running.metrics.snapshot();
    let value = |name: &str| snapshot.series.iter().find(|series| series.name == name).unwrap().value;
    assert_eq!(value("seen"), MetricValue::Counter(6));
    assert_eq!(value("last"), MetricValue::Gauge(0.5));
    assert_eq!(value("size"), MetricValue::Summary { count: 4, sum: 16.0, min: 3.0, max: 5.0 });
    assert_eq!(snapshot.series.len(), 100);
    // Three that are too large and 903 series too many, twice.
    assert_eq!(snapshot.dropped, 2 * (3 + 903));
}

#[tokio::test]
async fn what_is_printed_is_logged() {
    let mut running = setup("prints").start().await;
    running.call(&["a", "b"]).await;
    let logged = running.logged();
    let expected = ["Stdout 3: out a", "Stderr 3: err a", "Stdout 3: out b", "Stderr 3: err b", "Stdout 3: flood 0"];
    assert_eq!(logged[..5], expected);
    assert_eq!(logged.last().unwrap(), "Host 3: 804 lines dropped: more than 200 in a second");
    assert_eq!(logged.len(), 201);
    let first = &running.guest_log.since(0)[0];
    assert_eq!((first.number, first.time_us, first.source), (1, NOW, LogSource::Stdout));
}

#[tokio::test]
async fn nothing_of_the_machine_is_granted() {
    let asked = ["file", "directory", "new file", "variables", "arguments", "tcp", "udp", "name", "input"];
    let expected = asked.map(|what| format!("{what}: denied")).join("\n");
    setup("asks-for-the-world").check(&["x"], &expected).await;
}

#[tokio::test]
async fn http_requests_are_denied() {
    let mut running = setup("asks-for-http").start().await;
    let output = running.call(&["x"]).await;
    let denied = "Err(ErrorCode::HttpRequestDenied)";
    assert_eq!(running.show(&output), format!("{denied}\n{denied}"));
    // Once, however often it asks.
    let told = "Host 3: denied: an HTTP request to 169.254.169.254; this deployment is not granted any";
    assert_eq!(running.logged(), [told]);

    let expected = "the component failed: total size of fields exceeds limit";
    setup("asks-for-http").config("large", "yes").check_fails(&["x"], expected).await;
}
