//! `TopicService`.

use crate::api::status::{self, Refusal};
use crate::deployment::Deployments;
use crate::limits::WATCH_MESSAGES;
use nodata_archive::ArchiverHandle;
use nodata_log::limits::EVENT_BYTES_MAX;
use nodata_log::{
    Change, Column, ColumnType, ErrorKind, Log, LogError, Topic, TopicChange, TopicConfig, TopicId, ValueType,
};
use nodata_proto::server as wire;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};

pub(crate) struct TopicApi {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) deployments: Deployments,
    pub(crate) archiver: ArchiverHandle,
    pub(crate) stop: CancellationToken,
}

pub(crate) fn topic_to_wire(topic: &Topic) -> wire::Topic {
    wire::Topic {
        name: topic.name.to_string(),
        partitions: topic.config.partitions,
        event_bytes_max: topic.config.event_bytes_max,
        created_timestamp_us: topic.created_us,
        retention_us: topic.config.retention_us.unwrap_or(0),
        retention_bytes: topic.config.retention_bytes.unwrap_or(0),
        value_type: match topic.config.values {
            ValueType::Bytes => wire::ValueType::Bytes,
            ValueType::Text => wire::ValueType::Text,
            ValueType::Json => wire::ValueType::Json,
        }
        .into(),
        columns: topic.config.columns.iter().map(column_to_wire).collect(),
        deduplicate_us: topic.config.deduplicate_us.unwrap_or(0),
    }
}

fn column_to_wire(column: &Column) -> wire::Column {
    let column_type = match column.column_type {
        ColumnType::Boolean => wire::ColumnType::Boolean,
        ColumnType::Int64 => wire::ColumnType::Int64,
        ColumnType::Float64 => wire::ColumnType::Float64,
        ColumnType::String => wire::ColumnType::String,
        ColumnType::Timestamp => wire::ColumnType::Timestamp,
        ColumnType::Date => wire::ColumnType::Date,
    };
    wire::Column { name: column.name.clone(), path: column.path.clone(), r#type: column_type.into() }
}

fn column_from_wire(column: wire::Column) -> Result<Column, Refusal> {
    let column_type = match column.r#type() {
        wire::ColumnType::Unspecified => {
            let message = format!("column `{}` has no type", column.name);
            return Err(Refusal::invalid("NO_COLUMN_TYPE", message));
        }
        wire::ColumnType::Boolean => ColumnType::Boolean,
        wire::ColumnType::Int64 => ColumnType::Int64,
        wire::ColumnType::Float64 => ColumnType::Float64,
        wire::ColumnType::String => ColumnType::String,
        wire::ColumnType::Timestamp => ColumnType::Timestamp,
        wire::ColumnType::Date => ColumnType::Date,
    };
    let path = if column.path.is_empty() { format!("/{}", column.name) } else { column.path };
    Ok(Column { name: column.name, path, column_type })
}

/// On the wire, 0 stands for none.
fn not_zero(value: u64) -> Option<u64> {
    (value > 0).then_some(value)
}

#[tonic::async_trait]
impl wire::topic_service_server::TopicService for TopicApi {
    async fn create_topic(
        &self,
        request: Request<wire::CreateTopicRequest>,
    ) -> Result<Response<wire::CreateTopicResponse>, Status> {
        let request = request.into_inner();
        let name = status::name("topic", &request.name)?;
        let config = TopicConfig {
            partitions: if request.partitions == 0 { 1 } else { request.partitions },
            event_bytes_max: if request.event_bytes_max == 0 { EVENT_BYTES_MAX } else { request.event_bytes_max },
            values: match request.value_type() {
                wire::ValueType::Unspecified | wire::ValueType::Bytes => ValueType::Bytes,
                wire::ValueType::Text => ValueType::Text,
                wire::ValueType::Json => ValueType::Json,
            },
            retention_us: not_zero(request.retention_us),
            retention_bytes: not_zero(request.retention_bytes),
            deduplicate_us: request.deduplicate_us.map_or(TopicConfig::default().deduplicate_us, not_zero),
            columns: request.columns.into_iter().map(column_from_wire).collect::<Result<_, _>>()?,
        };
        let created = self.log.create_topic(name, config).map_err(Refusal::from)?;
        let topic = created.await.map_err(Refusal::from)?;
        Ok(Response::new(wire::CreateTopicResponse { topic: Some(topic_to_wire(&topic)) }))
    }

