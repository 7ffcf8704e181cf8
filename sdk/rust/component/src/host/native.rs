//! The host of a component that is compiled for this machine: what `testing` gives to it, in memory.
//!
//! The batch and the collector are handed from call to call. Configuration, metrics and state are ambient imports,
//! so they lie in a [`World`] of the thread; a harness puts its own there for the length of a call. Outside of a call
//! the world is empty and takes everything, so that a test of a helper function needs no harness.

use super::EmitError;
use crate::column_builder::BytesColumnBuilder;
use crate::columns::{BytesColumn, BytesColumnRef, ColumnsRef, HeadersColumn};
use crate::state;
use crate::testing::Columns;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt;

/// A column that was fetched is the one of the test. Nothing is copied, which makes this the floor that a component
/// is measured against.
pub(crate) type Fetched<'a, T> = &'a T;

/// The input of one call.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Batch<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    pub(crate) attempt: u32,
    pub(crate) offsets: Offsets<'a>,
    pub(crate) columns: &'a Columns,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Offsets<'a> {
    FromZero,
    Given(&'a [u64]),
}

impl<'a> Batch<'a> {
    pub(crate) fn topic(&self) -> String {
        self.topic.to_owned()
    }

    pub(crate) fn partition(&self) -> u32 {
        self.partition
    }

    pub(crate) fn len(&self) -> u32 {
        self.columns.rows() as u32
    }

    pub(crate) fn byte_size(&self) -> u64 {
        self.columns.byte_size()
    }

    pub(crate) fn attempt(&self) -> u32 {
        self.attempt
    }

    pub(crate) fn offsets(&self) -> Vec<u64> {
        match self.offsets {
            Offsets::FromZero => (0..u64::from(self.len())).collect(),
            Offsets::Given(offsets) => offsets.to_vec(),
        }
    }

    pub(crate) fn ids(&self) -> Option<&'a BytesColumn> {
        self.columns.ids.as_ref()
    }

    pub(crate) fn keys(&self) -> &'a BytesColumn {
        &self.columns.keys
    }

    pub(crate) fn values(&self) -> &'a BytesColumn {
        &self.columns.values
    }

    pub(crate) fn timestamps(&self) -> &'a Vec<i64> {
        &self.columns.timestamps
    }

    pub(crate) fn headers(&self) -> Option<&'a HeadersColumn> {
        self.columns.headers.as_ref()
    }
}

/// Where the output of a call goes.
pub(crate) trait Sink {
    fn emit_columns(&self, port: &str, rows: ColumnsRef<'_>) -> Result<(), EmitError>;
    fn forward(&self, port: &str, rows: &[u32]) -> Result<(), EmitError>;
    fn reject(&self, row: u32, reason: &str);
    fn defer(&self, row: u32) -> Result<(), EmitError>;
    fn checkpoint(&self, position: &[u8]) -> Result<(), EmitError>;
    fn remaining_bytes(&self) -> u64;
}

#[derive(Clone, Copy)]
pub(crate) struct Collector<'a>(pub(crate) &'a dyn Sink);

impl Collector<'_> {
    pub(crate) fn emit_columns(&self, port: &str, rows: ColumnsRef<'_>) -> Result<(), EmitError> {
        self.0.emit_columns(port, rows)
    }

    pub(crate) fn forward(&self, port: &str, rows: &[u32]) -> Result<(), EmitError> {
        self.0.forward(port, rows)
    }

    pub(crate) fn reject(&self, row: u32, reason: &str) {
        self.0.reject(row, reason);
    }

    pub(crate) fn defer(&self, row: u32) -> Result<(), EmitError> {
        self.0.defer(row)
    }

    pub(crate) fn checkpoint(&self, position: &[u8]) -> Result<(), EmitError> {
        self.0.checkpoint(position)
    }

    pub(crate) fn remaining_bytes(&self) -> u64 {
        self.0.remaining_bytes()
    }
}

impl fmt::Debug for Collector<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}

/// Everything a component can reach besides its input and its output.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) config: BTreeMap<String, String>,
    pub(crate) secrets: BTreeMap<String, Vec<u8>>,
    pub(crate) counters: BTreeMap<Series, u64>,
    pub(crate) gauges: BTreeMap<Series, f64>,
    pub(crate) observations: BTreeMap<Series, Vec<f64>>,
    pub(crate) tables: Tables,
    /// Bytes of keys and values that all tables hold.
    pub(crate) state_bytes: usize,
    pub(crate) state_bytes_max: Option<usize>,
    #[cfg(feature = "http")]
    pub(crate) http: Option<http::Receiver>,
    /// State can only be read while a component begins or ends.
    is_read_only: bool,
}

