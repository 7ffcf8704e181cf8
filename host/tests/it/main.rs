//! Users' stories: a real server, a real client, and the commands that people type.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says why")]

mod aggregates;
mod any_request;
mod archive;
mod bad_input;
mod command_line;
mod deployments;
mod examples;
mod failures;
mod flights;
mod golden;
mod harness;
mod kill;
mod languages;
mod outside;
mod poison;
mod publish;
mod repair;
mod roles;
mod several_roles;
mod shipped;
mod stop;
mod tail;
mod topics;
mod uploads;
mod walls;
