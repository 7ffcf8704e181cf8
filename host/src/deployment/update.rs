//! Another revision takes over: a newer one, or an earlier one again.
//!
//! What is refused here leaves everything as it is. What is not becomes the entry of the deployment, and the supervisor has each task
//! go on with the new revision from its last commit.

use crate::deployment::altered::{Altered, altered_grants};
use crate::deployment::budget::Budget;
use crate::deployment::control::{Deployments, DeploymentsParts, StartAt, check_role, groups_in_several, tick_of};
use crate::deployment::error::DeploymentError;
use crate::deployment::memory::Memory;
use crate::deployment::outputs::Outputs;
use crate::deployment::revision::{Changed, Revision, Rollout, Shadow};
use crate::deployment::rollout::{Aside, Place};
use crate::deployment::spec::{DeploymentRole, DeploymentSpec, ErrorPolicy};
use crate::deployment::status::TaskState;
use crate::deployment::view::DeploymentView;
use crate::deployment::windows::Window;
use crate::deployment::wiring::check_ports;
use crate::limits::{GROUPS_TRIED, PROBATION, PROBATION_MAX};
use crate::registry::{ComponentEntry, ComponentRef, Hold};
use crate::secrets::GrantedSecrets;
use bytes::Bytes;
use nodata_log::{Expect, LogError, TaskKey};
use nodata_runtime::{CallError, Extra, Program};
use std::sync::Arc;

/// What should be another than it is.
#[derive(Clone, Debug, Default)]
pub struct UpdateRequest {
    pub name: String,
    /// Another version, or another component; `None`: that of before.
    pub component: Option<ComponentRef>,
    pub config: Altered,
    pub secrets: Altered,
    pub allow_http: Vec<String>,
    pub deny_http: Vec<String>,
    /// What is not in it is as before.
    pub budget: Budget,
    pub on_error: Option<ErrorPolicy>,
    pub tick_us: Option<u64>,
    /// It does not take over: it is given the same input, commits nothing, and is compared.
    pub shadow: bool,
    /// It takes over when it has made its state anew from there.
    pub rebuild: Option<StartAt>,
    /// It takes over on the first so many partitions, and on the others when it has proved itself there.
    pub canary: Option<u32>,
    /// How long it has to go well; 0: no probation.
    pub probation_us: Option<u64>,
    /// Although the revision of before could not go on from what this one remembers.
    pub no_way_back: bool,
    /// What an operator says about it.
    pub why: String,
}

impl Deployments {
    /// Has another revision take over. It was tried when this succeeds.
    pub async fn update(&self, request: UpdateRequest) -> Result<DeploymentView, DeploymentError> {
        let UpdateRequest { name, canary, probation_us, no_way_back, .. } = &request;
        let (spec, version) = self.spec(name).await?;
        if spec.deleting {
            return Err(DeploymentError::Deleting { name: spec.name });
        }
        if spec.rollout.is_some() || spec.rebuild.is_some() || spec.follows.is_some() {
            return Err(DeploymentError::Updating { name: spec.name, revision: spec.newest_revision });
        }
        let probation_us = probation_us.unwrap_or(PROBATION.as_micros() as u64);
        if u128::from(probation_us) > PROBATION_MAX.as_micros() {
            return Err(DeploymentError::Probation { us: probation_us });
        }
        let canary = canary.map(|partitions| self.check_canary(&spec, partitions)).transpose()?;
        let (is_shadow, rebuild, why) = (request.shadow, request.rebuild, request.why.clone());
        let no_way_back = *no_way_back || probation_us == 0 || is_shadow;
        let role = spec.role.of_component().world();
        if is_shadow && !spec.role.is_seen() {
            return Err(DeploymentError::ShadowRole { role });
        }
        if rebuild.is_some() && !spec.role.is_seen() {
            return Err(DeploymentError::RebuildRole { role });
        }
        let (revision, _needed) = self.revised(&spec, request).await?;
        // The same revision may make its state anew, too.
        if revision.is_as(&spec.as_revision()) && rebuild.is_none() {
            return Err(DeploymentError::NothingNew { name: spec.name });
        }
        let now_us = self.parts.clock.now_us();
        if let Some(from) = rebuild {
            return self.begin_rebuild(spec, version, revision, from, &why).await;
        }
        if is_shadow {
            return self.begin_shadow(spec, version, revision, &why).await;
        }
        let rollout = (probation_us > 0 || canary.is_some()).then_some(Rollout {
            from: spec.as_revision(),
            canary,
            probation_us,
            began_us: now_us,
            was_well: self.is_well(&spec).await?,
        });
        let mut old = spec.clone();
        old.end_shadow(now_us);
        let mut new = old.with(revision);
        let program = self.try_revision(&spec, &mut new, no_way_back).await?;
        new.newest_revision = new.revision;
        new.rollout = rollout;
        new.has_changed(now_us, Changed::Updated, &why);
        self.change_revision(&spec, new, version, program).await
    }

