//! Everything that a component can be, and evil in the export that config `in` names, in the way that config `evil` names. In all
//! others it behaves: it copies, delivers nothing, counts to one in each call of a source, and counts the events of a group.
#![cfg(target_family = "wasm")]

use std::cell::RefCell;
use std::hint::black_box;
use std::time::Duration;

#[allow(unsafe_code, unreachable_pub, reason = "generated bindings")]
mod bindings {
    use super::Evil;

    wit_bindgen::generate!({
        path: "../../wit/streaming",
        inline: "
            package nodata:guests;

            world evil {
                include nodata:streaming/transform@0.1.0;
                include nodata:streaming/sink@0.1.0;
                include nodata:streaming/source@0.1.0;
                include nodata:streaming/grouping-aggregate@0.1.0;
                export nodata:streaming/lifecycle@0.1.0;
                export nodata:streaming/ticker@0.1.0;
                export nodata:streaming/snapshot@0.1.0;
                export nodata:streaming/ports@0.1.0;
            }
        ",
        world: "nodata:guests/evil",
        generate_all,
    });

    export!(Evil);
}

use bindings::exports::nodata::streaming::{
    aggregator, grouper, lifecycle, ports, sink_writer, snapshot, source_reader, ticker, transformer,
};
use bindings::nodata::streaming::state::{Error as StateError, Table};
use bindings::nodata::streaming::types::{Batch, BytesColumn, Collector, EmitError, Error, Event};
use bindings::nodata::streaming::{config, metrics};

struct Evil;

thread_local! {
    static KEPT: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
}

/// What it is to do in this export, if anything.
fn told(export: &str) -> Option<String> {
    config::get("in").filter(|told| told == export).and_then(|_| config::get("evil"))
}

#[inline(never)]
fn deeper(n: u64) -> u64 {
    // What comes after the call keeps the compiler from making a loop of it.
    if black_box(n) == 0 { 0 } else { black_box(deeper(n + 1)) + 1 }
}

/// Does it, where it is something that every export could do.
fn act(export: &str) -> Result<(), Error> {
    let Some(evil) = told(export) else { return Ok(()) };
    match evil.as_str() {
        "spins" => loop {
            black_box(0);
        },
        "grows" => loop {
            KEPT.with_borrow_mut(|kept| kept.push(vec![1; 1 << 20]));
        },
        "keeps" => KEPT.with_borrow_mut(|kept| kept.push(vec![1; 96 << 20])),
        "recurses" => {
            deeper(1);
        }
        "sleeps" => std::thread::sleep(Duration::from_secs(3600)),
        "panics" => panic!("told to"),
        "exits" => std::process::exit(7),
        "floods the log" => loop {
            println!("{}", "again ".repeat(1000));
        },
        "prints a line without end" => loop {
            print!("again ");
        },
        "floods metrics" => {
            for n in 0_u64.. {
                metrics::add(&format!("series-{n}"), 1, &[("n".to_owned(), n.to_string())]);
            }
        }
        "draws random numbers" => loop {
            black_box(wasip2::random::random::get_random_bytes(1 << 16));
        },
        "asks the time" => loop {
            black_box(std::time::Instant::now());
        },
        "opens tables" => loop {
            std::mem::forget(Table::open("t").map_err(denied)?);
        },
        "writes state" => {
            let table = Table::open("t").map_err(denied)?;
            for n in 0_u64.. {
                table.put(&n.to_le_bytes(), &[1; 1 << 16]).map_err(denied)?;
            }
        }
        "scans state" => {
            let table = Table::open("t").map_err(denied)?;
            loop {
                black_box(table.scan(&[], None, u32::MAX).map_err(denied)?);
            }
        }
        "asks for later" => return Err(Error::Transient("never".to_owned())),
        "talks" => return Err(Error::Permanent("talk ".repeat(4 << 20))),
        "moves the cursor" => {
            metrics::add("\u{1b}[2Jgone", 1, &[("\u{1b}[1A".to_owned(), "\r\u{8}".to_owned())]);
            return Err(Error::Permanent("\u{1b}[2J\u{1b}[Hall is well\r\u{8}\u{7}".to_owned()));
        }
        _ => {}
    }
    Ok(())
}

/// What a call answers with, unless it is told to answer otherwise.
fn column(export: &str, honest: BytesColumn) -> BytesColumn {
    let rows = honest.offsets.len().saturating_sub(1);
    match told(export).as_deref() {
        Some("answers with nothing") => BytesColumn { offsets: Vec::new(), data: Vec::new(), validity: Vec::new() },
        Some("answers with too few") => BytesColumn { offsets: vec![0; rows], ..honest },
        Some("answers with too many") => BytesColumn { offsets: vec![0; rows + 2], data: Vec::new(), ..honest },
        Some("goes backwards") => BytesColumn { offsets: (0..=rows as u32).rev().collect(), ..honest },
        Some("goes too far") => BytesColumn { offsets: vec![u32::MAX; rows + 1], ..honest },
        Some("lies about its data") => BytesColumn { data: Vec::new(), offsets: (0..=rows as u32).collect(), ..honest },
        Some("lies about its nulls") => BytesColumn { validity: vec![255; rows + 100], ..honest },
        Some("answers with nulls") => BytesColumn { validity: vec![0; rows.div_ceil(8)], ..honest },
        Some("answers with much") => {
            BytesColumn { offsets: vec![0, 100 << 20], data: vec![0; 100 << 20], validity: Vec::new() }
        }
        Some("answers with a large one") => {
            let mut offsets = vec![0; rows];
            offsets.push(20 << 20);
            BytesColumn { offsets, data: vec![b'1'; 20 << 20], validity: Vec::new() }
        }
        _ => honest,
    }
}

