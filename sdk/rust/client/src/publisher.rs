//! Many events, one after the other: batched, pipelined, each of them once.
//!
//! One task owns the connection. It numbers its requests, keeps what was not acknowledged, and when the connection breaks it
//! opens another and sends that again; the server knows the numbers and appends nothing twice. So an event is lost only if
//! the program ends before its receipt came, and doubled never.

use crate::connect::{BACKOFF_MAX, backoff};
use crate::proto::publish_stream_request::Request;
use crate::proto::{
    AckLevel, Producer, PublishResponse, PublishStreamOpen, PublishStreamRequest, PublishStreamResponse,
};
use crate::{Batch, Client, Error, ErrorKind, Event, Outcome, Result};
use bytes::Bytes;
use std::collections::VecDeque;
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

/// When a publisher is answered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Ack {
    /// After the sync: the events survive the loss of power.
    #[default]
    Durable,
    /// After the write: they survive the end of the server, not the loss of power.
    Written,
    /// At once: they may be lost.
    None,
}

impl Ack {
    pub(crate) fn to_wire(self) -> AckLevel {
        match self {
            Ack::Durable => AckLevel::Durable,
            Ack::Written => AckLevel::Written,
            Ack::None => AckLevel::None,
        }
    }

    fn from_wire(level: AckLevel) -> Self {
        match level {
            AckLevel::Durable | AckLevel::Unspecified => Ack::Durable,
            AckLevel::Written => Ack::Written,
            AckLevel::None => Ack::None,
        }
    }
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Published {
    /// What the events survive.
    pub ack: Ack,
    /// One for each partition that got events.
    pub ranges: Vec<PublishedRange>,
    /// The events were there already: an earlier attempt had arrived after all, or the topic remembers the id of each. Their
    /// offsets are not known any more.
    pub duplicate: bool,
    /// Events that were not appended, by their place in the request, counted from 0: the topic remembers their ids, so they
    /// were appended before. The ranges are those of the other events.
    pub duplicate_events: Vec<u32>,
}

/// The offsets of the events that went to one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PublishedRange {
    pub partition: u32,
    pub first_offset: u64,
    pub last_offset: u64,
}

pub(crate) fn published(response: PublishResponse) -> Published {
    let ranges = response.ranges.iter().map(|range| PublishedRange {
        partition: range.partition,
        first_offset: range.first_offset,
        last_offset: range.last_offset,
    });
    Published {
        ack: Ack::from_wire(response.ack()),
        ranges: ranges.collect(),
        duplicate: response.duplicate,
        duplicate_events: response.duplicate_events,
    }
}

/// How to publish.
#[derive(Clone, Debug)]
pub struct PublisherOptions {
    pub ack: Ack,
    /// Events that are put into one request. A request is sent as soon as the connection takes it, so this matters only when
    /// events come faster than that.
    pub batch_events_max: usize,
    /// Bytes after which a request is full.
    pub batch_bytes_max: usize,
    /// Bytes that may be on their way: sent and not acknowledged, or waiting to be sent. [`Publisher::send`] waits at it.
    pub in_flight_bytes_max: usize,
    /// Requests that may be sent and not acknowledged.
    pub in_flight_requests_max: usize,
    /// All events go to this partition, whatever their keys.
    pub partition: Option<u32>,
}

impl Default for PublisherOptions {
    fn default() -> Self {
        Self {
            ack: Ack::Durable,
            batch_events_max: 1000,
            batch_bytes_max: 1 << 20,
            in_flight_bytes_max: 16 << 20,
            in_flight_requests_max: 1000,
            partition: None,
        }
    }
}

/// Publishes to one topic. Cheap to clone; what clones send is in the order of their calls. When the last clone is dropped, what
/// was sent is still delivered as long as the runtime lives; call [`flush`](Self::flush) to know.
#[derive(Clone, Debug)]
pub struct Publisher {
    commands: mpsc::Sender<Command>,
    room: Arc<Semaphore>,
    room_bytes: usize,
}

/// What a publisher will be told about one call.
#[derive(Debug)]
pub struct Receipt(oneshot::Receiver<Result<Published>>);

