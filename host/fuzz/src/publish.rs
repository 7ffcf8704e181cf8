//! What a publisher sends: the request, the events in it, and everything that they become on their way to a reader.

use crate::{batch, disk, frame};
use bytes::Bytes;
use nodata_archive::decode::OpenFile;
use nodata_archive::encode::{grown_file, new_file};
use nodata_archive::schema::FileOrigin;
use nodata_log::event::{check_header_names, check_id};
use nodata_log::frame::{Frame, Group, Op, Stamp};
use nodata_log::{Batch, BatchBuilder, Event, Offset, Offsets, StoredBatch, TopicId, Tp, ValueType};
use nodata_proto::events::{self, Malformed, Outgoing, WireEvent};
use nodata_proto::server::publish_stream_request::Request;
use nodata_proto::server::{PublishRequest, PublishStreamRequest};
use prost::Message;

const NOW: i64 = 1_700_000_000_000_000;

pub(crate) fn run(input: &[u8]) {
    of_events(input);
    if let Ok(request) = PublishRequest::decode(input) {
        assert_eq!(PublishRequest::decode(request.encode_to_vec().as_slice()).as_ref(), Ok(&request));
        of_events(&request.batch);
    }
    if let Ok(request) = PublishStreamRequest::decode(input) {
        assert_eq!(PublishStreamRequest::decode(request.encode_to_vec().as_slice()).as_ref(), Ok(&request));
        if let Some(Request::Batch(batch)) = request.request {
            of_events(&batch);
        }
    }
}

/// The messages as the generator of prost sees them: another reader of the same bytes.
#[derive(Clone, PartialEq, Message)]
struct PlainBatch {
    #[prost(message, repeated, tag = "1")]
    events: Vec<PlainEvent>,
}

#[derive(Clone, PartialEq, Message)]
struct PlainEvent {
    #[prost(bytes = "vec", optional, tag = "1")]
    id: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "2")]
    key: Option<Vec<u8>>,
    #[prost(bytes = "vec", optional, tag = "3")]
    value: Option<Vec<u8>>,
    #[prost(message, repeated, tag = "4")]
    headers: Vec<PlainHeader>,
    #[prost(int64, optional, tag = "5")]
    timestamp_us: Option<i64>,
}

#[derive(Clone, PartialEq, Message)]
struct PlainHeader {
    #[prost(bytes = "vec", tag = "1")]
    name: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

impl From<WireEvent<'_>> for PlainEvent {
    fn from(event: WireEvent<'_>) -> Self {
        let headers = event.headers().map(|(name, value)| PlainHeader { name: name.to_vec(), value: value.to_vec() });
        Self {
            id: event.id.map(<[u8]>::to_vec),
            key: event.key.map(<[u8]>::to_vec),
            value: event.value.map(<[u8]>::to_vec),
            headers: headers.collect(),
            timestamp_us: event.timestamp_us,
        }
    }
}

fn of_events(wire: &[u8]) {
    let found: Result<Vec<WireEvent<'_>>, Malformed> = events::read(wire).collect();
    let plain = PlainBatch::decode(wire);
    // A tag whose lowest bits are 3 begins a group, which is refused here and left out there.
    let may_have_group = wire.iter().any(|byte| byte & 7 == 3);
    assert!(found.is_ok() || plain.is_err() || may_have_group, "what is plain protobuf is read");
    let Ok(found) = found else { return };
    found.iter().for_each(|event| assert_eq!(event.headers().count(), event.headers));
    if let Ok(plain) = plain {
        let events = found.iter().map(|event| PlainEvent::from(*event)).collect();
        assert_eq!(PlainBatch { events }, plain, "both readers find the same");
    }
    if found.iter().all(is_taken) && !found.is_empty() {
        travel(&found);
    }
}

/// Whether the door lets an event in.
fn is_taken(event: &WireEvent<'_>) -> bool {
    let names: Vec<&[u8]> = event.headers().map(|(name, _)| name).collect();
    event.id.is_none_or(|id| check_id(id).is_ok()) && check_header_names(names.into_iter()).is_ok()
}

