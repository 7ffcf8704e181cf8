//! Emits columns that are wrong, each in another way, and then says for each what the host answered: an event with
//! the way as its key. The call goes on after each refusal, and nothing of a refused emit is taken.
#![cfg(target_family = "wasm")]
#![allow(unsafe_code, unreachable_pub, reason = "generated bindings")]

wit_bindgen::generate!({ path: "../../wit/streaming", world: "transform" });

use exports::nodata::streaming::transformer::{Batch, Collector, Error, Guest};
use nodata::streaming::types::{BytesColumn, Columns, EmitError, HeadersColumn};

struct EmitsBadColumns;

impl Guest for EmitsBadColumns {
    fn process(_: &Batch, out: &Collector) -> Result<(), Error> {
        for (way, columns) in ways() {
            let answer = match out.emit_columns("", &columns) {
                Ok(()) => "taken".to_owned(),
                Err(EmitError::Invalid(why)) => format!("invalid: {why}"),
                Err(other) => other.to_string(),
            };
            let said = Columns { keys: column(&[way]), values: column(&[&answer]), ..empty() };
            out.emit_columns("", &said).map_err(|error| Error::Permanent(error.to_string()))?;
        }
        Ok(())
    }
}

fn ways() -> Vec<(&'static str, Columns)> {
    let two = || Columns { keys: nulls(2), values: column(&["one", "two"]), ..empty() };
    let values = |offsets: &[u32], validity: &[u8]| {
        let data = b"onetwo".to_vec();
        Columns { values: BytesColumn { offsets: offsets.to_vec(), data, validity: validity.to_vec() }, ..two() }
    };
    let headers = |row_offsets: &[u32], names: BytesColumn, values: BytesColumn| Columns {
        headers: Some(HeadersColumn { row_offsets: row_offsets.to_vec(), names, values }),
        ..two()
    };
    let bytes =
        |data: &[u8]| BytesColumn { offsets: vec![0, data.len() as u32], data: data.to_vec(), validity: vec![] };
    let huge = BytesColumn { offsets: vec![0, u32::MAX, 6], ..column(&["onetwo"]) };
    vec![
        ("right", two()),
        ("no rows", empty()),
        ("offsets decrease", values(&[0, 4, 3], &[])),
        ("offsets do not start at 0", values(&[1, 3, 6], &[])),
        ("offsets end before the data", values(&[0, 3, 5], &[])),
        ("offsets end after the data", values(&[0, 3, 7], &[])),
        ("an offset is huge", Columns { values: huge, ..two() }),
        ("validity is too short", Columns { values: BytesColumn { validity: vec![0xff], ..nine() }, ..nine_rows() }),
        ("validity is too long", values(&[0, 3, 6], &[3, 0])),
        ("bits behind the rows are set", values(&[0, 3, 6], &[0xff])),
        ("fewer keys than values", Columns { keys: nulls(1), ..two() }),
        ("more keys than values", Columns { keys: nulls(3), ..two() }),
        ("fewer timestamps than values", Columns { timestamps: vec![1], ..two() }),
        ("more timestamps than values", Columns { timestamps: vec![1, 2, 3], ..two() }),
        ("fewer ids than values", Columns { ids: Some(column(&["a"])), ..two() }),
        ("an id is not UTF-8", Columns { ids: Some(bytes(&[0xff])), ..one() }),
        ("an id ends inside a character", Columns { ids: Some(split_character()), ..two() }),
        ("an id is empty", Columns { ids: Some(column(&[""])), ..one() }),
        ("an id has 257 bytes", Columns { ids: Some(bytes(&[b'i'; 257])), ..one() }),
        ("fewer header rows than values", headers(&[0, 0], column(&[]), column(&[]))),
        ("header rows decrease", headers(&[0, 1, 0], column(&["h"]), column(&["v"]))),
        ("header rows end after the headers", headers(&[0, 1, 2], column(&["h"]), column(&["v"]))),
        ("header rows end before the headers", headers(&[0, 0, 0], column(&["h"]), column(&["v"]))),
        ("fewer header values than names", headers(&[0, 1, 2], column(&["h", "h"]), column(&["v"]))),
        ("a header name is null", headers(&[0, 1, 1], nulls(1), column(&["v"]))),
        ("a header value is null", headers(&[0, 1, 1], column(&["h"]), nulls(1))),
        ("a header name is empty", headers(&[0, 1, 1], column(&[""]), column(&["v"]))),
        ("a header name is not UTF-8", headers(&[0, 1, 1], bytes(&[0xff]), column(&["v"]))),
        ("a header is given twice", headers(&[0, 2, 2], column(&["h", "h"]), column(&["1", "2"]))),
        ("a header is given to two events", headers(&[0, 1, 2], column(&["h", "h"]), column(&["1", "2"]))),
    ]
}

fn empty() -> Columns {
    Columns { ids: None, keys: nulls(0), values: column(&[]), timestamps: vec![], headers: None }
}

fn one() -> Columns {
    Columns { keys: nulls(1), values: column(&["one"]), ..empty() }
}

fn nine() -> BytesColumn {
    column(&["x"; 9])
}

fn nine_rows() -> Columns {
    Columns { keys: nulls(9), ..empty() }
}

fn column(elements: &[&str]) -> BytesColumn {
    let mut column = BytesColumn { offsets: vec![0], data: vec![], validity: vec![] };
    for element in elements {
        column.data.extend_from_slice(element.as_bytes());
        column.offsets.push(column.data.len() as u32);
    }
    column
}

fn nulls(rows: usize) -> BytesColumn {
    BytesColumn { offsets: vec![0; rows + 1], data: vec![], validity: vec![0; rows.div_ceil(8)] }
}

/// All of it together is UTF-8, and neither element is.
fn split_character() -> BytesColumn {
    BytesColumn { offsets: vec![0, 1, 2], data: "é".as_bytes().to_vec(), validity: vec![] }
}

export!(EmitsBadColumns);
