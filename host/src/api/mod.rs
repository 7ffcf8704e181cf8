//! The door: turns requests into what the log and the deployments understand, and answers. Wire types end here.

mod aggregate; // AggregateService
mod component; // ComponentService
mod consume; // ConsumeService
mod deployment; // DeploymentService
mod door; // wire bytes become batches
mod publish; // PublishService
mod repeats; // events whose ids are known
mod rows; // batches become wire bytes
mod secret; // SecretService
mod status; // errors as a caller sees them
mod topic; // TopicService

use crate::deployment::Deployments;
use crate::limits::{CONNECTION_WINDOW_BYTES, KEEP_ALIVE, MESSAGE_BYTES_MAX, STREAM_WINDOW_BYTES, STREAMS_MAX};
use crate::registry::Registry;
use crate::secrets::Secrets;
use aggregate::AggregateApi;
use component::ComponentApi;
use consume::ConsumeApi;
use deployment::DeploymentApi;
use nodata_archive::ArchiverHandle;
use nodata_log::{Clock, Log};
use nodata_proto::server::aggregate_service_server::AggregateServiceServer;
use nodata_proto::server::component_service_server::ComponentServiceServer;
use nodata_proto::server::consume_service_server::ConsumeServiceServer;
use nodata_proto::server::deployment_service_server::DeploymentServiceServer;
use nodata_proto::server::publish_service_server::PublishServiceServer;
use nodata_proto::server::secret_service_server::SecretServiceServer;
use nodata_proto::server::topic_service_server::TopicServiceServer;
use publish::PublishApi;
use secret::SecretApi;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use topic::TopicApi;

/// What the door works with.
pub struct ApiParts {
    pub log: Arc<dyn Log>,
    pub clock: Arc<dyn Clock>,
    pub registry: Registry,
    pub secrets: Secrets,
    pub deployments: Deployments,
    pub archiver: ArchiverHandle,
}

/// Serves until asked to stop: takes no more connections then, ends every stream, and waits for the requests in hand.
pub async fn serve(
    listener: TcpListener,
    parts: ApiParts,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let ApiParts { log, clock, registry, secrets, deployments, archiver } = parts;
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<PublishServiceServer<PublishApi>>().await;
    health.set_serving::<ConsumeServiceServer<ConsumeApi>>().await;
    health.set_serving::<TopicServiceServer<TopicApi>>().await;
    health.set_serving::<ComponentServiceServer<ComponentApi>>().await;
    health.set_serving::<AggregateServiceServer<AggregateApi>>().await;
    health.set_serving::<DeploymentServiceServer<DeploymentApi>>().await;
    health.set_serving::<SecretServiceServer<SecretApi>>().await;
    let publish = PublishApi::new(log.clone(), clock, stop.clone());
    let topics = TopicApi { log: log.clone(), deployments: deployments.clone(), archiver, stop: stop.clone() };
    let components = ComponentApi { registry, deployments: deployments.clone(), stop: stop.clone() };
    let mut router = http2()
        .add_service(health_service)
        .add_service(PublishServiceServer::new(publish).max_decoding_message_size(MESSAGE_BYTES_MAX))
        .add_service(ConsumeServiceServer::new(ConsumeApi { log, stop: stop.clone() }))
        .add_service(TopicServiceServer::new(topics))
        .add_service(ComponentServiceServer::new(components))
        .add_service(AggregateServiceServer::new(AggregateApi { deployments: deployments.clone() }))
        .add_service(SecretServiceServer::new(SecretApi { secrets, deployments: deployments.clone() }))
        .add_service(DeploymentServiceServer::new(DeploymentApi { deployments, stop: stop.clone() }));
    match reflection() {
        Ok(reflection) => router = router.add_service(reflection),
        Err(error) => tracing::error!(%error, "the service descriptions cannot be served"),
    }
    router.serve_with_incoming_shutdown(connections(listener), stop.cancelled_owned()).await
}

/// The connections of a listener. Small answers leave at once: with Nagle's algorithm, one in a hundred waited for the 40 ms
/// of a delayed acknowledgement.
pub(crate) fn connections(listener: TcpListener) -> TcpIncoming {
    TcpIncoming::from(listener).with_nodelay(Some(true))
}

/// HTTP/2 as this server speaks it.
pub(crate) fn http2() -> Server {
    Server::builder()
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_concurrent_streams(STREAMS_MAX)
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
}

fn reflection() -> Result<
    tonic_reflection::server::v1::ServerReflectionServer<impl tonic_reflection::server::v1::ServerReflection>,
    tonic_reflection::server::Error,
> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(nodata_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
}
