//! `PublishService`.

use crate::api::door::{Door, Share};
use crate::api::repeats::Repeats;
use crate::api::status::{self, Refusal};
use crate::limits::{ANSWERS, COALESCE_BYTES, COALESCE_REQUESTS, LARGE_BYTES, ROOM_WAIT, UNANSWERED_APPENDS};
use futures::{FutureExt as _, StreamExt as _};
use nodata_log::{
    AckLevel, Append, Appended, Batch, Clock, ErrorKind, Log, LogError, Name, Pending, ProducerError, ProducerId,
    ProducerRange, Room, Tp,
};
use nodata_proto::server as wire;
use nodata_proto::server::publish_stream_request::Request as StreamPart;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

pub(crate) struct PublishApi {
    pub(crate) log: Arc<dyn Log>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) stop: CancellationToken,
    turn: AtomicU64,
}

impl PublishApi {
    pub(crate) fn new(log: Arc<dyn Log>, clock: Arc<dyn Clock>, stop: CancellationToken) -> Self {
        Self { log, clock, stop, turn: AtomicU64::new(0) }
    }
}

fn ack_from_wire(level: wire::AckLevel) -> AckLevel {
    match level {
        wire::AckLevel::Unspecified | wire::AckLevel::Durable => AckLevel::Durable,
        wire::AckLevel::Written => AckLevel::Written,
        wire::AckLevel::None => AckLevel::None,
    }
}

fn ack_to_wire(level: AckLevel) -> wire::AckLevel {
    match level {
        AckLevel::Durable => wire::AckLevel::Durable,
        AckLevel::Written => wire::AckLevel::Written,
        AckLevel::None => wire::AckLevel::None,
    }
}

/// Waits until there is room, but not for ever.
async fn room(log: &dyn Log, bytes: u64) -> Result<Room, LogError> {
    match tokio::time::timeout(ROOM_WAIT, log.room(bytes)).await {
        Ok(room) => room,
        Err(_) => Err(LogError::NoRoom { bytes, waited: ROOM_WAIT }),
    }
}

fn batch_bytes(batches: &[(Tp, Batch)]) -> u64 {
    batches.iter().map(|(_, batch)| batch.encoded_len() as u64).sum()
}

#[tonic::async_trait]
impl wire::publish_service_server::PublishService for PublishApi {
    async fn publish(&self, request: Request<wire::PublishRequest>) -> Result<Response<wire::PublishResponse>, Status> {
        let request = request.into_inner();
        let response = self.publish_one(request).await?;
        Ok(Response::new(response))
    }

    type PublishStreamStream = ReceiverStream<Result<wire::PublishStreamResponse, Status>>;

    async fn publish_stream(
        &self,
        request: Request<Streaming<wire::PublishStreamRequest>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        let mut requests = request.into_inner();
        let open = match requests.message().await? {
            Some(wire::PublishStreamRequest { request: Some(StreamPart::Open(open)) }) => open,
            _ => return Err(Refusal::invalid("NOT_OPENED", "the first message of a stream must open it").into()),
        };
        let stream = PublishStream {
            log: self.log.clone(),
            clock: self.clock.clone(),
            name: status::name("topic", &open.topic)?,
            ack: ack_from_wire(open.ack()),
            partition: open.partition,
            next: open.producer.map_or(0, |producer| producer.sequence),
            producer: open.producer.map(|producer| (ProducerId(producer.id), producer.epoch)),
            turn: self.turn.fetch_add(1, Ordering::Relaxed),
        };
        // A topic that is not there is told at once and not with the first event.
        self.log.topic(&stream.name).map_err(Refusal::from)?;

        let (pending, waiting) = mpsc::channel(UNANSWERED_APPENDS);
        let (answers, outgoing) = mpsc::channel(ANSWERS);
        let stop = self.stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = stream.read(requests, pending.clone()) => {}
                () = stop.cancelled() => {
                    let _ = pending.send(Unanswered::End(Refusal::from(LogError::Stopping))).await;
                }
            }
        });
        tokio::spawn(answer(waiting, answers));
        Ok(Response::new(ReceiverStream::new(outgoing)))
    }
}

