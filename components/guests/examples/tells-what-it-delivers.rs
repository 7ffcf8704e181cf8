//! A sink that prints what it delivers, when it is flushed, and does as the first word of each value says: `panic` and `refuse` fail the
//! call, `later` fails it until it was tried twice, `aside` is rejected, and `enough` is left for the next call with what is behind it.
//! With config `down`, no flush succeeds. How many were delivered is in its state.

use nodata_component::{Error, Events, Rejects, Result, Sink, component, config, state::Table};

struct TellsWhatItDelivers {
    written: Vec<String>,
}

#[component]
impl Sink for TellsWhatItDelivers {
    fn new() -> Result<Self> {
        Ok(Self { written: Vec::new() })
    }

    fn write(&mut self, events: Events<'_>, rejects: &mut Rejects<'_>) -> Result<()> {
        // Of a call that failed, something may be left.
        self.written.clear();
        for event in events {
            let text = event.text()?;
            match text.split(' ').next().unwrap_or_default() {
                "panic" => panic!("told to"),
                "refuse" => return Err(Error::permanent("told to")),
                "later" if events.attempt() <= 2 => return Err(Error::transient("told to")),
                "aside" => rejects.reject(&event, "told to"),
                "enough" if event.row() > 0 => {
                    rejects.defer(&event)?;
                    break;
                }
                _ => self.written.push(format!("{} {} {} {text}", events.topic(), events.partition(), event.offset())),
            }
        }
        // State commits with the position, in a sink too.
        let table = Table::open("delivered")?;
        let count = table.get("count")?.map_or(0, |bytes| u64::from_le_bytes(bytes.try_into().expect("eight bytes")));
        table.put("count", (count + self.written.len() as u64).to_le_bytes())?;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if config::get("down").is_some() {
            return Err(Error::transient("the receiver is down"));
        }
        for line in self.written.drain(..) {
            println!("{line}");
        }
        Ok(())
    }
}
