//! Where a deployment lets its component emit to.

use crate::deployment::spec::DeploymentSpec;
use nodata_log::{Batch, Log, LogError, Name, Topic, Tp};
use nodata_runtime::{Emitted, Port};
use std::sync::Arc;

/// The topics behind the ports, as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outputs {
    pub(crate) ports: Arc<[Port]>,
    topics: Vec<Topic>,
}

impl Outputs {
    pub(crate) fn of(spec: &DeploymentSpec, log: &dyn Log) -> Result<Self, LogError> {
        let topics: Vec<Topic> =
            spec.outputs.values().map(|name| log.topic(&Name::new(name)?)).collect::<Result<_, _>>()?;
        let ports = spec.outputs.keys().zip(&topics).map(|(port, topic)| Port {
            name: port.clone(),
            partitions: topic.config.partitions,
            event_bytes_max: topic.config.event_bytes_max,
            values: topic.config.values,
        });
        Ok(Self { ports: ports.collect(), topics })
    }

    /// What was emitted, for the partitions it goes to.
    pub(crate) fn appends(&self, emitted: Vec<Emitted>) -> Vec<(Tp, Batch)> {
        let to_append = |one: Emitted| {
            let topic = self.topics[one.port].id;
            (Tp { topic, partition: one.partition }, one.batch)
        };
        emitted.into_iter().map(to_append).collect()
    }
}
