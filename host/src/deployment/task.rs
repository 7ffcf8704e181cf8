//! One task: a deployment on one input partition.
//!
//! It reads a batch, gives it to its instance, and commits everything the call did together with the position behind the
//! batch. There is no moment at which half of that is true, so whatever ends a task between two commits (a crash, a trap, a
//! newer worker) leaves nothing behind, and the next one goes on from the last commit.
//!
//! The next call may begin before the commit of the last one is durable: the log keeps their order, and a commit is refused if
//! the one before it did not happen. Only a call that changed state is waited for, because the next one must read it.

use crate::deployment::dead_letters;
use crate::deployment::pace::Pace;
use crate::deployment::spec::{DeploymentSpec, TaskFailure};
use crate::deployment::status::{TaskState, TaskStatus};
use crate::limits::{COMMITS_IN_FLIGHT, FULL_WAIT, HARD_TRIES, INPUT_BYTES, RETRY_FIRST, RETRY_MAX};
use futures::FutureExt as _;
use nodata_log::{
    Appended, Batch, Clock, Log, LogError, Name, Offset, Pending, ReadLimits, StoredBatch, TaskKey, TaskLease, Topic,
    Tp, Transaction,
};
use nodata_runtime::{
    CallError, CallErrorReason, Deployment, GuestLog, GuestMetrics, Input, InputError, Instance, InstanceLimits,
    InstanceSettings, Output, Port, Program,
};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// Instances with more memory than this are replaced between two batches: linear memory never shrinks.
const RECYCLE_MEMORY_BYTES: u64 = 192 << 20;

/// How a task ended.
#[derive(Debug)]
pub(crate) enum TaskEnd {
    /// It was asked to.
    Stopped,
    /// Its component failed, again and again.
    Failed(TaskFailure),
    /// Someone else works for it.
    Superseded,
    /// The log refused what should never be refused, or ended.
    Log(LogError),
}

impl From<LogError> for TaskEnd {
    fn from(error: LogError) -> Self {
        match error {
            LogError::Stopping | LogError::Failed { .. } => TaskEnd::Stopped,
            LogError::Fenced { .. } | LogError::PositionMoved { .. } => TaskEnd::Superseded,
            other => TaskEnd::Log(other),
        }
    }
}

/// What a task is given.
pub(crate) struct TaskSettings {
    pub(crate) spec: Arc<DeploymentSpec>,
    pub(crate) source: Tp,
    /// Where it begins if nothing was committed yet.
    pub(crate) start: Offset,
    pub(crate) log: Arc<dyn Log>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) program: Program,
    pub(crate) guest_log: Arc<GuestLog>,
    pub(crate) metrics: Arc<GuestMetrics>,
    pub(crate) status: Arc<TaskStatus>,
    pub(crate) stop: CancellationToken,
}

/// A commit that is on its way.
struct InFlight {
    pending: Pending<Appended>,
    next: Offset,
    counts: Counts,
}

#[derive(Clone, Copy)]
struct Counts {
    events_in: u64,
    events_out: u64,
    rejected: u64,
}

pub(crate) struct Task {
    settings: TaskSettings,
    input: Name,
    lease: TaskLease,
    /// The next offset to read.
    position: Offset,
    /// The position of the last commit, durable or on its way.
    expect: Option<Offset>,
    instance: Option<Instance>,
    outputs: Outputs,
    in_flight: VecDeque<InFlight>,
    pace: Pace,
    /// Batches that were read and not given to the component yet.
    ahead: VecDeque<StoredBatch>,
}

/// The topics behind the ports, as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Outputs {
    ports: Arc<[Port]>,
    topics: Vec<Topic>,
}

impl Outputs {
    fn of(spec: &DeploymentSpec, log: &dyn Log) -> Result<Self, LogError> {
        let topics: Vec<Topic> =
            spec.outputs.values().map(|name| log.topic(&Name::new(name)?)).collect::<Result<_, _>>()?;
        let ports = spec.outputs.keys().zip(&topics).map(|(port, topic)| Port {
            name: port.clone(),
            partitions: topic.config.partitions,
            event_bytes_max: topic.config.event_bytes_max,
            values: topic.config.values,
        });
        Ok(Self { ports: ports.collect(), topics })
    }
}

