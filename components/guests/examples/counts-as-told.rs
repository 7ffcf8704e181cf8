//! Counts the events of each key, and does as the first word of a value says: `panic` and `refuse` fail the call for good,
//! `aside` is put aside. What was counted is shown and emitted as `KEY: COUNT`.

use nodata_component::{Aggregate, Error, Event, Group, Result, component};

struct CountsAsTold;

fn word(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

#[component]
impl Aggregate for CountsAsTold {
    type Accumulator = u64;

    fn new() -> Result<Self> {
        Ok(Self)
    }

    fn accepts(&self, event: &Event<'_>) -> std::result::Result<(), String> {
        if event.text().is_ok_and(|text| word(text) == "aside") { Err("told to".to_owned()) } else { Ok(()) }
    }

    fn add(&self, count: &mut u64, event: &Event<'_>) -> Result<()> {
        match word(event.text()?) {
            "panic" => panic!("told to"),
            "refuse" => return Err(Error::permanent("told to")),
            _ => *count += 1,
        }
        Ok(())
    }

    fn merge(&self, count: &mut u64, other: u64) -> Result<()> {
        *count += other;
        Ok(())
    }

    fn render(&self, group: &Group<'_>, count: &u64) -> Result<Vec<u8>> {
        Ok(format!("{}: {count}", String::from_utf8_lossy(group.key)).into_bytes())
    }
}
