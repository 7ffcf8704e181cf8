//! Counts events, and emits the watermark at each tick: `watermark none`, or `watermark MICROSECONDS`. What it makes of a window is
//! `closed COUNT`.

use nodata_component::{Aggregate, Event, Group, Output, Result, Tick, component};

struct TellsTheWatermark;

#[component]
impl Aggregate for TellsTheWatermark {
    type Accumulator = u64;

    fn new() -> Result<Self> {
        Ok(Self)
    }

    fn add(&self, count: &mut u64, _: &Event<'_>) -> Result<()> {
        *count += 1;
        Ok(())
    }

    fn merge(&self, count: &mut u64, other: u64) -> Result<()> {
        *count += other;
        Ok(())
    }

    fn render(&self, _: &Group<'_>, count: &u64) -> Result<Vec<u8>> {
        Ok(format!("closed {count}").into_bytes())
    }

    fn tick(&mut self, tick: Tick, out: &mut Output<'_>) -> Result<()> {
        match tick.watermark_us {
            Some(us) => out.push(format!("watermark {us}")),
            None => out.push("watermark none"),
        }
    }
}