impl PublishApi {
    async fn publish_one(&self, request: wire::PublishRequest) -> Result<wire::PublishResponse, Refusal> {
        let ack = ack_from_wire(request.ack());
        let topic = self.log.topic(&status::name("topic", &request.topic)?)?;
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        let now_us = self.clock.now_us();
        let decode = || {
            let mut door = Door::new(&topic, request.partition, turn, now_us)?;
            let shares = door.take(&request.batch)?;
            let placement = door.placement();
            Ok::<_, Refusal>((door.finish()?, shares, placement))
        };
        let (batches, shares, placement) =
            if request.batch.len() > LARGE_BYTES { tokio::task::block_in_place(decode) } else { decode() }?;
        let repeats = Repeats::of(placement, &batches, std::slice::from_ref(&request.batch));
        let room = room(&*self.log, batch_bytes(&batches)).await?;
        let producer = request.producer.map(|producer| ProducerRange {
            producer: ProducerId(producer.id),
            epoch: producer.epoch,
            first: producer.sequence,
            count: 1,
        });
        match self.log.append(Append { batches, ack, producer, room }) {
            Ok(pending) => {
                let appended = pending.await?;
                let mut shares = [shares];
                let settled = repeats.map(|repeats| repeats.settle(&appended.duplicates, &mut shares));
                Ok(response(&appended, settled.into_iter().flatten().next().unwrap_or_default()))
            }
            Err(LogError::Producer(ProducerError::Repeated { .. })) => {
                self.log.barrier()?.await?;
                Ok(duplicate())
            }
            Err(error) => Err(error.into()),
        }
    }
}

fn response(appended: &Appended, duplicate_events: Vec<u32>) -> wire::PublishResponse {
    let ranges = appended.ranges.iter().map(|range| wire::PublishedRange {
        partition: range.tp.partition,
        first_offset: range.first,
        last_offset: range.last,
    });
    wire::PublishResponse {
        ack: ack_to_wire(appended.ack).into(),
        duplicate: appended.ranges.is_empty(),
        ranges: ranges.collect(),
        duplicate_events,
    }
}

fn duplicate() -> wire::PublishResponse {
    wire::PublishResponse { ack: wire::AckLevel::Durable.into(), duplicate: true, ..Default::default() }
}

/// One stream, as it was opened.
struct PublishStream {
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
    name: Name,
    ack: AckLevel,
    partition: Option<u32>,
    producer: Option<(ProducerId, u32)>,
    /// The number of the next request.
    next: u64,
    turn: u64,
}

/// What the answering half has to wait for, in order.
enum Unanswered {
    /// Requests that were appended together: the number of the first, and the share of each.
    Appended { first: u64, shares: Vec<Vec<Share>>, repeats: Option<Repeats>, pending: Pending<Appended> },
    /// Requests that were appended before.
    Repeated { first: u64, count: u64, pending: Pending<()> },
    /// The stream ends here.
    End(Refusal),
}

impl PublishStream {
    /// Reads requests and appends them, until the client ends the stream, goes away, or sends what cannot be appended.
    async fn read(mut self, requests: Streaming<wire::PublishStreamRequest>, pending: mpsc::Sender<Unanswered>) {
        let mut requests = requests.fuse();
        loop {
            // Whoever appends waits for the answers: a client that does not read them is not read.
            let Ok(permit) = pending.clone().reserve_owned().await else { return };
            // Requests that are there already are appended together. Each keeps its number, and its events their order.
            let mut batch = Vec::new();
            let mut bytes = 0;
            let mut ended = None;
            let mut next = requests.next().await;
            loop {
                match next {
                    Some(Ok(request)) => {
                        if let Some(StreamPart::Batch(wire)) = &request.request {
                            bytes += wire.len() as u64;
                        }
                        batch.push(request);
                    }
                    Some(Err(status)) => {
                        ended = Some(Refusal::from_transport(&status));
                        break;
                    }
                    None if batch.is_empty() => return,
                    None => break,
                }
                if batch.len() >= COALESCE_REQUESTS || bytes >= COALESCE_BYTES {
                    break;
                }
                let Some(ready) = requests.next().now_or_never() else { break };
                next = ready;
            }
            let mut permit = Some(permit);
            let appended = self.append_all(batch, &pending, &mut permit).await;
            if let Some(refusal) = appended.err().or(ended) {
                let refusal = refusal.with("sequence", self.next);
                let _ = send(&pending, &mut permit, Unanswered::End(refusal)).await;
                return;
            }
        }
    }

