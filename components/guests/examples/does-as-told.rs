//! Does as the first word of each value says, and gives every other one a number: how many there were so far, as its state says.
//!
//! `panic` and `refuse` fail the call for good, `later` fails it until it was tried twice, `never` says so for ever, `aside` is rejected,
//! `twice` comes out twice, `nothing` does not.

use nodata_component::{Error, Events, Output, Result, component, state::Table};

#[component]
fn does_as_told(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    let table = Table::open("told")?;
    let mut count = match table.get("count")? {
        Some(bytes) => u64::from_le_bytes(bytes.try_into().expect("eight bytes")),
        None => 0,
    };
    for event in events {
        let text = event.text()?;
        match text.split(' ').next().unwrap_or_default() {
            "panic" => {
                eprintln!("offset {} says so", event.offset());
                panic!("told to");
            }
            "refuse" => return Err(Error::permanent("told to")),
            "never" => return Err(Error::transient("told to")),
            "later" if events.attempt() <= 2 => return Err(Error::transient("told to")),
            "aside" => out.reject(&event, "told to"),
            word => {
                count += 1;
                let times = match word {
                    "nothing" => 0,
                    "twice" => 2,
                    _ => 1,
                };
                for _ in 0..times {
                    out.like(&event).text(format_args!("{count} {text}"))?;
                }
                // At once: of a call that fails later, nothing of this may be left.
                table.put("count", count.to_le_bytes())?;
            }
        }
    }
    Ok(())
}
