//! One connection, many callers.

use crate::proto::aggregate_service_client::AggregateServiceClient;
use crate::proto::component_service_client::ComponentServiceClient;
use crate::proto::consume_service_client::ConsumeServiceClient;
use crate::proto::deployment_service_client::DeploymentServiceClient;
use crate::proto::publish_service_client::PublishServiceClient;
use crate::proto::secret_service_client::SecretServiceClient;
use crate::proto::topic_service_client::TopicServiceClient;
use crate::proto::{DescribeTopicRequest, FindOffsetsRequest, PublishRequest};
use crate::publisher::{self, Published, Publisher, PublisherOptions};
use crate::tail::{Tail, TailOptions};
use crate::{Ack, Error, Event, Outcome, Result};
use backon::{BackoffBuilder as _, ExponentialBuilder};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::time::Instant;
use tonic::transport::{Channel, Endpoint};

/// Bytes of HTTP/2 flow control. The default of 64 KiB costs a quarter of the throughput with events of 1 KiB.
const STREAM_WINDOW_BYTES: u32 = 4 << 20;
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// Largest message. A batch of 64 MiB with what is around it.
const MESSAGE_BYTES_MAX: usize = 80 << 20;

/// How to reach a server.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How long to try to connect, each time.
    pub connect_timeout: Duration,
    /// How long to go on trying after something that passes: a server that restarts, a disk that is full.
    pub retry_for: Duration,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self { connect_timeout: Duration::from_secs(5), retry_for: Duration::from_secs(60) }
    }
}

/// A connection to a server. Cheap to clone; clones share the connection.
#[derive(Clone, Debug)]
pub struct Client {
    channel: Channel,
    pub(crate) options: ClientOptions,
}

impl Client {
    /// Connects to a server, for example `http://127.0.0.1:7070`. An address without a scheme is taken as `http`.
    ///
    /// Success means that a server answered; afterwards a connection that breaks is made anew when it is needed.
    pub async fn connect(server: &str) -> Result<Self> {
        Self::connect_with(server, ClientOptions::default()).await
    }

    /// As [`connect`](Self::connect), with options.
    pub async fn connect_with(server: &str, options: ClientOptions) -> Result<Self> {
        let channel = endpoint(server, &options)?.connect().await.map_err(|error| {
            let reached = Error::from(error);
            Error::new(
                reached.kind(),
                Outcome::NotApplied,
                "CONNECTION",
                format!("no nodata server at {server}: {reached}"),
            )
        })?;
        Ok(Self { channel, options })
    }

    /// Topics: create, list, describe, update, delete, watch.
    pub fn topics(&self) -> TopicServiceClient<Channel> {
        TopicServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Components: upload, list, describe.
    pub fn components(&self) -> ComponentServiceClient<Channel> {
        ComponentServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Deployments: deploy, list, describe, pause, resume, delete, logs.
    pub fn deployments(&self) -> DeploymentServiceClient<Channel> {
        DeploymentServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// What aggregates hold.
    pub fn aggregates(&self) -> AggregateServiceClient<Channel> {
        AggregateServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Secrets: put, list, delete.
    pub fn secrets(&self) -> SecretServiceClient<Channel> {
        SecretServiceClient::new(self.channel.clone())
    }

    /// Publishing as it is on the wire, without retries. Usually [`publish`](Self::publish) or a [`Publisher`] is what you want.
    pub fn publishing(&self) -> PublishServiceClient<Channel> {
        PublishServiceClient::new(self.channel.clone()).max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Reading as it is on the wire. Usually a [`Tail`] is what you want.
    pub fn consuming(&self) -> ConsumeServiceClient<Channel> {
        ConsumeServiceClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// Publishes one event and waits until it is durable.
    ///
    /// Is tried again as long as it certainly was not appended. An error whose [`outcome`](Error::outcome) is unknown is not:
    /// the event may be there. Use a [`Publisher`] where it must be there once.
    pub async fn publish(&self, topic: &str, event: &Event) -> Result<Published> {
        self.publish_with(topic, std::iter::once(event).collect(), Ack::Durable).await
    }

    /// Publishes a batch as one unit: all of it or nothing.
    pub async fn publish_with(&self, topic: &str, batch: crate::Batch, ack: Ack) -> Result<Published> {
        let request = PublishRequest {
            topic: topic.to_owned(),
            batch: batch.into_wire(),
            ack: ack.to_wire().into(),
            producer: None,
            partition: None,
        };
        self.retry(async || {
            let response = self.publishing().publish(request.clone()).await.map_err(Error::from)?;
            Ok(publisher::published(response.into_inner()))
        })
        .await
    }

    /// Begins to publish many events to a topic, batched and pipelined, each of them once.
    pub fn publisher(&self, topic: &str, options: PublisherOptions) -> Publisher {
        Publisher::start(self.clone(), topic.to_owned(), options)
    }

    /// Begins to read a topic.
    pub async fn tail(&self, topic: &str, options: TailOptions) -> Result<Tail> {
        Tail::start(self.clone(), topic.to_owned(), options).await
    }

    /// The offsets of the partitions of a topic: partition, earliest, end.
    pub async fn offsets(&self, topic: &str) -> Result<Vec<(u32, u64, u64)>> {
        let request = DescribeTopicRequest { name: topic.to_owned() };
        let described =
            self.retry(async || Ok(self.topics().describe_topic(request.clone()).await?.into_inner())).await?;
        let partitions = described.partitions.into_iter();
        Ok(partitions.map(|at| (at.partition, at.earliest_offset, at.end_offset)).collect())
    }

    /// For each partition of a topic, the offset of the first event whose timestamp (microseconds since the Unix epoch) is not
    /// before this; the end where there is none.
    pub async fn offsets_at(&self, topic: &str, timestamp_us: i64) -> Result<BTreeMap<u32, u64>> {
        let request = FindOffsetsRequest { topic: topic.to_owned(), timestamp_us };
        let found = self.retry(async || Ok(self.consuming().find_offsets(request.clone()).await?.into_inner())).await?;
        Ok(found.offsets.iter().map(|at| (at.partition, at.offset)).collect())
    }

    /// Tries again what passes and certainly did not happen.
    pub(crate) async fn retry<T>(&self, mut run: impl AsyncFnMut() -> Result<T>) -> Result<T> {
        let end = Instant::now() + self.options.retry_for;
        let mut waits = backoff();
        loop {
            match run().await {
                Err(error) if error.is_passing() && error.outcome() == Outcome::NotApplied && Instant::now() < end => {
                    tokio::time::sleep(waits.next().unwrap_or(BACKOFF_MAX)).await;
                }
                done => return done,
            }
        }
    }
}

/// Longest wait between two attempts.
pub(crate) const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Waits between attempts: from 20 ms, doubling up to two seconds, with jitter.
pub(crate) fn backoff() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(BACKOFF_MAX)
        .with_jitter()
        .without_max_times()
        .build()
}

fn endpoint(server: &str, options: &ClientOptions) -> Result<Endpoint> {
    let url = if server.contains("://") { server.to_owned() } else { format!("http://{server}") };
    let endpoint = Endpoint::from_shared(url).map_err(|_| {
        Error::invalid(format!("`{server}` is no address of a server; give HOST:PORT or http://HOST:PORT"))
    })?;
    Ok(endpoint
        .connect_timeout(options.connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .http2_keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true))
}
