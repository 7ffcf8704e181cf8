//! The door: wire bytes become batches of columns, checked and hashed. From here on nobody checks again.

use crate::api::status::Refusal;
use nodata_log::event::{check_header_names, check_id};
use nodata_log::limits::{BATCH_EVENTS_MAX, FRAME_BYTES_MAX};
use nodata_log::{Batch, BatchBuilder, EventError, LogError, TimestampUs, Topic, TopicConfig, Tp, partition_of_key};
use nodata_proto::events::{self, WireEvent};

/// Takes the events of requests and sorts them by partition.
pub(crate) struct Door<'a> {
    topic: &'a Topic,
    placement: Placement,
    now_us: TimestampUs,
    builders: Vec<Option<BatchBuilder>>,
    events: usize,
    bytes: u64,
}

/// Which partition an event goes to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Placement {
    partitions: u32,
    /// All events go here, whatever their keys.
    fixed: Option<u32>,
    /// Events without a key go here.
    keyless: u32,
}

impl Placement {
    pub(crate) fn of(&self, key: Option<&[u8]>) -> u32 {
        match (self.fixed, key) {
            (Some(partition), _) => partition,
            (None, Some(key)) => partition_of_key(key, self.partitions),
            (None, None) => self.keyless,
        }
    }
}

/// How many events of one request went to a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Share {
    pub(crate) partition: u32,
    pub(crate) events: u32,
}

impl<'a> Door<'a> {
    /// `turn` decides where events without a key go.
    pub(crate) fn new(
        topic: &'a Topic,
        partition: Option<u32>,
        turn: u64,
        now_us: TimestampUs,
    ) -> Result<Self, Refusal> {
        let partitions = topic.config.partitions;
        if let Some(partition) = partition.filter(|&partition| partition >= partitions) {
            return Err(LogError::UnknownPartition { topic: topic.name.clone(), partition, partitions }.into());
        }
        let mut builders = Vec::new();
        builders.resize_with(partitions as usize, || None);
        let keyless = (turn % u64::from(partitions)) as u32;
        let placement = Placement { partitions, fixed: partition, keyless };
        Ok(Self { topic, placement, now_us, builders, events: 0, bytes: 0 })
    }

    pub(crate) fn placement(&self) -> Placement {
        self.placement
    }

    /// Bytes of events so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Takes the events of one request: all of them, or none and an error that names the first that is wrong.
    pub(crate) fn take(&mut self, wire: &[u8]) -> Result<Vec<Share>, Refusal> {
        if wire.len() as u64 > FRAME_BYTES_MAX {
            let (bytes, bytes_max) = (wire.len() as u64, FRAME_BYTES_MAX);
            return Err(LogError::TransactionTooLarge { bytes, bytes_max }.into());
        }
        let count = self.check(wire)?;
        // What was checked above is well-formed.
        let mut shares: Vec<Share> = Vec::new();
        for event in events::read(wire).flatten() {
            let partition = self.placement.of(event.key);
            let is_only = self.builders.len() == 1;
            let now_us = self.now_us;
            let builder = self.builders[partition as usize].get_or_insert_with(|| {
                let mut builder = BatchBuilder::new(now_us);
                if is_only {
                    builder.reserve(count, wire.len());
                }
                builder
            });
            push(builder, &event);
            match shares.iter_mut().find(|share| share.partition == partition) {
                Some(share) => share.events += 1,
                None => shares.push(Share { partition, events: 1 }),
            }
        }
        self.events += count;
        self.bytes += wire.len() as u64;
        Ok(shares)
    }

    fn check(&self, wire: &[u8]) -> Result<usize, Refusal> {
        let TopicConfig { event_bytes_max: bytes_max, values, .. } = self.topic.config;
        let mut count = 0;
        for event in events::read(wire) {
            let refuse = |error: EventError| {
                let message = format!("event {count} for topic `{}`: {error}", self.topic.name);
                Refusal::from(LogError::from(error)).message(message)
            };
            let event = event.map_err(|error| Refusal::invalid("MALFORMED", error.to_string()))?;
            if let Some(id) = event.id {
                check_id(id).map_err(refuse)?;
            }
            let mut bytes = [event.id, event.key, event.value].iter().flatten().map(|part| part.len()).sum::<usize>();
            if event.headers > 0 {
                let names: Vec<&[u8]> = event.headers().map(|(name, _)| name).collect();
                check_header_names(names.iter().copied()).map_err(refuse)?;
                bytes += event.headers().map(|(name, value)| name.len() + value.len()).sum::<usize>();
            }
            values.check(event.value).map_err(refuse)?;
            if bytes > bytes_max as usize {
                return Err(refuse(EventError::TooLarge { bytes, bytes_max }));
            }
            count += 1;
        }
        if count == 0 {
            return Err(LogError::Empty.into());
        }
        if self.events + count > BATCH_EVENTS_MAX {
            return Err(LogError::Batch(nodata_log::batch::BatchError::TooManyEvents { count }).into());
        }
        Ok(count)
    }

