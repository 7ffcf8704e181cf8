//! The host of a component: its imports, with the types of the bindings turned into ours. Columns are moved here,
//! never copied.

use super::EmitError;
use crate::bindings::nodata::streaming::{state as wit_state, types};
use crate::bindings::ports::exports::nodata::streaming::ports as wire;
use crate::bindings::source::exports::nodata::streaming::source_reader::Status;
use crate::columns::{BytesColumn, BytesColumnRef, ColumnsRef, HeadersColumn};
use crate::component::{self, Transform};
use crate::error::{Error, Result};
use crate::events::Events;
use crate::kept::Kept;
use crate::output::Output;
use crate::port_info::{PortInfo, Values};
use crate::sink::Sink;
use crate::source::{Next, Source};
use crate::state;
use crate::tick::Tick;

pub(crate) use crate::bindings::nodata::streaming::{config, metrics};

/// A column that was fetched is the component's own.
pub(crate) type Fetched<'a, T> = T;

pub(crate) struct Batch<'a>(&'a types::Batch);

impl Batch<'_> {
    pub(crate) fn topic(&self) -> String {
        self.0.topic()
    }

    pub(crate) fn partition(&self) -> u32 {
        self.0.partition()
    }

    pub(crate) fn len(&self) -> u32 {
        self.0.len()
    }

    pub(crate) fn byte_size(&self) -> u64 {
        self.0.byte_size()
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.0.attempt()
    }

    pub(crate) fn offsets(&self) -> Vec<u64> {
        self.0.offsets()
    }

    pub(crate) fn ids(&self) -> Option<BytesColumn> {
        self.0.ids().map(column_from)
    }

    pub(crate) fn keys(&self) -> BytesColumn {
        column_from(self.0.keys())
    }

    pub(crate) fn values(&self) -> BytesColumn {
        column_from(self.0.values())
    }

    pub(crate) fn timestamps(&self) -> Vec<i64> {
        self.0.timestamps()
    }

    pub(crate) fn headers(&self) -> Option<HeadersColumn> {
        self.0.headers().map(|column| HeadersColumn {
            row_offsets: column.row_offsets,
            names: column_from(column.names),
            values: column_from(column.values),
        })
    }
}

#[derive(Debug)]
pub(crate) struct Collector<'a>(&'a types::Collector);

impl Collector<'_> {
    pub(crate) fn emit_columns(&self, port: &str, rows: ColumnsRef<'_>) -> Result<(), EmitError> {
        let rows = types::Columns {
            ids: rows.ids.map(column_to),
            keys: column_to(rows.keys),
            values: column_to(rows.values),
            timestamps: rows.timestamps,
            headers: rows.headers.map(|column| types::HeadersColumnParam {
                row_offsets: column.row_offsets,
                names: column_to(column.names),
                values: column_to(column.values),
            }),
        };
        self.0.emit_columns(port, rows).map_err(EmitError::from)
    }

    pub(crate) fn forward(&self, port: &str, rows: &[u32]) -> Result<(), EmitError> {
        self.0.forward(port, rows).map_err(EmitError::from)
    }

    pub(crate) fn reject(&self, row: u32, reason: &str) {
        self.0.reject(row, reason);
    }

    pub(crate) fn defer(&self, row: u32) -> Result<(), EmitError> {
        self.0.defer(row).map_err(EmitError::from)
    }

    pub(crate) fn checkpoint(&self, position: &[u8]) -> Result<(), EmitError> {
        self.0.checkpoint(position).map_err(EmitError::from)
    }

    pub(crate) fn remaining_bytes(&self) -> u64 {
        self.0.remaining_bytes()
    }
}

#[derive(Debug)]
pub(crate) struct Table(wit_state::Table);