impl Receipt {
    /// Waits until the events are as safe as was asked for.
    ///
    /// For events that were sent one by one, the ranges are those of the request they travelled in.
    pub async fn wait(self) -> Result<Published> {
        self.0.await.unwrap_or_else(|_| Err(ended()))
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Unavailable, Outcome::Unknown, "PUBLISHER_ENDED", "the publisher has ended")
}

#[derive(Debug)]
enum Command {
    Event(Event, oneshot::Sender<Result<Published>>, OwnedSemaphorePermit),
    Batch(Batch, oneshot::Sender<Result<Published>>, OwnedSemaphorePermit),
    Flush(oneshot::Sender<Result<()>>),
}

/// Commands that wait for the task. Each holds room, so this bounds their number and not their size.
const COMMANDS_MAX: usize = 4096;

impl Publisher {
    pub(crate) fn start(client: Client, topic: String, options: PublisherOptions) -> Self {
        let room_bytes = options.in_flight_bytes_max.clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        let room = Arc::new(Semaphore::new(room_bytes));
        let (commands, mailbox) = mpsc::channel(COMMANDS_MAX);
        let mut id = [0; 8];
        // Without randomness of the system the address of the semaphore has to do: other publishers of this process differ.
        let id = match getrandom::fill(&mut id) {
            Ok(()) => u64::from_le_bytes(id),
            Err(_) => Arc::as_ptr(&room) as usize as u64,
        };
        let task = Task {
            client,
            topic,
            options,
            id,
            mailbox,
            next_sequence: 0,
            building: None,
            unacked: VecDeque::new(),
            sent: 0,
            flushes: Vec::new(),
            is_closed: false,
        };
        tokio::spawn(task.run());
        Self { commands, room, room_bytes }
    }

    /// Sends one event. Waits while too much is on its way; success means that it is on its way too.
    pub async fn send(&self, event: Event) -> Result<Receipt> {
        let bytes = event.value.as_ref().map_or(0, Bytes::len) + event.key.as_ref().map_or(0, Bytes::len) + 64;
        let permit = self.room(bytes).await?;
        self.command(|sender| Command::Event(event, sender, permit)).await
    }

    /// Sends a batch as one request, which is appended as one unit.
    pub async fn send_batch(&self, batch: Batch) -> Result<Receipt> {
        if batch.is_empty() {
            return Err(Error::invalid("the batch is empty"));
        }
        let permit = self.room(batch.bytes()).await?;
        self.command(|sender| Command::Batch(batch, sender, permit)).await
    }

    /// Waits until everything that was sent before is as safe as was asked for. Fails if any of it was refused since the last
    /// flush.
    pub async fn flush(&self) -> Result<()> {
        let (sender, done) = oneshot::channel();
        self.commands.send(Command::Flush(sender)).await.map_err(|_| ended())?;
        done.await.unwrap_or_else(|_| Err(ended()))
    }

    async fn room(&self, bytes: usize) -> Result<OwnedSemaphorePermit> {
        // What is larger than all the room takes all of it.
        let bytes = bytes.min(self.room_bytes) as u32;
        self.room.clone().acquire_many_owned(bytes).await.map_err(|_| ended())
    }

    async fn command(&self, command: impl FnOnce(oneshot::Sender<Result<Published>>) -> Command) -> Result<Receipt> {
        let (sender, receipt) = oneshot::channel();
        self.commands.send(command(sender)).await.map_err(|_| ended())?;
        Ok(Receipt(receipt))
    }
}

/// A request, from its first event until it is acknowledged.
struct Item {
    sequence: u64,
    wire: Bytes,
    receipts: Vec<oneshot::Sender<Result<Published>>>,
    _room: Vec<OwnedSemaphorePermit>,
}

impl Item {
    fn tell(self, result: &Result<Published>) {
        for receipt in self.receipts {
            // Whoever dropped the receipt does not want to know.
            let _ = receipt.send(result.clone());
        }
    }
}

/// A request that still takes events.
#[derive(Default)]
struct Building {
    batch: Batch,
    receipts: Vec<oneshot::Sender<Result<Published>>>,
    room: Vec<OwnedSemaphorePermit>,
}

struct Flush {
    /// Done when everything before this number is acknowledged.
    before: u64,
    sender: oneshot::Sender<Result<()>>,
    failed: Option<Error>,
}

