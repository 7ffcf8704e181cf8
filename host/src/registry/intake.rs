//! Taking components: what is begun goes on when whoever asked goes away, and who asks for the same again joins it.

use crate::limits::{INTAKE_WAIT, INTAKES_MAX};
use crate::registry::{ComponentEntry, NewComponent, Registry, RegistryError};
use bytes::Bytes;
use nodata_log::LogError;
use nodata_runtime::{AcceptStage, Digest};
use semver::Version;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// How far a component has come.
#[derive(Clone, Debug)]
pub enum Progress {
    At(Stage),
    Done(Result<Arc<ComponentEntry>, Arc<RegistryError>>),
}

/// What is being done about a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// What an image is.
    Asking,
    Downloading {
        bytes: u64,
        of: u64,
    },
    /// All of it is here.
    Received,
    Checking,
    /// One is compiled at a time.
    Waiting,
    Compiling,
    /// An instance is started that is granted nothing.
    Trying,
    /// It is written down.
    Keeping,
}

impl From<AcceptStage> for Stage {
    fn from(stage: AcceptStage) -> Self {
        match stage {
            AcceptStage::Checking => Stage::Checking,
            AcceptStage::Waiting => Stage::Waiting,
            AcceptStage::Compiling => Stage::Compiling,
            AcceptStage::Trying => Stage::Trying,
        }
    }
}

/// Requests that ask for the same.
type Asked = (String, Option<Version>, Digest);

/// The components that are being taken. Cheap to clone.
#[derive(Clone)]
pub(super) struct Intakes {
    room: Arc<Semaphore>,
    running: Arc<Mutex<HashMap<Asked, watch::Receiver<Progress>>>>,
}

/// Room in memory for the bytes of one component.
#[derive(Debug)]
pub struct IntakeRoom {
    _permit: OwnedSemaphorePermit,
}

impl Intakes {
    pub(super) fn new() -> Self {
        Self { room: Arc::new(Semaphore::new(INTAKES_MAX)), running: Arc::default() }
    }

    fn running(&self) -> MutexGuard<'_, HashMap<Asked, watch::Receiver<Progress>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Registry {
    /// Room for a component, which whoever reads one has before the first byte.
    pub async fn room(&self) -> Result<IntakeRoom, RegistryError> {
        match tokio::time::timeout(INTAKE_WAIT, self.intakes.room.clone().acquire_owned()).await {
            Ok(Ok(permit)) => Ok(IntakeRoom { _permit: permit }),
            Ok(Err(_)) => Err(LogError::Stopping.into()),
            Err(_) => Err(RegistryError::TooManyAtOnce),
        }
    }

    /// Begins to take a component: it is checked, tried, and kept for good, whether anybody waits for that or not.
    pub async fn take(
        &self,
        mut new: NewComponent,
        bytes: Bytes,
        room: IntakeRoom,
    ) -> Result<watch::Receiver<Progress>, RegistryError> {
        new.check()?;
        let digest = Digest::of(&bytes);
        // Told before anything is compiled.
        self.has_label(&new, digest).await?;
        let signature = std::mem::take(&mut new.signature);
        let signed_by = self.policy.check_aside(&new.name, &bytes, signature).await?;
        let asked = (new.name.to_string(), new.label.clone(), digest);
        let (tell, told) = watch::channel(Progress::At(Stage::Received));
        {
            let mut running = self.intakes.running();
            if let Some(joined) = running.get(&asked) {
                return Ok(joined.clone());
            }
            running.insert(asked.clone(), told.clone());
        }
        let ended = Ended { intakes: self.intakes.clone(), asked };
        let registry = self.clone();
        tokio::spawn(async move {
            let at = |stage| drop(tell.send_replace(Progress::At(stage)));
            let taken = match registry.runtime.accept_and_tell(bytes.clone(), |stage| at(stage.into())).await {
                Ok((info, _program)) => {
                    at(Stage::Keeping);
                    registry.keep(new, signed_by, info, bytes).await
                }
                Err(error) => {
                    registry.discard(digest).await;
                    Err(error.into())
                }
            };
            // Whoever asks from now on finds what is kept.
            drop((ended, room));
            tell.send_replace(Progress::Done(taken.map(Arc::new).map_err(Arc::new)));
        });
        Ok(told)
    }

    /// Forgets what was compiled of a component that is refused, unless it is of another one too, or is about to be.
    async fn discard(&self, digest: Digest) {
        let _alone = self.changing.lock().await;
        let is_asked_twice = self.intakes.running().keys().filter(|(_, _, asked)| *asked == digest).count() > 1;
        let known =
            self.list().await.map_or(true, |known| known.iter().any(|entry| entry.digest == digest.to_string()));
        if is_asked_twice || known {
            return;
        }
        if let Err(error) = self.runtime.forget(digest).await {
            // Code that is not used harms nobody.
            tracing::warn!(%digest, %error, "compiled code could not be removed");
        }
    }

    /// Takes a component, and waits until it is kept.
    pub async fn put(&self, new: NewComponent, bytes: Bytes) -> Result<Arc<ComponentEntry>, Arc<RegistryError>> {
        let room = self.room().await?;
        let mut told = self.take(new, bytes, room).await?;
        loop {
            if let Progress::Done(taken) = told.borrow_and_update().clone() {
                return taken;
            }
            if told.changed().await.is_err() {
                return Err(RegistryError::from(LogError::Stopping).into());
            }
        }
    }
}

/// Forgets what was running when it is not any more, however it ended.
struct Ended {
    intakes: Intakes,
    asked: Asked,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.intakes.running().remove(&self.asked);
    }
}
