//! Reading a topic, from somewhere to its end or for ever.
//!
//! The places where reading begins and ends are asked for once, at the start. When the connection breaks, another one goes on
//! behind the last event that was given, so nothing is given twice or left out.

use crate::connect::{BACKOFF_MAX, backoff};
use crate::proto::{PartitionOffset, TailRequest, TailResponse};
use crate::{Client, Error, Received, ReceivedBatch, Result};
use std::collections::{BTreeMap, VecDeque};
use tokio::time::Instant;
use tonic::Streaming;

/// Where reading begins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum From {
    /// At the earliest event that is still there.
    #[default]
    Earliest,
    /// Behind the last event.
    Latest,
    /// At this offset, in every partition.
    Offset(u64),
    /// At the first event, in every partition, whose timestamp is not before this, in microseconds since the Unix epoch.
    Time(i64),
}

/// How to read.
#[derive(Clone, Debug, Default)]
pub struct TailOptions {
    pub from: From,
    /// Empty: all.
    pub partitions: Vec<u32>,
    /// False: until the ends that the partitions have at the start. True: for ever.
    pub follow: bool,
}

/// Events of a topic, as they come. In order within a partition.
#[derive(Debug)]
pub struct Tail {
    client: Client,
    topic: String,
    follow: bool,
    partitions: Vec<u32>,
    /// Where each partition goes on, and where it ends.
    at: BTreeMap<u32, (u64, u64)>,
    stream: Option<Streaming<TailResponse>>,
    ready: VecDeque<ReceivedBatch>,
    events: VecDeque<Received>,
}

impl Tail {
    pub(crate) async fn start(client: Client, topic: String, options: TailOptions) -> Result<Self> {
        let TailOptions { from, partitions, follow } = options;
        let offsets = client.offsets(&topic).await?;
        if let Some(missing) = partitions.iter().find(|wanted| offsets.iter().all(|(known, ..)| known != *wanted)) {
            let count = offsets.len();
            return Err(Error::invalid(format!(
                "topic `{topic}` has {count} partitions, there is no partition {missing}"
            )));
        }
        let times = match from {
            From::Time(timestamp_us) => client.offsets_at(&topic, timestamp_us).await?,
            _ => BTreeMap::new(),
        };
        let at = offsets
            .iter()
            .filter(|(partition, ..)| partitions.is_empty() || partitions.contains(partition))
            .map(|&(partition, earliest, end)| {
                let begin = match from {
                    From::Time(_) => times.get(&partition).copied().unwrap_or(end),
                    From::Earliest => earliest,
                    From::Latest => end,
                    // An offset that one partition does not have yet is its end. One that it does not have any more is refused
                    // by the server: events that are gone are not to be missed in silence.
                    From::Offset(offset) => offset.min(end),
                };
                (partition, (begin, if follow { u64::MAX } else { end.max(begin) }))
            })
            .collect();
        Ok(Self {
            client,
            topic,
            follow,
            partitions,
            at,
            stream: None,
            ready: VecDeque::new(),
            events: VecDeque::new(),
        })
    }

    /// The next event; `None` at the end, which a tail that follows does not have.
    ///
    /// A connection that breaks is made anew for as long as the client's options say.
    pub async fn next(&mut self) -> Result<Option<Received>> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Some(event));
            }
            let Some(batch) = self.next_batch().await? else { return Ok(None) };
            self.events = batch.events().collect::<Result<_>>()?;
        }
    }

    /// The next events of one partition, as they travelled together. Not to be mixed with [`next`](Self::next).
    pub async fn next_batch(&mut self) -> Result<Option<ReceivedBatch>> {
        let mut waits = backoff();
        let mut give_up = None;
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Ok(Some(batch));
            }
            if !self.follow && self.at.values().all(|(next, end)| next >= end) {
                return Ok(None);
            }
            let Err(error) = self.receive().await else { continue };
            self.stream = None;
            let end = *give_up.get_or_insert_with(|| Instant::now() + self.client.options.retry_for);
            if !error.is_passing() || Instant::now() >= end {
                return Err(error);
            }
            tokio::time::sleep(waits.next().unwrap_or(BACKOFF_MAX)).await;
        }
    }

    async fn receive(&mut self) -> Result<()> {
        let stream = match &mut self.stream {
            Some(stream) => stream,
            None => {
                let request = TailRequest {
                    topic: self.topic.clone(),
                    from: None,
                    partitions: self.partitions.clone(),
                    offsets: self
                        .at
                        .iter()
                        .map(|(&partition, &(offset, _))| PartitionOffset { partition, offset })
                        .collect(),
                    follow: self.follow,
                };
                let stream = self.client.consuming().tail(request).await?.into_inner();
                self.stream.insert(stream)
            }
        };
        let Some(response) = stream.message().await? else {
            // The server is done; whatever was there at our start has come.
            self.at.values_mut().for_each(|(next, end)| *next = *end);
            return Ok(());
        };
        for stored in response.batches {
            let (next, end) = self.at.entry(stored.partition).or_insert((0, u64::MAX));
            let batch = ReceivedBatch::new(stored, *next, *end);
            *next = (*next).max(batch.last_offset() + 1);
            if !batch.is_empty() {
                self.ready.push_back(batch);
            }
        }
        Ok(())
    }
}
