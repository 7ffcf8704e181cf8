//! State that a revision cannot go on from is made anew by it, from the events that are still there, while the revision before works.
//!
//! The tasks that do so have positions and state of their own and commit nothing else. They never go further than the tasks that work
//! have come. When they are close behind, those end, and these go on to exactly where those ended, and from there on they are the ones
//! that work: what was emitted before that place is of the one, what comes behind it of the other.

use crate::deployment::control::{Deployments, StartAt};
use crate::deployment::error::DeploymentError;
use crate::deployment::live::LiveTask;
use crate::deployment::revision::{Changed, Revision};
use crate::deployment::spec::DeploymentSpec;
use crate::deployment::status::TaskState;
use crate::deployment::view::DeploymentView;
use crate::limits::{PROBATION_LOOK, REBUILD_BEHIND};
use nodata_log::{LogError, Offset, OwnerId, TaskKey, TimestampUs, Topic, Tp};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;

/// A revision that makes its state anew.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rebuild {
    pub revision: Revision,
    /// Names the positions and the state that are made.
    pub owner: u64,
    /// Where each partition begins.
    pub start: Vec<Offset>,
    pub since_us: TimestampUs,
}

/// Whose work a deployment goes on with, when it has come to where that ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Followed {
    pub owner: u64,
    pub start: Vec<Offset>,
    /// When its state began to be made anew.
    pub since_us: TimestampUs,
    /// What it was, to be gone back to as long as its state is there.
    #[serde(default)]
    pub revision: u32,
    #[serde(default)]
    pub state_since: u32,
}

/// What a task is told that others work for, or did until a moment ago.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Follow {
    pub(crate) task: TaskKey,
    /// Where that one is as long as it has committed nothing.
    pub(crate) start: Offset,
    /// It does not work any more: when this one is there, it does.
    pub(crate) has_ended: bool,
}

impl DeploymentSpec {
    /// What the tasks are to know that make state anew.
    pub(crate) fn as_rebuild(&self) -> Option<Self> {
        let rebuild = self.rebuild.clone()?;
        let (owner, revision) = (rebuild.owner, rebuild.revision.clone());
        Some(Self { owner, rebuild: Some(rebuild), ..self.as_run().with(revision) })
    }

    /// Everybody whose tasks may run for it.
    pub(crate) fn owners(&self) -> impl Iterator<Item = u64> + '_ {
        let rebuild = self.rebuild.as_ref().map(|rebuild| rebuild.owner);
        let followed = self.follows.as_ref().map(|followed| followed.owner);
        std::iter::once(self.owner).chain(rebuild).chain(followed).chain(self.forgotten.iter().copied())
    }

    /// Whom a task of this owner follows.
    pub(crate) fn followed_by(&self, owner: u64, source: Tp) -> Option<Follow> {
        let number = self.number(source) as usize;
        let follow = |owner: u64, start: &[Offset], has_ended| Follow {
            task: TaskKey { owner: OwnerId(owner), source },
            start: start.get(number).copied().unwrap_or(0),
            has_ended,
        };
        if self.rebuild.as_ref().is_some_and(|rebuild| rebuild.owner == owner) {
            return Some(follow(self.owner, &self.start, false));
        }
        self.follows.as_ref().map(|followed| follow(followed.owner, &followed.start, true))
    }
}

impl Deployments {
    /// Has a revision make its state anew, and take over when it has.
    pub(crate) async fn begin_rebuild(
        &self,
        spec: DeploymentSpec,
        version: u64,
        revision: Revision,
        from: StartAt,
        why: &str,
    ) -> Result<DeploymentView, DeploymentError> {
        let refused = |what| Err(DeploymentError::NoRebuild { name: spec.name.clone(), what });
        if spec.parts.is_some() {
            return refused("it puts groups together from several partitions");
        }
        if spec.aggregation.is_some_and(|how| how.idle_us.is_some()) {
            return refused("windows were closed by the clock, which cannot be repeated");
        }
        let mut tried = spec.clone().with(revision);
        self.try_fresh(&spec, &mut tried).await?;
        let topic = self.parts.log.topic_by_id(spec.input_id())?;
        let mut start = Vec::new();
        for tp in topic.partitions() {
            let wanted = self.offset_of(&topic.name, tp, from).await?;
            // What those that work come to next is not for the ones that follow to leave out.
            start.push(wanted.min(self.position_of(spec.owner, &spec.start, tp)));
        }
        let since_us = self.parts.clock.now_us();
        let mut new = spec;
        new.newest_revision = tried.revision;
        let revision = tried.as_revision();
        let what = revision.said(why);
        new.rebuild = Some(Rebuild { revision, owner: (self.parts.chance)(), start, since_us });
        new.has_changed(since_us, Changed::Rebuilding, &what);
        self.put_changed(&new, version).await?;
        self.view(Arc::new(new)).await
    }

    /// How many tasks make state anew.
    fn rebuilding(&self, spec: &DeploymentSpec) -> usize {
        let live = self.live();
        let is_at_it = |task: &&LiveTask| {
            let report = task.status.report();
            task.is_running && report.state == TaskState::Running && report.has_caught_up
        };
        live.get(&spec.name).map_or(0, |live| live.rebuilding.values().filter(is_at_it).count())
    }

