//! What uses the server while it dies and comes back, and what must be true of what they were told.

use crate::flights::{ByCarrier, flights, is_late};
use nodata_client::proto::FlushTopicRequest;
use nodata_client::{Client, ClientOptions, Event, PublisherOptions, Receipt, Received, Tail, TailOptions};
use nodata_log::fs::simulated::Chance;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Flights, the late ones of them, and how many of those there were of each carrier so far.
pub(crate) const FLIGHTS: &str = "flights";
pub(crate) const LATE: &str = "late";
pub(crate) const COUNTS: &str = "late-counts";
/// Numbered noise in two partitions, of which little is kept.
pub(crate) const NOISE: &str = "noise";
pub(crate) const NOISE_PARTITIONS: u32 = 2;

/// Producers of flights. All flights of a carrier come from one of them.
const PRODUCERS: usize = 3;
/// Events of one producer that may wait for their acks.
const UNACKED_MAX: usize = 400;
/// A producer that does not hurry waits this long after ten events.
const PACE: Duration = Duration::from_millis(10);
const NOISE_BYTES: usize = 1000;

/// What the producers did so far.
#[derive(Default)]
struct Told {
    /// Flights that were sent, and how many of each carrier were acknowledged.
    sent: Mutex<ByCarrier>,
    acked: Mutex<BTreeMap<String, usize>>,
    noise_acked: [AtomicU64; NOISE_PARTITIONS as usize],
    /// Of all producers together.
    acks: AtomicU64,
    /// Noise comes as fast as it is taken.
    is_fast: AtomicBool,
    is_over: AtomicBool,
}

/// The place and the id of every event that someone who follows a topic was given, by partition.
type Transcript = Arc<Mutex<BTreeMap<u32, Vec<(u64, String)>>>>;

