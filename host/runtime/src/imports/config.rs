//! `nodata:streaming/config`: what the deployment configured.

use crate::contract;
use crate::guest::Guest;
use crate::limits::CONFIG_KEY_BYTES_MAX;
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, WasmStr};

type Cx<'a> = StoreContextMut<'a, Guest>;

/// Once, when the engine starts.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut config = linker.instance(&contract::interface("config"))?;
    config.func_wrap("get", |cx: Cx, (key,): (WasmStr,)| -> wasmtime::Result<(Option<String>,)> {
        let key = key.to_str(&cx)?;
        // No entry has such a key, so there is no need to look.
        if key.len() > CONFIG_KEY_BYTES_MAX {
            return Ok((None,));
        }
        Ok((cx.data().deployment.config.get(&*key).cloned(),))
    })?;
    config.func_wrap("all", |cx: Cx, (): ()| -> wasmtime::Result<(Vec<(String, String)>,)> {
        let config = &cx.data().deployment.config;
        Ok((config.iter().map(|(key, value)| (key.clone(), value.clone())).collect(),))
    })?;
    config.func_wrap("secret", |cx: Cx, (name,): (WasmStr,)| -> wasmtime::Result<(Option<Vec<u8>>,)> {
        let name = name.to_str(&cx)?;
        if name.len() > CONFIG_KEY_BYTES_MAX {
            return Ok((None,));
        }
        Ok((cx.data().deployment.secrets.get(&*name).map(|secret| secret.bytes().to_vec()),))
    })
}