    /// Goes back: to the revision that an update takes over from, to the last other one, or to the one of this number.
    pub async fn roll_back(
        &self,
        name: &str,
        to: Option<u32>,
        no_way_back: bool,
        why: &str,
    ) -> Result<DeploymentView, DeploymentError> {
        let (spec, version) = self.spec(name).await?;
        if spec.deleting {
            return Err(DeploymentError::Deleting { name: spec.name });
        }
        if let Some(rebuild) = spec.rebuild.as_ref().filter(|_| to.is_none_or(|to| to == spec.revision)) {
            self.drop_rebuild(name, rebuild.owner, Changed::RebuildEnded, why).await?;
            return self.describe(name).await;
        }
        if spec.rebuild.is_some() {
            return Err(DeploymentError::Updating { name: spec.name, revision: spec.newest_revision });
        }
        if let Some(followed) = spec.follows.clone() {
            // What is being followed to its end is the only one whose state is there.
            let before = self.revisions(name).await?.remove(&followed.revision);
            let Some(before) = before.filter(|before| to.is_none_or(|to| to == before.number)) else {
                return Err(DeploymentError::Updating { name: spec.name, revision: spec.newest_revision });
            };
            return self.go_back(spec, version, followed, before, why).await;
        }
        let from = spec.rollout.as_ref().map(|rollout| rollout.from.clone());
        // Where some tasks never left it, and the others were tried with the way back.
        let is_open = from.as_ref().is_some_and(|from| to.is_none_or(|to| to == from.number));
        let earlier = match from.filter(|_| is_open) {
            Some(from) => from,
            None => self.earlier_revision(&spec, to).await?,
        };
        let now_us = self.parts.clock.now_us();
        let mut old = spec.clone();
        old.end_shadow(now_us);
        let mut new = old.with(earlier);
        new.rollout = None;
        let program = match is_open {
            true => self.load(&new).await?,
            false => self.try_revision(&spec, &mut new, no_way_back).await?,
        };
        new.has_changed(now_us, Changed::RolledBack, why);
        self.change_revision(&spec, new, version, program).await
    }

    /// Has another revision tried beside the one that works.
    async fn begin_shadow(
        &self,
        spec: DeploymentSpec,
        version: u64,
        revision: Revision,
        why: &str,
    ) -> Result<DeploymentView, DeploymentError> {
        let mut tried = spec.clone().with(revision);
        self.try_revision(&spec, &mut tried, true).await?;
        let since_us = self.parts.clock.now_us();
        let mut new = spec;
        new.end_shadow(since_us);
        new.newest_revision = tried.revision;
        let revision = tried.as_revision();
        let what = revision.said(why);
        new.shadow = Some(Shadow { revision, since_us });
        new.has_changed(since_us, Changed::Shadowed, &what);
        self.put_changed(&new, version).await?;
        self.view(Arc::new(new)).await
    }

    /// Ends a shadow. What it was is told once more.
    pub async fn end_shadow(&self, name: &str) -> Result<DeploymentView, DeploymentError> {
        let now_us = self.parts.clock.now_us();
        let view = self.describe(name).await?;
        if view.spec.shadow.is_none() {
            return Err(DeploymentError::NoShadow { name: name.to_owned() });
        }
        self.change(name, |spec: &mut DeploymentSpec| spec.end_shadow(now_us)).await?;
        Ok(view)
    }

    /// Writes down a deployment that nobody else has changed.
    pub(crate) async fn put_changed(&self, new: &DeploymentSpec, version: u64) -> Result<(), DeploymentError> {
        match self.parts.meta.meta_put(&new.key(), Expect::Version(version), Some(new.to_bytes()?)) {
            Ok(put) => Ok(put.await.map(drop)?),
            Err(LogError::MetaConflict { .. }) => Err(DeploymentError::Changing { name: new.name.clone() }),
            Err(error) => Err(error.into()),
        }
    }

