//! What there is in a log of one task.

use crate::story::{JOB, Job, Scenario};
use bytes::{Buf as _, Bytes};
use nodata_log::{Bounds, EmbeddedLog, Log, Name, Offset, ReadLimits, StateScan, TaskKey, TimestampUs, Topic, Tp};
use std::collections::BTreeMap;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

/// An event as it was published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) key: Option<String>,
    pub(crate) value: String,
    pub(crate) at: TimestampUs,
}

/// What can be seen of a task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// In each partition, in order.
    pub(crate) out: BTreeMap<u32, Vec<String>>,
    pub(crate) late: BTreeMap<u32, Vec<String>>,
    pub(crate) letters: Vec<(Offset, String)>,
    pub(crate) count: u64,
    pub(crate) groups: Vec<(TimestampUs, TimestampUs, String)>,
}

/// Waits for something that needs nothing but what has happened already.
pub(crate) fn now<T>(future: impl Future<Output = T>) -> T {
    match pin!(future).as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("it waits"),
    }
}

/// Every event of a partition, with its offset, its headers and itself.
fn read_all(log: &EmbeddedLog, tp: Tp) -> Vec<(Offset, BTreeMap<String, String>, Sent)> {
    let Bounds { earliest, end } = log.bounds(tp).unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let mut all = Vec::new();
    let mut next = earliest;
    while next < end {
        let limits = ReadLimits { bytes_max: 1 << 20, events_max: usize::MAX };
        // Without a runtime around it, the log reads at once.
        let chunk =
            std::thread::scope(|scope| scope.spawn(|| now(log.read(tp, next, limits))).join().unwrap().unwrap());
        for stored in &chunk.batches {
            for (row, event) in stored.batch.events().enumerate().filter(|(row, _)| stored.offsets.at(*row) >= next) {
                let headers = event.headers().map(|(name, value)| (name.to_owned(), text(value))).collect();
                let sent = Sent { key: event.key.map(text), value: text(event.value.unwrap()), at: event.timestamp_us };
                all.push((stored.offsets.at(row), headers, sent));
            }
        }
        next = chunk.next;
    }
    all
}

/// What was published to a partition.
pub(crate) fn sent(log: &EmbeddedLog, tp: Tp) -> Vec<(Offset, Sent)> {
    read_all(log, tp).into_iter().map(|(offset, _, sent)| (offset, sent)).collect()
}

/// Keys and values say which task an event is of.
fn is_of(partition: u32, sent: &Sent) -> bool {
    let key = sent.key.as_ref().and_then(|key| key.strip_prefix('k')?.split('.').next()?.parse().ok());
    let value = || sent.value.rsplit(' ').next()?.split('-').next()?.parse().ok();
    key.or_else(value) == Some(partition)
}

fn outputs(log: &EmbeddedLog, topic: &Topic, partition: u32, with_time: bool) -> BTreeMap<u32, Vec<String>> {
    let mut out = BTreeMap::new();
    for tp in topic.partitions() {
        let own = read_all(log, tp).into_iter().filter(|(_, _, sent)| is_of(partition, sent));
        let shown =
            own.map(|(_, _, sent)| if with_time { format!("{} at {}", sent.value, sent.at) } else { sent.value });
        let shown: Vec<String> = shown.collect();
        if !shown.is_empty() {
            out.insert(tp.partition, shown);
        }
    }
    out
}

/// Numbers are kept in the order of their bytes.
fn from_ordered(number: u64) -> i64 {
    (number ^ 1 << 63) as i64
}

/// What there is of a task.
pub(crate) fn seen(log: &EmbeddedLog, scenario: &Scenario, task: TaskKey) -> Seen {
    let name = |name: &str| Name::new(name).unwrap();
    let partition = task.source.partition;
    let with_time = matches!(scenario.job, Job::Aggregate { .. });
    let out = outputs(log, &log.topic(&name("out")).unwrap(), partition, with_time);
    let late = outputs(log, &log.topic(&name("late")).unwrap(), partition, false);
    let mut letters = Vec::new();
    if let Ok(topic) = log.topic(&name(&format!("{JOB}.dlq"))) {
        for (_, headers, sent) in read_all(log, Tp { topic: topic.id, partition: 0 }) {
            if headers["nodata-partition"] == partition.to_string() {
                letters.push((headers["nodata-offset"].parse().unwrap(), sent.value));
            }
        }
    }
    let table = if scenario.job == Job::Sink { "delivered" } else { "told" };
    let count = log.state_get(task, &name(table), &[Bytes::from("count")]).unwrap().remove(0);
    let count = count.map_or(0, |bytes| u64::from_le_bytes(bytes.as_ref().try_into().unwrap()));
    let mut groups = Vec::new();
    let all = StateScan { start: Bytes::new(), end: None, count_max: usize::MAX, bytes_max: usize::MAX };
    for (mut key, mut value) in log.state_scan(task, &name("nodata.groups"), &all).unwrap() {
        // A key with its length, and the start; the end, and what the component made of it.
        let len = key.get_u32() as usize;
        let group = String::from_utf8(key.split_to(len).to_vec()).unwrap();
        let (start, end) = (from_ordered(key.get_u64()), from_ordered(value.get_u64()));
        groups.push((start, end, format!("{group}: {}", String::from_utf8(value.to_vec()).unwrap())));
    }
    groups.sort();
    // What the account says is what is there, of what is counted.
    let bytes = |of: &str| -> usize {
        let found = log.state_scan(task, &name(of), &all).unwrap();
        found.iter().map(|(key, value)| key.len() + value.len()).sum()
    };
    let held: usize = ["told", "delivered", "nodata.groups", "nodata.ends"].map(bytes).iter().sum();
    let account = log.state_get(task, &name("nodata.account"), &[Bytes::from("bytes")]).unwrap().remove(0);
    let account = account.map_or(0, |bytes| u64::from_be_bytes(bytes.as_ref().try_into().unwrap()));
    assert_eq!(account, held as u64, "the account of the state of {task:?}");
    Seen { out, late, letters, count, groups }
}
