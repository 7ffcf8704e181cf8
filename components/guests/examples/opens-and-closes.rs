//! Copies events, says when it opens and closes, and does at either what config `open` and config `close` name: `transient`,
//! `permanent`, `panic`, or `write`, to a table. With `later`, it opens when it is tried out, which is when it has no state, and then
//! only every other microsecond.

use nodata_component::{Error, Events, Output, Result, Transform, component, config, state::Table};
use std::time::SystemTime;

struct OpensAndCloses;

fn act(how: &str) -> Result<()> {
    match config::get(how).as_deref() {
        Some("transient") => Err(Error::transient("told to")),
        Some("permanent") => Err(Error::permanent("told to")),
        Some("panic") => panic!("told to"),
        Some("write") => Ok(Table::open("kept")?.put("k", "v")?),
        Some("later") if Table::open("kept")?.get("k").is_ok() => {
            let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(Error::permanent)?;
            if now.subsec_micros().is_multiple_of(2) { Ok(()) } else { Err(Error::permanent("not yet")) }
        }
        _ => Ok(()),
    }
}

#[component]
impl Transform for OpensAndCloses {
    fn new() -> Result<Self> {
        println!("opens");
        act("open")?;
        Ok(Self)
    }

    fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
        for event in events {
            assert!(event.text()? != "panic", "told to");
            out.forward(&event)?;
        }
        Ok(())
    }

    fn close(self) {
        println!("closes");
        if let Err(error) = act("close") {
            println!("{error}");
        }
    }
}
