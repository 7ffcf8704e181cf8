//! Events that a deployment could not process, kept with the reason in `<deployment>.dlq`.
//!
//! A dead letter is the event as it was, with headers that say what happened. It is committed with the outputs of the call
//! that rejected it. It can be replayed once: to the task that it failed in, or into another topic.

use crate::deployment::spec::DeploymentSpec;
use nodata_log::limits::HEADERS_MAX;
use nodata_log::{
    Batch, BatchBuilder, EventRef, Log, LogError, Name, Offset, Offsets, StateChange, StoredBatch, TaskKey, Topic,
    TopicConfig, TopicId, Tp,
};
use nodata_runtime::{Input, InputError, Rejected};

/// Headers of a dead letter begin so. Those that the event brought along make way: they are of an earlier death.
const PREFIX: &str = "nodata-";
const PARTITION: &str = "nodata-partition";
const OFFSET: &str = "nodata-offset";

/// The state table of a task in which it remembers which letters it has replayed: offsets by the id of their topic.
pub(crate) const REPLAYED: &str = "nodata.replayed";

/// The dead letters of one call, with what the component said last, for the topic that keeps them, which is made when it is first
/// needed.
pub(crate) async fn append(
    log: &dyn Log,
    spec: &DeploymentSpec,
    input: &Input,
    rejected: &[Rejected],
    last_lines: &[String],
) -> Result<(Tp, Batch), LogError> {
    let topic = topic(log, &Name::new(&spec.dead_letters())?).await?;
    // Somebody made the topic before, and said that it holds text only. Then nothing else may come in.
    for (row, (_, event)) in input.events().enumerate() {
        if rejected.iter().any(|letter| letter.row as usize == row) {
            topic.config.values.check(event.value)?;
        }
    }
    Ok((Tp { topic: topic.id, partition: 0 }, batch(spec, input, rejected, last_lines)?))
}

async fn topic(log: &dyn Log, name: &Name) -> Result<Topic, LogError> {
    if let Ok(topic) = log.topic(name) {
        return Ok(topic);
    }
    let config = TopicConfig::default();
    match log.create_topic(name.clone(), config) {
        Ok(created) => created.await,
        // Another task of the deployment was quicker, and its topic may still be on the way to the disk.
        Err(LogError::TopicExists { .. }) => {
            log.barrier()?.await?;
            log.topic(name)
        }
        Err(error) => Err(error),
    }
}

fn batch(
    spec: &DeploymentSpec,
    input: &Input,
    rejected: &[Rejected],
    last_lines: &[String],
) -> Result<Batch, LogError> {
    let component = format!("{}@{}", spec.component, spec.digest);
    let partition = input.partition().to_string();
    let attempt = input.attempt().to_string();
    let last_lines = last_lines.join("\n");
    let last_lines = (!last_lines.is_empty()).then_some(("nodata-last-lines", last_lines.as_str()));
    let mut builder = BatchBuilder::new(0);
    let mut next = rejected.iter().peekable();
    for (row, (offset, event)) in input.events().enumerate() {
        let Some(letter) = next.next_if(|letter| letter.row as usize == row) else { continue };
        let offset = offset.to_string();
        let about = [
            ("nodata-reason", letter.reason.as_str()),
            ("nodata-deployment", &spec.name),
            ("nodata-component", &component),
            ("nodata-topic", input.topic().as_str()),
            (PARTITION, &partition),
            (OFFSET, &offset),
            ("nodata-attempt", &attempt),
        ];
        push_original(&mut builder, &event, HEADERS_MAX - about.len() - 1);
        for (name, value) in about.into_iter().chain(last_lines) {
            builder.push_header(name, value.as_bytes());
        }
    }
    Ok(builder.finish()?)
}

/// An event without what was said about an earlier death.
pub(crate) fn push_original(builder: &mut BatchBuilder, event: &EventRef<'_>, headers_max: usize) {
    builder.push(event.id().map(str::as_bytes), event.key, event.value, Some(event.timestamp_us));
    for (name, value) in event.headers().filter(|(name, _)| !name.starts_with(PREFIX)).take(headers_max) {
        builder.push_header(name, value);
    }
}

/// A dead letter, with the place where it died.
pub(crate) struct Letter<'a> {
    /// Its place among the letters.
    pub(crate) at: Offset,
    pub(crate) event: EventRef<'a>,
    partition: Option<u32>,
    offset: Option<Offset>,
}

impl<'a> Letter<'a> {
    /// The letters of a batch.
    pub(crate) fn all(stored: &'a StoredBatch) -> impl Iterator<Item = Self> {
        stored.batch.events().enumerate().map(|(row, event)| {
            let number = |wanted: &str| {
                let (_, value) = event.headers().find(|(name, _)| *name == wanted)?;
                std::str::from_utf8(value).ok()?.parse::<u64>().ok()
            };
            let (partition, offset) = (number(PARTITION), number(OFFSET));
            let partition = partition.and_then(|partition| u32::try_from(partition).ok());
            Self { at: stored.offsets.at(row), event, partition, offset }
        })
    }

    /// The partition of the task that it failed in. Whoever published it here by hand may not have said one.
    pub(crate) fn partition(&self) -> u32 {
        self.partition.unwrap_or(0)
    }

    /// The event as it was given to the component the first time.
    pub(crate) fn input(&self, topic: &Name) -> Result<Input, InputError> {
        let mut builder = BatchBuilder::new(0);
        push_original(&mut builder, &self.event, HEADERS_MAX);
        let Ok(batch) = builder.finish() else { return Err(InputError::Empty) };
        let stored = StoredBatch { offsets: Offsets::From(self.offset.unwrap_or(self.at)), append_us: 0, batch };
        Input::new(topic.clone(), self.partition(), [(stored, 0..1)])
    }
}

/// The next letter that a task has to replay.
pub(crate) fn replayed(log: &dyn Log, task: TaskKey, letters: TopicId) -> Result<Offset, LogError> {
    let key = bytes::Bytes::copy_from_slice(&letters.0.to_be_bytes());
    let found = log.state_get(task, &Name::new(REPLAYED)?, &[key])?;
    let found = found.into_iter().next().flatten();
    let next = found.and_then(|value| Some(u64::from_be_bytes(value.as_ref().try_into().ok()?)));
    Ok(next.unwrap_or(0))
}

/// That a task has replayed all letters before this one.
pub(crate) fn replayed_to(letters: TopicId, next: Offset) -> Result<StateChange, LogError> {
    let entry = (
        bytes::Bytes::copy_from_slice(&letters.0.to_be_bytes()),
        Some(bytes::Bytes::copy_from_slice(&next.to_be_bytes())),
    );
    Ok(StateChange { table: Name::new(REPLAYED)?, entries: vec![entry] })
}