    fn check_canary(&self, spec: &DeploymentSpec, partitions: u32) -> Result<u32, DeploymentError> {
        let count = match spec.role {
            DeploymentRole::Source => 1,
            _ => self.parts.log.topic_by_id(spec.input_id())?.config.partitions,
        };
        if !(1..count).contains(&partitions) {
            return Err(DeploymentError::Canary { name: spec.name.clone(), partitions, count });
        }
        Ok(partitions)
    }

    /// Whether nothing is wrong with any task.
    async fn is_well(&self, spec: &DeploymentSpec) -> Result<bool, DeploymentError> {
        let view = self.view(Arc::new(spec.clone())).await?;
        let is_well = |state: TaskState| !matches!(state, TaskState::Retrying | TaskState::Failed);
        Ok(view.tasks.iter().all(|task| is_well(task.report.state)))
    }

    /// What the request makes of what runs now. The version that it needs stays as long as the second is held.
    async fn revised(
        &self,
        spec: &DeploymentSpec,
        request: UpdateRequest,
    ) -> Result<(Revision, Option<Hold>), DeploymentError> {
        let mut new = spec.as_revision();
        let mut needed = None;
        if let Some(component) = &request.component {
            let (entry, hold) = self.parts.registry.hold(component).await?;
            needed = Some(hold);
            let ComponentEntry { name: component, digest, roles, .. } = entry;
            check_role(spec.role, &component, roles)?;
            (new.component, new.digest) = (component, digest);
        }
        new.number = spec.newest_revision.max(spec.revision) + 1;
        new.config = request.config.of(new.config, &spec.name, "configuration")?;
        new.secrets = request.secrets.of(new.secrets, &spec.name, "secret")?;
        new.allow_http = altered_grants(new.allow_http, &request.allow_http, &request.deny_http, &spec.name)?;
        new.budget = request.budget.or(new.budget).check()?;
        new.on_error = request.on_error.unwrap_or(new.on_error);
        new.tick_us = request.tick_us.or(new.tick_us);
        self.check_given(&new.config, &new.allow_http, &new.secrets)?;
        Ok((new, needed))
    }

    /// Finds out whether a revision can take over: that it opens, that its ports fit, that it can go on from what is remembered, and
    /// that there is a way back.
    async fn try_revision(
        &self,
        old: &DeploymentSpec,
        new: &mut DeploymentSpec,
        no_way_back: bool,
    ) -> Result<Program, DeploymentError> {
        let program = self.try_fresh(old, new).await?;
        if new.role == DeploymentRole::Source {
            return Ok(program);
        }
        let input = self.parts.log.topic_by_id(new.input_id())?;
        let unreadable = |what: String| DeploymentError::Unreadable {
            name: new.name.clone(),
            component: new.component.clone(),
            what,
        };
        if groups_in_several(new, &input, &program) != old.parts.is_some() {
            return Err(unreadable("its groups would be found in other partitions".to_owned()));
        }
        self.try_groups(new).await?;
        let before = self.load(old).await?;
        for source in new.sources(&input) {
            let task = TaskKey { owner: new.owner(), source };
            let at = format!("partition {}", source.partition);
            let memory = Memory::of(&*self.parts.log, task, &program)?;
            if let Some(bytes) = memory.left_behind() {
                return Err(unreadable(format!("it keeps no memory, and {bytes} bytes of it are kept ({at})")));
            }
            let saved = match self.try_task(&program, new, task, memory.to_restore()).await? {
                Ok(saved) => saved,
                Err(error) => return Err(unreadable(format!("{} ({at})", error.words()))),
            };
            let back = saved.as_ref().map(|saved| (saved.clone(), new.digest.as_str()));
            let Some(back) = back.filter(|_| !no_way_back && old.digest != new.digest) else { continue };
            if !before.has(Extra::Snapshot) {
                // It never knew, and its memory is no worse for it.
                continue;
            }
            if let Err(error) = self.try_task(&before, old, task, Some(back)).await? {
                let what = format!("{} ({at})", error.words());
                let (component, revision) = (new.component.clone(), old.revision);
                return Err(DeploymentError::NoWayBack { component, revision, what });
            }
        }
        Ok(program)
    }