/// The name and the attributes of a metric.
pub(crate) type Series = (String, Vec<(String, String)>);

/// State tables by name.
pub(crate) type Tables = BTreeMap<String, BTreeMap<Vec<u8>, Vec<u8>>>;

thread_local! {
    static WORLD: RefCell<World> = RefCell::default();
}

/// Puts a world in the place of the thread's, until it is dropped. They then change places again, also when the
/// component panicked.
pub(crate) struct Installed<'a> {
    world: &'a mut World,
}

impl<'a> Installed<'a> {
    pub(crate) fn new(world: &'a mut World) -> Self {
        WORLD.with_borrow_mut(|current| std::mem::swap(current, world));
        Self { world }
    }
}

impl Drop for Installed<'_> {
    fn drop(&mut self) {
        WORLD.with_borrow_mut(|current| std::mem::swap(current, self.world));
    }
}

/// Calls what may read state and not write it.
pub(crate) fn reading<R>(call: impl FnOnce() -> R) -> R {
    WORLD.with_borrow_mut(|world| world.is_read_only = true);
    let done = call();
    WORLD.with_borrow_mut(|world| world.is_read_only = false);
    done
}

pub(crate) mod config {
    use super::WORLD;

    pub(crate) fn get(key: &str) -> Option<String> {
        WORLD.with_borrow(|world| world.config.get(key).cloned())
    }

    pub(crate) fn all() -> Vec<(String, String)> {
        WORLD.with_borrow(|world| world.config.iter().map(|(key, text)| (key.clone(), text.clone())).collect())
    }

    pub(crate) fn secret(name: &str) -> Option<Vec<u8>> {
        WORLD.with_borrow(|world| world.secrets.get(name).cloned())
    }
}

#[cfg(feature = "http")]
pub(crate) mod http {
    use super::WORLD;
    use crate::error::Result;
    use crate::http::{Failure, Request, Response};
    use std::fmt;

    /// Who answers the requests of a test.
    pub(crate) struct Receiver(pub(crate) Box<Answer>);

    type Answer = dyn FnMut(&Request) -> Result<Response>;

    impl fmt::Debug for Receiver {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Receiver")
        }
    }

    pub(crate) fn send(request: Request) -> Result<Response, Failure> {
        crate::http::Url::of(request.url())?;
        // Taken out while it answers: what it does is its own business.
        let receiver = WORLD.with_borrow_mut(|world| world.http.take());
        let Some(mut receiver) = receiver else {
            return Err(Failure::permanent("denied: this test allows no requests; see `http` of its harness"));
        };
        let answer = (receiver.0)(&request);
        WORLD.with_borrow_mut(|world| world.http = Some(receiver));
        answer.map_err(|error| match error.is_transient() {
            true => Failure::transient(error.message()),
            false => Failure::permanent(error.message()),
        })
    }
}

pub(crate) mod metrics {
    use super::{WORLD, series};

    pub(crate) fn add(name: &str, delta: u64, attributes: &[(&str, &str)]) {
        WORLD.with_borrow_mut(|world| *world.counters.entry(series(name, attributes)).or_default() += delta);
    }

    pub(crate) fn set(name: &str, value: f64, attributes: &[(&str, &str)]) {
        WORLD.with_borrow_mut(|world| world.gauges.insert(series(name, attributes), value));
    }

    pub(crate) fn observe(name: &str, value: f64, attributes: &[(&str, &str)]) {
        WORLD.with_borrow_mut(|world| world.observations.entry(series(name, attributes)).or_default().push(value));
    }
}

/// Attributes are a set: their order does not make another series.
pub(crate) fn series(name: &str, attributes: &[(&str, &str)]) -> Series {
    let mut attributes: Vec<_> =
        attributes.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    attributes.sort();
    (name.to_owned(), attributes)
}

/// Longest name of a state table.
const TABLE_NAME_BYTES_MAX: usize = 200;
/// Longest key of a state table.
const STATE_KEY_BYTES_MAX: usize = 4096;
/// Largest value in a state table.
const STATE_VALUE_BYTES_MAX: usize = 4 << 20;

#[derive(Debug)]
pub(crate) struct Table {
    name: String,
}

