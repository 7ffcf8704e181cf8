//! `nodata:streaming/types`: the batch that a call is given and the collector it gives to.
//!
//! Columns cross with one copy each way. On the way in, a column of the log is lowered straight from the bytes it was read
//! with; on the way out, the lists of a guest are read where they lie in its memory. For that these functions are written by
//! hand: generated bindings would copy every list into a vector first.
//!
//! A call has one batch and one collector, so the handles carry no number worth reading; that a guest has one proves that it
//! is inside of a call.

use crate::call_error::{CallError, CallErrorReason};
use crate::collector::Collector;
use crate::contract;
use crate::guest::Guest;
use crate::input::{Column, InputColumns};
use crate::instance::Groups;
use crate::rows::{EmitError, GuestColumn, GuestEvent, GuestHeaders, GuestRows};
use bytes::Bytes;
use nodata_log::event::Headers;
use nodata_log::{Offset, TimestampUs};
use std::sync::Arc;
use wasmtime::component::{ComponentType, Lift, Linker, Lower, Resource, ResourceType, WasmList, WasmStr};
use wasmtime::error::Context as _;
use wasmtime::{AsContext as _, AsContextMut as _, StoreContext, StoreContextMut, bail};

/// The type of handles to a batch.
pub(crate) struct BatchHandle;

/// The type of handles to a collector.
pub(crate) struct CollectorHandle;

type Batch = Resource<BatchHandle>;
type Out = Resource<CollectorHandle>;
type Cx<'a> = StoreContextMut<'a, Guest>;

/// What `process` returns when it failed.
#[derive(Clone, Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum GuestError {
    #[component(name = "transient")]
    Transient(String),
    #[component(name = "permanent")]
    Permanent(String),
}

/// `status` of a source.
#[derive(Clone, Copy, Debug, ComponentType, Lift)]
#[component(variant)]
pub(crate) enum PollStatus {
    #[component(name = "more")]
    More,
    #[component(name = "idle")]
    Idle(u32),
    #[component(name = "finished")]
    Finished,
}

/// `bytes-column`, to a guest.
#[derive(Clone, Debug, ComponentType, Lower)]
#[component(record)]
pub(crate) struct ColumnToGuest {
    offsets: Arc<Vec<u32>>,
    data: Bytes,
    validity: Bytes,
}

impl From<Column> for ColumnToGuest {
    fn from(Column { offsets, data, validity }: Column) -> Self {
        Self { offsets, data, validity }
    }
}

impl ColumnToGuest {
    /// These elements, of which none is null.
    pub(crate) fn of(elements: &[Bytes]) -> Self {
        Self::of_some(elements.iter().map(Some))
    }

    fn of_some<'a>(elements: impl Iterator<Item = Option<&'a Bytes>>) -> Self {
        let (mut offsets, mut data, mut validity, mut nulls) = (vec![0], Vec::new(), Vec::new(), false);
        for (row, element) in elements.enumerate() {
            if row % 8 == 0 {
                validity.push(0u8);
            }
            match element {
                Some(element) => {
                    data.extend_from_slice(element);
                    validity[row / 8] |= 1 << (row % 8);
                }
                None => nulls = true,
            }
            offsets.push(data.len() as u32);
        }
        let validity = if nulls { validity.into() } else { Bytes::new() };
        Self { offsets: Arc::new(offsets), data: data.into(), validity }
    }
}

/// `groups`, to a guest.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct GroupsToGuest {
    keys: ColumnToGuest,
    #[component(name = "window-starts")]
    window_starts: Vec<TimestampUs>,
    #[component(name = "window-ends")]
    window_ends: Vec<TimestampUs>,
    accumulators: ColumnToGuest,
}

impl GroupsToGuest {
    pub(crate) fn of(groups: &Groups) -> Self {
        Self {
            keys: ColumnToGuest::of(&groups.keys),
            window_starts: groups.window_starts.clone(),
            window_ends: groups.window_ends.clone(),
            accumulators: ColumnToGuest::of_some(groups.accumulators.iter().map(Option::as_ref)),
        }
    }
}

/// `membership`, to a guest.
#[derive(ComponentType, Lower)]
#[component(record)]
pub(crate) struct MembersToGuest {
    pub(crate) rows: Vec<u32>,
    pub(crate) groups: Vec<u32>,
}

/// `bytes-column`, as the result of a call: its memory is the guest's again when the call is over.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct ColumnFromCall {
    offsets: Vec<u32>,
    data: Vec<u8>,
    validity: Vec<u8>,
}