    /// Finds out whether a revision opens, and whether its ports fit. It is shown no state.
    pub(crate) async fn try_fresh(
        &self,
        old: &DeploymentSpec,
        new: &mut DeploymentSpec,
    ) -> Result<Program, DeploymentError> {
        let program = self.load(new).await?;
        if old.digest != new.digest && old.tick_us == new.tick_us && !program.has(Extra::Ticker) {
            // The component of before ticked, and this one does not.
            new.tick_us = None;
        }
        new.tick_us = tick_of(&program, new)?;
        if let Some(ports) = self.try_out(&program, new).await? {
            check_ports(new, &ports)?;
        }
        Ok(program)
    }

    /// Has the component of an aggregate show groups that are there.
    async fn try_groups(&self, new: &DeploymentSpec) -> Result<(), DeploymentError> {
        let Some(how) = new.aggregation else { return Ok(()) };
        let (found, _) = self.stored_groups(new, None, GROUPS_TRIED, &[])?;
        if found.is_empty() {
            return Ok(());
        }
        let (name, component) = (new.name.clone(), new.component.clone());
        match self.show(new, &found, how.window != Window::None).await {
            Err(DeploymentError::Render { reason: what }) => Err(DeploymentError::Unreadable { name, component, what }),
            shown => shown.map(drop),
        }
    }

    /// Starts an instance as a task would, with the state of the task, gives it this memory, and throws it away. It answers with what
    /// the instance would keep.
    async fn try_task(
        &self,
        program: &Program,
        spec: &DeploymentSpec,
        task: TaskKey,
        memory: Option<(Bytes, &str)>,
    ) -> Result<Result<Option<Bytes>, CallError>, DeploymentError> {
        let DeploymentsParts { log, clock, runtime, secrets, .. } = &self.parts;
        let aside = Aside {
            spec: spec.clone(),
            program: program.clone(),
            secrets: GrantedSecrets::new(secrets.clone(), spec.secrets.clone()),
            http: runtime.http_client(&spec.http_grants()),
        };
        let ports = Outputs::of(spec, &**log)?.ports;
        let place = Place { log: log.clone(), clock: clock.clone() };
        let memory = memory.map(|(saved, by)| (saved, by.to_owned()));
        let tried = runtime.spawn(&self.share_of(&spec.name), async move {
            let memory = memory.as_ref().map(|(saved, by)| (saved.clone(), by.as_str()));
            let mut instance = aside.start(place, task, &ports, memory).await?;
            let saved = instance.save_aside().await?;
            drop(instance.let_go().await);
            Ok(saved)
        });
        tried.await.map_err(|_| LogError::Stopping.into())
    }

    /// Writes down what runs from now on. The revision of before is kept to be gone back to.
    async fn change_revision(
        &self,
        old: &DeploymentSpec,
        new: DeploymentSpec,
        version: u64,
        program: Program,
    ) -> Result<DeploymentView, DeploymentError> {
        self.keep_revision(&old.name, &old.as_revision()).await?;
        if let Some(live) = self.live().get_mut(&old.name).filter(|live| live.owner == old.owner) {
            live.warm = Some(program);
        }
        self.put_changed(&new, version).await?;
        // What the revision of before failed at is another one's now.
        self.forget_failures(&new.name).await?;
        self.forget_revisions(&new).await?;
        self.view(Arc::new(new)).await
    }

    /// An update failed where the revision of before did not: that one works again.
    pub(crate) async fn fall_back(&self, name: &str, owner: u64, revision: u32, why: &str) -> Result<(), LogError> {
        let now_us = self.parts.clock.now_us();
        let change = |spec: &mut DeploymentSpec| {
            if spec.owner != owner || spec.revision != revision {
                return;
            }
            let Some(rollout) = spec.rollout.take() else { return };
            *spec = spec.clone().with(rollout.from);
            spec.has_changed(now_us, Changed::Failed, &format!("revision {revision} failed: {why}"));
        };
        self.change_if_there(name, change).await
    }

    /// An update went well where it is: it goes on, or it is over.
    pub(crate) async fn go_on(&self, name: &str, rollout: &Rollout, revision: u32) -> Result<(), LogError> {
        let now_us = self.parts.clock.now_us();
        let change = |spec: &mut DeploymentSpec| {
            if spec.revision != revision || spec.rollout.as_ref() != Some(rollout) {
                return;
            }
            if rollout.canary.is_some() {
                spec.rollout = Some(Rollout { canary: None, began_us: now_us, ..rollout.clone() });
                spec.has_changed(now_us, Changed::CanaryPassed, "");
                return;
            }
            spec.rollout = None;
            spec.has_changed(now_us, Changed::Passed, "");
        };
        self.change_if_there(name, change).await
    }
}
