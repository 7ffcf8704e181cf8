#![doc = include_str!("../README.md")]

// The bytes.
pub mod decode; // a file as events
pub mod encode; // events as a file
pub mod pages; // what pages say about their sizes
pub mod place; // where files are
pub mod schema; // the columns
mod typed; // the columns that a topic declares

// The way of an event.
mod archiver; // when
mod files; // for readers
mod flush; // from the log into a file

// A start.
mod adopt; // what is there, against what the log says is there

// A store that lost something.
mod inspect; // one file, whatever happened to it
mod repair; // what can be saved is saved
mod survey; // all files and the log, byte by byte, against each other

mod error; // what can go wrong
pub mod limits; // every bound, with its reason

pub use adopt::Adoption;
pub use archiver::{ArchiveOptions, Archiver, ArchiverHandle, Flushed};
pub use error::ArchiveError;
pub use files::ArchiveFiles;
pub use repair::LOST_DIR;
pub use survey::{Finding, Loss, LossKind, Note, Survey, survey};
