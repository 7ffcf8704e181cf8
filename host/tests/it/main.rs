//! Users' stories: a real server, a real client, and the commands that people type.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "a test fails by panicking, and says why")]

mod aggregates;
mod any_request;
mod archive;
mod bad_input;
mod benches; // what is measured is what is said
mod budgets; // what they may use, and what they used
mod clickhouse;
mod command_line;
mod deployments;
mod evil;
mod examples;
mod failures;
mod flights;
mod forged; // components that no toolchain makes
mod golden;
mod harness;
mod http_poll;
mod images; // components in other registries
mod kill;
mod languages;
mod lifecycle;
mod memory;
mod outside;
mod poison;
mod ports;
mod positions;
mod publish;
mod rebuilds; // state is made anew
mod receiver;
mod repair;
mod roles;
mod secrets; // who is given them, and who may send what
mod several_roles;
mod shadows; // a revision that commits nothing
mod shipped;
mod signatures; // which components are taken
mod stop;
mod tail;
mod ticks;
mod topics;
mod updates; // another revision takes over
mod uploads;
mod versions;
mod walls;
mod webhook;
