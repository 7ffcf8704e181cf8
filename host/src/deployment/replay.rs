//! Dead letters are replayed: each once, through the tasks that they failed in, or into another topic.
//!
//! What a task replays, it remembers in its state, and what goes into a topic, as a position of the deployment in its letters. Both
//! commit with what the letter became. A letter that one of them has passed is replayed by neither again.

use crate::deployment::control::Deployments;
use crate::deployment::dead_letters::{self, Letter, push_original};
use crate::deployment::error::DeploymentError;
use crate::deployment::spec::{DeploymentSpec, Replay};
use crate::limits::INPUT_BYTES;
use nodata_log::limits::HEADERS_MAX;
use nodata_log::{
    BatchBuilder, Bounds, LogError, Name, Offset, ReadLimits, StoredBatch, TaskKey, Topic, Tp, partition_of_key,
};
use std::collections::BTreeMap;

/// The dead letters of a deployment.
#[derive(Clone, Debug)]
pub struct DeadLetters {
    pub deployment: String,
    pub topic: String,
    /// Letters that are kept.
    pub letters: u64,
    /// Those that were not replayed.
    pub waiting: u64,
}

impl Deployments {
    /// The dead letters of every deployment that has some.
    pub async fn dead_letters(&self) -> Result<Vec<DeadLetters>, DeploymentError> {
        let mut found = Vec::new();
        for spec in self.specs().await? {
            let Some(letters) = self.letters_of(&spec) else { continue };
            let Bounds { earliest, end } = self.parts.log.bounds(letters)?;
            found.push(DeadLetters {
                deployment: spec.name.clone(),
                topic: spec.dead_letters(),
                letters: end - earliest,
                waiting: self.waiting(&spec, letters, end).await?,
            });
        }
        Ok(found)
    }

    /// Has the tasks of a deployment process its dead letters again. Answers with how many there are to replay; they are replayed in
    /// the background, also after a restart.
    pub async fn replay(&self, name: &str) -> Result<u64, DeploymentError> {
        let _alone = self.replaying.lock().await;
        let (spec, _) = self.spec(name).await?;
        let Some(letters) = self.letters_of(&spec) else { return Ok(0) };
        let Bounds { end, .. } = self.parts.log.bounds(letters)?;
        let from = self.passed(&spec, letters);
        let waiting = self.waiting(&spec, letters, end).await?;
        self.change(name, |spec| spec.replay = Some(Replay { topic: letters.topic.0, from, until: end })).await?;
        Ok(waiting)
    }

