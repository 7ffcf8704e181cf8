//! Counts in its state how often it was called, says the number and puts the first event aside. Then it fails in the
//! way that config `how` names: `transient`, `permanent` or `panic`. It goes on when it was tried more often than config
//! `times` says (1 without it).

use nodata_component::{Error, Events, Output, Result, component, config, state::Table};

#[component]
fn fails_at_first(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    let table = Table::open("calls")?;
    let calls = table.get("calls")?.map_or(1, |calls| calls.first().map_or(1, |calls| calls + 1));
    table.put("calls", [calls])?;
    for event in events.iter().take(1) {
        out.like(&event).text(format_args!("call {calls}"))?;
        out.reject(&event, format_args!("call {calls}"));
    }

    let attempt = events.attempt();
    eprintln!("this is attempt {attempt}");
    if attempt > config::get_or("times", 1)? {
        return Ok(());
    }
    match config::get("how").as_deref() {
        Some("transient") => Err(Error::transient(format_args!("attempt {attempt} is too early"))),
        Some("permanent") => Err(Error::permanent(format_args!("attempt {attempt} cannot help"))),
        _ => panic!("attempt {attempt} fails"),
    }
}
