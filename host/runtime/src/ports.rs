//! What a component says of its ports.

use crate::limits::{PORT_ABOUT_BYTES_MAX, PORT_BYTES_MAX, PORTS_DESCRIBED_MAX};
use crate::rows::cut;
use nodata_log::ValueType;
use std::collections::BTreeSet;
use wasmtime::component::{ComponentType, Lift};

/// Which way events go through a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Direction {
    /// In, from the topic that the deployment reads.
    Input,
    /// Out, to a topic.
    Output,
}

/// What a component says of one of its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DescribedPort {
    pub direction: Direction,
    pub name: String,
    /// One sentence, for people.
    pub about: String,
    pub required: bool,
    /// What a topic that is made for it holds, and how many partitions it has.
    pub values: ValueType,
    pub partitions: Option<u32>,
}

/// `direction`.
#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "a component makes them")]
pub(crate) enum WireDirection {
    #[component(name = "input")]
    Input,
    #[component(name = "output")]
    Output,
}

/// `value-type`.
#[derive(Clone, Copy, ComponentType, Lift)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "a component makes them")]
pub(crate) enum WireValueType {
    #[component(name = "bytes")]
    Bytes,
    #[component(name = "text")]
    Text,
    #[component(name = "json")]
    Json,
}

/// `port`.
#[derive(ComponentType, Lift)]
#[component(record)]
pub(crate) struct WirePort {
    direction: WireDirection,
    name: String,
    about: String,
    required: bool,
    values: WireValueType,
    partitions: Option<u32>,
}

impl From<WirePort> for DescribedPort {
    fn from(port: WirePort) -> Self {
        let WirePort { direction, name, about, required, values, partitions } = port;
        Self {
            direction: match direction {
                WireDirection::Input => Direction::Input,
                WireDirection::Output => Direction::Output,
            },
            name,
            about: cut(&about, PORT_ABOUT_BYTES_MAX).to_owned(),
            required,
            values: match values {
                WireValueType::Bytes => ValueType::Bytes,
                WireValueType::Text => ValueType::Text,
                WireValueType::Json => ValueType::Json,
            },
            partitions,
        }
    }
}

/// The ports that a component described, or what is wrong with them.
pub(crate) fn described(ports: Vec<WirePort>) -> Result<Vec<DescribedPort>, String> {
    if ports.len() > PORTS_DESCRIBED_MAX {
        return Err(format!("{} of them, at most {PORTS_DESCRIBED_MAX} are allowed", ports.len()));
    }
    let ports: Vec<DescribedPort> = ports.into_iter().map(DescribedPort::from).collect();
    let mut names = BTreeSet::new();
    for DescribedPort { direction, name, .. } in &ports {
        if name.len() > PORT_BYTES_MAX {
            let (start, bytes) = (cut(name, 32), name.len());
            return Err(format!("name `{start}…` has {bytes} bytes, at most {PORT_BYTES_MAX} are allowed"));
        }
        if !names.insert((direction, name)) {
            return Err(format!("\"{name}\" is there twice"));
        }
    }
    Ok(ports)
}
