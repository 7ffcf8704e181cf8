//! One task: a deployment on one input partition.
//!
//! It reads a batch, gives it to its instance, and commits everything the call did together with the position behind the
//! batch. There is no moment at which half of that is true, so whatever ends a task between two commits (a crash, a trap, a
//! newer worker) leaves nothing behind, and the next one goes on from the last commit.
//!
//! The next call may begin before the commit of the last one is durable: the log keeps their order, and a commit is refused if
//! the one before it did not happen. Only a call that changed state is waited for, because the next one must read it, and one of a
//! sink, because what it delivered would be delivered again.

use crate::deployment::account::StateAccount;
use crate::deployment::aggregate;
use crate::deployment::dead_letters;
use crate::deployment::memory::Memory;
use crate::deployment::outputs::Outputs;
use crate::deployment::pace::Pace;
use crate::deployment::parts::{self, Progress, Stage};
use crate::deployment::rebuild::Follow;
use crate::deployment::search::{Search, Verdict};
use crate::deployment::spec::{DeploymentRole, OnPoison, Replay, TaskFailure};
use crate::deployment::status::{TaskReport, TaskState};
use crate::deployment::ticks::Ticks;
use crate::deployment::windows::EventTime;
use crate::limits::{
    COMMITS_IN_FLIGHT, FOLLOW_LOOK, POISON_WAIT_AFTER, POISON_WAIT_FIRST, POISON_WAIT_MAX, RETRY_FIRST, RETRY_MAX,
    TICK_US,
};
use nodata_log::{LogError, Name, Offset, StoredBatch, TaskKey, TaskLease, TopicId};
use nodata_runtime::{CallError, CallErrorReason, Extra, Input, Instance, Output, Rejected};
use std::collections::VecDeque;
use std::time::Instant;

mod calling; // its instance
mod closing; // windows of an aggregate
mod committing; // what it has done becomes durable
mod failure; // why a call gave nothing
mod probation; // a revision that has just taken over
mod reading; // what comes next
mod replaying; // dead letters
mod settings; // what it is given
mod shadowing; // a revision that commits nothing
mod ticking; // calls at intervals

use closing::idle;
use committing::{Counts, InFlight, InPlace};
use failure::{Blame, Trouble};
pub(crate) use failure::{CallFailure, last_lines};
pub(crate) use settings::{Committed, TaskSettings, granted};
use shadowing::Shadowing;
use ticking::next_tick;

/// How a task ended.
#[derive(Debug)]
pub(crate) enum TaskEnd {
    /// It was asked to.
    Stopped,
    /// Its component failed, again and again.
    Failed(TaskFailure),
    /// Its component has just taken over, and fails where the one before does not.
    Unfit(String),
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

/// When a component ticks that does: where there is a partition of the input, and not where parts of others are put together.
fn ticks_of(settings: &TaskSettings, stage: Stage) -> Option<Ticks> {
    let every_us = settings.spec.tick_us.unwrap_or(TICK_US);
    let ticks = settings.program.has(Extra::Ticker) && stage != Stage::Together;
    ticks.then(|| Ticks::new(every_us, settings.clock.now_us()))
}

/// What a call did with an input, to be committed with the position behind it.
pub(crate) struct Done {
    pub(crate) output: Output,
    /// Of an aggregate: where it is in time then, and how many late events went nowhere.
    pub(crate) time: EventTime,
    pub(crate) late: u64,
    /// By how many bytes the state of the task is more than before.
    pub(crate) grown: i64,
}

impl Done {
    /// How many of the rows it was given it is about. The others were left for the next call.
    fn rows_of(&self, input: &Input) -> usize {
        self.output.deferred.map_or(input.len(), |row| row as usize)
    }
}

impl From<Output> for Done {
    fn from(output: Output) -> Self {
        let grown = output.state_grown;
        Self { output, time: EventTime::default(), late: 0, grown }
    }
}

/// What became of an input.
enum Processed {
    Done(Input, Done),
    /// It failed for good.
    Failed(Input, Trouble),
    /// Asked to stop while waiting to try again.
    Stopped,
}

/// How far a task comes with an input.
#[derive(Clone, Copy)]
enum Advance {
    /// Past it.
    Input,
    /// It was a dead letter: past that, and no further in its own topic.
    Letter(TopicId, Offset),
}

/// Bytes of the first rows of an input, by the size of its events on average if they are not all.
fn bytes_of(input: &Input, rows: usize) -> u64 {
    input.bytes() * rows as u64 / (input.len() as u64).max(1)
}

pub(crate) struct Task {
    settings: TaskSettings,
    input: Name,
    stage: Stage,
    /// What it said last about its partition, where others put the parts of groups together.
    told: Option<Progress>,
    lease: TaskLease,
    /// The next offset to read.
    position: Offset,
    /// The position of the last commit, durable or on its way.
    expect: Option<Offset>,
    instance: Option<Instance>,
    memory: Memory,
    account: StateAccount,
    outputs: Outputs,
    in_flight: VecDeque<InFlight>,
    pace: Pace,
    search: Search,
    /// Calls with the event at `position` that failed.
    attempts: u32,
    /// Events that were put aside since the last one that was processed.
    poison_in_a_row: u32,
    /// What it has replayed.
    replayed: Option<Replay>,
    /// Of an aggregate: where it is in time, and since when it has been there.
    time: EventTime,
    time_since: Instant,
    /// No events came for so long that its time goes on by itself.
    is_idle: bool,
    /// Of a component that ticks.
    ticks: Option<Ticks>,
    /// Whether the last tick did.
    tick_failed: bool,
    /// Batches that were read and not given to the component yet.
    ahead: VecDeque<StoredBatch>,
    /// Whom it follows, and how far that has come: it goes no further.
    follow: Option<Follow>,
    until: Option<Offset>,
    shadowing: Shadowing,
    /// In its probation: the revision before fails at this event too.
    is_excused: bool,
    /// The last call left rows for the next one, which should have as many as any other.
    left_rows: bool,
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
        let end = task.settle(0).await.err().unwrap_or(end);
        task.drop_instance().await;
        match end {
            TaskEnd::Failed(failure)
                if !task.is_excused && task.probation().is_some_and(|probation| probation.was_well) =>
            {
                TaskEnd::Unfit(failure.reason)
            }
            end => end,
        }
    }