    /// Appends requests in order. On an error, everything before the request at `next` was appended and nothing after it.
    async fn append_all(
        &mut self,
        requests: Vec<wire::PublishStreamRequest>,
        pending: &mpsc::Sender<Unanswered>,
        permit: &mut Option<mpsc::OwnedPermit<Unanswered>>,
    ) -> Result<(), Refusal> {
        let mut requests = requests.into_iter().peekable();
        while requests.peek().is_some() {
            let topic = self.log.topic(&self.name)?;
            let mut door = Door::new(&topic, self.partition, self.turn, self.clock.now_us())?;
            self.turn += 1;
            let mut wires = Vec::new();
            let mut shares = Vec::new();
            let mut wrong = None;
            while let Some(request) = requests.peek() {
                let Some(StreamPart::Batch(wire)) = &request.request else {
                    wrong = Some(Refusal::invalid(
                        "OPENED_TWICE",
                        "a stream is opened once; the other messages are batches",
                    ));
                    break;
                };
                if !shares.is_empty() && door.bytes() + wire.len() as u64 > COALESCE_BYTES {
                    break;
                }
                let taken = if wire.len() > LARGE_BYTES {
                    tokio::task::block_in_place(|| door.take(wire))
                } else {
                    door.take(wire)
                };
                match taken {
                    Ok(share) => shares.push(share),
                    Err(refusal) => {
                        wrong = Some(refusal);
                        break;
                    }
                }
                wires.push(wire.clone());
                requests.next();
                if !self.log.capabilities().dense_offsets {
                    break;
                }
            }
            if !shares.is_empty() {
                let placement = door.placement();
                let batches = door.finish()?;
                let repeats = Repeats::of(placement, &batches, &wires);
                self.append(batches, shares, repeats, wires, pending, permit).await?;
            }
            if let Some(refusal) = wrong {
                return Err(refusal);
            }
        }
        Ok(())
    }

