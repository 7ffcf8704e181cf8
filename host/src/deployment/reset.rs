//! An operator has tasks go on elsewhere.
//!
//! Whoever works for a task may have commits on their way, so where a task is, only that one knows who has taken it over. A reset
//! therefore takes over all of its tasks, decides with what it learns from that, and moves them in one transaction. That is refused
//! if one of them was begun again meanwhile, and then all of it is done anew. Whatever a task did before is in the log or refused.

use crate::deployment::control::{Deployments, StartAt};
use crate::deployment::dead_letters;
use crate::deployment::error::DeploymentError;
use crate::deployment::source;
use crate::deployment::spec::{DeploymentRole, DeploymentSpec, failure_key, failure_prefix};
use crate::deployment::view::DeploymentView;
use nodata_log::{Bounds, Expect, Forget, LogError, Name, Offset, TaskKey, Tp};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Which tasks are to go on elsewhere, and where.
#[derive(Clone, Debug)]
pub struct ResetRequest {
    pub name: String,
    pub to: StartAt,
    /// Empty: all of them.
    pub partitions: BTreeSet<u32>,
    /// `None`: an aggregate forgets the state of partitions that go back, or it would count their events twice. All else is kept.
    pub state: Option<KeepOrForget>,
    /// Only say what would be.
    pub dry_run: bool,
}

/// What becomes of the state of a task that is reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeepOrForget {
    Keep,
    Forget,
}

/// A task that goes on elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    pub partition: u32,
    pub from: Offset,
    pub to: Offset,
    /// Events that are processed again, and events that are not processed at all. With offsets that are not there, it is fewer.
    pub again: u64,
    pub passed_over: u64,
    pub state: KeepOrForget,
}

impl Deployments {
    /// Has tasks go on elsewhere, all of them or none. Nothing of a call that began before is committed any more.
    pub async fn reset(&self, request: &ResetRequest) -> Result<(DeploymentView, Vec<Moved>), DeploymentError> {
        let _alone = self.resetting.lock().await;
        loop {
            let (spec, _) = self.spec(&request.name).await?;
            if spec.deleting {
                return Err(DeploymentError::Deleting { name: request.name.clone() });
            }
            if spec.rebuild.is_some() || spec.follows.is_some() {
                let (name, revision) = (spec.name, spec.newest_revision);
                return Err(DeploymentError::Updating { name, revision });
            }
            // What was given to those who put parts together cannot be taken back.
            if spec.parts.is_some() {
                return Err(DeploymentError::ResetParts { name: spec.name });
            }
            let sources = self.sources_of(&spec, &request.partitions)?;
            let moved = match self.try_reset(&spec, &sources, request).await {
                // A task began again just now; it waits a second before it does so once more.
                Err(DeploymentError::Log(LogError::Fenced { .. })) => continue,
                Err(error) => {
                    // Some may have been taken over. Those that had failed try again, as nobody else would have them do.
                    self.look.notify_one();
                    return Err(error);
                }
                Ok(moved) => moved,
            };
            if !request.dry_run {
                self.begin_again(&spec, &sources).await?;
            }
            return Ok((self.view(Arc::new(spec)).await?, moved));
        }
    }

    /// The partitions that are asked for.
    fn sources_of(&self, spec: &DeploymentSpec, partitions: &BTreeSet<u32>) -> Result<Vec<Tp>, DeploymentError> {
        let topic = self.parts.log.topic_by_id(spec.input_id())?;
        let mut sources: Vec<Tp> = spec.sources(&topic).collect();
        let count = sources.len();
        if let Some(&partition) = partitions.iter().find(|&&partition| partition as usize >= count) {
            return Err(DeploymentError::NoTask { name: spec.name.clone(), partition, count });
        }
        sources.retain(|tp| partitions.is_empty() || partitions.contains(&tp.partition));
        Ok(sources)
    }

