//! Looks for files, variables, arguments and addresses, and says what it finds.
#![cfg(target_family = "wasm")]

use guests::{Batch, Collector, Error, Guest, say};
use std::net::{TcpStream, UdpSocket};

struct AsksForTheWorld;

impl Guest for AsksForTheWorld {
    fn process(_: &Batch, out: &Collector) -> Result<(), Error> {
        let found = |what: &str, found: bool| say(out, &format!("{what}: {}", if found { "found" } else { "denied" }));
        found("file", std::fs::read("/etc/passwd").is_ok());
        found("directory", std::fs::read_dir(".").is_ok());
        found("new file", std::fs::write("/tmp/x", b"x").is_ok());
        found("variables", std::env::vars().next().is_some());
        found("arguments", std::env::args().next().is_some());
        found("tcp", TcpStream::connect("127.0.0.1:22").is_ok());
        found("udp", UdpSocket::bind("127.0.0.1:0").is_ok());
        found("name", std::net::ToSocketAddrs::to_socket_addrs("localhost:80").is_ok());
        found("input", std::io::stdin().lines().next().is_some());
        Ok(())
    }
}

guests::export!(AsksForTheWorld);
