//! One life of the process: a log, a supervisor, and operators and publishers who do something at random.

use crate::faults::FaultyLog;
use crate::found::now;
use crate::guests::{self, GUESTS, TurnedClock};
use crate::story::{JOB, Job, PARTITIONS_OUT, Scenario, Story};
use nodata::deployment::{
    Aggregation, Begin, Budget, DeployRequest, DeployedAs, DeploymentError, Deployments, DeploymentsParts,
    KeepOrForget, OnPoison, ResetRequest, StartAt, Supervisor, TaskState,
};
use nodata::registry::{ComponentRef, NewComponent, Registry};
use nodata::secrets::Secrets;
use nodata_log::fs::Fs;
use nodata_log::fs::simulated::{Chance, SimulatedFs};
use nodata_log::{
    AckLevel, Append, Batch, Clock, EmbeddedLog, Event, Forget, Log, LogError, MetadataStore, Name, OpenError, Options,
    TopicConfig,
};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// The owner of the one deployment.
pub(crate) const OWNER: u64 = 77;

pub(crate) struct Process {
    log: Arc<EmbeddedLog>,
    faulty: Arc<FaultyLog>,
    fs: SimulatedFs,
    chance: Chance,
    is_first: bool,
}

impl Process {
    /// `None`: the power went while it started.
    pub(crate) fn start(fs: &SimulatedFs, scenario: &Scenario, life: u64) -> Option<Self> {
        let mut chance = Chance::new(scenario.seed.wrapping_mul(1000) + life);
        let options = Options {
            segment_bytes: 256 << 10,
            first_segment_bytes: 64 << 10,
            ring_bytes: 16 << 10,
            on_failure: Arc::new(|_| {}),
            ..Options::new(chance.number())
        };
        let disk: Arc<dyn Fs> = Arc::new(fs.clone());
        let log = match EmbeddedLog::open(options, "sim", disk, Arc::new(TurnedClock::default())) {
            Ok((log, _)) => Arc::new(log),
            Err(OpenError::Io { source, .. }) if source.to_string() == "simulated power loss" => return None,
            Err(OpenError::Checkpoint { what, .. }) if what.contains("simulated power loss") => return None,
            Err(error) => panic!("seed {}: {error}", scenario.seed),
        };
        let state_fails = scenario.policy.retries.is_none();
        let is_source = matches!(scenario.job, Job::Source { .. });
        let faulty = Arc::new(FaultyLog::new(log.clone(), chance.number(), state_fails, is_source));
        Some(Self { log, faulty, fs: fs.clone(), chance, is_first: life == 0 })
    }

    /// `None`: the power went before there was a folder for components.
    fn parts(&self) -> Option<DeploymentsParts> {
        let clock: Arc<dyn Clock> = Arc::new(TurnedClock::default());
        let runtime = GUESTS.runtime.clone();
        let meta: Arc<dyn MetadataStore> = self.faulty.clone();
        let registry = Registry::open(Arc::new(self.fs.clone()), meta.clone(), runtime.clone(), clock.clone()).ok()?;
        let chance = Arc::new(|| OWNER);
        let log: Arc<dyn Log> = self.faulty.clone();
        let secrets = Secrets::none("nowhere".into(), meta.clone(), clock.clone());
        Some(DeploymentsParts { log, meta, registry, secrets, runtime, clock, chance })
    }