impl Task {
    /// Takes the task over and works until it is asked to stop, or until it cannot go on.
    pub(crate) async fn run(settings: TaskSettings) -> TaskEnd {
        let mut task = match Self::begin(settings).await {
            Ok(task) => task,
            Err(error) => return error.into(),
        };
        let end = match task.work().await {
            Ok(()) => TaskEnd::Stopped,
            Err(end) => end,
        };
        // What was committed is told as such, whatever comes next.
        match task.settle(0).await {
            Ok(()) => end,
            Err(error) => error,
        }
    }

    async fn begin(settings: TaskSettings) -> Result<Self, LogError> {
        let key = TaskKey { owner: settings.spec.owner(), source: settings.source };
        let lease = settings.log.begin_task(key)?.await?;
        let position = lease.next.unwrap_or(settings.start);
        let outputs = Outputs::of(&settings.spec, &*settings.log)?;
        let task = Self {
            input: Name::new(&settings.spec.input)?,
            position,
            expect: lease.next,
            lease,
            instance: None,
            outputs,
            in_flight: VecDeque::new(),
            pace: Pace::default(),
            ahead: VecDeque::new(),
            settings,
        };
        task.settings.status.update(|report| {
            report.state = TaskState::Running;
            report.position = position;
            report.reason.clear();
        });
        Ok(task)
    }

    async fn work(&mut self) -> Result<(), TaskEnd> {
        let mut end = self.settings.log.follow(self.settings.source)?;
        while !self.settings.stop.is_cancelled() {
            if self.ahead.is_empty() {
                end.mark_unchanged();
                self.read().await?;
            }
            let Some(input) = self.next_input()? else {
                // Nothing to do: whatever was done becomes durable, and then new events are waited for.
                self.settle(0).await?;
                tokio::select! {
                    moved = end.changed() => {
                        // The topic is gone, and with it the reason to work.
                        if moved.is_err() {
                            return Ok(());
                        }
                    }
                    () = self.settings.stop.cancelled() => {}
                }
                continue;
            };
            self.one_batch(input).await?;
        }
        Ok(())
    }

    async fn read(&mut self) -> Result<(), LogError> {
        let limits = ReadLimits { bytes_max: INPUT_BYTES, events_max: self.pace.events() };
        loop {
            let chunk = self.settings.log.read(self.settings.source, self.position, limits).await?;
            self.ahead = chunk.batches.into();
            if !self.ahead.is_empty() || chunk.next == self.position {
                return Ok(());
            }
            // Events were lost here. That they are passed over is committed with what comes behind them.
            self.position = chunk.next;
            self.settings.status.update(|report| report.position = chunk.next);
        }
    }

    /// The next rows, as many as the pace allows. They stay in `ahead` until they are committed.
    fn next_input(&mut self) -> Result<Option<Input>, TaskEnd> {
        let mut pieces: Vec<(StoredBatch, Range<usize>)> = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        for stored in &self.ahead {
            let count = stored.batch.len();
            let from = stored.offsets.rows_before(self.position, count);
            let room = self.pace.events() - rows;
            let to = (from + room).min(count);
            if from >= to || (bytes > 0 && bytes + stored.batch.payload_bytes() as u64 > INPUT_BYTES) {
                if from >= count {
                    continue;
                }
                break;
            }
            rows += to - from;
            bytes += (stored.batch.payload_bytes() * (to - from) / count) as u64;
            pieces.push((stored.clone(), from..to));
        }
        match Input::new(self.input.clone(), self.settings.source.partition, pieces) {
            Ok(input) => Ok(Some(input)),
            Err(InputError::Empty) => Ok(None),
            // One batch of the log is never larger than an input may be.
            Err(error) => Err(TaskEnd::Failed(self.failure(0, &error.to_string(), Vec::new()))),
        }
    }

