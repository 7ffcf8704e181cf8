//! Copies events, and counts ticks in its state: emits `tick N` at each, without a key. With config `fails`, every other tick (by
//! chance) fails the way that it names, `transient`, `permanent` or `panic`, after that; `always permanent` fails each.

use nodata_component::{Error, Events, Output, Result, Tick, Transform, component, config, state::Table};
use std::time::SystemTime;

struct CountsTicks;

#[component]
impl Transform for CountsTicks {
    fn new() -> Result<Self> {
        Ok(Self)
    }

    fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
        for event in events {
            out.forward(&event)?;
        }
        Ok(())
    }

    fn tick(&mut self, tick: Tick, out: &mut Output<'_>) -> Result<()> {
        assert!(tick.watermark_us.is_none(), "it is no aggregate");
        let table = Table::open("ticks")?;
        let count = match table.get("count")? {
            Some(bytes) => u64::from_le_bytes(bytes.try_into().expect("eight bytes")),
            None => 0,
        } + 1;
        table.put("count", count.to_le_bytes())?;
        out.push(format!("tick {count}"))?;
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(Error::permanent)?;
        match config::get("fails").as_deref() {
            Some("always permanent") => Err(Error::permanent("told to")),
            Some(_) if now.subsec_micros().is_multiple_of(2) => Ok(()),
            Some("transient") => Err(Error::transient("told to")),
            Some("permanent") => Err(Error::permanent("told to")),
            Some("panic") => panic!("told to"),
            _ => Ok(()),
        }
    }
}