    async fn try_reset(
        &self,
        spec: &DeploymentSpec,
        sources: &[Tp],
        request: &ResetRequest,
    ) -> Result<Vec<Moved>, DeploymentError> {
        let log = &self.parts.log;
        let key = |tp: &Tp| TaskKey { owner: spec.owner(), source: *tp };
        let mut moved = Vec::new();
        // What is wrong with the request is said before anyone is disturbed.
        let mut targets = Vec::new();
        for tp in sources {
            targets.push(self.target(spec, *tp, request.to).await?);
        }
        if request.dry_run {
            for (tp, to) in sources.iter().zip(targets) {
                moved.push(self.moved(spec, request, *tp, log.task_position(key(tp)).next, to)?);
            }
            return Ok(moved);
        }
        let taken: Vec<_> = sources.iter().map(|tp| log.begin_task(key(tp))).collect::<Result<_, _>>()?;
        let mut resets = Vec::new();
        for ((tp, taken), mut to) in sources.iter().zip(taken).zip(targets) {
            let lease = taken.await?;
            if request.to == StartAt::Latest {
                // It may have come further than to where the end was before.
                to = self.target(spec, *tp, request.to).await?;
            }
            let task = self.moved(spec, request, *tp, lease.next, to)?;
            let next = (spec.role != DeploymentRole::Source).then_some(to);
            resets.push(lease.reset(next, forgotten(spec.role, task.state)?));
            moved.push(task);
        }
        log.reset_tasks(resets)?.await?;
        Ok(moved)
    }

    async fn target(&self, spec: &DeploymentSpec, tp: Tp, to: StartAt) -> Result<Offset, DeploymentError> {
        match (spec.role, to) {
            (DeploymentRole::Source, StartAt::Earliest) => Ok(0),
            (DeploymentRole::Source, _) => Err(DeploymentError::SourcePosition { name: spec.name.clone() }),
            _ => self.offset_of(&Name::new(&spec.input)?, tp, to).await,
        }
    }

    fn moved(
        &self,
        spec: &DeploymentSpec,
        request: &ResetRequest,
        tp: Tp,
        committed: Option<Offset>,
        to: Offset,
    ) -> Result<Moved, LogError> {
        let from = committed.unwrap_or_else(|| spec.start_of(tp.partition));
        let Bounds { earliest, .. } = self.parts.log.bounds(tp)?;
        let by_default = match spec.role {
            DeploymentRole::Aggregate if to < from => KeepOrForget::Forget,
            _ => KeepOrForget::Keep,
        };
        let (again, passed_over) = match spec.role {
            // What it has brought in is known to nobody but itself.
            DeploymentRole::Source => (0, 0),
            _ => (from.saturating_sub(to), to.saturating_sub(from.max(earliest))),
        };
        let state = request.state.unwrap_or(by_default);
        Ok(Moved { partition: tp.partition, from, to, again, passed_over, state })
    }

    /// Has tasks that were reset begin again, whatever they did.
    async fn begin_again(&self, spec: &DeploymentSpec, sources: &[Tp]) -> Result<(), DeploymentError> {
        let still_there = matches!(self.entry(&spec.name).await?, Some((now, _)) if now.owner == spec.owner);
        if !still_there {
            // It was deleted while its tasks were taken over, and nobody else would forget that they were.
            self.parts.log.forget_owner(spec.owner())?.await?;
            return Err(DeploymentError::Unknown { name: spec.name.clone() });
        }
        // A failure of before means nothing any more; whoever finds it after a crash knows that by its epoch.
        for (key, _) in self.parts.meta.meta_list(&failure_prefix(&spec.name)).await? {
            if sources.iter().any(|tp| failure_key(&spec.name, tp.partition) == key) {
                self.parts.meta.meta_put(&key, Expect::Any, None)?.await?;
            }
        }
        let live = self.live();
        let known = live.get(&spec.name).filter(|live| live.owner == spec.owner);
        for task in sources.iter().filter_map(|tp| known?.tasks.get(&tp.partition)) {
            task.stop.cancel();
        }
        Ok(())
    }
}

/// Which tables are emptied. Which dead letters were replayed is remembered whatever happens: each is replayed once.
fn forgotten(role: DeploymentRole, state: KeepOrForget) -> Result<Forget, LogError> {
    Ok(match (state, role) {
        (KeepOrForget::Forget, _) => Forget::AllBut(vec![Name::new(dead_letters::REPLAYED)?]),
        // The position of a source is state too.
        (KeepOrForget::Keep, DeploymentRole::Source) => Forget::These(vec![Name::new(source::TABLE)?]),
        (KeepOrForget::Keep, _) => Forget::These(Vec::new()),
    })
}
