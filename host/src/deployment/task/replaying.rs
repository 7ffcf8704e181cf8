//! Dead letters that a task processes once more.

use super::{Advance, InPlace, Task, TaskEnd};
use crate::deployment::dead_letters::{self, Letter};
use crate::deployment::parts::Stage;
use crate::deployment::replay::READ;
use nodata_log::{TopicId, Tp};

impl Task {
    /// Processes the dead letters of this task that it was asked for, each on its own.
    pub(super) async fn replay(&mut self) -> Result<(), TaskEnd> {
        let Some(replay) = *self.settings.replay.borrow_and_update() else { return Ok(()) };
        if self.replayed == Some(replay) || self.stage == Stage::Together {
            return Ok(());
        }
        let letters = Tp { topic: TopicId(replay.topic), partition: 0 };
        let mut next = dead_letters::replayed(&*self.settings.log, self.lease.task, letters.topic)?.max(replay.from);
        while next < replay.until {
            let chunk = match self.settings.log.bounds(letters) {
                // They are gone, and nothing is left to replay.
                Err(_) => return Ok(()),
                Ok(bounds) => self.settings.log.read(letters, next.max(bounds.earliest), READ).await?,
            };
            let to = chunk.next.min(replay.until);
            for letter in chunk.batches.iter().flat_map(Letter::all) {
                if !(next..to).contains(&letter.at) || letter.partition() != self.settings.source.partition {
                    continue;
                }
                // Nothing that could be given: it is passed.
                let Ok(input) = letter.input(&self.input) else { continue };
                self.attempts = 0;
                self.one_input(input, Advance::Letter(letters.topic, letter.at + 1)).await?;
                if self.settings.stop.is_cancelled() {
                    return Ok(());
                }
            }
            next = to;
        }
        // Letters of others at the end would be looked at again after each restart.
        if dead_letters::replayed(&*self.settings.log, self.lease.task, letters.topic)? < replay.until {
            let state = vec![dead_letters::replayed_to(letters.topic, replay.until)?];
            self.commit_in_place(InPlace { state, ..InPlace::default() }).await?;
        }
        self.replayed = Some(replay);
        Ok(())
    }
}
