//! The instance of a task, and what it is given.

use super::{CallFailure, Done, Task};
use crate::deployment::aggregate;
use crate::deployment::outputs::Outputs;
use crate::deployment::parts::{self, Stage};
use crate::deployment::spec::{DeploymentRole, DeploymentSpec};
use crate::deployment::windows::EventTime;
use nodata_log::{Log, TaskKey};
use nodata_runtime::{CallError, Input, Instance, Port};
use std::sync::Arc;

/// Instances with more than this part of their memory are replaced between two batches: linear memory never shrinks.
const RECYCLE: f64 = 0.75;

/// What a call is about besides its input, whatever revision is called.
pub(super) struct Around {
    pub(super) log: Arc<dyn Log>,
    pub(super) task: TaskKey,
    pub(super) ports: Arc<[Port]>,
    pub(super) stage: Stage,
    pub(super) time: EventTime,
}

impl Around {
    pub(super) async fn give(
        self,
        spec: &DeploymentSpec,
        instance: &mut Instance,
        input: Input,
    ) -> Result<Done, CallFailure> {
        let Self { log, task, ports, stage, time } = self;
        match (spec.role, spec.aggregation) {
            (DeploymentRole::Sink, _) => instance.deliver(input).await.map(Done::from).map_err(CallFailure::from),
            (DeploymentRole::Aggregate, Some(_)) if stage == Stage::Together => {
                parts::put_together(spec, time, (&*log, task), instance, input).await
            }
            (DeploymentRole::Aggregate, Some(how)) => {
                aggregate::fold(how, time, (&*log, task, &*ports), instance, input).await
            }
            _ => instance.process(input).await.map(Done::from).map_err(CallFailure::from),
        }
    }
}

impl Task {
    pub(super) async fn call(&mut self, input: Input) -> Result<Done, CallFailure> {
        let mut instance = self.take_instance().await?;
        let done = self.around().give(&self.settings.spec, &mut instance, input).await;
        let state_bytes = self.settings.spec.budget.state_bytes();
        let done = done.and_then(|done| {
            self.account.check(done.grown, state_bytes)?;
            Ok(done)
        });
        self.keep_instance(instance, done.is_err());
        done
    }

    /// What a call is about besides its input.
    pub(super) fn around(&self) -> Around {
        Around {
            log: self.settings.log.clone(),
            task: self.lease.task,
            ports: self.outputs.ports.clone(),
            stage: self.stage,
            time: self.time,
        }
    }

    /// The instance, or a new one.
    pub(super) async fn take_instance(&mut self) -> Result<Instance, CallFailure> {
        let outputs = Outputs::of(&self.settings.spec, &*self.settings.log)?;
        if outputs != self.outputs {
            // A topic has more partitions or another bound now, and an instance keeps the ports it was started with.
            self.outputs = outputs;
            self.drop_instance().await;
        }
        let much = (self.settings.spec.budget.memory_bytes() as f64 * RECYCLE) as u64;
        let is_large = |instance: &Instance| instance.memory_bytes() >= much;
        if self.instance.as_ref().is_some_and(is_large) {
            self.drop_instance().await;
        }
        if self.settings.secrets.have_moved() {
            self.drop_instance().await;
        }
        let mut instance = match self.instance.take() {
            Some(instance) if instance.is_alive() => instance,
            _ => self.start_instance().await.map_err(CallFailure::Start)?,
        };
        instance.holds_state(self.account.bytes);
        Ok(instance)
    }

    /// Lets the instance go, if there is one.
    pub(super) async fn drop_instance(&mut self) {
        if let Some(instance) = self.instance.take() {
            self.settings.let_go(instance).await;
        }
    }

    /// Keeps an instance for the next call. One whose memory lasts must not remember a call that failed.
    pub(super) fn keep_instance(&mut self, instance: Instance, call_failed: bool) {
        if call_failed && self.memory.is_kept() {
            return;
        }
        self.settings.has_memory(&instance);
        self.instance = Some(instance);
    }

    pub(super) async fn start_instance(&mut self) -> Result<Instance, CallError> {
        let settings = self.settings.instance(self.lease.task, &self.outputs.ports);
        let mut instance = self.settings.program.instantiate(settings).await?;
        if let Some((saved, saved_by)) = self.memory.to_restore() {
            instance.restore(saved, saved_by).await?;
        }
        Ok(instance)
    }
}
