//! A revision that is given what this one was given, and commits nothing.

use super::{CallFailure, Done, Task};
use crate::deployment::rollout::Aside;
use crate::deployment::shadow::{Call, ShadowReport};
use crate::limits::{SHADOW_FAILURES_MAX, SHADOW_SLOW_MIN, SHADOW_SLOWER};
use nodata_log::LogError;
use nodata_runtime::{Extra, Input, Instance, Output};
use std::sync::Arc;
use std::time::Duration;

/// The shadow of a task.
#[derive(Default)]
pub(super) struct Shadowing {
    aside: Option<Arc<Aside>>,
    /// It goes on from what it remembers itself.
    instance: Option<Instance>,
    /// Calls in a row that failed, or were given up because the deployment would be slower for them.
    in_a_row: u32,
    has_ended: bool,
}

impl Shadowing {
    /// What is asked, if something is.
    fn asks(&self) -> Option<Arc<Aside>> {
        self.aside.clone().filter(|_| !self.has_ended)
    }
}

impl Task {
    /// Gives the shadow, if there is one, what was processed a moment ago and is not committed yet: it has the same state.
    pub(super) async fn shadow(&mut self, input: &Input, done: &Done, took: Duration) -> Result<(), LogError> {
        if done.output.deferred.is_some() {
            self.follow_shadow();
            if self.shadowing.asks().is_some() {
                self.settings.status.update(|report| report.shadow.get_or_insert_default().not_compared += 1);
            }
            return Ok(());
        }
        self.ask_shadow(Call::Process(input), &done.output, took).await
    }

    /// Has the shadow, if there is one, do what was done a moment ago and is not committed yet.
    pub(super) async fn ask_shadow(&mut self, call: Call<'_>, works: &Output, took: Duration) -> Result<(), LogError> {
        self.follow_shadow();
        let Some(aside) = self.shadowing.asks() else { return Ok(()) };
        let instance = self.shadowing.instance.take().filter(Instance::is_alive);
        let (settings, around, memory) = (&self.settings, self.around(), self.memory.saved());
        let (ports, state_bytes) = (around.ports.clone(), self.account.bytes);
        let asked = async {
            let mut instance = match instance {
                Some(instance) => instance,
                None => aside
                    .start(settings.place(), around.task, &around.ports, memory)
                    .await
                    .map_err(CallFailure::Start)?,
            };
            instance.holds_state(state_bytes);
            let would = match call {
                Call::Process(input) => around.give(&aside.spec, &mut instance, input.clone()).await?.output,
                Call::Close(groups) => instance.close(groups).await?,
                Call::Tick { now_us, watermark_us } if aside.program.has(Extra::Ticker) => {
                    instance.tick(now_us, watermark_us).await?
                }
                Call::Tick { .. } => Output::default(),
            };
            Ok((instance, would))
        };
        let slow = took * SHADOW_SLOWER + SHADOW_SLOW_MIN;
        // One that never answers must not keep up what works. Whoever is given up has ended.
        let why = match tokio::time::timeout(slow, asked).await {
            Err(_) => {
                let why = format!("it took longer than {slow:.1?}, and {took:.1?} the one that works");
                self.settings.status.update(|report| report.shadow.get_or_insert_default().fail(call, &why));
                Some(why)
            }
            Ok(Err(CallFailure::Log(error))) => return Err(error),
            Ok(Ok((instance, would))) => {
                self.shadowing.instance = Some(instance);
                self.settings.status.update(|report| {
                    report.shadow.get_or_insert_default().compare(call, &ports, works, &would);
                });
                None
            }
            Ok(Err(CallFailure::Start(error) | CallFailure::Call(error))) => {
                let why = error.to_string();
                self.settings.status.update(|report| report.shadow.get_or_insert_default().fail(call, &why));
                Some(why)
            }
        };
        self.shadowing.in_a_row = if why.is_some() { self.shadowing.in_a_row + 1 } else { 0 };
        if let Some(why) = why.filter(|_| self.shadowing.in_a_row >= SHADOW_FAILURES_MAX) {
            // It would only slow down what works.
            self.shadowing.has_ended = true;
            self.settings.status.update(|report| report.shadow.get_or_insert_default().ended = Some(why));
        }
        Ok(())
    }

    /// Begins with another shadow, or with none.
    fn follow_shadow(&mut self) {
        let now = self.settings.shadow.borrow_and_update().clone();
        let is_same = match (&now, &self.shadowing.aside) {
            (None, None) => true,
            (Some(now), Some(then)) => Arc::ptr_eq(now, then),
            _ => false,
        };
        if !is_same {
            let begun = |aside: &Arc<Aside>| ShadowReport { revision: aside.spec.revision, ..ShadowReport::default() };
            let report_now = now.as_ref().map(begun);
            self.settings.status.update(|report| report.shadow = report_now);
            self.shadowing = Shadowing { aside: now, ..Shadowing::default() };
        }
    }
}