    async fn begin(settings: TaskSettings) -> Result<Self, LogError> {
        let key = TaskKey { owner: settings.spec.owner(), source: settings.source };
        let lease = settings.log.begin_task(key)?.await?;
        let position = lease.next.unwrap_or(settings.start);
        let outputs = Outputs::of(&settings.spec, &*settings.log)?;
        let stage = Stage::of(&settings.spec, settings.source);
        let (input, time) = match stage {
            Stage::Together => (settings.spec.parts_topic(), parts::event_time(&*settings.log, &settings.spec, key)?),
            _ => (settings.spec.input.clone(), aggregate::event_time(&*settings.log, key)?),
        };
        let task = Self {
            input: Name::new(&input)?,
            stage,
            told: parts::told(&*settings.log, key)?,
            position,
            expect: lease.next,
            lease,
            instance: None,
            memory: Memory::of(&*settings.log, key, &settings.program)?,
            account: StateAccount::of(&*settings.log, key)?,
            outputs,
            in_flight: VecDeque::new(),
            pace: Pace::of(settings.spec.role),
            search: Search::default(),
            attempts: 0,
            poison_in_a_row: 0,
            replayed: None,
            time,
            time_since: Instant::now(),
            is_idle: false,
            ticks: if settings.follow.is_some() { None } else { ticks_of(&settings, stage) },
            tick_failed: false,
            ahead: VecDeque::new(),
            follow: settings.follow,
            until: None,
            shadowing: Shadowing::default(),
            is_excused: false,
            left_rows: false,
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
            self.look_ahead();
            if self.follow.is_none() {
                self.replay().await?;
            }
            self.close_windows().await?;
            self.tick().await?;
            if self.ahead.is_empty() || (std::mem::take(&mut self.left_rows) && !self.is_full()) {
                end.mark_unchanged();
                self.read().await?;
            }
            let Some(input) = self.next_input()? else {
                // Nothing to do: whatever was done becomes durable, and then new events are waited for.
                self.settle(0).await?;
                let idles = self.idles();
                let tick = self.ticks.map(|ticks| ticks.wait(self.settings.clock.now_us()));
                tokio::select! {
                    moved = end.changed() => {
                        // The topic is gone, and with it the reason to work.
                        if moved.is_err() {
                            return Ok(());
                        }
                    }
                    Ok(()) = self.settings.replay.changed() => {}
                    () = idle(idles, self.time_since) => self.pass_time(),
                    () = next_tick(tick) => {}
                    () = tokio::time::sleep(FOLLOW_LOOK), if self.follow.is_some() => {}
                    () = self.settings.stop.cancelled() => {}
                }
                continue;
            };
            self.one_batch(input).await?;
        }
        Ok(())
    }

    /// Processes and commits the next input, or finds out why that is not possible.
    async fn one_batch(&mut self, input: Input) -> Result<(), TaskEnd> {
        if let Some(rows) = self.one_input(input, Advance::Input).await? {
            self.is_excused = false;
            self.poison_in_a_row = 0;
            self.search.succeeded(rows, self.pace.events());
            if !matches!(self.search, Search::Halving { .. }) {
                self.attempts = 0;
            }
        }
        Ok(())
    }

