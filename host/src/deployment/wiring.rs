//! The topics around a component: they must be those that it says it needs, and they are made where the operator allows it.

use crate::deployment::aggregate::LATE_PORT;
use crate::deployment::control::{Deployments, StartAt};
use crate::deployment::error::DeploymentError;
use crate::deployment::spec::{DeploymentRole, DeploymentSpec};
use nodata_log::{LogError, Name, Offset, Topic, TopicConfig, TopicId};
use nodata_runtime::{DescribedPort, Direction};
use std::collections::BTreeMap;

impl Deployments {
    /// Checks the topics that a deployment names, and answers with the one that it reads; `None`: it is made with the deployment.
    pub(crate) fn wired(
        &self,
        role: DeploymentRole,
        input: &str,
        outputs: &BTreeMap<String, String>,
        may_create: bool,
    ) -> Result<Option<Topic>, DeploymentError> {
        for (port, output) in outputs {
            if output == input && role != DeploymentRole::Source {
                return Err(DeploymentError::Loop { topic: input.to_owned(), port: port.clone() });
            }
        }
        for topic in std::iter::once(input).chain(outputs.values().map(String::as_str)) {
            let topic = Name::new(topic)?;
            if self.parts.log.topic(&topic).is_err() && !may_create {
                return Err(DeploymentError::NoTopic { topic });
            }
        }
        Ok(self.parts.log.topic(&Name::new(input)?).ok())
    }

    /// Makes the topics that are not there, as the ports say that they should be.
    pub(crate) async fn make_topics(
        &self,
        spec: &DeploymentSpec,
        ports: Option<&[DescribedPort]>,
    ) -> Result<(), DeploymentError> {
        let log = &self.parts.log;
        let mut partitions = 1;
        if spec.role != DeploymentRole::Source {
            let name = Name::new(&spec.input)?;
            let topic = match log.topic(&name) {
                Ok(topic) => topic,
                Err(_) => self.make_topic(name, input_to_make(spec, ports)?.config).await?,
            };
            partitions = topic.config.partitions;
        }
        for (name, output) in &spec.outputs {
            let topic = Name::new(output)?;
            if log.topic(&topic).is_err() {
                self.make_topic(topic, topic_of(port(ports, Direction::Output, name), partitions)).await?;
            }
        }
        Ok(())
    }

    async fn make_topic(&self, name: Name, config: TopicConfig) -> Result<Topic, LogError> {
        match self.parts.log.create_topic(name.clone(), config) {
            Ok(created) => created.await,
            // Somebody was quicker, and the topic may still be on the way to the disk.
            Err(LogError::TopicExists { .. }) => {
                self.parts.log.barrier()?.await?;
                self.parts.log.topic(&name)
            }
            Err(error) => Err(error),
        }
    }
}

/// The topic that a deployment reads, as it will be made with it.
pub(crate) fn input_to_make(spec: &DeploymentSpec, ports: Option<&[DescribedPort]>) -> Result<Topic, DeploymentError> {
    let config = topic_of(port(ports, Direction::Input, ""), 1);
    Ok(Topic { id: TopicId(0), name: Name::new(&spec.input)?, config, created_us: spec.created_us })
}

/// Where a deployment begins in such a topic.
pub(crate) fn start_of_new(topic: &Topic, start: StartAt) -> Result<Vec<Offset>, DeploymentError> {
    match start {
        StartAt::Offset(offset) if offset > 0 => {
            let topic = topic.name.clone();
            Err(DeploymentError::Start { topic, partition: 0, offset, earliest: 0, end: 0 })
        }
        _ => Ok(Vec::new()),
    }
}

/// Compares what is wired with what the component says of its ports.
pub(crate) fn check_ports(spec: &DeploymentSpec, ports: &[DescribedPort]) -> Result<(), DeploymentError> {
    let (component, all) = (spec.component.clone(), || list(ports));
    let outputs = || ports.iter().filter(|port| port.direction == Direction::Output);
    // The host puts late events there, whatever the component says.
    let is_ours = |name: &str| spec.role == DeploymentRole::Aggregate && name == LATE_PORT;
    if let Some(name) =
        spec.outputs.keys().find(|name| !is_ours(name) && outputs().all(|port| port.name != name.as_str()))
    {
        return Err(DeploymentError::UnknownPort { component, port: name.clone(), ports: all() });
    }
    if let Some(port) = outputs().find(|port| port.required && !spec.outputs.contains_key(&port.name)) {
        return Err(DeploymentError::UnwiredPort { component, port: port.name.clone(), ports: all() });
    }
    for port in ports {
        if let Err(error) = topic_of(Some(port), 1).check() {
            let what = error.to_string();
            return Err(DeploymentError::PortTopic { component, port: port.name.clone(), what });
        }
    }
    Ok(())
}