    /// Appends the dead letters of a deployment to a topic, as the events they were. Answers with how many.
    pub async fn replay_into(&self, name: &str, topic: &str) -> Result<u64, DeploymentError> {
        let _alone = self.replaying.lock().await;
        let log = &self.parts.log;
        let (spec, _) = self.spec(name).await?;
        let target = log.topic(&Name::new(topic)?)?;
        let Some(letters) = self.letters_of(&spec) else { return Ok(0) };
        if target.id == letters.topic {
            return Err(DeploymentError::Loop { topic: topic.to_owned(), port: String::new() });
        }
        let Bounds { earliest, end } = log.bounds(letters)?;
        let passed = self.passed_by_tasks(&spec, letters)?;
        if let Some(replay) = spec.replay.filter(|replay| replay.topic == letters.topic.0) {
            let is_left = self.any_letter(letters, replay.from.max(earliest), replay.until, |letter| {
                passed.get(&letter.partition()).is_some_and(|passed| letter.at >= *passed)
            });
            if is_left.await? {
                return Err(DeploymentError::Replaying { name: name.to_owned() });
            }
        }
        let task = TaskKey { owner: spec.owner(), source: letters };
        let lease = log.begin_task(task)?.await?;
        let mut expect = lease.next;
        let mut next = expect.unwrap_or(0).max(earliest);
        let mut count = 0;
        while next < end {
            let chunk = log.read(letters, next, READ).await?;
            let is_new = |letter: &Letter<'_>| {
                (next..end).contains(&letter.at)
                    && passed.get(&letter.partition()).is_none_or(|passed| letter.at >= *passed)
            };
            let (appends, letters) = appends(&target, &chunk.batches, is_new)?;
            let to = chunk.next.min(end);
            log.commit(lease.transaction(expect, to, appends, Vec::new()))?.await?;
            count += letters;
            (next, expect) = (to, Some(to));
        }
        Ok(count)
    }

    fn letters_of(&self, spec: &DeploymentSpec) -> Option<Tp> {
        let topic = self.parts.log.topic(&Name::new(&spec.dead_letters()).ok()?).ok()?;
        Some(Tp { topic: topic.id, partition: 0 })
    }

    /// How far letters went into a topic.
    fn passed(&self, spec: &DeploymentSpec, letters: Tp) -> Offset {
        self.parts.log.task_position(TaskKey { owner: spec.owner(), source: letters }).next.unwrap_or(0)
    }

    /// How far the tasks have replayed their letters.
    fn passed_by_tasks(&self, spec: &DeploymentSpec, letters: Tp) -> Result<BTreeMap<u32, Offset>, LogError> {
        let Ok(input) = self.parts.log.topic_by_id(spec.input_id()) else { return Ok(BTreeMap::new()) };
        let of = |source: Tp| {
            let task = TaskKey { owner: spec.owner(), source };
            Ok((source.partition, dead_letters::replayed(&*self.parts.log, task, letters.topic)?))
        };
        input.partitions().map(of).collect()
    }

    async fn waiting(&self, spec: &DeploymentSpec, letters: Tp, end: Offset) -> Result<u64, DeploymentError> {
        let passed = self.passed_by_tasks(spec, letters)?;
        let earliest = self.parts.log.bounds(letters)?.earliest;
        let from = self.passed(spec, letters).max(earliest);
        // Without this, the letters of all time would be read at each look.
        let from = passed.values().min().map_or(from, |least| from.max(*least));
        let mut waiting = 0;
        self.each_letter(letters, from, end, |letter| {
            waiting += u64::from(passed.get(&letter.partition()).is_none_or(|passed| letter.at >= *passed));
        })
        .await?;
        Ok(waiting)
    }

    async fn any_letter(
        &self,
        letters: Tp,
        from: Offset,
        end: Offset,
        is_it: impl Fn(&Letter<'_>) -> bool,
    ) -> Result<bool, LogError> {
        let mut any = false;
        self.each_letter(letters, from, end, |letter| any |= is_it(letter)).await?;
        Ok(any)
    }

    async fn each_letter(
        &self,
        letters: Tp,
        from: Offset,
        end: Offset,
        mut visit: impl FnMut(&Letter<'_>),
    ) -> Result<(), LogError> {
        let mut next = from;
        while next < end {
            let chunk = self.parts.log.read(letters, next, READ).await?;
            let all = chunk.batches.iter().flat_map(Letter::all);
            all.filter(|letter| (next..end).contains(&letter.at)).for_each(|letter| visit(&letter));
            next = chunk.next;
        }
        Ok(())
    }
}

pub(crate) const READ: ReadLimits = ReadLimits { bytes_max: INPUT_BYTES, events_max: usize::MAX };

/// Letters as events for the partitions they belong to.
fn appends(
    target: &Topic,
    batches: &[StoredBatch],
    is_wanted: impl Fn(&Letter<'_>) -> bool,
) -> Result<(Vec<(Tp, nodata_log::Batch)>, u64), DeploymentError> {
    let partitions = target.config.partitions;
    let mut builders: BTreeMap<u32, BatchBuilder> = BTreeMap::new();
    let mut count = 0;
    for letter in batches.iter().flat_map(Letter::all).filter(is_wanted) {
        let refused = |what: String| DeploymentError::Letter { at: letter.at, topic: target.name.clone(), what };
        target.config.values.check(letter.event.value).map_err(|error| refused(error.to_string()))?;
        let partition = match letter.event.key {
            Some(key) => partition_of_key(key, partitions),
            None => letter.partition() % partitions,
        };
        let mut own = BatchBuilder::new(0);
        push_original(&mut own, &letter.event, HEADERS_MAX);
        let (bytes, bytes_max) = (own.payload_bytes(), target.config.event_bytes_max);
        if bytes > bytes_max as usize {
            return Err(refused(format!("it has {bytes} bytes, at most {bytes_max} are allowed")));
        }
        push_original(builders.entry(partition).or_insert_with(|| BatchBuilder::new(0)), &letter.event, HEADERS_MAX);
        count += 1;
    }
    let appends = builders.into_iter().map(|(partition, builder)| {
        Ok((Tp { topic: target.id, partition }, builder.finish().map_err(LogError::from)?))
    });
    Ok((appends.collect::<Result<_, LogError>>()?, count))
}
