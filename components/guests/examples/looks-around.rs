//! Says what it can see of the machine, one event for each thing it tried.

use nodata_component::{Events, Output, Result, component};
use std::collections::HashSet;
use std::fmt::Debug;
use std::time::{Duration, Instant, SystemTime};
use std::{env, fs, io, net};

#[component]
fn looks_around(_: Events<'_>, out: &mut Output<'_>) -> Result<()> {
    let mut say = |what: &str, found: &dyn Debug| out.event().key(what).text(format_args!("{found:?}"));
    say("environment", &env::vars().collect::<Vec<_>>())?;
    say("arguments", &env::args().collect::<Vec<_>>())?;
    say("current directory", &kind(env::current_dir()))?;
    say("read /etc/passwd", &kind(fs::read("/etc/passwd")))?;
    say("read .", &kind(fs::read_dir(".").map(|entries| entries.count())))?;
    say("write /tmp/x", &kind(fs::write("/tmp/x", "x")))?;
    say("stdin", &kind(io::read_to_string(io::stdin())))?;
    say("connect to 127.0.0.1:1", &kind(net::TcpStream::connect("127.0.0.1:1").map(drop)))?;
    say("listen on 127.0.0.1:0", &kind(net::TcpListener::bind("127.0.0.1:0").map(drop)))?;
    say("look up localhost", &kind(net::ToSocketAddrs::to_socket_addrs("localhost:1").map(Iterator::count)))?;
    // Both of these are allowed: a component needs the time, and keys for its hash maps that nobody can guess.
    say("the clocks run", &clocks_run())?;
    say("two hash maps have different keys", &hashes_differ())?;
    Ok(())
}

fn kind<T>(result: io::Result<T>) -> Result<T, io::ErrorKind> {
    result.map_err(|error| error.kind())
}

fn clocks_run() -> bool {
    let start = Instant::now();
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since_epoch > Duration::from_secs(1_700_000_000) && start.elapsed() < Duration::from_secs(60)
}

fn hashes_differ() -> bool {
    // Sets of the same elements in the same order of keys would be iterated in the same order.
    let order = || (0..64).collect::<HashSet<u32>>().into_iter().collect::<Vec<_>>();
    order() != order()
}
