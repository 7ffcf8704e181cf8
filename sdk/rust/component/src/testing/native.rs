//! A component as native code, as fast as it can be: the floor that the same component in WebAssembly is measured
//! against.
//!
//! The function goes through the same [`Events`] and [`Output`] as inside a component. The input is borrowed where a
//! component has to fetch it; the output is copied once from where the component wrote it, which is what the host
//! does with the output of a component. Nothing is checked.

use super::Columns;
use crate::column_builder::BytesColumnBuilder;
use crate::columns::{BytesColumn, BytesColumnRef, ColumnsRef, HeadersColumn};
use crate::component;
use crate::error::Result;
use crate::events::Events;
use crate::host::EmitError;
use crate::host::native::{Batch, Collector, Offsets, Sink};
use crate::output::Output;
use std::cell::RefCell;
use std::mem;

/// Runs a function on these events and returns what it pushed, whatever the port.
///
/// ```
/// use nodata_component::testing::{Columns, Event, native};
///
/// let input = Columns::from_events(&[Event::new("a"), Event::new("b")]);
/// let output = native::run(|events, out| events.iter().try_for_each(|event| out.push(event.bytes()?)), &input)?;
/// assert_eq!(output.values, input.values);
/// # Ok::<(), nodata_component::Error>(())
/// ```
pub fn run(process: impl FnOnce(Events<'_>, &mut Output<'_>) -> Result<()>, input: &Columns) -> Result<Columns> {
    let mut output = Columns::default();
    run_into(process, input, &mut output)?;
    Ok(output)
}

/// The same, into columns whose memory is used again. What they held is gone.
pub fn run_into(
    process: impl FnOnce(Events<'_>, &mut Output<'_>) -> Result<()>,
    input: &Columns,
    output: &mut Columns,
) -> Result<()> {
    let batch = Batch { topic: "input", partition: 0, attempt: 1, offsets: Offsets::FromZero, columns: input };
    let sink = Copies { input, output: RefCell::new(Copied::begin(mem::take(output))) };
    let result = component::call(process, batch, &Collector(&sink));
    *output = sink.output.into_inner().finish();
    result
}

/// Copies what is emitted.
struct Copies<'a> {
    input: &'a Columns,
    output: RefCell<Copied>,
}

impl Sink for Copies<'_> {
    fn emit_columns(&self, _: &str, rows: ColumnsRef<'_>) -> Result<(), EmitError> {
        self.output.borrow_mut().emit(&rows);
        Ok(())
    }

    fn forward(&self, _: &str, rows: &[u32]) -> Result<(), EmitError> {
        let input = self.input.as_ref();
        let mut output = self.output.borrow_mut();
        rows.iter().for_each(|&row| output.push(&input, row as usize));
        Ok(())
    }

    fn reject(&self, _: u32, _: &str) {}

    fn defer(&self, _: u32) -> Result<(), EmitError> {
        Err(EmitError::Invalid("there is no next call".to_owned()))
    }

    fn checkpoint(&self, _: &[u8]) -> Result<(), EmitError> {
        Err(EmitError::Invalid("only a source has checkpoints".to_owned()))
    }

    fn remaining_bytes(&self) -> u64 {
        u64::MAX
    }
}

/// What was copied.
#[derive(Default)]
struct Copied {
    rows: usize,
    ids: BytesColumnBuilder,
    keys: BytesColumnBuilder,
    values: BytesColumnBuilder,
    timestamps: Vec<i64>,
    row_offsets: Vec<u32>,
    names: BytesColumnBuilder,
    header_values: BytesColumnBuilder,
}

impl Copied {
    fn begin(last: Columns) -> Self {
        let headers = last.headers.unwrap_or_default();
        let mut timestamps = last.timestamps;
        timestamps.clear();
        let mut row_offsets = headers.row_offsets;
        row_offsets.clear();
        Self {
            rows: 0,
            ids: emptied(last.ids.unwrap_or_default()),
            keys: emptied(last.keys),
            values: emptied(last.values),
            timestamps,
            row_offsets,
            names: emptied(headers.names),
            header_values: emptied(headers.values),
        }
    }

    fn emit(&mut self, rows: &ColumnsRef<'_>) {
        let count = rows.values.offsets.len() - 1;
        if self.rows == 0 {
            // The usual call emits once, and then a column is one copy, as it is for the host.
            copy(&mut self.ids, rows.ids);
            copy(&mut self.keys, Some(rows.keys));
            copy(&mut self.values, Some(rows.values));
            self.timestamps.extend_from_slice(rows.timestamps);
            self.row_offsets.extend_from_slice(rows.headers.map_or(&[], |headers| headers.row_offsets));
            copy(&mut self.names, rows.headers.map(|headers| headers.names));
            copy(&mut self.header_values, rows.headers.map(|headers| headers.values));
            self.rows = count;
        } else {
            (0..count).for_each(|row| self.push(rows, row));
        }
    }