struct Task {
    client: Client,
    topic: String,
    options: PublisherOptions,
    id: u64,
    mailbox: mpsc::Receiver<Command>,
    next_sequence: u64,
    building: Option<Building>,
    /// In order; the first `sent` of them were sent on this connection.
    unacked: VecDeque<Item>,
    sent: usize,
    flushes: Vec<Flush>,
    is_closed: bool,
}

struct Connection {
    requests: mpsc::Sender<PublishStreamRequest>,
    answers: Streaming<PublishStreamResponse>,
}

/// Requests that wait for HTTP/2.
const OUTGOING_MAX: usize = 64;

impl Task {
    async fn run(mut self) {
        let mut waits = backoff();
        let mut give_up: Option<Instant> = None;
        loop {
            // Nothing is opened before there is something to say.
            if self.unacked.is_empty() && self.building.is_none() {
                if self.is_closed {
                    return;
                }
                match self.mailbox.recv().await {
                    Some(command) => self.take(command),
                    None => return,
                }
                continue;
            }
            let oldest = self.oldest();
            let ended = match self.connect().await {
                Ok(connection) => self.talk(connection).await,
                Err(error) => Err(error),
            };
            let Err(error) = ended else { return };
            if self.oldest() > oldest {
                // Something was acknowledged: the server is well.
                waits = backoff();
                give_up = None;
            }
            if let Some(sequence) =
                error.sequence.filter(|_| !error.is_passing() && error.kind() != ErrorKind::Conflict)
            {
                self.refuse(sequence, &error);
                continue;
            }
            let end = *give_up.get_or_insert_with(|| Instant::now() + self.client.options.retry_for);
            if !error.is_passing() || Instant::now() >= end {
                self.fail(&error);
                return;
            }
            tokio::time::sleep(waits.next().unwrap_or(BACKOFF_MAX)).await;
        }
    }

    fn oldest(&self) -> u64 {
        self.unacked.front().map_or(self.next_sequence, |item| item.sequence)
    }

    async fn connect(&mut self) -> Result<Connection> {
        self.sent = 0;
        let (requests, outgoing) = mpsc::channel(OUTGOING_MAX);
        let open = PublishStreamOpen {
            topic: self.topic.clone(),
            ack: self.options.ack.to_wire().into(),
            producer: Some(Producer { id: self.id, epoch: 0, sequence: self.oldest() }),
            partition: self.options.partition,
        };
        // The channel is new and empty, so there is room.
        let _ = requests.try_send(PublishStreamRequest { request: Some(Request::Open(open)) });
        let answers = self.client.publishing().publish_stream(ReceiverStream::new(outgoing)).await?;
        Ok(Connection { requests, answers: answers.into_inner() })
    }

    /// Sends and listens until the connection breaks, or until everything is done and nobody will send more.
    async fn talk(&mut self, mut connection: Connection) -> Result<()> {
        loop {
            self.seal_if_idle();
            if self.is_closed && self.unacked.is_empty() && self.building.is_none() {
                return Ok(());
            }
            let in_flight = self.unacked.len();
            let may_send = self.sent < in_flight;
            let may_take = !self.is_closed && in_flight < self.options.in_flight_requests_max;
            tokio::select! {
                biased;
                // Answers first: they free room, and freeing room never waits for new requests.
                answer = connection.answers.message() => match answer? {
                    Some(answer) => self.acknowledge(answer)?,
                    None => return Err(broken("the server ended the stream")),
                },
                permit = connection.requests.reserve(), if may_send => {
                    let Ok(permit) = permit else {
                        // The stream is over; the answers say why.
                        return Err(self.why_it_ended(&mut connection.answers).await);
                    };
                    let batch = self.unacked[self.sent].wire.clone();
                    permit.send(PublishStreamRequest { request: Some(Request::Batch(batch)) });
                    self.sent += 1;
                },
                command = self.mailbox.recv(), if may_take => match command {
                    Some(command) => {
                        self.take(command);
                        // Whatever else is there already travels along.
                        while self.unacked.len() < self.options.in_flight_requests_max {
                            let Ok(command) = self.mailbox.try_recv() else { break };
                            self.take(command);
                        }
                    }
                    None => self.is_closed = true,
                },
            }
        }
    }

