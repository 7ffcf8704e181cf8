//! `ConsumeService`.

use crate::api::rows::Rows;
use crate::api::status::{self, Refusal};
use crate::limits::{FETCH_BYTES, FETCH_BYTES_MAX, FETCH_WAIT_MAX, TAIL_BYTES, TAIL_MESSAGES};
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use nodata_log::{Bounds, Chunk, ErrorKind, Log, LogError, Name, Offset, ReadLimits, Topic, Tp};
use nodata_proto::server as wire;
use nodata_proto::server::start_position::Position;
use nodata_proto::stored::StoredBatch;
use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

pub(crate) struct ConsumeApi {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) stop: CancellationToken,
}

#[tonic::async_trait]
impl wire::consume_service_server::ConsumeService for ConsumeApi {
    async fn fetch(&self, request: Request<wire::FetchRequest>) -> Result<Response<wire::FetchResponse>, Status> {
        let request = request.into_inner();
        let response = tokio::select! {
            response = self.fetch_one(&request) => response?,
            () = self.stop.cancelled() => return Err(Refusal::from(LogError::Stopping).into()),
        };
        Ok(Response::new(response))
    }

    async fn find_offsets(
        &self,
        request: Request<wire::FindOffsetsRequest>,
    ) -> Result<Response<wire::FindOffsetsResponse>, Status> {
        let request = request.into_inner();
        let topic = self.log.topic(&status::name("topic", &request.topic)?).map_err(Refusal::from)?;
        let mut offsets = Vec::new();
        for tp in topic.partitions() {
            let offset = self.log.offset_at(tp, request.timestamp_us).await.map_err(Refusal::from)?;
            offsets.push(wire::PartitionOffset { partition: tp.partition, offset });
        }
        Ok(Response::new(wire::FindOffsetsResponse { offsets }))
    }

    type TailStream = ReceiverStream<Result<wire::TailResponse, Status>>;