impl Table {
    pub(crate) fn open(name: &str) -> Result<Self, state::Error> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
        if name.is_empty() || name.len() > TABLE_NAME_BYTES_MAX || !name.chars().all(is_allowed) {
            return Err(state::Error::Denied(format!(
                "`{name}` is no name of a table; names are `[a-zA-Z0-9_.-]{{1,{TABLE_NAME_BYTES_MAX}}}`"
            )));
        }
        Ok(Self { name: name.to_owned() })
    }

    pub(crate) fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, state::Error> {
        check_key(key)?;
        Ok(WORLD.with_borrow(|world| world.tables.get(&self.name)?.get(key).cloned()))
    }

    pub(crate) fn put(&self, key: &[u8], value: &[u8]) -> Result<(), state::Error> {
        self.write([(key, Some(value))])
    }

    pub(crate) fn delete(&self, key: &[u8]) -> Result<(), state::Error> {
        self.write([(key, None)])
    }

    pub(crate) fn get_many(&self, keys: BytesColumnRef<'_>) -> Result<BytesColumn, state::Error> {
        let keys = keys.to_column();
        let mut values = BytesColumnBuilder::default();
        for row in 0..keys.rows() {
            match self.get(keys.get(row).unwrap_or_default())? {
                Some(value) => {
                    values.data.extend_from_slice(&value);
                    values.finish_element(row);
                }
                None => values.finish_null(row),
            }
        }
        if !values.is_used() {
            values.fill_with_nulls(keys.rows());
        }
        Ok(values.as_column().to_column())
    }

    pub(crate) fn put_many(&self, keys: BytesColumnRef<'_>, values: BytesColumnRef<'_>) -> Result<(), state::Error> {
        let (keys, values) = (keys.to_column(), values.to_column());
        self.write((0..keys.rows()).map(|row| (keys.get(row).unwrap_or_default(), values.get(row))))
    }

    /// All of it or nothing.
    fn write<'a>(&self, entries: impl IntoIterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Result<(), state::Error> {
        let mut last = BTreeMap::new();
        for (key, value) in entries {
            check_key(key)?;
            check_value(value)?;
            last.insert(key, value);
        }
        WORLD.with_borrow_mut(|world| {
            if world.is_read_only {
                return Err(state::Error::Denied(
                    "while a component begins or ends, state can only be read".to_owned(),
                ));
            }
            let mut bytes = world.state_bytes;
            let table = world.tables.entry(self.name.clone()).or_default();
            for (key, value) in &last {
                bytes -= table.get(*key).map_or(0, |before| key.len() + before.len());
                bytes += value.map_or(0, |value| key.len() + value.len());
            }
            if world.state_bytes_max.is_some_and(|bytes_max| bytes > bytes_max) {
                return Err(state::Error::QuotaExceeded);
            }
            world.state_bytes = bytes;
            for (key, value) in last {
                match value {
                    Some(value) => table.insert(key.to_vec(), value.to_vec()),
                    None => table.remove(key),
                };
            }
            Ok(())
        })
    }

    pub(crate) fn scan(&self, start: &[u8], end: Option<&[u8]>, limit: u32) -> Result<Vec<state::Entry>, state::Error> {
        Ok(WORLD.with_borrow(|world| {
            let table = world.tables.get(&self.name);
            let entries = table.into_iter().flatten().skip_while(|(key, _)| key.as_slice() < start);
            let entries = entries.take_while(|(key, _)| end.is_none_or(|end| key.as_slice() < end));
            entries.take(limit as usize).map(|(key, value)| (key.clone(), value.clone())).collect()
        }))
    }
}

fn check_key(key: &[u8]) -> Result<(), state::Error> {
    match key.len() {
        0 => Err(state::Error::Denied("the key is empty".to_owned())),
        1..=STATE_KEY_BYTES_MAX => Ok(()),
        bytes => {
            Err(state::Error::Denied(format!("the key has {bytes} bytes, at most {STATE_KEY_BYTES_MAX} are allowed")))
        }
    }
}

fn check_value(value: Option<&[u8]>) -> Result<(), state::Error> {
    match value.map_or(0, <[u8]>::len) {
        0..=STATE_VALUE_BYTES_MAX => Ok(()),
        bytes => Err(state::Error::Denied(format!(
            "the value has {bytes} bytes, at most {STATE_VALUE_BYTES_MAX} are allowed"
        ))),
    }
}