    /// Processes and commits an input, and answers with how many of its rows were processed; `None` if it failed.
    async fn one_input(&mut self, input: Input, advance: Advance) -> Result<Option<usize>, TaskEnd> {
        let begun = Instant::now();
        let (input, done) = match self.process(input).await? {
            Processed::Done(input, done) => (input, done),
            Processed::Failed(input, trouble) => return self.failed(input, trouble, advance).await.map(|()| None),
            Processed::Stopped => return Ok(None),
        };
        let took = begun.elapsed();
        self.judge_rejected(&input, &done.output.rejected).await?;
        self.shadow(&input, &done, took).await?;
        let rows = done.rows_of(&input);
        if let Some(error) = self.conclude(&input, done, &[], 0, advance).await? {
            let reason = format!("the outputs of one call are too large: {error}");
            let trouble = Trouble { reason, attempts: self.attempts, last_lines: Vec::new() };
            return self.failed(input, trouble, advance).await.map(|()| None);
        }
        Ok(Some(rows))
    }

    /// Commits what became of an input, with the position behind it. What comes back is why that is too much at once.
    async fn conclude(
        &mut self,
        input: &Input,
        done: Done,
        last_lines: &[String],
        skipped: u64,
        advance: Advance,
    ) -> Result<Option<LogError>, TaskEnd> {
        let rows = done.rows_of(input);
        let Done { mut output, time, late, grown } = done;
        let next = match advance {
            Advance::Input => input.offset_behind(rows),
            Advance::Letter(letters, next) => {
                output.state.push(dead_letters::replayed_to(letters, next)?);
                self.position
            }
        };
        let rejected = output.rejected.len() as u64;
        if self.follow.is_some() {
            // The one that works has emitted it, or is about to.
            output.emits_nothing();
        }
        let counts = Counts {
            events_in: rows as u64,
            events_out: output.events,
            bytes_in: bytes_of(input, rows),
            bytes_out: output.bytes,
            rejected,
            skipped,
            late,
        };
        // The next call reads state, and no memory but its own.
        let changes_state = !output.state.is_empty();
        let saved = output.memory.take();
        output.state.extend(self.memory.change(saved.as_ref())?);
        output.state.extend(self.account.change(grown)?);
        let transaction = self.transaction(input, next, output, last_lines).await?;
        let pending = match self.settings.commit(transaction).await? {
            Committed::InOrder(pending) => pending,
            // What the instance keeps is of a call that did not happen.
            Committed::TooLarge(error) => {
                self.instance = None;
                return Ok(Some(error));
            }
            Committed::Stopped => {
                self.instance = None;
                return Ok(None);
            }
        };
        self.memory.keep(saved);
        self.account = self.account.with(grown);
        self.in_flight.push_back(InFlight { pending, next, counts });
        self.left_rows = rows < input.len();
        self.position = next;
        self.expect = Some(next);
        if time.latest > self.time.latest {
            self.time = time;
        }
        self.time_since = Instant::now();
        self.is_idle = false;
        while self.ahead.front().is_some_and(|stored| stored.last() < next) {
            self.ahead.pop_front();
        }
        // What a sink has delivered and nobody remembers would be delivered again.
        let waits = changes_state || self.settings.spec.role == DeploymentRole::Sink;
        self.settle(if waits { 0 } else { COMMITS_IN_FLIGHT }).await?;
        Ok(None)
    }

    /// Goes on with fewer events, or puts aside the one that it is.
    async fn failed(&mut self, input: Input, trouble: Trouble, advance: Advance) -> Result<(), TaskEnd> {
        self.blame_revision(&input, &trouble).await?;
        if matches!(advance, Advance::Input) && self.search.failed(input.len()) == Verdict::Smaller {
            return Ok(());
        }
        let mut output = Output::default();
        let then = match self.stage {
            // A part is no event that could be put aside: results would be wrong.
            Stage::Together => OnPoison::Pause,
            _ => self.settings.spec.on_error.then,
        };
        let (what, skipped) = match then {
            OnPoison::Pause => return Err(TaskEnd::Failed(self.failure(trouble))),
            OnPoison::Skip => ("is skipped", 1),
            OnPoison::DeadLetter => {
                output.rejected.push(Rejected { row: 0, reason: trouble.reason.clone() });
                ("is a dead letter", 0)
            }
        };
        let what = if self.follow.is_some() { "is left out of the state that is made anew" } else { what };
        let note = format!("the event at offset {} {what}: {}", input.first_offset(), trouble.reason);
        self.settings.note(&note);
        if let Some(error) = self.conclude(&input, output.into(), &trouble.last_lines, skipped, advance).await? {
            return Err(TaskEnd::Log(error));
        }
        self.is_well();
        self.attempts = 0;
        self.poison_in_a_row += 1;
        if self.poison_in_a_row > POISON_WAIT_AFTER {
            // Whatever is wrong is not one event. It is put right with less damage when this is slow.
            let doubled = (self.poison_in_a_row - POISON_WAIT_AFTER).min(16);
            self.settings.rest((POISON_WAIT_FIRST * (1 << doubled)).min(POISON_WAIT_MAX)).await;
        }
        Ok(())
    }

