//! Emits what it was given, as columns.
#![cfg(target_family = "wasm")]

use guests::{Batch, BytesColumnParam, BytesColumnResult, Collector, Columns, Error, Guest, HeadersColumnParam, say};

struct CopiesColumns;

fn give(column: &BytesColumnResult) -> BytesColumnParam<'_> {
    BytesColumnParam { offsets: &column.offsets, data: &column.data, validity: &column.validity }
}

impl Guest for CopiesColumns {
    fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
        let (ids, keys, values, headers) = (input.ids(), input.keys(), input.values(), input.headers());
        let timestamps = input.timestamps();
        let headers = headers.as_ref().map(|headers| HeadersColumnParam {
            row_offsets: &headers.row_offsets,
            names: give(&headers.names),
            values: give(&headers.values),
        });
        let columns = Columns {
            ids: ids.as_ref().map(give),
            keys: give(&keys),
            values: give(&values),
            timestamps: &timestamps,
            headers,
        };
        if let Err(error) = out.emit_columns("", columns) {
            say(out, &format!("{error:?}"));
        }
        Ok(())
    }
}

guests::export!(CopiesColumns);
