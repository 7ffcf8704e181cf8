//! What an operator asks for. Everything that is asked for becomes an entry in the log first; the supervisor makes it true, now
//! and after every restart.

use crate::deployment::aggregate::Aggregation;
use crate::deployment::budget::Budget;
use crate::deployment::error::DeploymentError;
use crate::deployment::live::Live;
use crate::deployment::parts::PartsTopic;
use crate::deployment::revision::Changed;
use crate::deployment::spec::{DeploymentRole, DeploymentSpec, ErrorPolicy, FAILURES, SPECS, TaskFailure, spec_key};
use crate::deployment::view::DeploymentView;
use crate::deployment::windows::Window;
use crate::deployment::wiring::{check_ports, input_to_make, start_of_new};
use crate::limits::{
    CONFIG_BYTES_MAX, HTTP_GRANTS_MAX, OVERLAP_MAX, PORTS_MAX, SECRETS_GRANTED_MAX, TICK_US, TICK_US_MIN,
};
use crate::registry::{ComponentEntry, ComponentRef, Registry};
use crate::secrets::Secrets;
use nodata_log::{
    Bounds, Clock, Expect, Log, LogError, MetadataStore, Name, Offset, TaskKey, TimestampUs, Topic, TopicConfig, Tp,
};
use nodata_runtime::{Extra, GuestLog, HttpGrant, HttpGrantError, Program, Runtime, Share};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{Notify, watch};

/// Where a new deployment begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    At(StartAt),
    /// Where one of its name was when it was deleted, with the state of that one.
    Kept,
}

/// A place in each partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StartAt {
    Earliest,
    Latest,
    Offset(Offset),
    /// At the first event that is not older.
    Time(TimestampUs),
}

/// What a component is to be.
#[derive(Clone, Debug)]
pub enum DeployedAs {
    /// Reads one topic and writes to those behind its ports.
    Transform { input: String, outputs: BTreeMap<String, String> },
    /// Reads one topic.
    Sink { input: String },
    /// Reads one topic, folds its events, and writes to the topics behind its ports.
    Aggregate { input: String, outputs: BTreeMap<String, String>, how: Aggregation },
    /// Writes to the topics behind its ports.
    Source { outputs: BTreeMap<String, String> },
}

/// What to deploy.
#[derive(Clone, Debug)]
pub struct DeployRequest {
    pub name: String,
    pub component: ComponentRef,
    pub role: DeployedAs,
    pub begin: Begin,
    pub config: BTreeMap<String, String>,
    /// Secrets that it may read: what its component calls them, and their names here.
    pub secrets: BTreeMap<String, String>,
    /// HTTP requests that it may send, each as [`HttpGrant`] is written.
    pub allow_http: Vec<String>,
    pub budget: Budget,
    pub on_error: ErrorPolicy,
    /// How often a component ticks; `None`: as often as usual.
    pub tick_us: Option<u64>,
    /// Topics that do not exist are made, as the component says that they should be.
    pub create_topics: bool,
}

/// What this room works with.
#[derive(Clone)]
pub struct DeploymentsParts {
    pub log: Arc<dyn Log>,
    pub meta: Arc<dyn MetadataStore>,
    pub registry: Registry,
    pub secrets: Secrets,
    pub runtime: Runtime,
    pub clock: Arc<dyn Clock>,
    /// Numbers that are used once: they name the positions and the state of a deployment.
    pub chance: Arc<dyn Fn() -> u64 + Send + Sync>,
}

/// The deployments of a server. Cheap to clone.
#[derive(Clone)]
pub struct Deployments {
    pub(crate) parts: DeploymentsParts,
    live: Arc<Mutex<BTreeMap<String, Live>>>,
    /// The entries as they were read last: all are looked at whenever one changes.
    read: Arc<Mutex<ReadEntries>>,
    /// Moves whenever a task begins or ends, or a deployment is gone.
    moved: watch::Sender<u64>,
    /// Has the supervisor look again although nothing was written.
    pub(crate) look: Arc<Notify>,
    /// How far the supervisor has made true what was asked for, as a version of the entries.
    seen: watch::Sender<u64>,
    /// Dead letters are replayed by one at a time.
    pub(crate) replaying: Arc<tokio::sync::Mutex<()>>,
    /// Tasks are reset by one at a time: two would take them over from each other.
    pub(crate) resetting: Arc<tokio::sync::Mutex<()>>,
}