fn of_rows(rows: usize) -> BytesColumn {
    BytesColumn { offsets: (0..=rows as u32).collect(), data: vec![b'1'; rows], validity: Vec::new() }
}

fn refused(error: EmitError) -> Error {
    Error::Permanent(match error {
        EmitError::UnknownPort(port) => format!("there is no port \"{port}\""),
        EmitError::BudgetExceeded => "there is no room for more".to_owned(),
        EmitError::Invalid(what) => what,
    })
}

fn denied(error: StateError) -> Error {
    Error::Permanent(match error {
        StateError::Denied(what) | StateError::Unavailable(what) => what,
        StateError::QuotaExceeded => "there is no room for more state".to_owned(),
    })
}

fn event() -> Event {
    Event { id: None, key: None, value: Some(b"1".to_vec()), headers: Vec::new(), timestamp: None }
}

/// Emits what nobody may emit, where it is told to.
fn emit(export: &str, input: Option<&Batch>, out: &Collector) -> Result<(), Error> {
    match told(export).as_deref() {
        Some("emits to a port that it was not given") => out.emit("\u{1b}[2Jsecrets", &[event()]).map_err(refused),
        Some("emits without end") => loop {
            out.emit("", &vec![event(); 1000]).map_err(refused)?;
        },
        Some("forwards without end") => loop {
            out.forward("", &[0; 1000]).map_err(refused)?;
        },
        Some("forwards what is not there") => out.forward("", &[u32::MAX]).map_err(refused),
        Some("rejects without end") => loop {
            (0..u32::MAX).for_each(|row| out.reject(row, &"no ".repeat(1000)));
        },
        Some("asks for all rows again and again") => loop {
            black_box(input.map(Batch::events));
        },
        Some("checkpoints") => out.checkpoint(&[1]).map_err(refused),
        Some("checkpoints too much") => out.checkpoint(&vec![1; 1 << 20]).map_err(refused),
        _ => Ok(()),
    }
}

impl transformer::Guest for Evil {
    fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
        act("process")?;
        emit("process", Some(input), out)?;
        let rows: Vec<u32> = (0..input.len()).collect();
        out.forward("", &rows).map_err(refused)
    }
}

impl sink_writer::Guest for Evil {
    fn write(input: &Batch, out: &Collector) -> Result<(), Error> {
        act("write")?;
        emit("write", Some(input), out)
    }

    fn flush() -> Result<(), Error> {
        act("flush")
    }
}

impl source_reader::Guest for Evil {
    fn open(_: Option<Vec<u8>>) -> Result<(), Error> {
        act("source open")
    }

    fn poll(_: u32, out: &Collector) -> Result<source_reader::Status, Error> {
        act("poll")?;
        emit("poll", None, out)?;
        out.emit("", &[event()]).map_err(refused)?;
        out.checkpoint(b"1").map_err(refused)?;
        Ok(source_reader::Status::Idle(1000))
    }

    fn committed(_: Vec<u8>) -> Result<(), Error> {
        act("committed")
    }
}

impl aggregator::Guest for Evil {
    fn accumulate(
        input: &Batch,
        groups: aggregator::Groups,
        _: aggregator::Membership,
        out: &Collector,
    ) -> Result<BytesColumn, Error> {
        act("accumulate")?;
        emit("accumulate", Some(input), out)?;
        Ok(column("accumulate", of_rows(groups.keys.offsets.len() - 1)))
    }

    fn merge(left: BytesColumn, _: BytesColumn) -> Result<BytesColumn, Error> {
        act("merge")?;
        Ok(column("merge", left))
    }

    fn finish(_: aggregator::Groups, out: &Collector) -> Result<(), Error> {
        act("finish")?;
        emit("finish", None, out)
    }

    fn render(groups: aggregator::Groups) -> Result<BytesColumn, Error> {
        act("render")?;
        Ok(column("render", groups.accumulators))
    }
}

impl grouper::Guest for Evil {
    fn keys(input: &Batch) -> Result<BytesColumn, Error> {
        act("keys")?;
        Ok(column("keys", of_rows(input.len() as usize)))
    }
}

impl lifecycle::Guest for Evil {
    fn open() -> Result<(), Error> {
        act("open")?;
        // One that is only tried out has no state.
        match Table::open("t").is_ok_and(|table| table.get(b"k").is_ok()) {
            true => act("open, later"),
            false => Ok(()),
        }
    }

    fn close() {
        // Nobody asks how it ended.
        let _ = act("close");
    }
}

impl ticker::Guest for Evil {
    fn on_tick(_: i64, _: Option<i64>, out: &Collector) -> Result<(), Error> {
        act("on-tick")?;
        emit("on-tick", None, out)
    }
}

impl snapshot::Guest for Evil {
    fn save() -> Result<Vec<u8>, Error> {
        act("save")?;
        match told("save").as_deref() {
            Some("saves much") => Ok(vec![0; 100 << 20]),
            _ => Ok(b"saved".to_vec()),
        }
    }

    fn restore(_: Vec<u8>, _: String) -> Result<(), Error> {
        act("restore")
    }
}

impl ports::Guest for Evil {
    fn describe() -> Result<Vec<ports::Port>, Error> {
        act("describe")?;
        let port = |direction, name: &str| ports::Port {
            direction,
            name: name.to_owned(),
            about: String::new(),
            required: false,
            values: ports::ValueType::Bytes,
            partitions: None,
        };
        let input = port(ports::Direction::Input, "");
        Ok(match told("describe").as_deref() {
            Some("describes ports without number") => vec![input; 1 << 20],
            Some("describes a port that moves the cursor") => {
                vec![input, ports::Port { required: true, ..port(ports::Direction::Output, "\u{1b}[2J") }]
            }
            _ => vec![input, port(ports::Direction::Output, "")],
        })
    }
}