    async fn tail(&self, request: Request<wire::TailRequest>) -> Result<Response<Self::TailStream>, Status> {
        let reader = TailReader::new(self.log.clone(), request.into_inner()).await?;
        let (messages, outgoing) = mpsc::channel(TAIL_MESSAGES);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            let ended = tokio::select! {
                ended = reader.run(&messages) => ended,
                () = stop.cancelled() => Err(LogError::Stopping.into()),
                () = messages.closed() => return,
            };
            if let Err(refusal) = ended {
                let _ = messages.send(Err(refusal.into())).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

impl ConsumeApi {
    async fn fetch_one(&self, request: &wire::FetchRequest) -> Result<wire::FetchResponse, Refusal> {
        let topic = self.log.topic(&status::name("topic", &request.topic)?)?;
        let tp = partition(&topic, request.partition)?;
        let bytes_max = match u64::from(request.bytes_max) {
            0 => FETCH_BYTES,
            bytes => bytes.min(FETCH_BYTES_MAX),
        };
        let limits = ReadLimits { bytes_max, events_max: usize::MAX };
        let mut end = self.log.follow(tp)?;
        let wait = Duration::from_millis(u64::from(request.wait_ms)).min(FETCH_WAIT_MAX);
        let wait = tokio::time::sleep(wait);
        tokio::pin!(wait);
        loop {
            end.mark_unchanged();
            let chunk = self.log.read(tp, request.offset, limits).await?;
            // Where events were lost there is nothing either, and it is known where to go on.
            if chunk.batches.is_empty() && chunk.next == request.offset {
                tokio::select! {
                    moved = end.changed() => {
                        moved.map_err(|_| LogError::UnknownTopic { topic: topic.name.clone() })?;
                        continue;
                    }
                    () = &mut wait => {}
                }
            }
            let Bounds { earliest, end } = self.log.bounds(tp)?;
            return Ok(wire::FetchResponse {
                next_offset: chunk.next,
                batches: stored(tp, request.offset, Offset::MAX, chunk),
                earliest_offset: earliest,
                end_offset: end,
            });
        }
    }
}

fn partition(topic: &Topic, partition: u32) -> Result<Tp, Refusal> {
    let partitions = topic.config.partitions;
    if partition >= partitions {
        return Err(LogError::UnknownPartition { topic: topic.name.clone(), partition, partitions }.into());
    }
    Ok(Tp { topic: topic.id, partition })
}

/// What a reader asked for, of what was read.
fn stored(tp: Tp, from: Offset, end: Offset, chunk: Chunk) -> Vec<StoredBatch> {
    chunk.batches.into_iter().filter_map(|stored| Rows::stored_batch(tp.partition, stored, from, end)).collect()
}

/// Reads partitions in turn, each up to its end, and then waits for any of them to move.
struct TailReader {
    log: Arc<dyn Log>,
    topic: Topic,
    follow: bool,
    /// Partitions that are added later are read too.
    all: bool,
    cursors: Vec<Cursor>,
}

struct Cursor {
    tp: Tp,
    next: Offset,
    /// Where reading stops.
    until: Offset,
    end: watch::Receiver<Offset>,
}

impl Cursor {
    fn is_done(&self) -> bool {
        self.next >= self.until
    }

    fn has_more(&self) -> bool {
        self.next < (*self.end.borrow()).min(self.until)
    }
}

impl TailReader {
    async fn new(log: Arc<dyn Log>, request: wire::TailRequest) -> Result<Self, Refusal> {
        let name: Name = status::name("topic", &request.topic)?;
        let topic = log.topic(&name)?;
        let mut reader = TailReader {
            all: request.partitions.is_empty(),
            follow: request.follow,
            cursors: Vec::new(),
            log,
            topic: topic.clone(),
        };
        let position = request.from.and_then(|from| from.position).unwrap_or(Position::Earliest(Default::default()));
        for at in &request.offsets {
            partition(&topic, at.partition)?;
        }
        let exact: HashMap<u32, Offset> = request.offsets.iter().map(|at| (at.partition, at.offset)).collect();
        // One that is named often is read once.
        let wanted: BTreeSet<u32> =
            if reader.all { (0..topic.config.partitions).collect() } else { request.partitions.into_iter().collect() };
        for number in wanted {
            let tp = partition(&topic, number)?;
            let Bounds { earliest, end } = reader.log.bounds(tp)?;
            let next = match (exact.get(&number), &position) {
                (Some(offset), _) => *offset,
                (None, Position::Earliest(_)) => earliest,
                (None, Position::Latest(_)) => end,
                (None, Position::Offset(offset)) => *offset,
                (None, Position::TimestampUs(time)) => reader.log.offset_at(tp, *time).await?,
            };
            if next < earliest || next > end {
                return Err(LogError::OutOfRange { tp, asked: next, earliest, end }.into());
            }
            let until = if reader.follow { Offset::MAX } else { end };
            reader.cursors.push(Cursor { tp, next, until, end: reader.log.follow(tp)? });
        }
        Ok(reader)
    }

    /// Sends events until there are no more, or nobody takes them.
    async fn run(mut self, messages: &mpsc::Sender<Result<wire::TailResponse, Status>>) -> Result<(), Refusal> {
        let limits = ReadLimits { bytes_max: TAIL_BYTES, events_max: usize::MAX };
        loop {
            let mut has_read = false;
            for cursor in &mut self.cursors {
                if !cursor.has_more() {
                    continue;
                }
                let from = cursor.next;
                let chunk = self.log.read(cursor.tp, from, limits).await?;
                cursor.next = chunk.next;
                has_read = true;
                let batches = stored(cursor.tp, from, cursor.until, chunk);
                if messages.send(Ok(wire::TailResponse { batches })).await.is_err() {
                    return Ok(());
                }
            }
            if has_read {
                continue;
            }
            if self.cursors.iter().all(Cursor::is_done) {
                return Ok(());
            }
            self.wait().await?;
        }
    }

    /// Waits until a partition moves or is added.
    async fn wait(&mut self) -> Result<(), Refusal> {
        let mut changes = self.log.changes();
        if self.all && self.follow {
            // One that was added since the last look.
            let known = self.cursors.len();
            self.add_partitions()?;
            if self.cursors.len() > known {
                return Ok(());
            }
        }
        let mut moved: FuturesUnordered<_> = self.cursors.iter_mut().map(|cursor| cursor.end.changed()).collect();
        loop {
            tokio::select! {
                moved = moved.next() => {
                    if let Some(Err(_)) = moved {
                        return Err(LogError::UnknownTopic { topic: self.topic.name.clone() }.into());
                    }
                    return Ok(());
                }
                changed = changes.recv(), if self.all && self.follow => {
                    let is_ours = match changed {
                        Ok(changes) => changes.iter().any(|change| {
                            matches!(change, nodata_log::Change::Topic(topic) if topic.id == self.topic.id)
                        }),
                        Err(tokio::sync::broadcast::error::RecvError::Lagged(_)) => true,
                        Err(tokio::sync::broadcast::error::RecvError::Closed) => {
                            return Err(Refusal::new(ErrorKind::Unavailable, "STOPPING", "the server is stopping"));
                        }
                    };
                    if is_ours {
                        break;
                    }
                }
            }
        }
        drop(moved);
        self.add_partitions()
    }

    fn add_partitions(&mut self) -> Result<(), Refusal> {
        self.topic = self.log.topic_by_id(self.topic.id)?;
        for tp in self.topic.partitions() {
            if self.cursors.iter().all(|cursor| cursor.tp != tp) {
                let next = self.log.bounds(tp)?.earliest;
                self.cursors.push(Cursor { tp, next, until: Offset::MAX, end: self.log.follow(tp)? });
            }
        }
        Ok(())
    }
}
