//! A revision that is given what this one was given, and commits nothing.

use super::{Around, CallFailure, Done, Task, TaskEnd};
use crate::deployment::rollout::Aside;
use crate::deployment::shadow::ShadowReport;
use crate::limits::{SHADOW_FAILURES_MAX, SHADOW_SLOW_MIN, SHADOW_SLOWER};
use nodata_runtime::{Input, Instance};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The shadow of a task.
#[derive(Default)]
pub(super) struct Shadowing {
    aside: Option<Arc<Aside>>,
    /// It goes on from what it remembers itself.
    instance: Option<Instance>,
    /// Calls in a row that failed, or that took so long that the deployment is slower for it.
    in_a_row: u32,
    has_ended: bool,
}

impl Task {
    /// Gives the shadow, if there is one, what was processed a moment ago and is not committed yet: it has the same state.
    pub(super) async fn shadow(&mut self, input: &Input, done: &Done, took: Duration) -> Result<(), TaskEnd> {
        self.follow_shadow();
        let Some(aside) = self.shadowing.aside.clone().filter(|_| !self.shadowing.has_ended) else { return Ok(()) };
        if done.output.deferred.is_some() {
            self.settings.status.update(|report| report.shadow.get_or_insert_default().not_compared += 1);
            return Ok(());
        }
        let begun = Instant::now();
        let instance = self.shadowing.instance.take().filter(Instance::is_alive);
        let (settings, around, memory) = (&self.settings, self.around(), self.memory.saved());
        let ports = around.ports.clone();
        let asked = async {
            let mut instance = match instance {
                Some(instance) => instance,
                None => aside
                    .start(settings.place(), around.task, &around.ports, memory)
                    .await
                    .map_err(CallFailure::Start)?,
            };
            let done = Around::give(around, &aside.spec, &mut instance, input.clone()).await?;
            Ok((instance, done))
        };
        let slow = took * SHADOW_SLOWER + SHADOW_SLOW_MIN;
        let why = match asked.await {
            Err(CallFailure::Log(error)) => return Err(error.into()),
            Ok((instance, would)) => {
                self.shadowing.instance = Some(instance);
                let compared = (&done.output, &would.output);
                self.settings.status.update(|report| {
                    report.shadow.get_or_insert_default().compare(input, &ports, compared.0, compared.1);
                });
                (begun.elapsed() > slow)
                    .then(|| format!("a call took it {:?}, and {took:?} the one that works", begun.elapsed()))
            }
            Err(CallFailure::Start(error) | CallFailure::Call(error)) => {
                let why = error.to_string();
                self.settings.status.update(|report| report.shadow.get_or_insert_default().fail(input, &why));
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
