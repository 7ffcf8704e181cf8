//! The task of a source: it asks its instance for events, and commits them together with the place to go on from.
//!
//! An instance may keep its place in memory, so one whose call failed, or whose events could not be committed, is not asked again:
//! another one is opened at the place that was committed last.

use crate::deployment::account::StateAccount;
use crate::deployment::outputs::Outputs;
use crate::deployment::spec::{OnPoison, TaskFailure};
use crate::deployment::status::TaskState;
use crate::deployment::task::{Committed, TaskEnd, TaskSettings, last_lines};
use crate::limits::{POLL_EVENTS_MAX, PROBATION_RETRIES, RETRY_FIRST, RETRY_MAX, SOURCE_IDLE_MAX, SOURCE_TRIES};
use bytes::Bytes;
use nodata_log::{LogError, Name, Offset, StateChange, TaskKey, TaskLease};
use nodata_runtime::{CallError, CallErrorReason, Instance, Output, SourceStatus};

/// The state table in which a source is remembered.
pub(crate) const TABLE: &str = "nodata.source";
const POSITION: &[u8] = b"position";
const FINISHED: &[u8] = b"finished";

pub(crate) struct SourceTask {
    settings: TaskSettings,
    lease: TaskLease,
    outputs: Outputs,
    /// Opened at `position`, or further on by what was committed since.
    instance: Option<Instance>,
    position: Option<Bytes>,
    account: StateAccount,
    /// Commits so far.
    expect: Option<Offset>,
    events_max: u32,
    failures: u32,
}

/// Why a step was not taken.
enum Stumble {
    Call(CallError),
    /// What one call emitted does not fit a transaction.
    TooLarge(LogError),
    End(TaskEnd),
}

impl From<CallError> for Stumble {
    fn from(error: CallError) -> Self {
        Stumble::Call(error)
    }
}

impl From<LogError> for Stumble {
    fn from(error: LogError) -> Self {
        Stumble::End(error.into())
    }
}

impl SourceTask {
    /// Takes the task over and works until it is asked to stop, or until it cannot go on.
    pub(crate) async fn run(settings: TaskSettings) -> TaskEnd {
        let (mut task, is_finished) = match Self::begin(settings).await {
            Ok(begun) => begun,
            Err(error) => return error.into(),
        };
        let worked = if is_finished { Ok(()) } else { task.work().await };
        task.drop_instance().await;
        if let Err(end) = worked {
            return end;
        }
        if !task.settings.stop.is_cancelled() {
            task.settings.status.update(|report| {
                report.state = TaskState::Finished;
                report.memory_bytes = 0;
            });
            task.settings.stop.cancelled().await;
        }
        TaskEnd::Stopped
    }

    async fn begin(settings: TaskSettings) -> Result<(Self, bool), LogError> {
        let key = TaskKey { owner: settings.spec.owner(), source: settings.source };
        let lease = settings.log.begin_task(key)?.await?;
        let keys = [POSITION, FINISHED].map(Bytes::from_static);
        let mut kept = settings.log.state_get(key, &Name::new(TABLE)?, &keys)?.into_iter();
        let (position, finished) = (kept.next().flatten(), kept.next().flatten());
        let account = StateAccount::of(&*settings.log, key)?;
        let outputs = Outputs::of(&settings.spec, &*settings.log)?;
        settings.status.update(|report| {
            report.state = TaskState::Running;
            report.position = lease.next.unwrap_or(0);
            report.reason.clear();
        });
        let expect = lease.next;
        let task = Self {
            settings,
            lease,
            outputs,
            instance: None,
            position,
            account,
            expect,
            events_max: POLL_EVENTS_MAX,
            failures: 0,
        };
        Ok((task, finished.is_some()))
    }

    /// Works until there will never be more, or until it is asked to stop.
    async fn work(&mut self) -> Result<(), TaskEnd> {
        while !self.settings.stop.is_cancelled() {
            match self.step().await {
                Ok(status) => {
                    self.is_well();
                    match status {
                        SourceStatus::More => {}
                        SourceStatus::Idle(wait) => self.settings.rest(wait.min(SOURCE_IDLE_MAX)).await,
                        SourceStatus::Finished => return Ok(()),
                    }
                }
                Err(Stumble::End(end)) => return Err(end),
                Err(Stumble::TooLarge(error)) => {
                    self.events_max = (self.events_max / 2).max(1);
                    let reason = format!("the events of one call are too large: {error}");
                    self.failed(reason, Vec::new(), true).await?;
                }
                Err(Stumble::Call(error)) => {
                    let may_pass = matches!(
                        error.reason(),
                        CallErrorReason::Transient(_)
                            | CallErrorReason::NotOpen(_)
                            | CallErrorReason::OutOfHostMemory { .. }
                    );
                    self.failed(error.to_string(), last_lines(&error), may_pass).await?;
                }
            }
        }
        Ok(())
    }

