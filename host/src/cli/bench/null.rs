//! A server that takes every event and throws it away: what gRPC can do at most on this machine.

use crate::cli::CliError;
use futures::StreamExt as _;
use nodata_proto::server as wire;
use nodata_proto::server::publish_service_server::{PublishService, PublishServiceServer};
use nodata_proto::server::publish_stream_request::Request as StreamPart;
use std::io::Write as _;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

struct Null;

fn answer(batch: &[u8]) -> wire::PublishResponse {
    // The events are looked at, as a server must.
    let events = nodata_proto::events::read(batch).count() as u64;
    let range = wire::PublishedRange { partition: 0, first_offset: 0, last_offset: events };
    wire::PublishResponse { ack: wire::AckLevel::None.into(), ranges: vec![range], ..Default::default() }
}

#[tonic::async_trait]
impl PublishService for Null {
    async fn publish(&self, request: Request<wire::PublishRequest>) -> Result<Response<wire::PublishResponse>, Status> {
        Ok(Response::new(answer(&request.into_inner().batch)))
    }

    type PublishStreamStream = ReceiverStream<Result<wire::PublishStreamResponse, Status>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<wire::PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let requests = request.into_inner();
        let (answers, outgoing) = mpsc::channel(16);
        tokio::spawn(async move {
            let mut sequence = 0;
            let mut ready = requests.ready_chunks(1024);
            while let Some(requests) = ready.next().await {
                let mut acks = Vec::with_capacity(requests.len());
                for request in requests.into_iter().flatten() {
                    if let Some(StreamPart::Batch(batch)) = request.request {
                        acks.push(wire::PublishAck { sequence, response: Some(answer(&batch)) });
                        sequence += 1;
                    }
                }
                if answers.send(Ok(wire::PublishStreamResponse { acks })).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// Serves until it is ended.
pub(crate) fn run() -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::failed(format!("cannot serve: {error}"));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(failed)?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        writeln!(std::io::stdout(), "nodata is ready on {address}")?;
        let service = PublishServiceServer::new(Null).max_decoding_message_size(80 << 20);
        let server = crate::api::http2().add_service(service);
        let served = server.serve_with_incoming(crate::api::connections(listener)).await;
        served.map_err(|error| CliError::failed(format!("cannot serve: {error}")))
    })
}
