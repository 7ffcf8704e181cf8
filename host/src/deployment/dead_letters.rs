//! Rejected events, kept with the reason in `<deployment>.dlq`.
//!
//! A dead letter is the event as it was, with headers that say what happened. It is committed with the outputs of the call
//! that rejected it.

use crate::deployment::spec::DeploymentSpec;
use nodata_log::limits::HEADERS_MAX;
use nodata_log::{Batch, BatchBuilder, Log, LogError, Name, Topic, TopicConfig, Tp};
use nodata_runtime::{Input, Rejected};

/// Headers of a dead letter begin so. Those that the event brought along make way: they are of an earlier death.
const PREFIX: &str = "nodata-";

/// The dead letters of one call, for the topic that keeps them, which is made when it is first needed.
pub(crate) async fn append(
    log: &dyn Log,
    spec: &DeploymentSpec,
    input: &Input,
    rejected: &[Rejected],
) -> Result<(Tp, Batch), LogError> {
    let topic = topic(log, &Name::new(&spec.dead_letters())?).await?;
    // Somebody made the topic before, and said that it holds text only. Then nothing else may come in.
    for (row, (_, event)) in input.events().enumerate() {
        if rejected.iter().any(|letter| letter.row as usize == row) {
            topic.config.values.check(event.value)?;
        }
    }
    Ok((Tp { topic: topic.id, partition: 0 }, batch(spec, input, rejected)?))
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

fn batch(spec: &DeploymentSpec, input: &Input, rejected: &[Rejected]) -> Result<Batch, LogError> {
    let component = format!("{}@{}", spec.component, spec.digest);
    let partition = input.partition().to_string();
    let attempt = input.attempt().to_string();
    let mut builder = BatchBuilder::new(0);
    let mut next = rejected.iter().peekable();
    for (row, (offset, event)) in input.events().enumerate() {
        let Some(letter) = next.next_if(|letter| letter.row as usize == row) else { continue };
        builder.push(event.id().map(str::as_bytes), event.key, event.value, Some(event.timestamp_us));
        let offset = offset.to_string();
        let about = [
            ("nodata-reason", letter.reason.as_str()),
            ("nodata-deployment", &spec.name),
            ("nodata-component", &component),
            ("nodata-topic", input.topic().as_str()),
            ("nodata-partition", &partition),
            ("nodata-offset", &offset),
            ("nodata-attempt", &attempt),
        ];
        let own = event.headers().filter(|(name, _)| !name.starts_with(PREFIX));
        for (name, value) in own.take(HEADERS_MAX - about.len()) {
            builder.push_header(name, value);
        }
        for (name, value) in about {
            builder.push_header(name, value.as_bytes());
        }
    }
    Ok(builder.finish()?)
}
