//! What the benchmark runs: filters and rewrites lines, on columns.
#![cfg(target_family = "wasm")]

use guests::filter::rewrite_column;
use guests::{Batch, BytesColumnParam, Collector, Columns, Error, Guest};

struct RewritesLines;

impl Guest for RewritesLines {
    fn process(input: &Batch, out: &Collector) -> Result<(), Error> {
        let (keys, values, timestamps) = (input.keys(), input.values(), input.timestamps());
        let (mut offsets, mut data) = (Vec::new(), Vec::new());
        let kept = rewrite_column(&values.offsets, &values.data, &mut offsets, &mut data);
        let mut key_offsets = Vec::with_capacity(kept.len() + 1);
        let mut key_data = Vec::with_capacity(keys.data.len());
        key_offsets.push(0);
        for &row in &kept {
            let row = row as usize;
            key_data.extend_from_slice(&keys.data[keys.offsets[row] as usize..keys.offsets[row + 1] as usize]);
            key_offsets.push(key_data.len() as u32);
        }
        let timestamps: Vec<i64> = kept.iter().map(|&row| timestamps[row as usize]).collect();
        let columns = Columns {
            ids: None,
            keys: BytesColumnParam { offsets: &key_offsets, data: &key_data, validity: &[] },
            values: BytesColumnParam { offsets: &offsets, data: &data, validity: &[] },
            timestamps: &timestamps,
            headers: None,
        };
        out.emit_columns("", columns).map_err(|error| Error::Permanent(format!("{error:?}")))
    }
}

guests::export!(RewritesLines);
