#![doc = include_str!("../README.md")]

pub mod api; // the door
pub mod cli; // what a person types
pub mod deployment;
pub mod registry; // the components there are
pub mod server; // where the rooms are built and handed to each other
pub mod settings; // what an operator decides // what runs, and the tasks that make it true