    async fn list_topics(
        &self,
        request: Request<wire::ListTopicsRequest>,
    ) -> Result<Response<wire::ListTopicsResponse>, Status> {
        let request = request.into_inner();
        let mut topics = self.log.topics();
        topics.retain(|topic| topic.name.as_str().starts_with(&request.name_prefix));
        let (page, next_page_token) =
            status::page(topics, request.page_size, &request.page_token, |topic| topic.name.to_string());
        let topics = page.iter().map(topic_to_wire).collect();
        Ok(Response::new(wire::ListTopicsResponse { topics, next_page_token }))
    }

    async fn describe_topic(
        &self,
        request: Request<wire::DescribeTopicRequest>,
    ) -> Result<Response<wire::DescribeTopicResponse>, Status> {
        let name = status::name("topic", &request.into_inner().name)?;
        let topic = self.log.topic(&name).map_err(Refusal::from)?;
        let offsets = |tp: nodata_log::Tp| {
            let archive = self.log.archive(tp)?;
            let bounds = self.log.bounds(tp)?;
            Ok(wire::PartitionOffsets {
                archived_end_offset: archive.end,
                files: archive.files.len() as u64,
                file_bytes: archive.files.values().map(|file| file.bytes).sum(),
                payload_bytes: archive.files.values().map(|file| file.payload_bytes).sum(),
                partition: tp.partition,
                earliest_offset: bounds.earliest,
                end_offset: bounds.end,
            })
        };
        let partitions = topic.partitions().map(offsets).collect::<Result<_, LogError>>().map_err(Refusal::from)?;
        Ok(Response::new(wire::DescribeTopicResponse { topic: Some(topic_to_wire(&topic)), partitions }))
    }

    async fn update_topic(
        &self,
        request: Request<wire::UpdateTopicRequest>,
    ) -> Result<Response<wire::UpdateTopicResponse>, Status> {
        let request = request.into_inner();
        let name = status::name("topic", &request.name)?;
        let change = TopicChange {
            partitions: request.partitions,
            event_bytes_max: request.event_bytes_max,
            retention_us: request.retention_us.map(not_zero),
            retention_bytes: request.retention_bytes.map(not_zero),
            deduplicate_us: request.deduplicate_us.map(not_zero),
        };
        if change.partitions.is_some_and(|partitions| partitions > 1)
            && let Some(tied) = self.deployments.tied_to_one_partition(name.as_str()).await.map_err(Refusal::from)?
        {
            let message = format!(
                "deployment `{tied}` groups the events of topic `{name}` by itself, over windows, and relies on its one partition"
            );
            let refusal = Refusal::new(ErrorKind::Conflict, "ONE_PARTITION", message)
                .code(Code::FailedPrecondition)
                .hint(format!("delete it first, `nodata deployment delete {tied}`, and deploy it again afterwards"));
            return Err(refusal.into());
        }
        let changed = self.log.change_topic(&name, &change).map_err(Refusal::from)?;
        let topic = changed.await.map_err(Refusal::from)?;
        Ok(Response::new(wire::UpdateTopicResponse { topic: Some(topic_to_wire(&topic)) }))
    }

    async fn delete_topic(
        &self,
        request: Request<wire::DeleteTopicRequest>,
    ) -> Result<Response<wire::DeleteTopicResponse>, Status> {
        let name = status::name("topic", &request.into_inner().name)?;
        let users = self.deployments.users_of(name.as_str()).await.map_err(Refusal::from)?;
        if let Some(user) = users.first() {
            let message = format!("topic `{name}` is used by deployment `{user}`");
            let refusal = Refusal::new(ErrorKind::Conflict, "TOPIC_IN_USE", message)
                .code(Code::FailedPrecondition)
                .hint(format!("delete the deployment first: `nodata deployment delete {user}`"));
            return Err(refusal.into());
        }
        let deleted = self.log.delete_topic(&name).map_err(Refusal::from)?;
        deleted.await.map_err(Refusal::from)?;
        Ok(Response::new(wire::DeleteTopicResponse {}))
    }