/// From the door through the log and a file to a reader.
fn travel(wire: &[WireEvent<'_>]) {
    let mut builder = BatchBuilder::new(NOW);
    for event in wire {
        builder.push(event.id, event.key, event.value, event.timestamp_us);
        for (name, value) in event.headers() {
            builder.push_header(std::str::from_utf8(name).expect("it was checked"), value);
        }
    }
    let built = builder.finish().expect("there are some, and not too many");
    batch::holds(&built);
    let sent: Vec<Event> = wire.iter().map(event).collect();
    assert_eq!(batch::events(&built), sent);

    let logged = through_a_frame(built);
    assert_eq!(batch::events(&logged), sent);
    let filed = through_a_file(&logged);
    assert_eq!(filed, sent);

    let mut answer = Vec::new();
    for event in logged.events() {
        let outgoing = Outgoing {
            id: event.id().map(str::as_bytes),
            key: event.key,
            value: event.value,
            timestamp_us: Some(event.timestamp_us),
            headers: event.headers().map(|(name, value)| (name.as_bytes(), value)),
        };
        let before = answer.len();
        outgoing.put(&mut answer);
        assert_eq!(answer.len() - before, outgoing.len());
    }
    let received: Vec<Event> = events::read(&answer).map(|found| event(&found.expect("it was written here"))).collect();
    assert_eq!(received, sent);
}

fn event(wire: &WireEvent<'_>) -> Event {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).expect("it was checked");
    Event {
        id: wire.id.map(text),
        key: wire.key.map(Bytes::copy_from_slice),
        value: wire.value.map(Bytes::copy_from_slice),
        headers: wire.headers().map(|(name, value)| (text(name), Bytes::copy_from_slice(value))).collect(),
        timestamp_us: Some(wire.timestamp_us.unwrap_or(NOW)),
    }
}

fn through_a_frame(batch: Batch) -> Batch {
    let stamp = Stamp { context: frame::CONTEXT, durable_lsn: 0, wall_us: NOW };
    let tp = Tp { topic: TopicId(1), partition: 0 };
    let mut group = Group::default();
    group.push_frame(&[&Op::Append { tp, base_offset: 7, batch }], frame::LSN, stamp);
    let bytes: Vec<u8> = group.slices().iter().flat_map(|slice| slice.to_vec()).collect();
    let frame = Frame::decode(&bytes.into(), frame::CONTEXT, frame::LSN).expect("what is written is read");
    match frame.ops.into_iter().next() {
        Some((Op::Append { batch, .. }, _)) => batch,
        other => panic!("an append became {other:?}"),
    }
}

/// Twice: the second time as what a file that is there grows by.
fn through_a_file(batch: &Batch) -> Vec<Event> {
    let is_taken = |values: &ValueType| batch.events().all(|event| values.check(event.value).is_ok());
    let values = [ValueType::Json, ValueType::Text].into_iter().find(is_taken).unwrap_or(ValueType::Bytes);
    let base_offset = 7;
    let topic = "orders".to_owned();
    // Also when the values are no JSON: then every row is marked.
    let columns = ["a:int64", "b=/a/b:string"].map(|column| column.parse().expect("it is one"));
    let columns = columns.into();
    let origin = FileOrigin { store: "0f".repeat(16), topic, topic_id: 1, partition: 0, base_offset, values, columns };
    let stored = |first: Offset| [StoredBatch { offsets: Offsets::From(first), append_us: NOW, batch: batch.clone() }];
    let first = new_file(&origin, &stored(base_offset)).expect("what the door takes becomes a file");
    let second_at = base_offset + batch.len() as u64;
    let grown = grown_file(&first.clone().into(), &origin, &stored(second_at)).expect("and the file grows");
    assert!(grown.starts_with(&first), "by prefix");

    let file = OpenFile::open(disk::file(&grown), grown.len() as u64).expect("what is written is opened");
    assert_eq!(file.offsets(), base_offset..second_at + batch.len() as u64);
    let read = |from: Offset| -> Vec<Event> {
        let slices = file.events_from(from).expect("it is opened").expect("the file does not end before");
        let batches = slices.flat_map(|slice| slice.expect("what is written is read"));
        batches.flat_map(|stored| batch::events(&stored.batch)).collect()
    };
    let found = read(base_offset);
    assert_eq!(found, read(second_at));
    found
}
