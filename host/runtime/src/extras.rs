//! What a component exports beside its role, and how it is called.

use crate::call_error::{CallError, CallErrorReason};
use crate::contract::Extra;
use crate::guest::Guest;
use crate::imports::types::{BatchHandle, CollectorHandle, ColumnFromCall};
use crate::instance::{Function, Instance, other_role};
use crate::limits::SNAPSHOT_BYTES_MAX;
use crate::output::Output;
use crate::ports::{DescribedPort, WirePort, described};
use bytes::Bytes;
use nodata_log::TimestampUs;
use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, Resource, TypedFunc};

/// The functions that are there.
#[derive(Clone, Copy, Default)]
pub(crate) struct Extras {
    open: Option<Function<(), ()>>,
    close: Option<TypedFunc<(), ()>>,
    on_tick: Option<Function<Tick, ()>>,
    save: Option<Function<(), Vec<u8>>>,
    restore: Option<Function<(Bytes, String), ()>>,
    describe: Option<Function<(), Vec<WirePort>>>,
    pub(crate) keys: Option<Function<(Resource<BatchHandle>,), ColumnFromCall>>,
}

/// The time of the host, the watermark, and where to emit to.
type Tick = (TimestampUs, Option<TimestampUs>, Resource<CollectorHandle>);

impl Extras {
    /// Adds the functions of one interface, which must have the types of the contract.
    pub(crate) fn add(
        &mut self,
        extra: Extra,
        functions: &[ComponentExportIndex],
        store: &mut Store<Guest>,
        instance: &wasmtime::component::Instance,
    ) -> wasmtime::Result<()> {
        match (extra, functions) {
            (Extra::Lifecycle, [open, close]) => {
                self.open = Some(instance.get_typed_func(&mut *store, open)?);
                self.close = Some(instance.get_typed_func(&mut *store, close)?);
            }
            (Extra::Ticker, [on_tick]) => self.on_tick = Some(instance.get_typed_func(&mut *store, on_tick)?),
            (Extra::Snapshot, [save, restore]) => {
                self.save = Some(instance.get_typed_func(&mut *store, save)?);
                self.restore = Some(instance.get_typed_func(&mut *store, restore)?);
            }
            (Extra::Ports, [describe]) => self.describe = Some(instance.get_typed_func(&mut *store, describe)?),
            (Extra::Grouper, [keys]) => self.keys = Some(instance.get_typed_func(&mut *store, keys)?),
            _ => wasmtime::bail!("it has other functions"),
        }
        Ok(())
    }
}

impl Instance {
    /// What the component says of its ports, if it says anything.
    pub(crate) async fn ports(&mut self) -> Result<Option<Vec<DescribedPort>>, CallError> {
        let Some(describe) = self.extras()?.describe else { return Ok(None) };
        self.begin_reading()?;
        let ports = self.call(describe, ()).await?;
        described(ports).map(Some).map_err(|what| CallError::new(CallErrorReason::Permanent(what)))
    }

    /// Calls a component that ticks. What comes back is to be committed as one unit, and nothing of an input with it.
    pub async fn tick(&mut self, now_us: TimestampUs, watermark_us: Option<TimestampUs>) -> Result<Output, CallError> {
        let on_tick = self.extras()?.on_tick.ok_or_else(other_role)?;
        self.begin_in_place()?;
        self.call(on_tick, (now_us, watermark_us, Resource::new_borrow(0))).await?;
        self.finish().await
    }

    /// What the component keeps in memory after the call in hand, if it wants that to last. It may still write state.
    pub async fn save(&mut self) -> Result<Option<Bytes>, CallError> {
        let Some(save) = self.extras()?.save else { return Ok(None) };
        let saved = self.call(save, ()).await?;
        if saved.len() > SNAPSHOT_BYTES_MAX {
            let what = format!("it saves {} bytes of memory, at most {SNAPSHOT_BYTES_MAX} are allowed", saved.len());
            return Err(CallError::new(CallErrorReason::Permanent(what)));
        }
        Ok(Some(saved.into()))
    }

    /// What the component would keep now, of an instance that is only tried. It writes nothing.
    pub async fn save_aside(&mut self) -> Result<Option<Bytes>, CallError> {
        if self.extras()?.save.is_none() {
            return Ok(None);
        }
        self.begin_reading()?;
        self.save().await
    }

    /// Gives a new instance the memory that another one had, of this version or of the one with this digest.
    pub async fn restore(&mut self, saved: Bytes, saved_by: &str) -> Result<(), CallError> {
        let restore = self.extras()?.restore.ok_or_else(other_role)?;
        self.begin_reading()?;
        self.call(restore, (saved, saved_by.to_owned())).await.map_err(|error| error.at_restore(saved_by))
    }

    /// Opens a new instance, if the component wants that.
    pub(crate) async fn open_up(&mut self) -> Result<(), CallError> {
        let Some(open) = self.extras()?.open else { return Ok(()) };
        self.begin_reading()?;
        self.call(open, ()).await
    }

    /// Ends an instance in order: it is told, if the component wants that. One that has ended is not.
    pub async fn let_go(mut self) -> Result<(), CallError> {
        if !self.is_alive() {
            return Ok(());
        }
        let Some(close) = self.extras()?.close else { return Ok(()) };
        self.begin_reading()?;
        self.invoke(close, ()).await
    }
}
