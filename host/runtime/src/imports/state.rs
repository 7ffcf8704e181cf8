//! `nodata:streaming/state`: durable tables.

use super::types::{ColumnFromGuest, ColumnToGuest};
use crate::contract;
use crate::guest::Guest;
use crate::input::Column;
use crate::limits::{ERROR_BYTES_MAX, STATE_KEYS_MAX, STATE_WRITE_BYTES_MAX};
use crate::rows::{EmitError, GuestColumn, cut};
use crate::state::StateError;
use bytes::Bytes;
use nodata_log::limits::{STATE_KEY_BYTES_MAX, STATE_VALUE_BYTES_MAX};
use nodata_log::{ColumnRef, Name};
use std::sync::Arc;
use wasmtime::component::{ComponentType, Linker, Lower, Resource, ResourceType, WasmList, WasmStr};
use wasmtime::{AsContext as _, StoreContextMut};

/// The host keeps what it remembers of a task beside what the component does.
const HOST_TABLES: &str = "nodata.";

/// An open table. A guest may keep it over calls.
pub(super) struct OpenTable {
    name: Name,
}

type Table = Resource<OpenTable>;
type Cx<'a> = StoreContextMut<'a, Guest>;
type Answer<T> = wasmtime::Result<(Result<T, Refused>,)>;

/// `error`.
#[derive(ComponentType, Lower)]
#[component(variant)]
enum Refused {
    #[component(name = "denied")]
    Denied(String),
    #[component(name = "quota-exceeded")]
    QuotaExceeded,
    #[component(name = "unavailable")]
    Unavailable(String),
}

impl From<StateError> for Refused {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Denied(what) => Self::Denied(what),
            StateError::QuotaExceeded => Self::QuotaExceeded,
            StateError::Unavailable(what) => Self::Unavailable(what),
        }
    }
}

/// `entry`.
#[derive(ComponentType, Lower)]
#[component(record)]
struct Entry {
    key: Bytes,
    value: Bytes,
}

/// Once, when the engine starts.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut state = linker.instance(&contract::interface("state"))?;
    state.resource("table", ResourceType::host::<OpenTable>(), |mut cx, table| {
        cx.data_mut().resources.delete(Table::new_own(table))?;
        Ok(())
    })?;
    state.func_wrap("[static]table.open", |mut cx: Cx, (name,): (WasmStr,)| -> Answer<Table> {
        let name = match Name::new(&name.to_str(&cx)?) {
            Ok(name) if name.as_str().starts_with(HOST_TABLES) => {
                let what = format!("tables whose name begins with `{HOST_TABLES}` belong to the host");
                return Ok((Err(Refused::Denied(what)),));
            }
            Ok(name) => name,
            Err(error) => return Ok((Err(Refused::Denied(cut(&error.to_string(), ERROR_BYTES_MAX).to_owned())),)),
        };
        let opened = cx.data_mut().resources.push(OpenTable { name });
        Ok((opened.map_err(|_| Refused::Denied("this instance holds too many things open at once".to_owned())),))
    })?;
    state.func_wrap(
        "[method]table.get",
        |mut cx: Cx, (table, key): (Table, WasmList<u8>)| -> Answer<Option<Bytes>> {
            let name = table_name(&cx, &table)?;
            let key = element(key.as_le_slice(&cx), STATE_KEY_BYTES_MAX);
            let found = cx.data_mut().state.get(&name, &[key]).map(|values| values.into_iter().next().flatten());
            Ok((found.map_err(Refused::from),))
        },
    )?;
    state.func_wrap(
        "[method]table.put",
        |mut cx: Cx, (table, key, value): (Table, WasmList<u8>, WasmList<u8>)| -> Answer<()> {
            let name = table_name(&cx, &table)?;
            let key = element(key.as_le_slice(&cx), STATE_KEY_BYTES_MAX);
            let value = element(value.as_le_slice(&cx), STATE_VALUE_BYTES_MAX);
            Ok((cx.data_mut().state.put(&name, vec![(key, Some(value))]).map_err(Refused::from),))
        },
    )?;
    state.func_wrap("[method]table.delete", |mut cx: Cx, (table, key): (Table, WasmList<u8>)| -> Answer<()> {
        let name = table_name(&cx, &table)?;
        let key = element(key.as_le_slice(&cx), STATE_KEY_BYTES_MAX);
        Ok((cx.data_mut().state.put(&name, vec![(key, None)]).map_err(Refused::from),))
    })?;
    state.func_wrap(
        "[method]table.get-many",
        |mut cx: Cx, (table, keys): (Table, ColumnFromGuest)| -> Answer<ColumnToGuest> {
            let name = table_name(&cx, &table)?;
            let keys = required(&keys.read(&cx.as_context()));
            let got = keys.and_then(|keys| cx.data_mut().state.get(&name, &keys));
            Ok((got.map(|values| column(&values).into()).map_err(Refused::from),))
        },
    )?;
    state.func_wrap(
        "[method]table.put-many",
        |mut cx: Cx, (table, keys, values): (Table, ColumnFromGuest, ColumnFromGuest)| -> Answer<()> {
            let name = table_name(&cx, &table)?;
            let store = cx.as_context();
            let entries = entries(&keys.read(&store), &values.read(&store));
            Ok((entries.and_then(|entries| cx.data_mut().state.put(&name, entries)).map_err(Refused::from),))
        },
    )?;
    state.func_wrap(
        "[method]table.scan",
        |cx: Cx, (table, start, end, limit): (Table, WasmList<u8>, Option<WasmList<u8>>, u32)| -> Answer<Vec<Entry>> {
            let name = table_name(&cx, &table)?;
            let start = element(start.as_le_slice(&cx), STATE_KEY_BYTES_MAX);
            let end = end.map(|end| element(end.as_le_slice(&cx), STATE_KEY_BYTES_MAX));
            let found = cx.data().state.scan(&name, start, end, limit as usize);
            let entries = |found: Vec<_>| found.into_iter().map(|(key, value)| Entry { key, value }).collect();
            Ok((found.map(entries).map_err(Refused::from),))
        },
    )
}