/// Entries by their keys, each with its version.
type ReadEntries = HashMap<String, (u64, Arc<DeploymentSpec>)>;

fn check_aggregation(how: Aggregation) -> Result<Aggregation, DeploymentError> {
    let refused = |what, value, allowed| Err(DeploymentError::Window { what, value, allowed });
    match how.window {
        Window::Sliding { size_us, .. } if size_us < 1 => return refused("a window", size_us, "at least 1 is needed"),
        Window::Sliding { slide_us, size_us } if slide_us < 1 || slide_us > size_us => {
            return refused("a slide", slide_us, "it is at least 1 and at most the size of the window");
        }
        Window::Sliding { slide_us, size_us } if size_us / slide_us > OVERLAP_MAX => {
            return refused("a slide", slide_us, "an event may be in 100 windows at most");
        }
        Window::Session { gap_us } if gap_us < 1 => return refused("a gap", gap_us, "at least 1 is needed"),
        _ => {}
    }
    if how.lateness_us < 0 {
        return refused("a lateness", how.lateness_us, "it is not negative");
    }
    if how.idle_us.is_some_and(|idle_us| idle_us < 1_000) {
        return refused("an idle time", how.idle_us.unwrap_or(0) as i64, "at least 1000 are needed");
    }
    Ok(how)
}

/// How often the component of a deployment ticks; `None`: never.
pub(crate) fn tick_of(program: &Program, spec: &DeploymentSpec) -> Result<Option<u64>, DeploymentError> {
    match spec.tick_us {
        Some(us) if us < TICK_US_MIN => Err(DeploymentError::Tick { us }),
        Some(_) if !program.has(Extra::Ticker) => Err(DeploymentError::NoTicker { component: spec.component.clone() }),
        given => Ok(program.has(Extra::Ticker).then_some(given.unwrap_or(TICK_US))),
    }
}

/// Checks that a component can be deployed so.
pub(crate) fn check_role(role: DeploymentRole, component: &str, roles: Vec<String>) -> Result<(), DeploymentError> {
    let role = role.of_component().world();
    if roles.iter().any(|known| known == role) {
        return Ok(());
    }
    Err(DeploymentError::Role { component: component.to_owned(), role, roles })
}

fn check_count(what: &'static str, count: usize, max: usize) -> Result<(), DeploymentError> {
    if count > max { Err(DeploymentError::TooMuch { what, count, max }) } else { Ok(()) }
}

/// Each in the one way it is written.
pub(crate) fn http_grants(texts: &[String]) -> Result<Vec<String>, HttpGrantError> {
    texts.iter().map(|text| text.parse().map(|grant: HttpGrant| grant.to_string())).collect()
}

/// Whether a group may be in any of several partitions, and has results when its windows close.
pub(crate) fn groups_in_several(spec: &DeploymentSpec, input: &Topic, program: &Program) -> bool {
    input.config.partitions > 1 && groups_by_itself(spec, program)
}

/// Whether a group may be in any partition, and has results when its windows close.
fn groups_by_itself(spec: &DeploymentSpec, program: &Program) -> bool {
    spec.aggregation.is_some_and(|how| how.window != Window::None && !how.keyed) && program.has(Extra::Grouper)
}

impl Deployments {
    pub(crate) fn new(parts: DeploymentsParts) -> Self {
        Self {
            parts,
            live: Arc::default(),
            read: Arc::default(),
            moved: watch::Sender::new(0),
            look: Arc::default(),
            seen: watch::Sender::new(0),
            replaying: Arc::default(),
            resetting: Arc::default(),
        }
    }