    async fn append(
        &mut self,
        batches: Vec<(Tp, Batch)>,
        shares: Vec<Vec<Share>>,
        repeats: Option<Repeats>,
        wires: Vec<bytes::Bytes>,
        pending: &mpsc::Sender<Unanswered>,
        permit: &mut Option<mpsc::OwnedPermit<Unanswered>>,
    ) -> Result<(), Refusal> {
        let room = room(&*self.log, batch_bytes(&batches)).await?;
        let count = shares.len() as u64;
        let first = self.next;
        let producer =
            self.producer.map(|(producer, epoch)| ProducerRange { producer, epoch, first, count: count as u32 });
        match self.log.append(Append { batches, ack: self.ack, producer, room }) {
            Ok(appended) => {
                self.next += count;
                send(pending, permit, Unanswered::Appended { first, shares, repeats, pending: appended }).await
            }
            Err(LogError::Producer(ProducerError::Repeated { next, .. })) => {
                // After a reconnection: some of them, or all, arrived before it.
                let repeated = count.min(next - first);
                self.next += repeated;
                let known = Unanswered::Repeated { first, count: repeated, pending: self.log.barrier()? };
                send(pending, permit, known).await?;
                let rest = wires.into_iter().skip(repeated as usize);
                let rest = rest.map(|wire| wire::PublishStreamRequest { request: Some(StreamPart::Batch(wire)) });
                Box::pin(self.append_all(rest.collect(), pending, permit)).await
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// Hands something to the answering half. The first one of a round has its place already.
async fn send(
    pending: &mpsc::Sender<Unanswered>,
    permit: &mut Option<mpsc::OwnedPermit<Unanswered>>,
    unanswered: Unanswered,
) -> Result<(), Refusal> {
    match permit.take() {
        Some(permit) => {
            permit.send(unanswered);
            Ok(())
        }
        None => {
            let sent = pending.send(unanswered).await;
            sent.map_err(|_| Refusal::new(ErrorKind::Unavailable, "CANCELLED", "the client is gone"))
        }
    }
}

/// Waits for appends in order and answers them; several in one message when several are done.
async fn answer(
    mut waiting: mpsc::Receiver<Unanswered>,
    answers: mpsc::Sender<Result<wire::PublishStreamResponse, Status>>,
) {
    while let Some(first) = waiting.recv().await {
        let mut acks = Vec::new();
        let mut ended = resolve(first, &mut acks).await.err();
        while ended.is_none() && acks.len() < COALESCE_REQUESTS {
            // Only what is durable already: an answer never waits for a later one.
            let Ok(next) = waiting.try_recv() else { break };
            let mut more = Vec::new();
            let mut resolving = Box::pin(resolve(next, &mut more));
            match resolving.as_mut().now_or_never() {
                Some(done) => {
                    drop(resolving);
                    acks.append(&mut more);
                    ended = done.err();
                }
                None => {
                    let response = wire::PublishStreamResponse { acks: std::mem::take(&mut acks) };
                    if !response.acks.is_empty() && answers.send(Ok(response)).await.is_err() {
                        return;
                    }
                    let done = resolving.await;
                    acks.append(&mut more);
                    ended = done.err();
                }
            }
        }
        let response = wire::PublishStreamResponse { acks };
        if !response.acks.is_empty() && answers.send(Ok(response)).await.is_err() {
            return;
        }
        if let Some(refusal) = ended {
            let _ = answers.send(Err(refusal.into())).await;
            return;
        }
    }
}

async fn resolve(unanswered: Unanswered, acks: &mut Vec<wire::PublishAck>) -> Result<(), Refusal> {
    match unanswered {
        Unanswered::Appended { first, mut shares, repeats, pending } => {
            let appended = pending.await?;
            let settled = repeats.map(|repeats| repeats.settle(&appended.duplicates, &mut shares));
            let mut duplicates = settled.unwrap_or_default().into_iter();
            let ack = ack_to_wire(appended.ack).into();
            // The events of the requests lie one behind the other in the range of their partition.
            let mut next: Vec<(u32, u64)> =
                appended.ranges.iter().map(|range| (range.tp.partition, range.first)).collect();
            if let [only] = shares.as_slice()
                && only.len() == appended.ranges.len()
            {
                let response = response(&appended, duplicates.next().unwrap_or_default());
                acks.push(wire::PublishAck { sequence: first, response: Some(response) });
                return Ok(());
            }
            for (sequence, shares) in (first..).zip(shares) {
                let duplicate = shares.is_empty();
                let ranges = shares
                    .iter()
                    .filter_map(|share| {
                        let (_, at) = next.iter_mut().find(|(partition, _)| *partition == share.partition)?;
                        let first_offset = *at;
                        *at += u64::from(share.events);
                        let last_offset = *at - 1;
                        Some(wire::PublishedRange { partition: share.partition, first_offset, last_offset })
                    })
                    .collect();
                let duplicate_events = duplicates.next().unwrap_or_default();
                let response = wire::PublishResponse { ack, ranges, duplicate, duplicate_events };
                acks.push(wire::PublishAck { sequence, response: Some(response) });
            }
            Ok(())
        }
        Unanswered::Repeated { first, count, pending } => {
            pending.await?;
            acks.extend(
                (first..first + count).map(|sequence| wire::PublishAck { sequence, response: Some(duplicate()) }),
            );
            Ok(())
        }
        Unanswered::End(refusal) => Err(refusal),
    }
}