fn table_name(cx: &Cx, table: &Table) -> wasmtime::Result<Name> {
    Ok(cx.data().resources.get(table)?.name.clone())
}

/// A copy of a key or a value. Of one that is too long anyway only so much is copied that it stays too long.
fn element(bytes: &[u8], bytes_max: usize) -> Bytes {
    Bytes::copy_from_slice(&bytes[..bytes.len().min(bytes_max + 1)])
}

/// The elements of a column, which share one copy of its bytes.
fn elements(name: &str, column: &GuestColumn<'_>) -> Result<Vec<Option<Bytes>>, StateError> {
    let rows = column.len();
    if rows > STATE_KEYS_MAX {
        return Err(StateError::Denied(format!("{name}: {rows} at once, at most {STATE_KEYS_MAX} are allowed")));
    }
    if column.data.len() as u64 > STATE_WRITE_BYTES_MAX {
        return Err(StateError::QuotaExceeded);
    }
    let checked = column.check(name, rows).map_err(|error| match error {
        EmitError::Invalid(what) => StateError::Denied(what),
        EmitError::UnknownPort(_) | EmitError::BudgetExceeded => StateError::QuotaExceeded,
    })?;
    let data = Bytes::copy_from_slice(checked.data);
    let copied = ColumnRef { data: &data, ..checked };
    Ok((0..rows).map(|row| copied.get(row).map(|element| data.slice_ref(element))).collect())
}

/// Keys, of which none is null.
fn required(keys: &GuestColumn<'_>) -> Result<Vec<Bytes>, StateError> {
    let null = |row| StateError::Denied(format!("keys: element {row} is null"));
    elements("keys", keys)?.into_iter().enumerate().map(|(row, key)| key.ok_or_else(|| null(row))).collect()
}

fn entries(keys: &GuestColumn<'_>, values: &GuestColumn<'_>) -> Result<Vec<(Bytes, Option<Bytes>)>, StateError> {
    let (keys, values) = (required(keys)?, elements("values", values)?);
    if keys.len() != values.len() {
        return Err(StateError::Denied(format!("{} keys and {} values", keys.len(), values.len())));
    }
    Ok(keys.into_iter().zip(values).collect())
}

/// Values as a column.
fn column(values: &[Option<Bytes>]) -> Column {
    let mut offsets = Vec::with_capacity(values.len() + 1);
    let mut data = Vec::with_capacity(values.iter().flatten().map(Bytes::len).sum());
    let mut validity = vec![0u8; values.len().div_ceil(8)];
    offsets.push(0);
    for (row, value) in values.iter().enumerate() {
        if let Some(value) = value {
            data.extend_from_slice(value);
            validity[row / 8] |= 1 << (row % 8);
        }
        offsets.push(data.len() as u32);
    }
    if values.iter().all(Option::is_some) {
        validity.clear();
    }
    Column { offsets: Arc::new(offsets), data: data.into(), validity: validity.into() }
}