    fn push(&mut self, from: &ColumnsRef<'_>, row: usize) {
        push(&mut self.ids, self.rows, from.ids.and_then(|ids| ids.get(row)));
        push(&mut self.keys, self.rows, from.keys.get(row));
        push(&mut self.values, self.rows, from.values.get(row));
        if let Some(&timestamp_us) = from.timestamps.get(row) {
            self.timestamps.push(timestamp_us);
        }
        if let Some(headers) = from.headers {
            if self.row_offsets.is_empty() {
                self.row_offsets.resize(self.rows + 1, 0);
            }
            for at in headers.row_offsets[row] as usize..headers.row_offsets[row + 1] as usize {
                let count = self.names.offsets.len().saturating_sub(1);
                push(&mut self.names, count, headers.names.get(at));
                push(&mut self.header_values, count, headers.values.get(at));
            }
        }
        self.rows += 1;
        if !self.row_offsets.is_empty() {
            self.row_offsets.push(self.names.offsets.len().saturating_sub(1) as u32);
        }
    }

    fn finish(mut self) -> Columns {
        for column in [&mut self.keys, &mut self.values] {
            if !column.is_used() {
                column.fill_with_nulls(self.rows);
            }
        }
        Columns {
            ids: self.ids.is_used().then(|| column(self.ids)),
            keys: column(self.keys),
            values: column(self.values),
            timestamps: self.timestamps,
            headers: (!self.row_offsets.is_empty()).then(|| HeadersColumn {
                row_offsets: self.row_offsets,
                names: column(self.names),
                values: column(self.header_values),
            }),
        }
    }
}

fn emptied(last: BytesColumn) -> BytesColumnBuilder {
    let mut builder = BytesColumnBuilder { offsets: last.offsets, data: last.data, validity: last.validity };
    builder.clear(usize::MAX);
    builder
}

fn copy(to: &mut BytesColumnBuilder, from: Option<BytesColumnRef<'_>>) {
    if let Some(from) = from {
        to.offsets.extend_from_slice(from.offsets);
        to.data.extend_from_slice(from.data);
        to.validity.extend_from_slice(from.validity);
    }
}

fn push(to: &mut BytesColumnBuilder, row: usize, element: Option<&[u8]>) {
    match element {
        Some(element) => {
            to.data.extend_from_slice(element);
            to.finish_element(row);
        }
        None => to.finish_null(row),
    }
}

fn column(built: BytesColumnBuilder) -> BytesColumn {
    BytesColumn { offsets: built.offsets, data: built.data, validity: built.validity }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Event;

    fn events() -> Vec<Event> {
        (0..40)
            .map(|n: i64| {
                let event = if n % 7 == 0 { Event::tombstone() } else { Event::new(n.to_string()) };
                let event = if n % 4 == 1 { event.key("k") } else { event };
                let event = if n % 5 == 2 { event.id(n.to_string()).header("a", "1").header("b", "2") } else { event };
                event.timestamp_us(n)
            })
            .collect()
    }

    /// Each event three times: forwarded, copied, and forwarded.
    fn triples(events: Events<'_>, out: &mut Output<'_>) -> Result<()> {
        for event in events {
            out.forward(&event)?;
            let draft = out.like(&event).id_of(&event).headers_of(&event);
            match event.value() {
                Some(value) => draft.value(value)?,
                None => draft.tombstone()?,
            }
            out.forward(&event)?;
        }
        Ok(())
    }

    #[test]
    fn what_is_emitted_in_many_parts_comes_out_in_order() {
        let input = Columns::from_events(&events());
        let output = run(triples, &input).unwrap().to_events();
        let expected: Vec<Event> =
            events().into_iter().flat_map(|event| [event.clone(), event.clone(), event]).collect();
        assert_eq!(output, expected);
    }

    #[test]
    fn columns_that_are_used_again_hold_nothing_old() {
        let mut output = run(triples, &Columns::from_events(&events())).unwrap();
        let plain = Columns::from_events(&[Event::new("a")]);
        run_into(|_, out| out.push("b"), &plain, &mut output).unwrap();
        assert_eq!(output.to_events(), [Event::new("b")]);
        run_into(|_, _| Ok(()), &plain, &mut output).unwrap();
        assert_eq!(output.rows(), 0);
    }
}
