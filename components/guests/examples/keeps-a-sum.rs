//! Adds up the numbers that events are, in its memory and nowhere else, and emits the sum so far for each; a tick emits `tick N`, by a
//! number that it remembers. It says what it is restored from, and does as each value says after it has counted it: `panic` and
//! `refuse` fail the call, `later` fails it until it was tried twice, `unsaved` and `large` fail the saving. `forget` makes what is saved
//! something that cannot be restored.

use nodata_component::{Error, Events, Output, Result, Tick, Transform, component};

#[derive(Default)]
struct KeepsASum {
    sum: u64,
    ticks: u64,
    saves: Saves,
}

#[derive(Default, PartialEq)]
enum Saves {
    #[default]
    Well,
    Not,
    TooMuch,
    Nonsense,
}

#[component]
impl Transform for KeepsASum {
    fn new() -> Result<Self> {
        Ok(Self::default())
    }

    fn process(&mut self, events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
        for event in events {
            // Whatever becomes of the call, it is in the memory of this instance now.
            self.sum += 1;
            match event.text()? {
                "panic" => panic!("told to"),
                "refuse" => return Err(Error::permanent("told to")),
                "later" if events.attempt() <= 2 => return Err(Error::transient("told to")),
                "later" => {}
                "unsaved" => self.saves = Saves::Not,
                "large" => self.saves = Saves::TooMuch,
                "forget" => self.saves = Saves::Nonsense,
                number => self.sum += number.parse::<u64>()? - 1,
            }
            out.like(&event).text(self.sum)?;
        }
        Ok(())
    }

    fn tick(&mut self, _: Tick, out: &mut Output<'_>) -> Result<()> {
        self.ticks += 1;
        out.push(format!("tick {}", self.ticks))
    }

    fn save(&self) -> Result<Vec<u8>> {
        match self.saves {
            Saves::Well => Ok([self.sum.to_le_bytes(), self.ticks.to_le_bytes()].concat()),
            Saves::Not => Err(Error::permanent("told not to save")),
            Saves::TooMuch => Ok(vec![0; (1 << 20) + 1]),
            Saves::Nonsense => Ok(vec![7]),
        }
    }

    fn restore(&mut self, saved: &[u8], saved_by: &str) -> Result<()> {
        let (sum, ticks) = saved.split_at_checked(8).ok_or_else(|| Error::permanent("that is no sum"))?;
        self.sum = u64::from_le_bytes(sum.try_into()?);
        self.ticks = u64::from_le_bytes(ticks.try_into()?);
        println!("restored {} by {saved_by}", self.sum);
        Ok(())
    }
}
