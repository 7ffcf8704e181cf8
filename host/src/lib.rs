#![doc = include_str!("../README.md")]

pub mod settings; // what an operator decides

pub mod api; // the door
pub mod deployment; // what runs, and the tasks that make it true
pub mod images; // components in other registries
pub mod registry; // the components there are
pub mod secrets; // what nobody should read
pub mod server;
mod watch; // components of a directory, for authors // where the rooms are built and handed to each other

pub mod cli; // what a person types

pub mod limits; // every bound, with its reason
