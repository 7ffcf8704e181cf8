#![doc = include_str!("../README.md")]

mod connect; // one connection, many callers
mod error; // what can go wrong, and what to do
mod event; // one event, and many
mod publisher; // many events, one after the other
mod tail; // reading

/// The messages and stubs of every service, as the `.proto` files describe them.
pub use nodata_proto::client as proto;

pub use connect::{Client, ClientOptions};
pub use error::{Error, ErrorKind, Outcome};
pub use event::{Batch, Event, Received, ReceivedBatch};
pub use publisher::{Ack, Published, PublishedRange, Publisher, PublisherOptions, Receipt};
pub use tail::{From, Tail, TailOptions};

/// What this crate answers with.
pub type Result<T> = std::result::Result<T, Error>;
