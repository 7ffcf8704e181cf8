//! `nodata:streaming/metrics`: numbers about the work.

use crate::contract;
use crate::guest::Guest;
use crate::guest_metrics::Observation;
use crate::limits::{METRIC_ATTRIBUTE_BYTES_MAX, METRIC_ATTRIBUTES_MAX, METRIC_NAME_BYTES_MAX};
use wasmtime::StoreContextMut;
use wasmtime::component::{Linker, WasmList, WasmStr};

type Cx<'a> = StoreContextMut<'a, Guest>;
type Attributes = WasmList<(WasmStr, WasmStr)>;

/// Once, when the engine starts.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut metrics = linker.instance(&contract::interface("metrics"))?;
    metrics.func_wrap("add", |cx: Cx, (name, delta, attributes): (WasmStr, u64, Attributes)| {
        record(cx, &name, &attributes, Observation::Add(delta))
    })?;
    metrics.func_wrap("set", |cx: Cx, (name, value, attributes): (WasmStr, f64, Attributes)| {
        record(cx, &name, &attributes, Observation::Set(value))
    })?;
    metrics.func_wrap("observe", |cx: Cx, (name, value, attributes): (WasmStr, f64, Attributes)| {
        record(cx, &name, &attributes, Observation::Observe(value))
    })
}

/// Copies what the registry would take, and counts what it would not.
fn record(mut cx: Cx, name: &WasmStr, attributes: &Attributes, observation: Observation) -> wasmtime::Result<()> {
    let text = |cx: &Cx, text: &WasmStr, bytes_max: usize| -> wasmtime::Result<Option<String>> {
        let text = text.to_str(cx)?;
        Ok((text.len() <= bytes_max).then(|| text.into_owned()))
    };
    let name = text(&cx, name, METRIC_NAME_BYTES_MAX)?;
    let mut taken = (attributes.len() <= METRIC_ATTRIBUTES_MAX).then(Vec::new);
    for at in 0..attributes.len().min(METRIC_ATTRIBUTES_MAX) {
        let Some(attribute) = attributes.get(&mut cx, at) else { break };
        let (name, value) = attribute?;
        let (name, value) =
            (text(&cx, &name, METRIC_ATTRIBUTE_BYTES_MAX)?, text(&cx, &value, METRIC_ATTRIBUTE_BYTES_MAX)?);
        taken = taken.zip(name.zip(value)).map(|(mut taken, attribute)| {
            taken.push(attribute);
            taken
        });
    }
    let metrics = &cx.data().deployment.metrics;
    match name.zip(taken) {
        Some((name, attributes)) => metrics.record(name, attributes, observation),
        None => metrics.drop_one(),
    }
    Ok(())
}