impl ColumnFromCall {
    /// The elements, of which there must be so many.
    pub(crate) fn elements(
        self,
        rows: usize,
        call: &'static str,
        nulls: bool,
    ) -> Result<Vec<Option<Bytes>>, CallError> {
        let column = GuestColumn { offsets: &self.offsets, data: &self.data, validity: &self.validity };
        let refused = |what: String| CallError::new(CallErrorReason::Returned { call, what });
        let checked = column.check("the column", rows).map_err(|error| refused(error.into_words()))?;
        let spans: Vec<Option<(usize, usize)>> = (0..rows)
            .map(|row| {
                let span = (checked.offsets[row] as usize, checked.offsets[row + 1] as usize);
                checked.get(row).map(|_| span)
            })
            .collect();
        if let Some(row) = spans.iter().position(Option::is_none).filter(|_| !nulls) {
            return Err(refused(format!("the column: element {row} is null")));
        }
        let data = Bytes::from(self.data);
        Ok(spans.into_iter().map(|span| span.map(|(from, to)| data.slice(from..to))).collect())
    }
}

/// `bytes-column`, from a guest, as it lies in its memory.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(super) struct ColumnFromGuest {
    offsets: WasmList<u32>,
    data: WasmList<u8>,
    validity: WasmList<u8>,
}

impl ColumnFromGuest {
    pub(super) fn read<'a>(&self, cx: &'a StoreContext<'_, Guest>) -> GuestColumn<'a> {
        GuestColumn {
            offsets: self.offsets.as_le_slice(cx),
            data: self.data.as_le_slice(cx),
            validity: self.validity.as_le_slice(cx),
        }
    }
}

/// `headers-column`, to a guest.
#[derive(ComponentType, Lower)]
#[component(record)]
struct HeadersToGuest {
    #[component(name = "row-offsets")]
    row_offsets: Vec<u32>,
    names: ColumnToGuest,
    values: ColumnToGuest,
}

/// `headers-column`, from a guest.
#[derive(ComponentType, Lift)]
#[component(record)]
struct HeadersFromGuest {
    #[component(name = "row-offsets")]
    row_offsets: WasmList<u32>,
    names: ColumnFromGuest,
    values: ColumnFromGuest,
}

/// `columns`, from a guest.
#[derive(ComponentType, Lift)]
#[component(record)]
struct ColumnsFromGuest {
    ids: Option<ColumnFromGuest>,
    keys: ColumnFromGuest,
    values: ColumnFromGuest,
    timestamps: WasmList<i64>,
    headers: Option<HeadersFromGuest>,
}

/// `event`, to a guest.
#[derive(ComponentType, Lower)]
#[component(record)]
struct EventToGuest {
    id: Option<String>,
    key: Option<Bytes>,
    value: Option<Bytes>,
    headers: Vec<(String, Bytes)>,
    timestamp: Option<TimestampUs>,
}

/// `event`, from a guest.
#[derive(ComponentType, Lift)]
#[component(record)]
struct EventFromGuest {
    id: Option<WasmStr>,
    key: Option<WasmList<u8>>,
    value: Option<WasmList<u8>>,
    headers: Vec<(WasmStr, WasmList<u8>)>,
    timestamp: Option<TimestampUs>,
}

/// `emit-error`.
#[derive(ComponentType, Lower)]
#[component(variant)]
enum EmitRefused {
    #[component(name = "unknown-port")]
    UnknownPort(String),
    #[component(name = "budget-exceeded")]
    BudgetExceeded,
    #[component(name = "invalid")]
    Invalid(String),
}

impl From<EmitError> for EmitRefused {
    fn from(error: EmitError) -> Self {
        match error {
            EmitError::UnknownPort(port) => Self::UnknownPort(port),
            EmitError::BudgetExceeded => Self::BudgetExceeded,
            EmitError::Invalid(what) => Self::Invalid(what),
        }
    }
}

