//! Says which call of its instance this is. An instance that is replaced begins anew.

use nodata_component::{Events, Output, Result, Transform, component};

struct KeepsAGlobal {
    calls: u32,
}

#[component]
impl Transform for KeepsAGlobal {
    fn new() -> Result<Self> {
        Ok(Self { calls: 0 })
    }

    fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
        self.calls += 1;
        out.event().text(format_args!("call {} with {} events", self.calls, events.len()))
    }
}
