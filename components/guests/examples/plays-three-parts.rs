//! A transform, a sink and an aggregate in one, and no source. As a transform it copies, as a sink it prints what it delivers when it is
//! flushed, as an aggregate it counts the events of each key. It says which part it plays.
#![cfg(target_family = "wasm")]

use std::cell::RefCell;

#[allow(unsafe_code, unreachable_pub, reason = "generated bindings")]
mod bindings {
    use super::PlaysThreeParts;

    wit_bindgen::generate!({
        path: "../../wit/streaming",
        inline: "
            package nodata:guests;

            world three-parts {
                include nodata:streaming/transform@0.1.0;
                include nodata:streaming/sink@0.1.0;
                include nodata:streaming/aggregate@0.1.0;
            }
        ",
        world: "nodata:guests/three-parts",
        generate_all,
    });

    export!(PlaysThreeParts);
}

use bindings::exports::nodata::streaming::{aggregator, sink_writer, transformer};
use bindings::nodata::streaming::types::{Batch, BytesColumn, Collector, Error};

struct PlaysThreeParts;

thread_local! {
    /// What was written and not delivered yet.
    static WRITTEN: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

impl transformer::Guest for PlaysThreeParts {
    fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
        println!("transforms");
        let rows: Vec<u32> = (0..input.len()).collect();
        out.forward("", &rows).map_err(|error| Error::Permanent(error.to_string()))
    }
}

impl sink_writer::Guest for PlaysThreeParts {
    fn write(input: &Batch, _out: &Collector) -> Result<(), Error> {
        let texts = input
            .events()
            .into_iter()
            .map(|event| String::from_utf8_lossy(&event.value.unwrap_or_default()).into_owned());
        WRITTEN.with_borrow_mut(|written| written.extend(texts));
        Ok(())
    }

    fn flush() -> Result<(), Error> {
        WRITTEN.with_borrow_mut(|written| written.drain(..).for_each(|text| println!("delivers {text}")));
        Ok(())
    }
}

impl aggregator::Guest for PlaysThreeParts {
    fn accumulate(
        _input: &Batch,
        groups: aggregator::Groups,
        members: aggregator::Membership,
        _out: &Collector,
    ) -> Result<BytesColumn, Error> {
        println!("aggregates");
        let mut counts: Vec<u64> = elements(&groups.accumulators).map(count).collect();
        members.groups.iter().for_each(|group| counts[*group as usize] += 1);
        Ok(column(counts.iter().map(|count| count.to_string().into_bytes())))
    }

    fn merge(left: BytesColumn, right: BytesColumn) -> Result<BytesColumn, Error> {
        let sums = elements(&left).zip(elements(&right)).map(|(left, right)| count(left) + count(right));
        Ok(column(sums.map(|sum| sum.to_string().into_bytes())))
    }

    fn finish(_closed: aggregator::Groups, _out: &Collector) -> Result<(), Error> {
        Ok(())
    }

    fn render(groups: aggregator::Groups) -> Result<BytesColumn, Error> {
        let shown = elements(&groups.keys).zip(elements(&groups.accumulators));
        Ok(column(shown.map(|(key, count)| [key, b": ", count].concat())))
    }
}

/// A new group has none, which is as empty as nothing.
fn count(text: &[u8]) -> u64 {
    std::str::from_utf8(text).ok().and_then(|text| text.parse().ok()).unwrap_or(0)
}

fn elements(column: &BytesColumn) -> impl Iterator<Item = &[u8]> {
    column.offsets.windows(2).map(|ends| &column.data[ends[0] as usize..ends[1] as usize])
}

fn column(elements: impl Iterator<Item = Vec<u8>>) -> BytesColumn {
    let mut column = BytesColumn { offsets: vec![0], data: Vec::new(), validity: Vec::new() };
    for element in elements {
        column.data.extend(element);
        column.offsets.push(column.data.len() as u32);
    }
    column
}