/// Once, when the engine starts.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut types = linker.instance(&contract::interface("types"))?;

    // Nobody but this host makes one, and it lends them only, so there is nothing to do when a guest drops its handle.
    types.resource("batch", ResourceType::host::<BatchHandle>(), |_, _| Ok(()))?;
    types.func_wrap("[method]batch.topic", |cx: Cx, (_,): (Batch,)| {
        Ok((input(&cx)?.input.topic().as_str().to_owned(),))
    })?;
    types.func_wrap("[method]batch.partition", |cx: Cx, (_,): (Batch,)| Ok((input(&cx)?.input.partition(),)))?;
    types.func_wrap("[method]batch.len", |cx: Cx, (_,): (Batch,)| Ok((input(&cx)?.input.len() as u32,)))?;
    types.func_wrap("[method]batch.byte-size", |cx: Cx, (_,): (Batch,)| Ok((input(&cx)?.input.bytes(),)))?;
    types.func_wrap("[method]batch.attempt", |cx: Cx, (_,): (Batch,)| Ok((input(&cx)?.input.attempt(),)))?;
    types.func_wrap("[method]batch.offsets", |cx: Cx, (_,): (Batch,)| -> wasmtime::Result<(Vec<Offset>,)> {
        Ok((input(&cx)?.input.offsets(),))
    })?;
    types.func_wrap("[method]batch.events", |mut cx: Cx, (_,): (Batch,)| {
        let columns = input_mut(&mut cx)?;
        Ok((events(columns, 0, columns.input.len()),))
    })?;
    types.func_wrap("[method]batch.slice", |mut cx: Cx, (_, start, count): (Batch, u32, u32)| {
        let columns = input_mut(&mut cx)?;
        let start = (start as usize).min(columns.input.len());
        let end = start.saturating_add(count as usize).min(columns.input.len());
        Ok((events(columns, start, end),))
    })?;
    types.func_wrap("[method]batch.ids", |mut cx: Cx, (_,): (Batch,)| {
        Ok((input_mut(&mut cx)?.ids().map(ColumnToGuest::from),))
    })?;
    types.func_wrap("[method]batch.keys", |mut cx: Cx, (_,): (Batch,)| {
        let columns = input_mut(&mut cx)?;
        let keys = columns.keys().unwrap_or_else(|| Column::nulls(columns.input.len()));
        Ok((ColumnToGuest::from(keys),))
    })?;
    types.func_wrap("[method]batch.values", |mut cx: Cx, (_,): (Batch,)| {
        Ok((ColumnToGuest::from(input_mut(&mut cx)?.values()),))
    })?;
    types
        .func_wrap("[method]batch.timestamps", |mut cx: Cx, (_,): (Batch,)| Ok((input_mut(&mut cx)?.timestamps(),)))?;
    types.func_wrap("[method]batch.headers", |mut cx: Cx, (_,): (Batch,)| {
        Ok((input_mut(&mut cx)?.headers().map(|encoded| headers(&encoded)),))
    })?;

    types.resource("collector", ResourceType::host::<CollectorHandle>(), |_, _| Ok(()))?;
    types.func_wrap("[method]collector.emit", |cx: Cx, (_, port, events): (Out, WasmStr, Vec<EventFromGuest>)| {
        with_collector(cx, |cx, collector| {
            let port = port.to_str(cx)?;
            let events = events.iter().map(|event| event.read(cx)).collect::<wasmtime::Result<Vec<_>>>()?;
            Ok(collector.emit_events(&port, &events))
        })
    })?;
    types.func_wrap(
        "[method]collector.emit-columns",
        |cx: Cx, (_, port, rows): (Out, WasmStr, ColumnsFromGuest)| {
            with_collector(cx, |cx, collector| {
                let headers = rows.headers.as_ref().map(|headers| GuestHeaders {
                    row_offsets: headers.row_offsets.as_le_slice(cx),
                    names: headers.names.read(cx),
                    values: headers.values.read(cx),
                });
                let rows = GuestRows {
                    ids: rows.ids.as_ref().map(|ids| ids.read(cx)),
                    keys: rows.keys.read(cx),
                    values: rows.values.read(cx),
                    timestamps_us: rows.timestamps.as_le_slice(cx),
                    headers,
                };
                Ok(collector.emit_columns(&port.to_str(cx)?, &rows))
            })
        },
    )?;
    types.func_wrap("[method]collector.forward", |mut cx: Cx, (_, port, rows): (Out, WasmStr, WasmList<u32>)| {
        let Some(mut input) = cx.data_mut().input.take() else {
            // A source, which has no batch that it could not have.
            let refused = EmitError::Invalid("there is no input whose rows could be forwarded".to_owned());
            return Ok((Err(EmitRefused::from(refused)),));
        };
        let answer = with_collector(cx.as_context_mut(), |cx, collector| {
            Ok(collector.forward(&port.to_str(cx)?, &mut input, rows.as_le_slice(cx)))
        });
        cx.data_mut().input = Some(input);
        answer
    })?;
    types.func_wrap("[method]collector.reject", |cx: Cx, (_, row, reason): (Out, u32, WasmStr)| {
        with_collector(cx, |cx, collector| {
            collector.reject(row, &reason.to_str(cx)?);
            Ok(Ok(()))
        })
        .map(drop)
    })?;
    types.func_wrap("[method]collector.defer", |cx: Cx, (_, row): (Out, u32)| {
        with_collector(cx, |_, collector| Ok(collector.defer(row)))
    })?;
    types.func_wrap("[method]collector.checkpoint", |cx: Cx, (_, position): (Out, WasmList<u8>)| {
        with_collector(cx, |cx, collector| Ok(collector.checkpoint(position.as_le_slice(cx))))
    })?;
    types.func_wrap("[method]collector.remaining-bytes", |cx: Cx, (_,): (Out,)| match &cx.data().collector {
        Some(collector) => Ok((collector.remaining_bytes(),)),
        None => bail!(OUTSIDE),
    })
}

