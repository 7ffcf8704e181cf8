//! Does with its table what each value says, and says what came of it. The table stays open over calls.
#![cfg(target_family = "wasm")]

use guests::state::{self, Table};
use guests::{Batch, BytesColumnParam, Collector, Error, Guest, say, texts};
use std::cell::OnceCell;

struct KeepsState;

thread_local! {
    static TABLE: OnceCell<Table> = const { OnceCell::new() };
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Texts as a column; `-` is a null.
fn column(texts: &[&str]) -> (Vec<u32>, Vec<u8>, Vec<u8>) {
    let (mut offsets, mut data, mut validity) = (vec![0], Vec::new(), vec![0; texts.len().div_ceil(8)]);
    for (row, text) in texts.iter().enumerate() {
        if *text != "-" {
            data.extend_from_slice(text.as_bytes());
            validity[row / 8] |= 1 << (row % 8);
        }
        offsets.push(data.len() as u32);
    }
    (offsets, data, validity)
}

fn give((offsets, data, validity): &(Vec<u32>, Vec<u8>, Vec<u8>)) -> BytesColumnParam<'_> {
    BytesColumnParam { offsets, data, validity }
}

fn act(table: &Table, words: &[&str]) -> Result<String, state::Error> {
    Ok(match words {
        ["get", key] => table.get(key.as_bytes())?.map_or("none".to_owned(), |value| text(&value)),
        ["put", key, value] => table.put(key.as_bytes(), value.as_bytes()).map(|()| "ok".to_owned())?,
        ["put-large", key, bytes] => {
            table.put(key.as_bytes(), &vec![b'x'; bytes.parse().expect("a number")]).map(|()| "ok".to_owned())?
        }
        ["delete", key] => table.delete(key.as_bytes()).map(|()| "ok".to_owned())?,
        ["get-many", keys @ ..] => {
            let found = table.get_many(give(&column(keys)))?;
            let element = |row: usize| match found.validity.get(row / 8) {
                Some(byte) if byte >> (row % 8) & 1 == 0 => "none".to_owned(),
                _ => text(&found.data[found.offsets[row] as usize..found.offsets[row + 1] as usize]),
            };
            (0..keys.len()).map(element).collect::<Vec<_>>().join(" ")
        }
        ["put-many", entries @ ..] => {
            let keys: Vec<&str> = entries.iter().step_by(2).copied().collect();
            let values: Vec<&str> = entries.iter().skip(1).step_by(2).copied().collect();
            table.put_many(give(&column(&keys)), give(&column(&values))).map(|()| "ok".to_owned())?
        }
        ["scan", start, end, limit] => {
            let end = (*end != "-").then_some(end.as_bytes());
            let entries = table.scan(start.as_bytes(), end, limit.parse().expect("a number"))?;
            entries
                .iter()
                .map(|entry| format!("{}={}", text(&entry.key), text(&entry.value)))
                .collect::<Vec<_>>()
                .join(" ")
        }
        ["open", name] => Table::open(name).map(|_| "ok".to_owned())?,
        other => panic!("no such action: {other:?}"),
    })
}

impl Guest for KeepsState {
    fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
        for line in texts(input) {
            if line == "fail" {
                return Err(Error::Transient("as asked".to_owned()));
            }
            let words: Vec<&str> = line.split(' ').collect();
            let answer = TABLE.with(|table| act(table.get_or_init(|| Table::open("kept").expect("a table")), &words));
            say(out, &answer.unwrap_or_else(|error| format!("{error:?}")));
        }
        Ok(())
    }
}

guests::export!(KeepsState);
