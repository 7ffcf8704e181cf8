//! `ComponentService`.

use crate::api::status::{self, Refusal};
use crate::deployment::Deployments;
use crate::images::ImageRef;
use crate::limits::{PROGRESS_MESSAGES, UPLOAD_IDLE};
use crate::registry::{
    self, ComponentEntry, ComponentRef, ComponentSource, NewComponent, Progress, PullRequest, Registry, RegistryError,
    Stage,
};
use bytes::BytesMut;
use futures::{Stream, StreamExt as _};
use nodata_log::{ErrorKind, LogError};
use nodata_proto::server as wire;
use nodata_proto::server::upload_component_request::Request as UploadPart;
use nodata_runtime::{Digest, limits::COMPONENT_BYTES_MAX};
use std::net::SocketAddr;
use std::pin::Pin;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

pub(crate) struct ComponentApi {
    pub(crate) registry: Registry,
    pub(crate) deployments: Deployments,
    pub(crate) stop: CancellationToken,
}

impl From<&RegistryError> for Refusal {
    fn from(error: &RegistryError) -> Self {
        let refusal = match error {
            RegistryError::Log(error) => return error.clone().into(),
            error => Refusal::new(error.kind(), error.reason(), error.to_string()),
        };
        match error.hint() {
            Some(hint) => refusal.hint(hint),
            None => refusal,
        }
    }
}

impl From<RegistryError> for Refusal {
    fn from(error: RegistryError) -> Self {
        (&error).into()
    }
}

fn to_wire(entry: ComponentEntry) -> wire::Component {
    let ComponentEntry { name, digest, labels, bytes, roles, extras, imports, .. } = entry;
    let image = match entry.source {
        ComponentSource::Upload => None,
        ComponentSource::Image { reference, manifest_digest } => Some(wire::ImageSource { reference, manifest_digest }),
    };
    wire::Component {
        name,
        digest,
        bytes,
        roles,
        extras,
        imports,
        uploaded_timestamp_us: entry.uploaded_us,
        labels: labels.iter().map(ToString::to_string).collect(),
        uploaded_by: entry.uploaded_by,
        uploaded_from: entry.uploaded_from,
        image,
        signed_by: entry.signed_by.unwrap_or_default(),
    }
}

/// What a request says about a component, beside its bytes.
fn new_component(name: &str, version: &str, by: String, from: Option<SocketAddr>) -> Result<NewComponent, Refusal> {
    let name = status::name("component", name)?;
    let label = match version {
        "" => None,
        label => Some(registry::label(label).map_err(RegistryError::from)?),
    };
    let from = from.map(|address| address.ip().to_canonical().to_string()).unwrap_or_default();
    Ok(NewComponent { label, by, from, ..NewComponent::named(name) })
}

fn reference(name: &str, version: &str) -> Result<ComponentRef, Refusal> {
    Ok(ComponentRef::new(name, version).map_err(RegistryError::from)?)
}

fn progress_to_wire(stage: Stage) -> wire::ComponentProgress {
    let (bytes, bytes_total) = match stage {
        Stage::Downloading { bytes, of } => (bytes, of),
        _ => (0, 0),
    };
    let stage = match stage {
        Stage::Asking => wire::ComponentStage::Asking,
        Stage::Downloading { .. } => wire::ComponentStage::Downloading,
        Stage::Received => wire::ComponentStage::Received,
        Stage::Checking => wire::ComponentStage::Checking,
        Stage::Waiting => wire::ComponentStage::Waiting,
        Stage::Compiling => wire::ComponentStage::Compiling,
        Stage::Trying => wire::ComponentStage::Trying,
        Stage::Keeping => wire::ComponentStage::Keeping,
    };
    wire::ComponentProgress { stage: stage.into(), bytes, bytes_total }
}

/// What is told of a component.
enum Answer {
    Progress(wire::ComponentProgress),
    Component(Box<wire::Component>),
}