/// What a guest is told that reaches for a batch it was not given. The canonical ABI does not let it come so far.
const OUTSIDE: &str = "a batch or a collector was used outside of a call";

fn input<'a>(cx: &'a Cx<'_>) -> wasmtime::Result<&'a InputColumns> {
    cx.data().input.as_ref().context(OUTSIDE)
}

fn input_mut<'a>(cx: &'a mut Cx<'_>) -> wasmtime::Result<&'a mut InputColumns> {
    cx.data_mut().input.as_mut().context(OUTSIDE)
}

/// Gives the collector what the guest wants to emit. Meanwhile it is out of the store, whose memory is being read.
fn with_collector(
    mut cx: Cx<'_>,
    give: impl FnOnce(&StoreContext<'_, Guest>, &mut Collector) -> wasmtime::Result<Result<(), EmitError>>,
) -> wasmtime::Result<(Result<(), EmitRefused>,)> {
    let mut collector = cx.data_mut().collector.take().context(OUTSIDE)?;
    let given = give(&cx.as_context(), &mut collector);
    cx.data_mut().collector = Some(collector);
    Ok((given?.map_err(EmitRefused::from),))
}

impl EventFromGuest {
    fn read<'a>(&self, cx: &'a StoreContext<'_, Guest>) -> wasmtime::Result<GuestEvent<'a>> {
        let header = |(name, value): &(WasmStr, WasmList<u8>)| Ok((name.to_str(cx)?, value.as_le_slice(cx)));
        Ok(GuestEvent {
            id: self.id.as_ref().map(|id| id.to_str(cx)).transpose()?,
            key: self.key.as_ref().map(|key| key.as_le_slice(cx)),
            value: self.value.as_ref().map(|value| value.as_le_slice(cx)),
            headers: self.headers.iter().map(header).collect::<wasmtime::Result<_>>()?,
            timestamp_us: self.timestamp,
        })
    }
}

/// Rows as events. Keys and values share the bytes of their column until they are lowered.
fn events(columns: &mut InputColumns, start: usize, end: usize) -> Vec<EventToGuest> {
    let (ids, keys, values, headers) = (columns.ids(), columns.keys(), columns.values(), columns.headers());
    let timestamps = columns.timestamps();
    let event = |row: usize| EventToGuest {
        id: ids.as_ref().and_then(|ids| ids.get(row)).map(|id| text(&id)),
        key: keys.as_ref().and_then(|keys| keys.get(row)),
        value: values.get(row),
        headers: headers.as_ref().and_then(|headers| headers.get(row)).map_or_else(Vec::new, |encoded| {
            Headers::new(&encoded).map(|(name, value)| (name.to_owned(), encoded.slice_ref(value))).collect()
        }),
        timestamp: Some(timestamps[row]),
    };
    (start..end).map(event).collect()
}

/// Ids and header names were checked when their batch was built.
fn text(utf8: &[u8]) -> String {
    String::from_utf8_lossy(utf8).into_owned()
}

/// Headers as they are encoded in a batch, taken apart into columns.
fn headers(encoded: &Column) -> HeadersToGuest {
    let rows = encoded.as_ref();
    let mut row_offsets = vec![0];
    let (mut name_offsets, mut names) = (vec![0], Vec::new());
    let (mut value_offsets, mut values) = (vec![0], Vec::new());
    for row in 0..encoded.offsets.len() - 1 {
        for (name, value) in Headers::new(rows.get(row).unwrap_or_default()) {
            names.extend_from_slice(name.as_bytes());
            name_offsets.push(names.len() as u32);
            values.extend_from_slice(value);
            value_offsets.push(values.len() as u32);
        }
        row_offsets.push(name_offsets.len() as u32 - 1);
    }
    let column = |offsets, data: Vec<u8>| ColumnToGuest {
        offsets: Arc::new(offsets),
        data: data.into(),
        validity: Bytes::new(),
    };
    HeadersToGuest { row_offsets, names: column(name_offsets, names), values: column(value_offsets, values) }
}