impl Table {
    pub(crate) fn open(name: &str) -> Result<Self, state::Error> {
        Ok(Self(wit_state::Table::open(name)?))
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, state::Error> {
        Ok(self.0.get(key)?)
    }

    pub(crate) fn put(&self, key: &[u8], value: &[u8]) -> Result<(), state::Error> {
        Ok(self.0.put(key, value)?)
    }

    pub(crate) fn delete(&self, key: &[u8]) -> Result<(), state::Error> {
        Ok(self.0.delete(key)?)
    }

    pub(crate) fn get_many(&self, keys: BytesColumnRef<'_>) -> Result<BytesColumn, state::Error> {
        Ok(column_from(self.0.get_many(column_to(keys))?))
    }

    pub(crate) fn put_many(&self, keys: BytesColumnRef<'_>, values: BytesColumnRef<'_>) -> Result<(), state::Error> {
        Ok(self.0.put_many(column_to(keys), column_to(values))?)
    }

    pub(crate) fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: u32) -> Result<Vec<state::Entry>, state::Error> {
        let entries = self.0.scan(start, end, limit)?;
        Ok(entries.into_iter().map(|entry| (entry.key, entry.value)).collect())
    }
}

/// What `#[component]` on a function exports.
pub fn export_function(
    process: impl FnOnce(Events<'_>, &mut Output<'_>) -> Result<()>,
    input: &types::Batch,
    out: &types::Collector,
) -> Result<(), types::Error> {
    component::call(process, Batch(input), &Collector(out)).map_err(types::Error::from)
}

/// What `#[component]` on an implementation of [`Transform`] exports.
pub fn export_transform<T: Transform>(
    instance: &Kept<T>,
    input: &types::Batch,
    out: &types::Collector,
) -> Result<(), types::Error> {
    instance.process(Batch(input), &Collector(out)).map_err(types::Error::from)
}

/// What `#[component]` on an implementation of a trait exports beside the role.
pub fn export_make<T>(instance: &Kept<T>, make: fn() -> Result<T>) -> Result<(), types::Error> {
    instance.make(make).map_err(types::Error::from)
}

pub fn export_close<T>(instance: &Kept<T>, close: fn(T)) {
    if let Some(value) = instance.take() {
        close(value);
    }
}