impl From<Answer> for wire::UploadComponentResponse {
    fn from(answer: Answer) -> Self {
        use wire::upload_component_response::Answer as Of;
        let answer = match answer {
            Answer::Progress(progress) => Of::Progress(progress),
            Answer::Component(component) => Of::Component(*component),
        };
        Self { answer: Some(answer) }
    }
}

impl From<Answer> for wire::PullComponentResponse {
    fn from(answer: Answer) -> Self {
        use wire::pull_component_response::Answer as Of;
        let answer = match answer {
            Answer::Progress(progress) => Of::Progress(progress),
            Answer::Component(component) => Of::Component(*component),
        };
        Self { answer: Some(answer) }
    }
}

/// Tells how far a component has come, until it is there or refused, or until nobody listens.
async fn tell(
    mut told: watch::Receiver<Progress>,
    messages: mpsc::Sender<Result<Answer, Status>>,
    stop: CancellationToken,
) {
    loop {
        let progress = told.borrow_and_update().clone();
        let (answer, is_last) = match progress {
            Progress::At(stage) => (Ok(Answer::Progress(progress_to_wire(stage))), false),
            Progress::Done(Ok(entry)) => (Ok(Answer::Component(Box::new(to_wire((*entry).clone())))), true),
            Progress::Done(Err(error)) => (Err(Refusal::from(&*error).into()), true),
        };
        if messages.send(answer).await.is_err() || is_last {
            return;
        }
        let stopping = || Err(Refusal::from(LogError::Stopping).into());
        tokio::select! {
            moved = told.changed() => {
                if moved.is_err() {
                    let _ = messages.send(stopping()).await;
                    return;
                }
            }
            () = messages.closed() => return,
            () = stop.cancelled() => {
                let _ = messages.send(stopping()).await;
                return;
            }
        }
    }
}