    /// One call, and the commit of what came of it.
    async fn step(&mut self) -> Result<SourceStatus, Stumble> {
        let outputs = Outputs::of(&self.settings.spec, &*self.settings.log)?;
        if outputs != self.outputs {
            self.outputs = outputs;
            self.drop_instance().await;
        }
        if self.settings.secrets.have_moved() {
            self.drop_instance().await;
        }
        let mut instance = match self.instance.take() {
            Some(instance) => instance,
            None => {
                let mut instance = self.start_instance().await?;
                instance.open(self.position.clone()).await?;
                instance
            }
        };
        instance.holds_state(self.account.bytes);
        let (output, status) = instance.poll(self.events_max).await?;
        self.settings.has_memory(&instance);
        let checkpoint = output.checkpoint.clone();
        let is_finished = status == SourceStatus::Finished;
        if !output.batches.is_empty() || !output.state.is_empty() || checkpoint.is_some() || is_finished {
            self.commit(output, is_finished).await?;
        }
        if let Some(position) = checkpoint {
            self.position = Some(position.clone());
            instance.committed(position).await?;
        }
        self.instance = Some(instance);
        Ok(status)
    }

    /// Lets the instance go, if there is one.
    async fn drop_instance(&mut self) {
        if let Some(instance) = self.instance.take() {
            self.settings.let_go(instance).await;
        }
    }

    async fn start_instance(&mut self) -> Result<Instance, CallError> {
        let settings = self.settings.instance(self.lease.task, &self.outputs.ports);
        self.settings.program.instantiate(settings).await
    }

    async fn commit(&mut self, output: Output, is_finished: bool) -> Result<(), Stumble> {
        let Output { batches, events, bytes, checkpoint, mut state, state_grown: grown, .. } = output;
        state.extend(self.account.change(grown)?);
        let finished = is_finished.then(|| (Bytes::from_static(FINISHED), Some(Bytes::new())));
        let position = checkpoint.map(|position| (Bytes::from_static(POSITION), Some(position)));
        let entries: Vec<_> = position.into_iter().chain(finished).collect();
        if !entries.is_empty() {
            state.push(StateChange { table: Name::new(TABLE).map_err(LogError::from)?, entries });
        }
        let next = self.expect.unwrap_or(0) + 1;
        let transaction = self.lease.transaction(self.expect, next, self.outputs.appends(batches), state);
        match self.settings.commit(transaction).await.map_err(Stumble::End)? {
            Committed::InOrder(pending) => drop(pending.await?),
            Committed::TooLarge(error) => return Err(Stumble::TooLarge(error)),
            Committed::Stopped => return Err(Stumble::End(TaskEnd::Stopped)),
        }
        self.expect = Some(next);
        self.account = self.account.with(grown);
        self.settings.status.update(|report| {
            report.position = next;
            report.events_out += events;
        });
        self.settings.usage.count(0, 0, bytes);
        Ok(())
    }

    fn is_well(&mut self) {
        self.failures = 0;
        self.settings.status.update(|report| {
            if report.state == TaskState::Retrying {
                report.recover();
            }
        });
    }

    /// Waits before a source that failed is opened again, longer each time, or gives it up, as the policy says.
    async fn failed(&mut self, reason: String, last_lines: Vec<String>, may_pass: bool) -> Result<(), TaskEnd> {
        self.instance = None;
        self.failures += 1;
        let attempts = self.failures;
        self.settings.note(&format!("attempt {attempts}: {reason}"));
        if attempts >= if may_pass { PROBATION_RETRIES } else { SOURCE_TRIES }
            && self.settings.in_probation().is_some_and(|probation| probation.was_well)
        {
            return Err(TaskEnd::Unfit(reason));
        }
        let policy = self.settings.spec.on_error;
        let most = if may_pass { policy.retries.map(|retries| retries + 1) } else { Some(SOURCE_TRIES) };
        if policy.then == OnPoison::Pause && most.is_some_and(|most| attempts >= most) {
            let position = self.expect.unwrap_or(0);
            let time_us = self.settings.clock.now_us();
            let epoch = Some(self.lease.epoch);
            return Err(TaskEnd::Failed(TaskFailure { position, attempts, reason, last_lines, time_us, epoch }));
        }
        self.settings.status.update(|report| report.retry(attempts, reason, last_lines));
        let doubled = (attempts - 1).min(16);
        self.settings.rest((RETRY_FIRST * (1 << doubled)).min(RETRY_MAX)).await;
        Ok(())
    }
}
