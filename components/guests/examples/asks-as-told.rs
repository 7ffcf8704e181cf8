//! Sends the HTTP request that a value names, `METHOD URL BYTES`, with a body of so many bytes, and says what was answered: the status, the
//! header `location` and the bytes of the body, or the error. With config `field` it sends one of that name.
#![cfg(target_family = "wasm")]

use nodata_component::{Events, Output, Result, component, config, http};
use std::time::Duration;

#[component]
fn asks(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    let timeout = Duration::from_millis(config::get_or("timeout-ms", 20_000)?);
    for event in events {
        let mut words = event.text()?.split(' ');
        let request = http::Request::new(words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let body: usize = words.next().map_or(Ok(0), str::parse)?;
        let request = request.body(vec![b'x'; body]).timeout(timeout).body_max(1 << 30);
        let field = config::get("field").unwrap_or_else(|| "x-asks".to_owned());
        out.like(&event).text(match request.header(&field, "as told").send() {
            Ok(answer) => {
                let location = answer.header("location").map_or_else(String::new, |to| format!(" to {to}"));
                format!("{}{location}, {} bytes", answer.status(), answer.body().len())
            }
            Err(error) => format!("{error:?}"),
        })?;
    }
    Ok(())
}
