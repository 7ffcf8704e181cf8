//! Emits one value of so many mebibytes as configured, and says how that was answered.
#![cfg(target_family = "wasm")]

use guests::{Batch, BytesColumnParam, Collector, Columns, Error, Guest, configured, say};

struct EmitsLarge;

impl Guest for EmitsLarge {
    fn process(_: &Batch, out: &Collector) -> Result<(), Error> {
        let bytes = configured("mebibytes").parse::<usize>().expect("a number") << 20;
        let data = vec![b'x'; bytes];
        let rows = Columns {
            ids: None,
            keys: BytesColumnParam { offsets: &[0, 0], data: b"", validity: &[0] },
            values: BytesColumnParam { offsets: &[0, bytes as u32], data: &data, validity: &[] },
            timestamps: &[],
            headers: None,
        };
        let answer = out.emit_columns("", rows);
        say(out, &format!("{answer:?}, {} left", out.remaining_bytes()));
        Ok(())
    }
}

guests::export!(EmitsLarge);
