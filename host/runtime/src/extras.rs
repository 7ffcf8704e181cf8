//! What a component exports beside its role, and how it is called.

use crate::call_error::{CallError, CallErrorReason};
use crate::contract::Extra;
use crate::guest::Guest;
use crate::imports::types::{BatchHandle, ColumnFromCall};
use crate::instance::{Function, Instance};
use crate::ports::{DescribedPort, WirePort, described};
use wasmtime::Store;
use wasmtime::component::{ComponentExportIndex, Resource, TypedFunc};

/// The functions that are there.
#[derive(Clone, Copy, Default)]
pub(crate) struct Extras {
    open: Option<Function<(), ()>>,
    close: Option<TypedFunc<(), ()>>,
    describe: Option<Function<(), Vec<WirePort>>>,
    pub(crate) keys: Option<Function<(Resource<BatchHandle>,), ColumnFromCall>>,
}

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
