//! Runs a component on this machine, in a plain `cargo test`.
//!
//! A [`Harness`] does what the host does with a component: it gives it events, refuses what the host would refuse,
//! and keeps nothing of a call that fails.
//!
//! ```
//! use nodata_component::testing::{Event, Harness};
//! use nodata_component::{Error, Events, Output, Result, config};
//!
//! fn shout(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
//!     let mark: String = config::get_or("mark", "!".to_owned())?;
//!     for event in events {
//!         match event.text() {
//!             Ok(text) => out.like(&event).text(format_args!("{}{mark}", text.to_uppercase()))?,
//!             Err(error) => out.reject(&event, error),
//!         }
//!     }
//!     Ok(())
//! }
//!
//! let mut harness = Harness::new(shout).config("mark", "?");
//! let call = harness.call([Event::new("hello").key("k"), Event::new([0xff])]).ok();
//! assert_eq!(call.events(), [Event::new("HELLO?").key("k").timestamp_us(0)]);
//! assert_eq!(call.rejected()[0].row, 1);
//! ```
//!
//! What it does not do: it has no deadline and no ceiling of memory, and a panic ends the test instead of the call.

#[cfg(feature = "json")]
mod aggregate; // the host of an aggregate
mod columns; // events to columns, and back
mod component; // a component, as the host calls it
mod event; // an event that owns its bytes
mod harness; // the host, as far as a component can tell
pub mod native; // as fast as it can be, for benchmarks
mod source; // the host of a source

pub use crate::columns::{BytesColumn, HeadersColumn};
#[cfg(feature = "json")]
pub use aggregate::AggregateHarness;
pub use columns::Columns;
pub use event::Event;
pub use harness::{Call, Harness, Rejected};
pub use source::SourceHarness;