    /// The batches, one for each partition that got events.
    pub(crate) fn finish(self) -> Result<Vec<(Tp, Batch)>, Refusal> {
        let topic = self.topic.id;
        let builders = self.builders.into_iter().enumerate();
        builders
            .filter_map(|(partition, builder)| Some((Tp { topic, partition: partition as u32 }, builder?)))
            .map(|(tp, builder)| Ok((tp, builder.finish().map_err(LogError::from)?)))
            .collect()
    }
}

fn push(builder: &mut BatchBuilder, event: &WireEvent<'_>) {
    builder.push(event.id, event.key, event.value, event.timestamp_us);
    if event.headers > 0 {
        for (name, value) in event.headers() {
            // The names were checked to be UTF-8.
            builder.push_header(std::str::from_utf8(name).unwrap_or_default(), value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodata_log::{Event, Name, TopicId};
    use nodata_proto::events::Outgoing;
    use tonic::Status;

    fn topic(partitions: u32, event_bytes_max: u32) -> Topic {
        Topic {
            id: TopicId(1),
            name: Name::new("orders").unwrap(),
            config: TopicConfig { partitions, event_bytes_max, ..TopicConfig::default() },
            created_us: 0,
        }
    }

    /// The values that reach each partition.
    fn check(topic: &Topic, partition: Option<u32>, events: &[Event]) -> Result<Vec<String>, String> {
        let text = |refusal: Refusal| Status::from(refusal).message().to_owned();
        let mut door = Door::new(topic, partition, 0, 7).map_err(text)?;
        door.take(&wire(events)).map_err(text)?;
        let batches = door.finish().map_err(text)?;
        Ok(batches
            .iter()
            .map(|(tp, batch)| {
                let values = batch.events().map(|event| String::from_utf8_lossy(event.value.unwrap()).into_owned());
                format!("{}: {}", tp.partition, values.collect::<Vec<_>>().join(" "))
            })
            .collect())
    }

    fn wire(events: &[Event]) -> Vec<u8> {
        let mut out = Vec::new();
        for event in events {
            let outgoing = Outgoing {
                id: event.id.as_ref().map(String::as_bytes),
                key: event.key.as_deref(),
                value: event.value.as_deref(),
                timestamp_us: event.timestamp_us,
                headers: event.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_ref())),
            };
            outgoing.put(&mut out);
        }
        out
    }

    #[test]
    fn events_go_to_the_partition_of_their_key() {
        let keyed = |key: &str, value: &str| Event::new(value.to_owned()).with_key(key.to_owned());
        let events = [keyed("9E", "a"), keyed("AA", "b"), keyed("9E", "c"), Event::new("d"), keyed("flights", "e")];
        assert_eq!(check(&topic(4, 1000), None, &events).unwrap(), ["0: b d", "1: e", "3: a c"]);
        assert_eq!(check(&topic(1, 1000), None, &events).unwrap(), ["0: a b c d e"]);
        assert_eq!(check(&topic(4, 1000), Some(2), &events).unwrap(), ["2: a b c d e"]);
        assert_eq!(
            check(&topic(4, 1000), Some(4), &events).unwrap_err(),
            "topic `orders` has 4 partitions, there is no partition 4"
        );
    }

    #[test]
    fn a_wrong_event_is_named_and_nothing_is_taken() {
        let refused = |event: Event| check(&topic(1, 20), None, &[Event::new("fine"), event]).unwrap_err();
        assert_eq!(
            refused(Event::new("x".repeat(21))),
            "event 1 for topic `orders`: 21 bytes (id, key, value and headers), at most 20 are allowed"
        );
        let twice = Event { headers: vec![("h".into(), "1".into()), ("h".into(), "2".into())], ..Event::new("x") };
        assert_eq!(
            refused(twice),
            "event 1 for topic `orders`: header `h` is given twice; header names are unique in an event"
        );
        assert_eq!(
            refused(Event::new("x").with_id("")),
            "event 1 for topic `orders`: the id is empty; leave it out instead"
        );
        assert_eq!(check(&topic(1, 20), None, &[]).unwrap_err(), "an append without events");
        let topic = topic(1, 20);
        let mut door = Door::new(&topic, None, 0, 7).unwrap();
        door.take(&wire(&[Event::new("a")])).unwrap();
        door.take(&wire(&[Event::new("b"), Event::new("x".repeat(21))])).unwrap_err();
        assert!(door.take(b"\x0a\xff").is_err());
        assert_eq!(door.finish().unwrap()[0].1.len(), 1);
    }

    #[test]
    fn requests_share_batches_and_each_knows_its_part() {
        let topic = topic(2, 1000);
        let mut door = Door::new(&topic, None, 1, 7).unwrap();
        let a = Event::new("a").with_key("AA");
        assert_eq!(door.take(&wire(&[a.clone(), a])).unwrap(), [Share { partition: 0, events: 2 }]);
        assert_eq!(door.take(&wire(&[Event::new("b")])).unwrap(), [Share { partition: 1, events: 1 }]);
        assert_eq!(door.finish().unwrap().len(), 2);
    }
}