fn port<'a>(ports: Option<&'a [DescribedPort]>, direction: Direction, name: &str) -> Option<&'a DescribedPort> {
    let is_it =
        |port: &&DescribedPort| port.direction == direction && (direction == Direction::Input || port.name == name);
    ports?.iter().find(is_it)
}

fn topic_of(port: Option<&DescribedPort>, partitions: u32) -> TopicConfig {
    let default = TopicConfig { partitions, ..TopicConfig::default() };
    match port {
        Some(port) => TopicConfig { partitions: port.partitions.unwrap_or(partitions), values: port.values, ..default },
        None => default,
    }
}

/// The ports of a component, for a person.
fn list(ports: &[DescribedPort]) -> String {
    if ports.is_empty() {
        return "none".to_owned();
    }
    let say = |port: &DescribedPort| {
        let name = match port.direction {
            Direction::Input => "the input".to_owned(),
            Direction::Output if port.required => format!("\"{}\" (required)", port.name),
            Direction::Output => format!("\"{}\"", port.name),
        };
        if port.about.is_empty() { name } else { format!("{name}: {}", port.about) }
    };
    ports.iter().map(say).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_log::ValueType;

    fn described(direction: Direction, name: &str, about: &str, required: bool) -> DescribedPort {
        let (name, about) = (name.to_owned(), about.to_owned());
        DescribedPort { direction, name, about, required, values: ValueType::Bytes, partitions: None }
    }

    fn check(role: DeploymentRole, wired: &[&str], ports: &[DescribedPort]) -> String {
        let outputs = wired.iter().map(|port| ((*port).to_owned(), "t".to_owned())).collect();
        let spec = DeploymentSpec { component: "c".to_owned(), role, outputs, ..DeploymentSpec::nothing() };
        check_ports(&spec, ports).map_or_else(|error| error.to_string(), |()| "they fit".to_owned())
    }

    #[test]
    fn what_is_wired_is_what_the_component_has() {
        use DeploymentRole::{Aggregate, Sink, Transform};
        let ports = [
            described(Direction::Input, "in", "flights", true),
            described(Direction::Output, "", "late ones", true),
            described(Direction::Output, "bad", "", false),
        ];
        assert_eq!(check(Transform, &[""], &ports), "they fit");
        assert_eq!(check(Transform, &["", "bad"], &ports), "they fit");
        let all = "its ports are: the input: flights; \"\" (required): late ones; \"bad\"";
        assert_eq!(check(Transform, &["bad"], &ports), format!("component `c` needs a topic behind port \"\"; {all}"));
        assert_eq!(check(Transform, &["", "in"], &ports), format!("component `c` has no port \"in\"; {all}"));
        assert_eq!(check(Aggregate, &["", "late"], &ports), "they fit");
        assert_eq!(check(Transform, &[""], &[]), "component `c` has no port \"\"; its ports are: none");
        assert_eq!(check(Sink, &[], &ports[..1]), "they fit");

        let nothing = DescribedPort { partitions: Some(0), ..ports[1].clone() };
        let expected =
            "port \"\" of component `c` asks for a topic that there cannot be: 0 partitions; a topic has 1 to 1024";
        assert_eq!(check(Transform, &[""], &[nothing]), expected);
    }

    #[test]
    fn a_topic_is_made_as_its_port_says() {
        let own = DescribedPort {
            values: ValueType::Json,
            partitions: Some(3),
            ..described(Direction::Output, "a", "", true)
        };
        let ports = [described(Direction::Input, "x", "", true), own];
        let of = |direction, name| {
            let TopicConfig { partitions, values, .. } = topic_of(port(Some(&ports), direction, name), 7);
            (partitions, values)
        };
        assert_eq!(of(Direction::Output, "a"), (3, ValueType::Json));
        assert_eq!(of(Direction::Output, "x"), (7, ValueType::Bytes));
        assert_eq!(of(Direction::Input, ""), (7, ValueType::Bytes));
    }
}