    /// Says that something is tried again, and why.
    fn is_in_trouble(&self, trouble: &Trouble) {
        let (reason, last_lines) = (trouble.reason.clone(), trouble.last_lines.clone());
        self.settings.status.update(|report| report.retry(trouble.attempts, reason, last_lines));
    }

    /// Whatever was wrong is over.
    fn is_well(&self) {
        if self.attempts > 0 {
            self.settings.status.update(TaskReport::recover);
        }
    }

    /// Calls the component until it succeeds, as the policy says, and answers with the input as it was given the last time.
    async fn process(&mut self, mut input: Input) -> Result<Processed, TaskEnd> {
        let (mut soft, mut hard) = (0, 0);
        let mut wait = RETRY_FIRST;
        loop {
            let begun = Instant::now();
            input = input.with_attempt(self.attempts + 1);
            let failure = match self.call(input.clone()).await {
                Ok(done) => {
                    self.pace.learn(input.len(), begun.elapsed());
                    self.is_well();
                    return Ok(Processed::Done(input, done));
                }
                Err(failure) => failure,
            };
            self.attempts += 1;
            let (error, blame) = match failure {
                CallFailure::Log(error) => return Err(error.into()),
                CallFailure::Start(error) => (error, Blame::Nobody),
                CallFailure::Call(error) => {
                    let blame = match Blame::of(&error) {
                        Blame::Events if self.waited_for_others(&error, input.len()) => Blame::Later,
                        blame => blame,
                    };
                    (error, blame)
                }
            };
            let trouble = self.describe(&input, &error);
            let is_short_of_memory = matches!(error.reason(), CallErrorReason::OutOfHostMemory { .. });
            let said = format!("attempt {}: {}", self.attempts, trouble.reason);
            self.settings.note(&said);
            // What was done before is told as done while this is tried again.
            self.settle(0).await?;
            self.is_in_trouble(&trouble);
            match blame {
                Blame::Host => return Err(TaskEnd::Failed(self.failure(trouble))),
                Blame::Nobody if is_short_of_memory => {}
                Blame::Nobody => self.blame_at_once(&trouble)?,
                Blame::Later => {
                    soft += 1;
                    self.blame_delay(&input, soft, &trouble).await?;
                    if self.settings.spec.on_error.retries.is_some_and(|most| soft > most) {
                        return Ok(Processed::Failed(input, trouble));
                    }
                }
                Blame::Events => {
                    self.instance = None;
                    hard += 1;
                    if hard >= self.search.tries(input.len()) {
                        return Ok(Processed::Failed(input, trouble));
                    }
                    // Whoever waits for the task to end has waited for one call that came to nothing.
                    if self.settings.stop.is_cancelled() {
                        return Ok(Processed::Stopped);
                    }
                    continue;
                }
            }
            self.settings.rest(wait).await;
            wait = (wait * 2).min(RETRY_MAX);
            if self.settings.stop.is_cancelled() {
                return Ok(Processed::Stopped);
            }
        }
    }

    /// Whether a call failed because whoever is asked takes too long: fewer events may help, and one that waits is not at fault.
    fn waited_for_others(&self, error: &CallError, events: usize) -> bool {
        matches!(error.reason(), CallErrorReason::OutOfTime { .. }) && self.settings.http.is_some() && events == 1
    }

    fn describe(&self, input: &Input, error: &CallError) -> Trouble {
        let (first, last) = (input.first_offset(), input.last_offset());
        let events = if first == last { format!("event {first}") } else { format!("events {first} to {last}") };
        let partition = self.settings.source.partition;
        Trouble {
            reason: format!("{error} ({events} of `{}`, partition {partition})", self.input),
            attempts: self.attempts,
            last_lines: last_lines(error),
        }
    }

    fn failure(&self, trouble: Trouble) -> TaskFailure {
        let Trouble { reason, attempts, last_lines } = trouble;
        let (time_us, epoch) = (self.settings.clock.now_us(), Some(self.lease.epoch));
        TaskFailure { position: self.position, attempts, reason, last_lines, time_us, epoch }
    }
}