    pub(crate) fn live(&self) -> MutexGuard<'_, BTreeMap<String, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The share of a deployment in the time of guests; a share of its own for one that does not run.
    pub(crate) fn share_of(&self, name: &str) -> Share {
        self.live().get(name).map(|live| live.share.clone()).unwrap_or_default()
    }

    pub(crate) fn has_moved(&self) {
        self.moved.send_modify(|count| *count += 1);
    }

    /// The supervisor has made true what was written up to this version.
    pub(crate) fn has_seen(&self, version: u64) {
        self.seen.send_replace(version);
    }

    /// Checks that a component is not given too much, and only secrets that there are.
    pub(crate) fn check_given(
        &self,
        config: &BTreeMap<String, String>,
        allow_http: &[String],
        secrets: &BTreeMap<String, String>,
    ) -> Result<(), DeploymentError> {
        let config_bytes = config.iter().map(|(key, value)| key.len() + value.len()).sum();
        check_count("bytes of configuration", config_bytes, CONFIG_BYTES_MAX)?;
        check_count("HTTP grants", allow_http.len(), HTTP_GRANTS_MAX)?;
        check_count("secrets", secrets.len(), SECRETS_GRANTED_MAX)?;
        for secret in secrets.values() {
            self.parts.secrets.check(&Name::new(secret)?)?;
        }
        Ok(())
    }

    /// Makes a deployment. Where it begins is decided here.
    pub async fn deploy(&self, request: DeployRequest) -> Result<DeploymentView, DeploymentError> {
        let DeployRequest {
            name,
            component,
            role,
            begin,
            config,
            secrets,
            allow_http,
            budget,
            on_error,
            tick_us,
            create_topics,
        } = request;
        let aggregation = match &role {
            DeployedAs::Aggregate { how, .. } => Some(check_aggregation(*how)?),
            _ => None,
        };
        let (role, input, outputs) = match role {
            DeployedAs::Aggregate { input, outputs, .. } => (DeploymentRole::Aggregate, input, outputs),
            DeployedAs::Transform { input, outputs } => (DeploymentRole::Transform, input, outputs),
            DeployedAs::Sink { input } => (DeploymentRole::Sink, input, BTreeMap::new()),
            DeployedAs::Source { outputs } => {
                let first = outputs.values().next().cloned().ok_or(DeploymentError::NoOutput)?;
                (DeploymentRole::Source, first, outputs)
            }
        };
        let name = DeploymentSpec::check_name(&name)?;
        self.check_given(&config, &allow_http, &secrets)?;
        check_count("ports", outputs.len(), PORTS_MAX)?;
        let allow_http = http_grants(&allow_http)?;
        let budget = budget.check()?;
        let topic = self.wired(role, &input, &outputs, create_topics)?;
        // Until the entry of the deployment says so, only this says that the version is needed.
        let (component, _needed) = self.parts.registry.hold(&component).await?;
        let ComponentEntry { name: component, digest, roles, .. } = component;
        check_role(role, &component, roles)?;
        let mut spec = DeploymentSpec {
            name: name.to_string(),
            owner: (self.parts.chance)(),
            revision: 1,
            component,
            digest,
            role,
            aggregation,
            input,
            input_id: topic.as_ref().map_or(0, |topic| topic.id.0),
            outputs,
            config,
            secrets,
            allow_http,
            budget,
            on_error,
            tick_us,
            created_us: self.parts.clock.now_us(),
            newest_revision: 1,
            ..DeploymentSpec::default()
        };
        spec.has_changed(spec.created_us, Changed::Deployed, "");
        let kept = self.kept(&spec.name).await?;
        let program = self.load(&spec).await?;
        spec.tick_us = tick_of(&program, &spec)?;
        let ports = self.try_out(&program, &spec).await?;
        if let Some(ports) = &ports {
            check_ports(&spec, ports)?;
        }
        let is_new = topic.is_none();
        let topic = topic.map_or_else(|| input_to_make(&spec, ports.as_deref()), Ok)?;
        let expect = match (kept, begin) {
            (None, Begin::At(start)) => {
                spec.start = match role {
                    DeploymentRole::Source => Vec::new(),
                    _ if is_new => start_of_new(&topic, start)?,
                    _ => self.start(&topic, start).await?,
                };
                spec.parts = self.parts_topic(&spec, &topic, &program).await?;
                Expect::Absent
            }
            (Some((kept, version)), Begin::Kept) => {
                let groups_in_several = groups_in_several(&spec, &topic, &program);
                self.take_over(&mut spec, &kept, version, groups_in_several).await?;
                Expect::Version(version)
            }
            (None, Begin::Kept) => return Err(DeploymentError::NothingKept { name: spec.name }),
            (Some(_), Begin::At(_)) => return Err(DeploymentError::Kept { name: spec.name }),
        };
        // Nothing is left behind by what was refused until here, and what is left is not refused.
        if create_topics {
            self.make_topics(&spec, ports.as_deref()).await?;
            spec.input_id = self.parts.log.topic(&Name::new(&spec.input)?)?.id.0;
        }
        match self.parts.meta.meta_put(&spec.key(), expect, Some(spec.to_bytes()?)) {
            Ok(put) => put.await?,
            Err(LogError::MetaConflict { .. }) => return Err(DeploymentError::Exists { name: spec.name }),
            Err(error) => return Err(error.into()),
        };
        // Its numbers begin anew, and there is nothing to go back to.
        self.forget_all_revisions(&spec.name).await?;
        self.view(Arc::new(spec)).await
    }