    async fn flush_topic(
        &self,
        request: Request<wire::FlushTopicRequest>,
    ) -> Result<Response<wire::FlushTopicResponse>, Status> {
        let name = request.into_inner().name;
        let name = if name.is_empty() { None } else { Some(status::name("topic", &name)?) };
        let flushed = self.archiver.flush(name).await.map_err(Refusal::from)?;
        Ok(Response::new(wire::FlushTopicResponse { files: flushed.files, events: flushed.events }))
    }

    type WatchTopicsStream = ReceiverStream<Result<wire::WatchTopicsResponse, Status>>;

    async fn watch_topics(
        &self,
        request: Request<wire::WatchTopicsRequest>,
    ) -> Result<Response<Self::WatchTopicsStream>, Status> {
        let names = request.into_inner().names.into_iter().collect();
        let (messages, outgoing) = mpsc::channel(WATCH_MESSAGES);
        let watcher = Watcher { log: self.log.clone(), names, known: BTreeMap::new() };
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = watcher.run(&messages) => {}
                () = messages.closed() => {}
                () = stop.cancelled() => {
                    let _ = messages.send(Err(Refusal::from(LogError::Stopping).into())).await;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

/// Tells one watcher what happens.
struct Watcher {
    log: Arc<dyn Log>,
    /// Empty: all.
    names: BTreeSet<String>,
    /// The topics that the watcher knows, and their names.
    known: BTreeMap<TopicId, String>,
}

impl Watcher {
    async fn run(mut self, messages: &mpsc::Sender<Result<wire::WatchTopicsResponse, Status>>) {
        loop {
            // Changes from here on are waiting when everything as it is has been told.
            let mut changes = self.log.changes();
            if messages.send(Ok(self.everything())).await.is_err() {
                return;
            }
            loop {
                let response = match changes.recv().await {
                    Ok(changes) => self.told(&changes),
                    Err(RecvError::Lagged(_)) => break,
                    Err(RecvError::Closed) => return,
                };
                let is_empty = response.topics.is_empty() && response.deleted.is_empty() && response.ends.is_empty();
                if !is_empty && messages.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        }
    }

    fn is_wanted(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.contains(name)
    }

    fn everything(&mut self) -> wire::WatchTopicsResponse {
        let mut response = wire::WatchTopicsResponse::default();
        let before = std::mem::take(&mut self.known);
        for topic in self.log.topics() {
            if !self.is_wanted(topic.name.as_str()) {
                continue;
            }
            self.known.insert(topic.id, topic.name.to_string());
            response.topics.push(topic_to_wire(&topic));
            for tp in topic.partitions() {
                // A topic that is deleted meanwhile is told as a change.
                if let Ok(bounds) = self.log.bounds(tp) {
                    response.ends.push(end(&topic.name.to_string(), tp.partition, bounds.end));
                }
            }
        }
        let gone = before.into_iter().filter(|(id, _)| !self.known.contains_key(id));
        response.deleted = gone.map(|(_, name)| name).collect();
        response
    }

    fn told(&mut self, changes: &[Change]) -> wire::WatchTopicsResponse {
        let mut response = wire::WatchTopicsResponse::default();
        for change in changes {
            match change {
                Change::Topic(topic) if self.is_wanted(topic.name.as_str()) => {
                    self.known.insert(topic.id, topic.name.to_string());
                    response.topics.push(topic_to_wire(topic));
                }
                Change::Topic(_) => {}
                Change::TopicDeleted(id, _) => response.deleted.extend(self.known.remove(id)),
                Change::End(tp, offset) => {
                    if let Some(name) = self.known.get(&tp.topic) {
                        response.ends.push(end(name, tp.partition, *offset));
                    }
                }
            }
        }
        response
    }
}

fn end(topic: &str, partition: u32, end_offset: u64) -> wire::PartitionEnd {
    wire::PartitionEnd { topic: topic.to_owned(), partition, end_offset }
}
