//! A source that counts to config `to` and has finished then, with keys, in calls of config `step` numbers (10 without it). It says
//! when a number is acknowledged. With config `fails`, every other call fails the way that it names, `transient`, `permanent` or
//! `panic`, after its first half.

use nodata_component::{Error, Next, Output, Result, Source, component, config};
use std::time::{Duration, SystemTime};

struct CountsTo {
    next: u64,
    to: u64,
    step: u64,
}

#[component]
impl Source for CountsTo {
    fn open(position: Option<&[u8]>) -> Result<Self> {
        let next = match position {
            None => 0,
            Some(bytes) => u64::from_le_bytes(bytes.try_into().map_err(Error::permanent)?),
        };
        println!("opened at {next}");
        Ok(Self { next, to: config::require("to")?, step: config::get_or("step", 10)? })
    }

    fn poll(&mut self, events_max: u32, out: &mut Output<'_>) -> Result<Next> {
        assert!(events_max > 0, "something is wanted");
        for _ in 0..self.step.min(u64::from(events_max)) {
            if self.next == self.to {
                return Ok(Next::Finished);
            }
            out.event().key((self.next % 7).to_string()).text(self.next)?;
            self.next += 1;
            if self.next % self.step == self.step / 2 {
                self.fail_as_told()?;
            }
        }
        out.checkpoint(self.next.to_le_bytes())?;
        Ok(if self.next.is_multiple_of(3) { Next::After(Duration::from_millis(1)) } else { Next::More })
    }

    fn committed(&mut self, position: &[u8]) -> Result<()> {
        let position = u64::from_le_bytes(position.try_into().map_err(Error::permanent)?);
        println!("acknowledged {position}");
        Ok(())
    }
}

impl CountsTo {
    /// Half of the time.
    fn fail_as_told(&self) -> Result<()> {
        let Some(how) = config::get("fails") else { return Ok(()) };
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_err(Error::permanent)?;
        if now.subsec_micros() % 2 == 0 {
            return Ok(());
        }
        match how.as_str() {
            "transient" => Err(Error::transient(format_args!("not yet at {}", self.next))),
            "permanent" => Err(Error::permanent(format_args!("not at {}", self.next))),
            _ => panic!("at {}", self.next),
        }
    }
}