    /// Processes and commits one input.
    async fn one_batch(&mut self, input: Input) -> Result<(), TaskEnd> {
        let next = input.last_offset() + 1;
        let (input, output) = match self.process(input).await? {
            Some(done) => done,
            // Asked to stop while waiting to try again.
            None => return Ok(()),
        };
        let counts =
            Counts { events_in: input.len() as u64, events_out: output.events, rejected: output.rejected.len() as u64 };
        let changes_state = !output.state.is_empty();
        let transaction = self.transaction(&input, next, output).await?;
        let Some(pending) = self.commit(transaction).await? else { return Ok(()) };
        self.in_flight.push_back(InFlight { pending, next, counts });
        self.position = next;
        self.expect = Some(next);
        while self.ahead.front().is_some_and(|stored| stored.last() < next) {
            self.ahead.pop_front();
        }
        self.settle(if changes_state { 0 } else { COMMITS_IN_FLIGHT }).await
    }

    /// Calls the component until it succeeds, as the policy says, and answers with the input as it was given the last time.
    /// `None`: asked to stop.
    async fn process(&mut self, mut input: Input) -> Result<Option<(Input, Output)>, TaskEnd> {
        let mut attempt = 0;
        let mut hard = 0;
        let mut wait = RETRY_FIRST;
        loop {
            attempt += 1;
            let begun = Instant::now();
            input = input.with_attempt(attempt);
            let error = match self.call(input.clone()).await {
                Ok(output) => {
                    self.pace.learn(input.len(), begun.elapsed());
                    if attempt > 1 {
                        self.settings.status.update(|report| {
                            report.state = TaskState::Running;
                            report.attempts = 0;
                            report.reason.clear();
                            report.last_lines.clear();
                        });
                    }
                    return Ok(Some((input, output)));
                }
                Err(CallFailure::Log(error)) => return Err(error.into()),
                Err(CallFailure::Call(error)) => error,
            };
            let reason = self.describe(&input, &error);
            self.settings.guest_log.note(self.settings.source.partition, &format!("attempt {attempt}: {reason}"));
            if let CallErrorReason::Transient(_) = error.reason() {
                // What was done before is told as done while this waits.
                self.settle(0).await?;
                self.settings.status.update(|report| {
                    report.state = TaskState::Retrying;
                    report.attempts = attempt;
                    report.reason = reason;
                    report.last_lines = error.stderr().to_vec();
                });
                tokio::select! {
                    () = tokio::time::sleep(wait) => wait = (wait * 2).min(RETRY_MAX),
                    () = self.settings.stop.cancelled() => return Ok(None),
                }
                continue;
            }
            self.instance = None;
            hard += 1;
            if hard >= HARD_TRIES {
                let lines =
                    error.frames().iter().map(|frame| format!("at {frame}")).chain(error.stderr().iter().cloned());
                return Err(TaskEnd::Failed(self.failure(attempt, &reason, lines.collect())));
            }
        }
    }

    fn describe(&self, input: &Input, error: &CallError) -> String {
        let (first, last) = (input.first_offset(), input.last_offset());
        format!("{error} (events {first} to {last} of `{}`, partition {})", self.input, self.settings.source.partition)
    }

    fn failure(&self, attempts: u32, reason: &str, last_lines: Vec<String>) -> TaskFailure {
        TaskFailure {
            position: self.position,
            attempts,
            reason: reason.to_owned(),
            last_lines,
            time_us: self.settings.clock.now_us(),
        }
    }

    async fn call(&mut self, input: Input) -> Result<Output, CallFailure> {
        let outputs = Outputs::of(&self.settings.spec, &*self.settings.log)?;
        if outputs != self.outputs {
            // A topic has more partitions or another bound now, and an instance keeps the ports it was started with.
            self.outputs = outputs;
            self.instance = None;
        }
        let mut instance = match self.instance.take() {
            Some(instance) if instance.is_alive() && instance.memory_bytes() < RECYCLE_MEMORY_BYTES => instance,
            _ => self.start_instance().await?,
        };
        let output = instance.process(input).await;
        let memory_bytes = instance.memory_bytes();
        self.settings.status.update(|report| report.memory_bytes = memory_bytes);
        self.instance = Some(instance);
        Ok(output?)
    }

