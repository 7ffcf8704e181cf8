//! A revision that has just taken over: when it fails, the one before is asked whether it would have, too. If not, that one works
//! again.

use super::{CallFailure, Done, Task, TaskEnd, Trouble};
use crate::deployment::rollout::Probation;
use crate::limits::PROBATION_RETRIES;
use nodata_runtime::{Input, Rejected};
use std::sync::Arc;

impl Task {
    /// What is known of the revision before, as long as it may come back.
    pub(super) fn probation(&self) -> Option<Arc<Probation>> {
        self.settings.in_probation().cloned()
    }

    /// Whether the one before would do better than to fail at this input.
    async fn before_succeeds(&mut self, input: &Input) -> Result<bool, TaskEnd> {
        let Some(probation) = self.probation() else { return Ok(false) };
        if !probation.may_ask {
            return Ok(probation.was_well);
        }
        let succeeds = self.ask_before(input).await?.is_some();
        self.is_excused = !succeeds;
        Ok(succeeds)
    }

    /// What the one before makes of an input; `None`: it fails.
    async fn ask_before(&mut self, input: &Input) -> Result<Option<Done>, TaskEnd> {
        let Some(probation) = self.probation() else { return Ok(None) };
        let (settings, around) = (&self.settings, self.around());
        let memory = self.memory.saved();
        let asked = async {
            let mut instance = probation
                .before
                .start(settings.place(), around.task, &around.ports, memory)
                .await
                .map_err(CallFailure::Start)?;
            let done = around.give(&probation.before.spec, &mut instance, input.clone()).await;
            if done.is_ok() {
                settings.let_go(instance).await;
            }
            done
        };
        match asked.await {
            Ok(done) => Ok(Some(done)),
            Err(CallFailure::Log(error)) => Err(error.into()),
            Err(CallFailure::Call(_) | CallFailure::Start(_)) => Ok(None),
        }
    }

    /// An input failed for good. If it is the fault of the revision and not of the input, that is the end of the revision.
    pub(super) async fn blame_revision(&mut self, input: &Input, trouble: &Trouble) -> Result<(), TaskEnd> {
        if self.before_succeeds(input).await? {
            return Err(TaskEnd::Unfit(trouble.reason.clone()));
        }
        Ok(())
    }

    /// A call asks again and again to be tried later.
    pub(super) async fn blame_delay(&mut self, input: &Input, tries: u32, trouble: &Trouble) -> Result<(), TaskEnd> {
        if tries == PROBATION_RETRIES { self.blame_revision(input, trouble).await } else { Ok(()) }
    }

    /// Something failed that is about no input, or there is no instance.
    pub(super) fn blame_at_once(&self, trouble: &Trouble) -> Result<(), TaskEnd> {
        match self.probation() {
            Some(probation) if probation.was_well => Err(TaskEnd::Unfit(trouble.reason.clone())),
            _ => Ok(()),
        }
    }

    /// A revision that rejects what the one before does not fails more than that did.
    pub(super) async fn judge_rejected(&mut self, input: &Input, rejected: &[Rejected]) -> Result<(), TaskEnd> {
        if rejected.is_empty() || !self.probation().is_some_and(|probation| probation.may_ask) {
            return Ok(());
        }
        let Some(done) = self.ask_before(input).await? else { return Ok(()) };
        let before = &done.output.rejected;
        let is_new = |one: &&Rejected| !before.iter().any(|other| other.row == one.row);
        let Some(first) = rejected.iter().find(is_new) else { return Ok(()) };
        let count = rejected.iter().filter(is_new).count();
        let offset = input.events().nth(first.row as usize).map_or(input.first_offset(), |(offset, _)| offset);
        let (topic, partition, reason) = (&self.input, self.settings.source.partition, &first.reason);
        Err(TaskEnd::Unfit(format!(
            "it rejects {count} of {} events that the revision before does not, such as event {offset} of `{topic}`, partition \
             {partition}: {reason}",
            input.len()
        )))
    }
}
