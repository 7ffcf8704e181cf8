//! Topics as Parquet.

pub mod decode; // a file as events
pub mod encode; // events as a file
pub mod schema; // the columns
