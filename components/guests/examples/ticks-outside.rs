//! A sink that prints the value of each event, and `tick` at each tick.

use nodata_component::{Events, Rejects, Result, Sink, Tick, component};

struct TicksOutside;

#[component]
impl Sink for TicksOutside {
    fn new() -> Result<Self> {
        Ok(Self)
    }

    fn write(&mut self, events: Events<'_>, _: &mut Rejects<'_>) -> Result<()> {
        for event in events {
            println!("{}", event.text()?);
        }
        Ok(())
    }

    fn tick(&mut self, _: Tick) -> Result<()> {
        println!("tick");
        Ok(())
    }
}