    /// Makes the topic for parts of groups, if groups are in several partitions and have results.
    async fn parts_topic(
        &self,
        spec: &DeploymentSpec,
        input: &Topic,
        program: &Program,
    ) -> Result<Option<PartsTopic>, DeploymentError> {
        if !groups_in_several(spec, input, program) {
            return Ok(None);
        }
        let partitions = input.config.partitions;
        if spec.aggregation.is_some_and(|how| matches!(how.window, Window::Session { .. })) {
            return Err(DeploymentError::Sessions { topic: input.name.clone(), partitions });
        }
        let name = Name::new(&spec.parts_topic())?;
        let config = TopicConfig { partitions, deduplicate_us: None, ..TopicConfig::default() };
        let log = &self.parts.log;
        let topic = match log.create_topic(name.clone(), config) {
            Ok(created) => created.await?,
            Err(LogError::TopicExists { topic }) => {
                // A server that ended while it deployed leaves an empty one behind.
                let known = log.topic(&name)?;
                if known.partitions().any(|tp| log.bounds(tp).is_ok_and(|bounds| bounds.end > 0)) {
                    return Err(LogError::TopicExists { topic }.into());
                }
                known
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Some(PartsTopic { topic: topic.id.0, partitions: topic.config.partitions }))
    }

    /// The deployments that rely on this topic having one partition: their groups would be in several.
    pub async fn tied_to_one_partition(&self, topic: &str) -> Result<Option<String>, DeploymentError> {
        for spec in self.specs().await? {
            if spec.input == topic && spec.parts.is_none() && groups_by_itself(&spec, &self.load(&spec).await?) {
                return Ok(Some(spec.name.clone()));
            }
        }
        Ok(None)
    }

    async fn start(&self, topic: &Topic, start: StartAt) -> Result<Vec<Offset>, DeploymentError> {
        let mut offsets = Vec::new();
        for tp in topic.partitions() {
            offsets.push(self.offset_of(&topic.name, tp, start).await?);
        }
        Ok(offsets)
    }

    /// A place in a partition, as an offset.
    pub(crate) async fn offset_of(&self, topic: &Name, tp: Tp, place: StartAt) -> Result<Offset, DeploymentError> {
        let Bounds { earliest, end } = self.parts.log.bounds(tp)?;
        Ok(match place {
            StartAt::Earliest => earliest,
            StartAt::Latest => end,
            StartAt::Time(time) => self.parts.log.offset_at(tp, time).await?,
            StartAt::Offset(offset) if (earliest..=end).contains(&offset) => offset,
            StartAt::Offset(offset) => {
                let (topic, partition) = (topic.clone(), tp.partition);
                return Err(DeploymentError::Start { topic, partition, offset, earliest, end });
            }
        })
    }

    /// Pauses a deployment, and waits until none of its tasks works any more.
    pub async fn pause(&self, name: &str) -> Result<DeploymentView, DeploymentError> {
        let (spec, version) = self.change(name, |spec| spec.paused = true).await?;
        self.wait_until_idle(name, version).await;
        self.view(Arc::new(spec)).await
    }

    /// Lets a deployment go on, and tasks that failed try again.
    pub async fn resume(&self, name: &str) -> Result<DeploymentView, DeploymentError> {
        let (spec, _) = self.change(name, |spec| spec.paused = false).await?;
        self.forget_failures(name).await?;
        self.view(Arc::new(spec)).await
    }

    /// Deletes a deployment, or what is kept of one, and waits until its tasks have ended and its positions and state are forgotten.
    pub async fn delete(&self, name: &str) -> Result<(), DeploymentError> {
        let mut version = self.parts.meta.meta_version();
        match self.change_entry(name, |spec| spec.deleting = true).await {
            Ok(_) | Err(DeploymentError::Deleting { .. }) => {}
            Err(error) => return Err(error),
        }
        loop {
            version.mark_unchanged();
            if self.entry(name).await?.is_none() {
                return Ok(());
            }
            if version.changed().await.is_err() {
                return Err(LogError::Stopping.into());
            }
        }
    }

    /// Deletes a deployment but for its positions and state, and waits until its tasks have ended.
    pub async fn delete_and_keep(&self, name: &str) -> Result<(), DeploymentError> {
        let now_us = self.parts.clock.now_us();
        if let Some((DeploymentSpec { follows: Some(_), revision, name, .. }, _)) = self.entry(name).await? {
            return Err(DeploymentError::Updating { name, revision });
        }
        let keep = |spec: &mut DeploymentSpec| {
            spec.kept_us.get_or_insert(now_us);
            (spec.paused, spec.replay, spec.shadow) = (false, None, None);
            spec.forgotten.extend(spec.rebuild.take().map(|rebuild| rebuild.owner));
        };
        let (_, version) = self.change_entry(name, keep).await?;
        self.wait_until_idle(name, version).await;
        Ok(())
    }

    /// What the components of a deployment printed.
    pub async fn log_of(&self, name: &str) -> Result<Arc<GuestLog>, DeploymentError> {
        let (_, version) = self.spec(name).await?;
        self.wait_until_seen(version).await;
        let live = self.live();
        live.get(name).map(|live| live.guest_log.clone()).ok_or(DeploymentError::Unknown { name: name.to_owned() })
    }

    async fn wait_until(&self, is_so: impl Fn(&BTreeMap<String, Live>) -> bool) {
        let mut moved = self.moved.subscribe();
        while !is_so(&self.live()) {
            if moved.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits until the supervisor knows what was written with this version: what was made a moment ago, or found at a start.
    pub(crate) async fn wait_until_seen(&self, version: u64) {
        // This keeps the sender, so the wait does not fail.
        let _ = self.seen.subscribe().wait_for(|seen| *seen >= version).await;
    }

    /// Waits until the supervisor knows what was written with this version, and none of the tasks works any more.
    pub(crate) async fn wait_until_idle(&self, name: &str, version: u64) {
        self.wait_until_seen(version).await;
        self.wait_until(|live| {
            live.get(name)
                .is_none_or(|live| live.tasks.values().chain(live.rebuilding.values()).all(|task| !task.is_running))
        })
        .await;
    }

    /// Everything there is an entry for: deployments, and what is kept of some that were deleted.
    pub(crate) async fn entries(&self) -> Result<Vec<Arc<DeploymentSpec>>, LogError> {
        let listed = self.parts.meta.meta_list(SPECS).await?;
        let mut known = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let mut read = HashMap::with_capacity(listed.len());
        let mut specs = Vec::with_capacity(listed.len());
        for (key, entry) in listed {
            let spec = match known.get(&key) {
                Some((version, spec)) if *version == entry.version => spec.clone(),
                _ => Arc::new(DeploymentSpec::read(&key, &entry)?),
            };
            specs.push(spec.clone());
            read.insert(key, (entry.version, spec));
        }
        *known = read;
        Ok(specs)
    }

    pub(crate) async fn specs(&self) -> Result<Vec<Arc<DeploymentSpec>>, LogError> {
        Ok(self.entries().await?.into_iter().filter(|spec| !spec.is_kept()).collect())
    }

    pub(crate) async fn failures(&self) -> Result<BTreeMap<(String, u32), TaskFailure>, LogError> {
        let mut failures = BTreeMap::new();
        for (key, entry) in self.parts.meta.meta_list(FAILURES).await? {
            let path = key.strip_prefix(FAILURES).and_then(|path| path.rsplit_once('/'));
            if let Some((name, partition)) = path.and_then(|(name, number)| Some((name, number.parse().ok()?))) {
                failures.insert((name.to_owned(), partition), TaskFailure::read(&key, &entry)?);
            }
        }
        Ok(failures)
    }

    /// Whether a failure is one of whoever worked for the task last.
    pub(crate) fn stands(&self, failure: &TaskFailure, task: TaskKey) -> bool {
        failure.epoch.is_none_or(|epoch| epoch == self.parts.log.task_position(task).epoch)
    }

    pub(crate) async fn entry(&self, name: &str) -> Result<Option<(DeploymentSpec, u64)>, DeploymentError> {
        DeploymentSpec::check_name(name)?;
        let key = spec_key(name);
        let Some(entry) = self.parts.meta.meta_get(&key).await? else { return Ok(None) };
        Ok(Some((DeploymentSpec::read(&key, &entry)?, entry.version)))
    }

    pub(crate) async fn spec(&self, name: &str) -> Result<(DeploymentSpec, u64), DeploymentError> {
        match self.entry(name).await? {
            Some((spec, _)) if spec.is_kept() => Err(DeploymentError::Kept { name: spec.name }),
            Some(found) => Ok(found),
            None => Err(DeploymentError::Unknown { name: name.to_owned() }),
        }
    }

    /// Changes a deployment, whoever else changes it at the same time. Answers with the version of it.
    pub(crate) async fn change(
        &self,
        name: &str,
        change: impl Fn(&mut DeploymentSpec),
    ) -> Result<(DeploymentSpec, u64), DeploymentError> {
        // What is kept stays so.
        self.spec(name).await?;
        self.change_entry(name, |spec| {
            if !spec.is_kept() {
                change(spec)
            }
        })
        .await
    }

    /// The same, where a deployment that is gone, or on its way out, is let be.
    pub(crate) async fn change_if_there(
        &self,
        name: &str,
        change: impl Fn(&mut DeploymentSpec),
    ) -> Result<(), LogError> {
        match self.change(name, change).await {
            Err(DeploymentError::Log(error)) => Err(error),
            _ => Ok(()),
        }
    }

    async fn change_entry(
        &self,
        name: &str,
        change: impl Fn(&mut DeploymentSpec),
    ) -> Result<(DeploymentSpec, u64), DeploymentError> {
        loop {
            let found = self.entry(name).await?;
            let (mut spec, version) = found.ok_or_else(|| DeploymentError::Unknown { name: name.to_owned() })?;
            if spec.deleting {
                return Err(DeploymentError::Deleting { name: name.to_owned() });
            }
            let before = spec.clone();
            change(&mut spec);
            if spec == before {
                return Ok((spec, version));
            }
            match self.parts.meta.meta_put(&spec.key(), Expect::Version(version), Some(spec.to_bytes()?)) {
                Ok(put) => return Ok((spec, put.await?)),
                // What was read is older than what is on its way; it is durable in a moment.
                Err(LogError::MetaConflict { .. }) => self.parts.log.barrier()?.await?,
                Err(error) => return Err(error.into()),
            }
        }
    }
}