    /// Lives. When this returns, nothing of it is left but the disk. The last life goes on until everything is done.
    pub(crate) fn run(mut self, story: &mut Story, is_last: bool) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let failed = CancellationToken::new();
        runtime.block_on(async {
            tokio::spawn(sync(self.log.clone(), Chance::new(self.chance.number()), failed.clone()));
            tokio::select! {
                biased;
                () = failed.cancelled() => {}
                () = self.live(story, is_last) => {}
            }
        });
        assert!(!is_last || !failed.is_cancelled());
    }

    /// A task fails at the first event and is told to go on behind it, and the process ends before anyone could remove the failure.
    pub(crate) fn fail_and_be_reset(self, story: &Story) {
        self.alone(async |deployments, registry| {
            self.set_up(&story.scenario, &deployments, &registry).await;
            let task = story.tasks(&self.log)[0];
            let events = ["panic 0-1", "x 0-2"].map(Event::new);
            let batches = vec![(task.source, Batch::from_events(&events, 0).unwrap())];
            let room = now(self.log.room(1)).unwrap();
            drop(self.log.append(Append { batches, ack: AckLevel::Durable, producer: None, room }).unwrap());
            while deployments.describe(JOB).await.unwrap().tasks[0].report.state != TaskState::Failed {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            let lease = self.log.begin_task(task).unwrap().await.unwrap();
            self.log.reset_tasks(vec![lease.reset(Some(1), Forget::These(Vec::new()))]).unwrap().await.unwrap();
        });
    }

    /// Lives until the task is there.
    pub(crate) fn come_to(self, story: &Story, next: u64) {
        self.alone(async |_, _| {
            let is_there = || self.log.task_position(story.tasks(&self.log)[0]).next == Some(next);
            // An hour, which costs nothing.
            for _ in 0..3600 {
                if is_there() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            panic!("it does not get there");
        });
    }

    /// Does something, and nothing else happens.
    fn alone(&self, work: impl AsyncFnOnce(Deployments, Registry)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            tokio::spawn(sync(self.log.clone(), self.chance.clone(), CancellationToken::new()));
            let parts = self.parts().unwrap();
            let registry = parts.registry.clone();
            let (supervisor, deployments) = Supervisor::new(parts);
            tokio::spawn(supervisor.run(CancellationToken::new()));
            work(deployments, registry).await;
        });
    }

    async fn live(&mut self, story: &mut Story, is_last: bool) {
        let Some(parts) = self.parts() else { return };
        let (supervisor, deployments) = Supervisor::new(parts.clone());
        if self.is_first {
            self.set_up(&story.scenario, &deployments, &parts.registry).await;
        } else {
            story.check(&self.log, "at a start");
        }
        let stop = CancellationToken::new();
        tokio::spawn(supervisor.run(stop.clone()));
        if !is_last && self.chance.percent(15) {
            // Someone else, who does the same.
            let (other, _) = Supervisor::new(parts);
            tokio::spawn(other.run(stop.clone()));
        }
        self.faulty.set_quiet(false);
        for _ in 0..40 {
            if !self.step(story, &deployments).await {
                return;
            }
        }
        if !is_last {
            return;
        }
        self.faulty.set_quiet(true);
        // It may have ended between a pause and what comes after that.
        if deployments.describe(JOB).await.unwrap().spec.paused {
            deployments.resume(JOB).await.unwrap();
        }
        // When nothing comes any more, whoever waits for more is woken too.
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert!(self.reset(story, &deployments).await);
        // Far more than it takes. Time costs nothing here.
        for _ in 0..3_000 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            self.pass_over_poison(story, &deployments).await;
            if story.is_done(&self.log) {
                break;
            }
        }
        if !story.is_done(&self.log) {
            let tasks = deployments.describe(JOB).await.unwrap().tasks;
            panic!("seed {}: it does not get there: {:?}: {tasks:#?}", story.scenario.seed, story.scenario);
        }
        // Whoever does too much has time to.
        tokio::time::sleep(Duration::from_secs(60)).await;
        story.check(&self.log, "at the end");
    }

    async fn set_up(&self, scenario: &Scenario, deployments: &Deployments, registry: &Registry) {
        for (name, partitions) in [("in", scenario.partitions), ("out", PARTITIONS_OUT), ("late", PARTITIONS_OUT)] {
            let config = TopicConfig { partitions, ..TopicConfig::default() };
            self.log.create_topic(Name::new(name).unwrap(), config).unwrap().await.unwrap();
        }
        let component = match scenario.job {
            Job::Transform => guests::TRANSFORM,
            Job::Sink => guests::SINK,
            Job::Aggregate { .. } => guests::AGGREGATE,
            Job::Source { .. } => guests::SOURCE,
        };
        let name = Name::new(component).unwrap();
        registry.put(NewComponent::named(name.clone()), GUESTS.file(component)).await.unwrap();
        let ports = |ports: &[(&str, &str)]| -> BTreeMap<String, String> {
            ports.iter().map(|(port, topic)| ((*port).to_owned(), (*topic).to_owned())).collect()
        };
        let input = "in".to_owned();
        let mut config = BTreeMap::new();
        let role = match scenario.job {
            Job::Transform => DeployedAs::Transform { input, outputs: ports(&[("", "out")]) },
            Job::Sink => DeployedAs::Sink { input },
            Job::Aggregate { window, lateness_us } => DeployedAs::Aggregate {
                input,
                outputs: ports(&[("", "out"), ("late", "late")]),
                how: Aggregation { window, lateness_us, idle_us: None, keyed: false },
            },
            Job::Source { to } => {
                config.insert("to".to_owned(), to.to_string());
                config.insert("step".to_owned(), "7".to_owned());
                let how = ["transient", "permanent", "panic"][scenario.seed as usize / 8 % 3];
                config.insert("fails".to_owned(), how.to_owned());
                DeployedAs::Source { outputs: ports(&[("", "out")]) }
            }
        };
        let request = DeployRequest {
            name: JOB.to_owned(),
            component: ComponentRef::latest(name),
            role,
            begin: Begin::At(StartAt::Earliest),
            config,
            secrets: BTreeMap::new(),
            allow_http: Vec::new(),
            budget: Budget::default(),
            on_error: scenario.policy,
            create_topics: false,
            tick_us: None,
        };
        deployments.deploy(request).await.unwrap();
    }

    /// Does one random thing; false when the log has ended.
    async fn step(&mut self, story: &mut Story, deployments: &Deployments) -> bool {
        match self.chance.below(100) {
            0..45 => self.publish(story),
            45..75 => tokio::time::sleep(Duration::from_millis(self.chance.below(400))).await,
            75..80 => tokio::time::sleep(Duration::from_millis(self.chance.below(4000))).await,
            80..84 => drop(self.log.by_hand().checkpoint()),
            84..88 => {
                let Ok(view) = deployments.describe(JOB).await else { return false };
                let task = &view.tasks[self.chance.below(view.tasks.len() as u64) as usize];
                // Nobody works for one that has failed.
                if task.report.state != TaskState::Failed {
                    drop(self.log.begin_task(story.tasks(&self.log)[task.partition as usize]));
                }
            }
            88..92 => return self.reset(story, deployments).await,
            92..95 => {
                if deployments.pause(JOB).await.is_err() {
                    return false;
                }
                self.publish(story);
                tokio::time::sleep(Duration::from_millis(self.chance.below(300))).await;
                return deployments.resume(JOB).await.is_ok();
            }
            _ => return self.pass_over_poison(story, deployments).await,
        }
        true
    }

    fn publish(&mut self, story: &mut Story) {
        if matches!(story.scenario.job, Job::Source { .. }) {
            return;
        }
        let partition = self.chance.below(u64::from(story.scenario.partitions)) as u32;
        let words = match story.scenario.job {
            Job::Aggregate { .. } => ["panic", "refuse", "aside", "x"].as_slice(),
            Job::Sink => &["panic", "refuse", "aside", "later", "x"],
            _ => &["panic", "refuse", "aside", "later", "twice", "nothing", "never"],
        };
        let count = 1 + self.chance.below(12);
        let events: Vec<Event> = (0..count)
            .map(|_| {
                story.events += 1;
                // Now and then there is a gap, in which windows have no events.
                let gap_us = if self.chance.percent(5) { 5000 } else { 250 };
                story.latest += self.chance.below(gap_us) as i64;
                let mut word = "x";
                if self.chance.percent(25) {
                    word = words[self.chance.below(words.len() as u64) as usize];
                }
                if word == "never" && story.scenario.policy.retries.is_none() {
                    word = "later";
                }
                let mut event = Event::new(format!("{word} {partition}-{}", story.events));
                if self.chance.percent(85) {
                    event = event.with_key(format!("k{partition}.{}", self.chance.below(4)));
                }
                let early_us = if self.chance.percent(10) { 4000 } else { 900 };
                event.timestamp_us = Some(1_000_000 + story.latest - self.chance.below(early_us) as i64);
                event
            })
            .collect();
        let tp = story.tasks(&self.log)[partition as usize].source;
        let batches = vec![(tp, Batch::from_events(&events, 0).unwrap())];
        let room = now(self.log.room(1)).unwrap();
        drop(self.log.append(Append { batches, ack: AckLevel::Durable, producer: None, room }));
    }

    /// An operator has a task go on elsewhere.
    async fn reset(&mut self, story: &mut Story, deployments: &Deployments) -> bool {
        // Of windows that a reset leaves open, some may have been closed.
        if story.scenario.has_windows() || matches!(story.scenario.job, Job::Source { .. }) {
            return true;
        }
        let task = story.tasks(&self.log)[self.chance.below(u64::from(story.scenario.partitions)) as usize];
        let end = self.log.bounds(task.source).unwrap().end;
        let forgets = self.chance.percent(50);
        // Where events are never passed that cannot be processed, they are in the way of whoever goes back.
        let to = if story.scenario.policy.then == OnPoison::Pause { end } else { self.chance.below(end + 1) };
        self.move_to(story, deployments, task.source.partition, to, forgets).await
    }

    async fn move_to(
        &self,
        story: &mut Story,
        deployments: &Deployments,
        partition: u32,
        to: u64,
        forgets: bool,
    ) -> bool {
        let state = Some(if forgets { KeepOrForget::Forget } else { KeepOrForget::Keep });
        let request = ResetRequest {
            name: JOB.to_owned(),
            to: StartAt::Offset(to),
            partitions: BTreeSet::from([partition]),
            state,
            dry_run: false,
        };
        let told = story.told.get_mut(&partition).unwrap();
        told.unsure = Some((to, forgets));
        match deployments.reset(&request).await {
            Ok((_, moved)) => {
                told.reset(moved[0].from, to, forgets);
                true
            }
            Err(DeploymentError::Log(LogError::Failed { .. } | LogError::Stopping)) => false,
            Err(DeploymentError::Log(LogError::DiskFull)) => {
                told.unsure = None;
                true
            }
            Err(error) => panic!("{error}"),
        }
    }

    /// Where tasks are paused because of an event, an operator has them pass it over.
    async fn pass_over_poison(&self, story: &mut Story, deployments: &Deployments) -> bool {
        let Ok(view) = deployments.describe(JOB).await else { return false };
        for task in view.tasks.iter().filter(|task| task.report.state == TaskState::Failed) {
            assert_eq!(story.scenario.policy.then, OnPoison::Pause, "{}", task.report.reason);
            if !self.move_to(story, deployments, task.partition, task.report.position + 1, false).await {
                return false;
            }
        }
        true
    }
}

/// Writes what was put in order, now and then, until the power is gone.
async fn sync(log: Arc<EmbeddedLog>, mut chance: Chance, failed: CancellationToken) {
    loop {
        tokio::time::sleep(Duration::from_micros(chance.below(4000))).await;
        log.by_hand().prepare();
        if log.by_hand().write_group().is_err() {
            failed.cancel();
            return;
        }
        if chance.percent(1) && log.by_hand().mark().is_err() {
            failed.cancel();
            return;
        }
    }
}
