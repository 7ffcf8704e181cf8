//! Refuses values that begin as config `refuse` says, until it is given the value `well`, and numbers the others, as its state says.

use nodata_component::{Error, Events, Output, Result, component, config, state::Table};

#[component]
fn refuses_until_told(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    let refuse: String = config::require("refuse")?;
    let table = Table::open("told")?;
    let mut count = match table.get("count")? {
        Some(bytes) => u64::from_le_bytes(bytes.try_into().expect("eight bytes")),
        None => 0,
    };
    let mut is_well = table.get("well")?.is_some();
    for event in events {
        let text = event.text()?;
        is_well |= text == "well";
        if text.starts_with(&refuse) && !is_well {
            return Err(Error::permanent("not yet"));
        }
        count += 1;
        out.like(&event).text(format_args!("{count} {text}"))?;
    }
    if is_well {
        table.put("well", "")?;
    }
    table.put("count", count.to_le_bytes())?;
    Ok(())
}