pub fn export_tick<T>(
    instance: &Kept<T>,
    make: fn() -> Result<T>,
    tick: impl FnOnce(&mut T, Tick, &mut Output<'_>) -> Result<()>,
    (now_us, watermark_us): (i64, Option<i64>),
    out: &types::Collector,
) -> Result<(), types::Error> {
    instance.tick(make, tick, Tick { now_us, watermark_us }, &Collector(out)).map_err(types::Error::from)
}

pub fn export_save<T>(
    instance: &Kept<T>,
    make: fn() -> Result<T>,
    save: fn(&T) -> Result<Vec<u8>>,
) -> Result<Vec<u8>, types::Error> {
    instance.lend(make, |value| save(value)).map_err(types::Error::from)
}

pub fn export_restore<T>(
    instance: &Kept<T>,
    make: fn() -> Result<T>,
    restore: impl FnOnce(&mut T, &[u8], &str) -> Result<()>,
    saved: &[u8],
    saved_by: &str,
) -> Result<(), types::Error> {
    instance.lend(make, |value| restore(value, saved, saved_by)).map_err(types::Error::from)
}

pub fn export_described(ports: fn() -> Result<Vec<PortInfo>>) -> Result<Vec<wire::Port>, types::Error> {
    let port = |port: PortInfo| wire::Port {
        direction: if port.is_input { wire::Direction::Input } else { wire::Direction::Output },
        name: port.name,
        about: port.about,
        required: port.is_required,
        values: match port.values {
            Values::Bytes => wire::ValueType::Bytes,
            Values::Text => wire::ValueType::Text,
            Values::Json => wire::ValueType::Json,
        },
        partitions: port.partitions,
    };
    Ok(ports()?.into_iter().map(port).collect())
}

/// What `#[component]` on an implementation of [`Sink`] exports.
pub fn export_write<T: Sink>(
    instance: &Kept<T>,
    input: &types::Batch,
    out: &types::Collector,
) -> Result<(), types::Error> {
    instance.write(Batch(input), &Collector(out)).map_err(types::Error::from)
}

pub fn export_flush<T: Sink>(instance: &Kept<T>) -> Result<(), types::Error> {
    instance.flush().map_err(types::Error::from)
}

/// What `#[component]` on an implementation of [`Source`] exports.
pub fn export_open<T: Source>(instance: &Kept<T>, position: Option<&[u8]>) -> Result<(), types::Error> {
    instance.open(position).map_err(types::Error::from)
}

pub fn export_poll<T: Source>(
    instance: &Kept<T>,
    events_max: u32,
    out: &types::Collector,
) -> Result<Status, types::Error> {
    Ok(match instance.poll(events_max, &Collector(out))? {
        Next::More => Status::More,
        Next::After(wait) => Status::Idle(u32::try_from(wait.as_millis()).unwrap_or(u32::MAX)),
        Next::Finished => Status::Finished,
    })
}

pub fn export_committed<T: Source>(instance: &Kept<T>, position: &[u8]) -> Result<(), types::Error> {
    instance.committed(position).map_err(types::Error::from)
}

fn column_from(column: types::BytesColumnResult) -> BytesColumn {
    BytesColumn { offsets: column.offsets, data: column.data, validity: column.validity }
}

fn column_to(column: BytesColumnRef<'_>) -> types::BytesColumnParam<'_> {
    types::BytesColumnParam { offsets: column.offsets, data: column.data, validity: column.validity }
}

impl From<types::EmitError> for EmitError {
    fn from(error: types::EmitError) -> Self {
        match error {
            types::EmitError::UnknownPort(port) => Self::UnknownPort(port),
            types::EmitError::BudgetExceeded => Self::BudgetExceeded,
            types::EmitError::Invalid(why) => Self::Invalid(why),
        }
    }
}

impl From<wit_state::Error> for state::Error {
    fn from(error: wit_state::Error) -> Self {
        match error {
            wit_state::Error::Denied(why) => Self::Denied(why),
            wit_state::Error::QuotaExceeded => Self::QuotaExceeded,
            wit_state::Error::Unavailable(why) => Self::Unavailable(why),
        }
    }
}

impl From<Error> for types::Error {
    fn from(error: Error) -> Self {
        match error.is_transient() {
            true => Self::Transient(error.into_message()),
            false => Self::Permanent(error.into_message()),
        }
    }
}

/// What `#[component]` on an implementation of [`Aggregate`](crate::Aggregate) exports.
#[cfg(feature = "json")]
mod aggregate {
    use super::{Batch, Collector, column_from, types};
    use crate::aggregate::{Aggregate, Groups};
    use crate::bindings::aggregate::exports::nodata::streaming::aggregator as wire;
    use crate::columns::BytesColumn;
    use crate::kept::Kept;

    type Answer<T> = Result<T, types::Error>;

    pub fn export_keys<T: Aggregate>(instance: &Kept<T>, input: &types::Batch) -> Answer<types::BytesColumnResult> {
        Ok(column_back(instance.keys(Batch(input))?))
    }

    pub fn export_accumulate<T: Aggregate>(
        instance: &Kept<T>,
        input: &types::Batch,
        groups: wire::Groups,
        members: wire::Membership,
        out: &types::Collector,
    ) -> Answer<types::BytesColumnResult> {
        let members = (&members.rows[..], &members.groups[..]);
        Ok(column_back(instance.accumulate(Batch(input), &groups_from(groups), members, &Collector(out))?))
    }

    pub fn export_merge<T: Aggregate>(
        instance: &Kept<T>,
        left: types::BytesColumnResult,
        right: types::BytesColumnResult,
    ) -> Answer<types::BytesColumnResult> {
        Ok(column_back(instance.merge(&column_from(left), &column_from(right))?))
    }

    pub fn export_closed<T: Aggregate>(instance: &Kept<T>, closed: wire::Groups, out: &types::Collector) -> Answer<()> {
        Ok(instance.finish(&groups_from(closed), &Collector(out))?)
    }

    pub fn export_render<T: Aggregate>(instance: &Kept<T>, groups: wire::Groups) -> Answer<types::BytesColumnResult> {
        Ok(column_back(instance.render(&groups_from(groups))?))
    }

    fn groups_from(groups: wire::Groups) -> Groups {
        Groups {
            keys: column_from(groups.keys),
            window_starts: groups.window_starts,
            window_ends: groups.window_ends,
            accumulators: column_from(groups.accumulators),
        }
    }

    fn column_back(column: BytesColumn) -> types::BytesColumnResult {
        types::BytesColumnResult { offsets: column.offsets, data: column.data, validity: column.validity }
    }
}
#[cfg(feature = "json")]
pub use aggregate::{export_accumulate, export_closed, export_keys, export_merge, export_render};