    async fn why_it_ended(&mut self, answers: &mut Streaming<PublishStreamResponse>) -> Error {
        loop {
            match answers.message().await {
                Ok(Some(answer)) => {
                    if let Err(error) = self.acknowledge(answer) {
                        return error;
                    }
                }
                Ok(None) => return broken("the server ended the stream"),
                Err(status) => return status.into(),
            }
        }
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Event(event, receipt, room) => {
                let building = self.building.get_or_insert_default();
                building.batch.push(&event);
                building.receipts.push(receipt);
                building.room.push(room);
                let is_full = building.batch.len() >= self.options.batch_events_max
                    || building.batch.bytes() >= self.options.batch_bytes_max;
                if is_full {
                    self.seal();
                }
            }
            Command::Batch(batch, receipt, room) => {
                self.seal();
                self.building = Some(Building { batch, receipts: vec![receipt], room: vec![room] });
                self.seal();
            }
            Command::Flush(sender) => {
                self.seal();
                self.flushes.push(Flush { before: self.next_sequence, sender, failed: None });
                self.settle_flushes();
            }
        }
    }

    /// A request that is not full goes when nothing else waits to be sent.
    fn seal_if_idle(&mut self) {
        if self.sent == self.unacked.len() {
            self.seal();
        }
    }

    fn seal(&mut self) {
        if let Some(Building { batch, receipts, room }) = self.building.take() {
            let sequence = self.next_sequence;
            self.next_sequence += 1;
            self.unacked.push_back(Item { sequence, wire: batch.into_wire(), receipts, _room: room });
        }
    }

    fn acknowledge(&mut self, answer: PublishStreamResponse) -> Result<()> {
        for ack in answer.acks {
            match self.unacked.front() {
                Some(item) if item.sequence == ack.sequence => {}
                // Of an earlier connection; it was acknowledged then.
                Some(item) if ack.sequence < item.sequence => continue,
                _ => return Err(broken("the server acknowledged what was not sent")),
            }
            self.sent = self.sent.saturating_sub(1);
            if let Some(item) = self.unacked.pop_front() {
                item.tell(&Ok(published(ack.response.unwrap_or_default())));
            }
        }
        self.settle_flushes();
        Ok(())
    }

    fn settle_flushes(&mut self) {
        let oldest = self.oldest();
        for flush in self.flushes.extract_if(.., |flush| flush.before <= oldest) {
            let _ = flush.sender.send(flush.failed.map_or(Ok(()), Err));
        }
    }

    /// One request cannot be appended, and never will be. The ones behind it were not appended either; they take its number.
    fn refuse(&mut self, sequence: u64, error: &Error) {
        let Some(at) = self.unacked.iter().position(|item| item.sequence == sequence) else {
            return self.fail(error);
        };
        for flush in self.flushes.iter_mut().filter(|flush| flush.before > sequence) {
            flush.failed.get_or_insert_with(|| error.clone());
            flush.before -= 1;
        }
        if let Some(item) = self.unacked.remove(at) {
            item.tell(&Err(error.clone()));
        }
        for item in self.unacked.range_mut(at..) {
            item.sequence -= 1;
        }
        self.next_sequence -= 1;
        self.settle_flushes();
    }

    /// It is over: everyone is told, and whether their events may be there.
    fn fail(&mut self, error: &Error) {
        self.seal();
        let was_ever_sent = self.sent > 0 || error.outcome() == Outcome::Unknown;
        let outcome = if was_ever_sent { Outcome::Unknown } else { error.outcome() };
        let error = error.clone().with_outcome(outcome);
        for item in self.unacked.drain(..) {
            item.tell(&Err(error.clone()));
        }
        for flush in self.flushes.drain(..) {
            let _ = flush.sender.send(Err(error.clone()));
        }
        self.mailbox.close();
        while let Ok(command) = self.mailbox.try_recv() {
            let error = error.clone().with_outcome(Outcome::NotApplied);
            match command {
                Command::Event(_, receipt, _) | Command::Batch(_, receipt, _) => drop(receipt.send(Err(error))),
                Command::Flush(sender) => drop(sender.send(Err(error))),
            }
        }
    }
}

fn broken(message: &str) -> Error {
    Error::new(ErrorKind::Unavailable, Outcome::Unknown, "CONNECTION", message)
}