/// What comes next of an upload.
async fn next_part(
    parts: &mut Streaming<wire::UploadComponentRequest>,
) -> Result<Option<wire::UploadComponentRequest>, Status> {
    match tokio::time::timeout(UPLOAD_IDLE, parts.message()).await {
        Ok(part) => part,
        Err(_) => {
            let message = format!("nothing came of the file for {} s", UPLOAD_IDLE.as_secs());
            Err(Refusal::new(ErrorKind::Unavailable, "UPLOAD_IDLE", message).into())
        }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// The answers of a component that is being taken.
fn answers<T: From<Answer>>(told: watch::Receiver<Progress>, stop: &CancellationToken) -> Answers<T> {
    let (messages, answers) = mpsc::channel(PROGRESS_MESSAGES);
    tokio::spawn(tell(told, messages, stop.clone()));
    Box::pin(ReceiverStream::new(answers).map(|answer| answer.map(T::from)))
}

#[tonic::async_trait]
impl wire::component_service_server::ComponentService for ComponentApi {
    type UploadComponentStream = Answers<wire::UploadComponentResponse>;

    async fn upload_component(
        &self,
        request: Request<Streaming<wire::UploadComponentRequest>>,
    ) -> Result<Response<Self::UploadComponentStream>, Status> {
        let from = request.remote_addr();
        let mut parts = request.into_inner();
        let start = match parts.message().await? {
            Some(wire::UploadComponentRequest { request: Some(UploadPart::Start(start)) }) => start,
            _ => {
                return Err(
                    Refusal::invalid("NOT_STARTED", "the first message of an upload must name the component").into()
                );
            }
        };
        let new = new_component(&start.name, &start.version, start.uploaded_by, from)?;
        let new = NewComponent { signature: start.signature, ..new };
        let room = self.registry.room().await.map_err(Refusal::from)?;
        let mut file = BytesMut::new();
        while let Some(part) = next_part(&mut parts).await? {
            let Some(UploadPart::Chunk(chunk)) = part.request else {
                return Err(Refusal::invalid(
                    "STARTED_TWICE",
                    "an upload is started once; the other messages are chunks",
                )
                .into());
            };
            file.extend_from_slice(&chunk);
            // One byte more than allowed is enough to be refused for the right reason.
            if file.len() > COMPONENT_BYTES_MAX {
                let message = format!(
                    "the file has more than {COMPONENT_BYTES_MAX} bytes ({} MiB), which is the most a component may have",
                    COMPONENT_BYTES_MAX >> 20
                );
                return Err(Refusal::invalid("COMPONENT_REFUSED", message)
                    .hint("leave out the debug information: `wasm-tools strip`")
                    .into());
            }
        }
        let told = self.registry.take(new, file.freeze(), room).await.map_err(Refusal::from)?;
        Ok(Response::new(answers(told, &self.stop)))
    }

    type PullComponentStream = Answers<wire::PullComponentResponse>;

    async fn pull_component(
        &self,
        request: Request<wire::PullComponentRequest>,
    ) -> Result<Response<Self::PullComponentStream>, Status> {
        let from = request.remote_addr();
        let wire::PullComponentRequest { image, name, version, uploaded_by, signature } = request.into_inner();
        let image: ImageRef = image.parse().map_err(|error| Refusal::from(RegistryError::Image(error)))?;
        let name = match name.as_str() {
            "" => image.last(),
            name => name,
        };
        let NewComponent { name, label, by, from, .. } = new_component(name, &version, uploaded_by, from)?;
        let request = PullRequest { name, label, by, from, image, signature };
        let told = self.registry.pull(request).await.map_err(Refusal::from)?;
        Ok(Response::new(answers(told, &self.stop)))
    }

    async fn list_components(
        &self,
        request: Request<wire::ListComponentsRequest>,
    ) -> Result<Response<wire::ListComponentsResponse>, Status> {
        let request = request.into_inner();
        let listed = match request.name.as_str() {
            "" => self.registry.list().await,
            name => self.registry.versions(&status::name("component", name)?).await,
        };
        let entries = listed.map_err(Refusal::from)?;
        // The order is by name and then from new to old, so the key of a page counts back.
        let key = |entry: &ComponentEntry| {
            format!("{}/{:020}/{}", entry.name, i64::MAX.wrapping_sub(entry.uploaded_us), entry.digest)
        };
        let (page, next_page_token) = status::page(entries, request.page_size, &request.page_token, key);
        let components = page.into_iter().map(to_wire).collect();
        Ok(Response::new(wire::ListComponentsResponse { components, next_page_token }))
    }

    async fn describe_component(
        &self,
        request: Request<wire::DescribeComponentRequest>,
    ) -> Result<Response<wire::DescribeComponentResponse>, Status> {
        let request = request.into_inner();
        let reference = reference(&request.name, &request.version)?;
        let entry = self.registry.find(&reference).await.map_err(Refusal::from)?;
        let digest: Digest = entry.digest.parse().map_err(|error| {
            Refusal::new(ErrorKind::Corrupt, "DAMAGED", format!("component `{reference}`: {error}"))
        })?;
        let bytes = self.registry.bytes(digest).await.map_err(Refusal::from)?;
        let inspected = tokio::task::spawn_blocking(move || nodata_runtime::inspect_component(&bytes)).await;
        let info = match inspected {
            Ok(info) => info.map_err(|error| Refusal::from(RegistryError::from(error)))?,
            Err(_) => return Err(Refusal::from(LogError::Stopping).into()),
        };
        let deployments = self.deployments.needing(&entry.name, &entry.digest).await.map_err(Refusal::from)?;
        let component = Some(to_wire(entry));
        Ok(Response::new(wire::DescribeComponentResponse { component, wit: info.wit, deployments }))
    }

    async fn delete_component(
        &self,
        request: Request<wire::DeleteComponentRequest>,
    ) -> Result<Response<wire::DeleteComponentResponse>, Status> {
        let request = request.into_inner();
        let reference = reference(&request.name, &request.version)?;
        let needed_by = async |entry: &ComponentEntry| self.deployments.needing(&entry.name, &entry.digest).await;
        let deleted = self.registry.delete(&reference, needed_by).await.map_err(Refusal::from)?;
        Ok(Response::new(wire::DeleteComponentResponse { component: Some(to_wire(deleted)) }))
    }
}