    async fn start_instance(&mut self) -> Result<Instance, CallError> {
        let deployment = Deployment {
            config: self.settings.spec.config.clone(),
            ports: self.outputs.ports.clone(),
            log: self.settings.guest_log.clone(),
            metrics: self.settings.metrics.clone(),
            limits: InstanceLimits::default(),
        };
        let settings = InstanceSettings {
            deployment: Arc::new(deployment),
            task: self.lease.task,
            log: self.settings.log.clone(),
        };
        self.settings.program.instantiate(settings).await
    }

    async fn transaction(&mut self, input: &Input, next: Offset, output: Output) -> Result<Transaction, TaskEnd> {
        let mut appends: Vec<(Tp, Batch)> = Vec::with_capacity(output.batches.len() + 1);
        for emitted in output.batches {
            let topic = self.outputs.topics[emitted.port].id;
            appends.push((Tp { topic, partition: emitted.partition }, emitted.batch));
        }
        if !output.rejected.is_empty() {
            let spec = &self.settings.spec;
            let dead = dead_letters::append(&*self.settings.log, spec, input, &output.rejected).await?;
            appends.push(dead);
        }
        Ok(Transaction {
            task: self.lease.task,
            epoch: self.lease.epoch,
            expect: self.expect,
            next,
            appends,
            state: output.state,
        })
    }

    /// Puts a transaction in order. While the disk is full it waits: the call is done, and nothing of it is lost. `None`:
    /// asked to stop meanwhile.
    async fn commit(&mut self, transaction: Transaction) -> Result<Option<Pending<Appended>>, TaskEnd> {
        let mut waited = false;
        loop {
            match self.settings.log.commit(transaction.clone()) {
                Ok(pending) => {
                    if waited {
                        self.settings.status.update(|report| {
                            report.state = TaskState::Running;
                            report.reason.clear();
                        });
                    }
                    return Ok(Some(pending));
                }
                Err(error @ LogError::DiskFull) => {
                    waited = true;
                    self.settings.status.update(|report| {
                        report.state = TaskState::Retrying;
                        report.reason = error.to_string();
                    });
                    tokio::select! {
                        () = tokio::time::sleep(FULL_WAIT) => {}
                        () = self.settings.stop.cancelled() => return Ok(None),
                    }
                }
                Err(error @ LogError::TransactionTooLarge { .. }) => {
                    let reason = format!("the outputs of one call are too large: {error}");
                    return Err(TaskEnd::Failed(self.failure(1, &reason, Vec::new())));
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits until no more than so many commits are on their way, and counts those that are done.
    async fn settle(&mut self, most: usize) -> Result<(), TaskEnd> {
        while let Some(mut first) = self.in_flight.pop_front() {
            let done = if self.in_flight.len() >= most {
                first.pending.await
            } else {
                match (&mut first.pending).now_or_never() {
                    Some(done) => done,
                    None => {
                        self.in_flight.push_front(first);
                        return Ok(());
                    }
                }
            };
            done?;
            let InFlight { next, counts, .. } = first;
            self.settings.status.update(|report| {
                report.position = next;
                report.events_in += counts.events_in;
                report.events_out += counts.events_out;
                report.events_rejected += counts.rejected;
            });
        }
        Ok(())
    }
}

/// Why a call gave nothing.
enum CallFailure {
    Call(CallError),
    Log(LogError),
}

impl From<CallError> for CallFailure {
    fn from(error: CallError) -> Self {
        CallFailure::Call(error)
    }
}

impl From<LogError> for CallFailure {
    fn from(error: LogError) -> Self {
        CallFailure::Log(error)
    }
}