pub(crate) struct Users {
    runtime: Runtime,
    client: Client,
    told: Arc<Told>,
    producers: Vec<JoinHandle<()>>,
    others: Vec<JoinHandle<()>>,
    transcripts: Vec<(&'static str, Transcript)>,
    /// The ids of flights that are late.
    late: BTreeMap<String, bool>,
    /// Of each partition, the earliest offset and the end that anyone was told.
    bounds: Mutex<BTreeMap<(&'static str, u32), Range<u64>>>,
}

struct Flight {
    carrier: String,
    id: String,
    line: String,
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Users {
    /// Begins to use a server, whose topics are there and empty.
    pub(crate) fn start(address: &str) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let options = ClientOptions { retry_for: Duration::from_secs(600), ..ClientOptions::default() };
        let client = runtime.block_on(Client::connect_with(address, options)).unwrap();
        let told = Arc::new(Told::default());

        let mut late = BTreeMap::new();
        let mut parts: Vec<Vec<Flight>> = (0..PRODUCERS).map(|_| Vec::new()).collect();
        for line in flights() {
            let flight: Value = serde_json::from_str(&line).unwrap();
            let text = |field: &str| flight[field].as_str().unwrap().to_owned();
            let (carrier, id) = (text("carrier"), text("id"));
            late.insert(id.clone(), is_late(&flight));
            let part = carrier.bytes().map(usize::from).sum::<usize>() % PRODUCERS;
            parts[part].push(Flight { carrier, id, line });
        }

        let mut producers: Vec<_> =
            parts.into_iter().map(|part| runtime.spawn(publish_flights(client.clone(), part, told.clone()))).collect();
        let noise = |partition| runtime.spawn(publish_noise(client.clone(), partition, told.clone()));
        producers.extend((0..NOISE_PARTITIONS).map(noise));
        let mut others = vec![runtime.spawn(flush(client.clone(), told.clone()))];
        let transcripts: Vec<_> = [FLIGHTS, LATE].map(|topic| (topic, Transcript::default())).into();
        for (topic, transcript) in &transcripts {
            let options = TailOptions { follow: true, ..TailOptions::default() };
            let tail = runtime.block_on(client.tail(topic, options)).unwrap();
            others.push(runtime.spawn(follow(tail, transcript.clone())));
        }
        Self { runtime, client, told, producers, others, transcripts, late, bounds: Mutex::default() }
    }

    /// Events that were acknowledged so far.
    pub(crate) fn acks(&self) -> u64 {
        self.told.acks.load(Ordering::SeqCst)
    }

    /// Noise comes as fast as it is taken, or not.
    pub(crate) fn hurry(&self, is_fast: bool) {
        self.told.is_fast.store(is_fast, Ordering::SeqCst);
    }

    /// Waits until so many more events are acknowledged.
    pub(crate) fn wait_for_acks(&self, more: u64) {
        let until = self.acks() + more;
        while self.acks() < until {
            self.check_tasks();
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Nobody has given up.
    fn check_tasks(&self) {
        let is_over = self.told.is_over.load(Ordering::SeqCst);
        assert!(is_over || !self.producers.iter().any(JoinHandle::is_finished), "a producer has given up");
        assert!(is_over || !self.others.iter().any(JoinHandle::is_finished), "a consumer has given up");
    }

    /// The last events are sent, and everything is acknowledged.
    pub(crate) fn finish(&mut self) {
        self.told.is_over.store(true, Ordering::SeqCst);
        for producer in self.producers.drain(..) {
            self.runtime.block_on(producer).unwrap();
        }
    }

    /// Everything that anyone was told is true. `is_all`: and there is nothing else.
    pub(crate) fn check(&self, context: &str, is_all: bool) {
        self.check_tasks();
        // What was told before the reading begins must be found by it, and nothing may be found in an output before its
        // input: so the outputs are read first.
        let acked = lock(&self.told.acked).clone();
        let noise_acked: Vec<u64> = self.told.noise_acked.iter().map(|acked| acked.load(Ordering::SeqCst)).collect();
        let given: Vec<_> =
            self.transcripts.iter().map(|(topic, transcript)| (*topic, lock(transcript).clone())).collect();
        let read = |topic| self.runtime.block_on(read_all(&self.client, topic, context));
        let (counts, late, flights, noise) = (read(COUNTS), read(LATE), read(FLIGHTS), read(NOISE));
        let sent = lock(&self.told.sent).clone();

        let found = by_carrier(&flights);
        for (carrier, sent) in &sent {
            let found = found.get(carrier).map(Vec::as_slice).unwrap_or_default();
            let acked = acked.get(carrier).copied().unwrap_or(0);
            assert!(
                sent.starts_with(found) && found.len() >= acked && (!is_all || found.len() == sent.len()),
                "{context}: carrier {carrier}: {}",
                difference(found, sent, acked)
            );
        }
        assert!(found.keys().all(|carrier| sent.contains_key(carrier)), "{context}: a carrier that nobody sent");

        let found_late = by_carrier(&late);
        for (carrier, found) in &found {
            let is_late = |id: &&String| self.late[id.split('.').next().unwrap_or_default()];
            let expected: Vec<String> = found.iter().filter(is_late).cloned().collect();
            let found = found_late.get(carrier).map(Vec::as_slice).unwrap_or_default();
            assert!(
                expected.starts_with(found) && (!is_all || expected.len() == found.len()),
                "{context}: late flights of {carrier}: {}",
                difference(found, &expected, 0)
            );
        }

        let mut counted: BTreeMap<String, u64> = BTreeMap::new();
        for received in counts.values().flatten() {
            let value: Value = serde_json::from_slice(received.event.value.as_deref().unwrap_or_default()).unwrap();
            let count = counted.entry(value["key"].as_str().unwrap().to_owned()).or_default();
            *count += 1;
            assert_eq!(value["count"], *count, "{context}: {value}");
        }
        for (carrier, count) in &counted {
            let late = found_late.get(carrier).map_or(0, Vec::len) as u64;
            assert!(*count <= late && (!is_all || *count == late), "{context}: {carrier} has {late}, counted {count}");
        }
        assert!(!is_all || counted.len() == found_late.len(), "{context}: {counted:?}");

        for (topic, given) in given {
            let read = if topic == FLIGHTS { &flights } else { &late };
            for (partition, given) in given {
                let read = read.get(&partition).map(Vec::as_slice).unwrap_or_default();
                let read = read.iter().map(|received| (received.offset, id(received)));
                assert!(
                    read.take(given.len()).eq(given.iter().map(|(offset, id)| (*offset, id.as_str()))),
                    "{context}: {topic}, partition {partition}: who follows it was given something that is not there"
                );
            }
        }

        for (partition, acked) in (0..).zip(noise_acked) {
            let read = noise.get(&partition).map(Vec::as_slice).unwrap_or_default();
            let numbers: Vec<u64> = read.iter().map(number).collect();
            let is_dense = numbers.windows(2).all(|pair| pair[0] + 1 == pair[1]);
            let last = numbers.last().map_or(0, |last| last + 1);
            assert!(
                is_dense && last >= acked,
                "{context}: noise {partition} ends at {last}, {acked} were acknowledged"
            );
        }
    }

    /// Waits until those who follow have been given everything that is there.
    pub(crate) fn wait_for_followers(&self, context: &str) {
        for (topic, transcript) in &self.transcripts {
            let read = self.runtime.block_on(read_all(&self.client, topic, context));
            let count: usize = read.values().map(Vec::len).sum();
            while lock(transcript).values().map(Vec::len).sum::<usize>() < count {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    }

    /// No partition begins earlier, or ends earlier, than it was said to before.
    pub(crate) fn check_bounds(&self, context: &str) {
        for topic in [FLIGHTS, LATE, COUNTS, NOISE] {
            for (partition, earliest, end) in self.runtime.block_on(self.client.offsets(topic)).unwrap() {
                let mut bounds = lock(&self.bounds);
                let before = bounds.entry((topic, partition)).or_insert(0..0);
                assert!(
                    earliest >= before.start && end >= before.end,
                    "{context}: {topic}, partition {partition}: {earliest}..{end}, it was {before:?}"
                );
                *before = earliest..end;
            }
        }
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        self.others.iter().chain(&self.producers).for_each(JoinHandle::abort);
    }
}

fn difference(found: &[String], expected: &[String], acked: usize) -> String {
    let same = found.iter().zip(expected).take_while(|(found, expected)| found == expected).count();
    let at = |list: &[String]| list.get(same).cloned().unwrap_or_else(|| "nothing".to_owned());
    let (count, sent) = (found.len(), expected.len());
    format!(
        "found {count}, expected up to {sent} and at least {acked}; at {same} is {}, not {}",
        at(found),
        at(expected)
    )
}

fn id(received: &Received) -> &str {
    received.event.id.as_deref().unwrap_or_default()
}

/// The number of an event of noise.
fn number(received: &Received) -> u64 {
    let value = received.event.value.as_deref().unwrap_or_default();
    u64::from_le_bytes(*value.first_chunk().unwrap())
}

/// The ids by carrier, in order.
fn by_carrier(read: &BTreeMap<u32, Vec<Received>>) -> ByCarrier {
    let mut all = ByCarrier::new();
    for received in read.values().flatten() {
        let carrier = String::from_utf8_lossy(received.event.key.as_deref().unwrap_or_default()).into_owned();
        all.entry(carrier).or_default().push(id(received).to_owned());
    }
    all
}

async fn read_all(client: &Client, topic: &str, context: &str) -> BTreeMap<u32, Vec<Received>> {
    let mut all: BTreeMap<u32, Vec<Received>> = BTreeMap::new();
    let mut tail = client.tail(topic, TailOptions::default()).await.unwrap();
    loop {
        match tail.next().await {
            Ok(Some(received)) => all.entry(received.partition).or_default().push(received),
            Ok(None) => return all,
            // Retention may be quicker than who reads the oldest events.
            Err(error) if error.reason() == "OUT_OF_RANGE" => {
                all.clear();
                tail = client.tail(topic, TailOptions::default()).await.unwrap();
            }
            Err(error) => panic!("{context}: {topic} cannot be read: {error}"),
        }
    }
}

/// Writes down what is acknowledged, in order. So many events wait for that, and no more.
fn acks<T: Send + 'static>(mut note: impl FnMut(T) + Send + 'static) -> (mpsc::Sender<(Receipt, T)>, JoinHandle<()>) {
    let (sender, mut receipts) = mpsc::channel::<(Receipt, T)>(UNACKED_MAX);
    let notes = tokio::spawn(async move {
        while let Some((receipt, about)) = receipts.recv().await {
            receipt.wait().await.unwrap();
            note(about);
        }
    });
    (sender, notes)
}

/// Publishes flights, one after the other and again and again, until it is over.
async fn publish_flights(client: Client, mine: Vec<Flight>, told: Arc<Told>) {
    let options = PublisherOptions { batch_events_max: 50, ..PublisherOptions::default() };
    let publisher = client.publisher(FLIGHTS, options);
    let (receipts, notes) = acks({
        let told = told.clone();
        move |carrier: String| {
            *lock(&told.acked).entry(carrier).or_default() += 1;
            told.acks.fetch_add(1, Ordering::SeqCst);
        }
    });
    'publishing: for round in 0.. {
        for (at, flight) in mine.iter().enumerate() {
            if told.is_over.load(Ordering::SeqCst) {
                break 'publishing;
            }
            // Every event has an id of its own.
            let id = format!("{}.{round}", flight.id);
            lock(&told.sent).entry(flight.carrier.clone()).or_default().push(id.clone());
            let event = Event::new(flight.line.clone()).with_key(flight.carrier.clone()).with_id(id);
            let receipt = publisher.send(event).await.unwrap();
            receipts.send((receipt, flight.carrier.clone())).await.unwrap();
            if at % 10 == 9 {
                tokio::time::sleep(PACE).await;
            }
        }
    }
    drop(receipts);
    notes.await.unwrap();
}

/// Publishes numbered noise to one partition until it is over.
async fn publish_noise(client: Client, partition: u32, told: Arc<Told>) {
    let options = PublisherOptions { batch_events_max: 100, partition: Some(partition), ..PublisherOptions::default() };
    let publisher = client.publisher(NOISE, options);
    let mut chance = Chance::new(partition.into());
    let (receipts, notes) = acks({
        let told = told.clone();
        move |number: u64| {
            told.noise_acked[partition as usize].store(number + 1, Ordering::SeqCst);
            told.acks.fetch_add(1, Ordering::SeqCst);
        }
    });
    for number in 0u64.. {
        if told.is_over.load(Ordering::SeqCst) {
            break;
        }
        let mut value = number.to_le_bytes().to_vec();
        while value.len() < NOISE_BYTES {
            value.extend(chance.number().to_le_bytes());
        }
        let receipt = publisher.send(Event::new(value)).await.unwrap();
        receipts.send((receipt, number)).await.unwrap();
        if number % 10 == 9 && !told.is_fast.load(Ordering::SeqCst) {
            tokio::time::sleep(PACE).await;
        }
    }
    drop(receipts);
    notes.await.unwrap();
}

/// Puts everything into files, now and then.
async fn flush(client: Client, told: Arc<Told>) {
    while !told.is_over.load(Ordering::SeqCst) {
        // The server may not be there.
        let _ = client.topics().flush_topic(FlushTopicRequest::default()).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Follows a topic, for ever.
async fn follow(mut tail: Tail, transcript: Transcript) {
    loop {
        let received = tail.next().await.unwrap().unwrap();
        let place = (received.offset, id(&received).to_owned());
        lock(&transcript).entry(received.partition).or_default().push(place);
    }
}