    /// In words, how many events are not in the state that was made anew.
    fn left_out(&self, spec: &DeploymentSpec) -> String {
        let live = self.live();
        let reports = live.get(&spec.name).into_iter().flat_map(|live| live.rebuilding.values());
        let left_out =
            reports.map(|task| task.status.report()).map(|report| report.events_rejected + report.events_skipped);
        match left_out.sum() {
            0 => String::new(),
            1 => "an event that could not be processed, or was rejected, is left out".to_owned(),
            count => format!("{count} events that could not be processed, or were rejected, are left out"),
        }
    }

    /// Goes back to the revision that was before the one that made its state anew, as long as the state of that one is there. Where
    /// the one that is gone back from has come further, it is followed to there without emitting.
    pub(crate) async fn go_back(
        &self,
        spec: DeploymentSpec,
        version: u64,
        followed: Followed,
        before: Revision,
        why: &str,
    ) -> Result<DeploymentView, DeploymentError> {
        let now_us = self.parts.clock.now_us();
        let (owner, start, revision, state_since) = (spec.owner, spec.start.clone(), spec.revision, spec.state_since);
        let mut new = spec.with(before);
        (new.owner, new.start, new.state_since) = (followed.owner, followed.start, followed.state_since);
        new.follows = Some(Followed { owner, start, since_us: followed.since_us, revision, state_since });
        new.has_changed(now_us, Changed::RolledBack, why);
        self.put_changed(&new, version).await?;
        self.forget_failures(&new.name).await?;
        self.view(Arc::new(new)).await
    }

    /// Where the task of an owner is.
    fn position_of(&self, owner: u64, start: &[Offset], source: Tp) -> Offset {
        let committed = self.parts.log.task_position(TaskKey { owner: OwnerId(owner), source }).next;
        committed.unwrap_or_else(|| start.get(source.partition as usize).copied().unwrap_or(0))
    }

    /// Events that are left until the revision that makes its state anew is where the one is that works.
    pub(crate) fn left_to_rebuild(&self, spec: &DeploymentSpec, topic: &Topic) -> u64 {
        let (before, after) = match (&spec.rebuild, &spec.follows) {
            (Some(rebuild), _) => ((spec.owner, &spec.start), (rebuild.owner, &rebuild.start)),
            (None, Some(followed)) => ((followed.owner, &followed.start), (spec.owner, &spec.start)),
            (None, None) => return 0,
        };
        let left = |source: Tp| {
            let until = self.position_of(before.0, before.1, source);
            until.saturating_sub(self.position_of(after.0, after.1, source))
        };
        spec.sources(topic).map(left).sum()
    }

    /// Looks at a rebuild: it takes over when it is close behind, and what was before is forgotten when nobody follows it any more.
    pub(crate) async fn look_after_rebuild(
        &self,
        spec: &DeploymentSpec,
        topic: &Topic,
        is_running: impl Fn(u64) -> bool,
    ) -> Result<Option<Duration>, LogError> {
        if let Some(rebuild) = &spec.rebuild {
            let all_run = spec.sources(topic).count() == self.rebuilding(spec);
            if !all_run || self.left_to_rebuild(spec, topic) > REBUILD_BEHIND {
                return Ok(Some(PROBATION_LOOK));
            }
            let now_us = self.parts.clock.now_us();
            let before = spec.as_revision();
            self.keep_revision(&spec.name, &before).await?;
            let left_out = self.left_out(spec);
            let change = |spec: &mut DeploymentSpec| {
                if spec.rebuild.as_ref() != Some(rebuild) || spec.paused {
                    return;
                }
                spec.end_shadow(now_us);
                let followed = Followed {
                    owner: spec.owner,
                    start: std::mem::take(&mut spec.start),
                    since_us: rebuild.since_us,
                    revision: spec.revision,
                    state_since: spec.state_since,
                };
                *spec = spec.clone().with(rebuild.revision.clone());
                (spec.owner, spec.start) = (rebuild.owner, rebuild.start.clone());
                (spec.rebuild, spec.follows, spec.state_since) = (None, Some(followed), spec.revision);
                spec.has_changed(now_us, Changed::Rebuilt, &left_out);
            };
            self.change_if_there(&spec.name, change).await?;
        }
        if let Some(followed) = &spec.follows {
            let is_there = |source: Tp| {
                self.position_of(spec.owner, &spec.start, source)
                    >= self.position_of(followed.owner, &followed.start, source)
            };
            if is_running(followed.owner) || !spec.sources(topic).all(is_there) {
                return Ok(Some(PROBATION_LOOK));
            }
            let change = |spec: &mut DeploymentSpec| {
                if let Some(followed) = spec.follows.take() {
                    spec.forgotten.push(followed.owner);
                }
            };
            self.change_if_there(&spec.name, change).await?;
        }
        Ok(None)
    }

    /// What a rebuild has made is not wanted.
    pub(crate) async fn drop_rebuild(&self, name: &str, owner: u64, what: Changed, why: &str) -> Result<(), LogError> {
        let now_us = self.parts.clock.now_us();
        let change = |spec: &mut DeploymentSpec| {
            if let Some(rebuild) = spec.rebuild.take_if(|rebuild| rebuild.owner == owner) {
                spec.forgotten.push(rebuild.owner);
                spec.has_changed(now_us, what, &format!("revision {}: {why}", rebuild.revision.number));
            }
        };
        self.change_if_there(name, change).await
    }

    /// Positions and state of those who work for nobody any more are gone.
    pub(crate) async fn has_forgotten(&self, name: &str, owner: u64) -> Result<(), LogError> {
        self.parts.log.forget_owner(OwnerId(owner))?.await?;
        let change = |spec: &mut DeploymentSpec| spec.forgotten.retain(|other| *other != owner);
        self.change_if_there(name, change).await
    }
}
