//! Inputs to begin with, made by what writes such bytes in earnest.

use crate::{frame, logs, segment};
use bytes::Bytes;
use nodata_archive::encode::{grown_file, new_file};
use nodata_archive::schema::FileOrigin;
use nodata_log::batch::BatchBuilder;
use nodata_log::frame::{FrameContext, Group, Op, Stamp};
use nodata_log::producer::ProducerSequence;
use nodata_log::segment::SegmentHeader;
use nodata_log::{
    ArchiveFile, Batch, Event, Forget, Name, Offset, Offsets, OwnerId, ProducerId, StateChange, StoredBatch, TaskKey,
    Topic, TopicConfig, TopicId, Tp, ValueType,
};
use nodata_proto::events::Outgoing;
use nodata_proto::server::publish_stream_request::Request;
use nodata_proto::server::{Producer, PublishRequest, PublishStreamOpen, PublishStreamRequest};
use prost::Message as _;

const NOW: i64 = 1_700_000_000_000_000;
const TP: Tp = Tp { topic: TopicId(1), partition: 2 };

/// The inputs of a target.
pub fn of(target: &str) -> Vec<Vec<u8>> {
    match target {
        "batch" => batches().iter().map(|batch| batch.encode().to_vec()).collect(),
        "frame" => frames(),
        "segment" => headers().iter().map(|header| header.encode()[..84].to_vec()).chain([vec![0; 84]]).collect(),
        "recovery" => logs::disks(),
        "parquet" => files(),
        "publish" => requests(),
        other => panic!("no target `{other}`"),
    }
}

fn with_header(event: Event, name: &str, value: &str) -> Event {
    let mut event = event;
    event.headers.push((name.to_owned(), Bytes::copy_from_slice(value.as_bytes())));
    event
}

/// Events of every kind.
fn events() -> Vec<Vec<Event>> {
    let plain = || Event::new("a value");
    let at = |timestamp_us| Event { timestamp_us: Some(timestamp_us), ..plain() };
    vec![
        vec![plain()],
        vec![Event::default(), plain()],
        vec![plain().with_key("k"), plain(), plain().with_key("")],
        vec![plain().with_id("F000001"), plain()],
        vec![with_header(plain(), "trace", "7f"), plain(), with_header(with_header(plain(), "a", ""), "b", "2")],
        vec![at(NOW), at(NOW + 5)],
        vec![at(i64::MIN), at(i64::MAX)],
        vec![Event::new(""), Event::new("{\"carrier\": \"9E\", \"delays\": [1, null]}").with_id("1").with_key("9E")],
        vec![Event::new(vec![0xff, 0xfe])],
        (0..20).map(|n| Event::new(format!("value {n}")).with_key(format!("{}", n % 3))).collect(),
    ]
}

fn batches() -> Vec<Batch> {
    let mut emitted = BatchBuilder::new(NOW);
    emitted.mark_from_component();
    emitted.push(None, Some(b"k"), Some(b"v"), None);
    let batch = |events: &Vec<Event>| Batch::from_events(events, NOW).expect("a few events");
    events().iter().map(batch).chain([emitted.finish().expect("one event")]).collect()
}

fn ops() -> Vec<Op> {
    let name = |name| Name::new(name).expect("a name");
    let task = TaskKey { owner: OwnerId(1), source: TP };
    let entry = |key: &'static str, value: Option<&'static str>| (Bytes::from(key), value.map(Bytes::from));
    let change = StateChange { table: name("seen"), entries: vec![entry("a", Some("1")), entry("b", None)] };
    let file = ArchiveFile {
        base: 0,
        end: 2,
        rows: 2,
        bytes: 2000,
        payload_bytes: 60,
        row_groups: 1,
        is_sealed: false,
        timestamp_min_us: NOW,
        timestamp_max_us: NOW + 1,
        append_min_us: NOW,
        append_max_us: NOW,
        footer_at: 900,
        footer_crc: 0xdead_beef,
    };
    let config = TopicConfig { partitions: 4, values: ValueType::Json, ..TopicConfig::default() };
    let appends = batches().into_iter().map(|batch| Op::Append { tp: TP, base_offset: 9, batch });
    let others = [
        Op::Producer { producer: ProducerId(5), sequence: ProducerSequence { epoch: 1, last: 9 } },
        Op::TopicPut(Topic { id: TopicId(1), name: name("orders"), config, created_us: NOW }),
        Op::TopicDelete(TopicId(2)),
        Op::Trim { tp: TP, to: 2 },
        Op::FileCommit { tp: TP, file },
        Op::TaskEpoch { task, epoch: 4 },
        Op::Advance { task, epoch: 4, next: 1000 },
        Op::State { task, change },
        Op::TaskReset { task, epoch: 5, next: Some(70), forget: Forget::These(Vec::new()) },
        Op::TaskReset { task, epoch: 6, next: None, forget: Forget::AllBut(vec![name("seen"), name("known")]) },
        Op::OwnerForget(OwnerId(8)),
        Op::Meta { key: "deployment/x".into(), value: Some("{}".into()), version: 3 },
        Op::Meta { key: "deployment/y".into(), value: None, version: 4 },
    ];
    appends.chain(others).collect()
}

fn bytes_of(group: &Group) -> Vec<u8> {
    group.slices().iter().flat_map(|slice| slice.to_vec()).collect()
}

fn frames() -> Vec<Vec<u8>> {
    let stamp = Stamp { context: frame::CONTEXT, durable_lsn: 17, wall_us: NOW };
    let ops = ops();
    let one = |op| vec![op];
    let mut together: Vec<Vec<&Op>> = ops.iter().map(one).collect();
    together.push(Vec::new());
    together.push(ops.iter().rev().take(8).collect());
    let written = together.iter().map(|ops| {
        let mut group = Group::default();
        group.push_frame(ops, frame::LSN, stamp);
        bytes_of(&group)
    });
    let mut padding = Group::default();
    padding.finish(frame::LSN, stamp);
    // The operations of one partition, as a reader gets them: without the frame around them.
    let mut group = Group::default();
    group.push_frame(&ops.iter().take(3).collect::<Vec<_>>(), frame::LSN, stamp);
    let appends = bytes_of(&group).split_off(nodata_log::frame::FRAME_HEADER_BYTES);
    written.chain([bytes_of(&padding)[..nodata_log::frame::FRAME_HEADER_BYTES].to_vec(), appends]).collect()
}

fn headers() -> Vec<SegmentHeader> {
    let first = SegmentHeader {
        store_id: segment::STORE,
        segment: segment::NUMBER,
        base_lsn: 0,
        prev_end_lsn: 0,
        context: FrameContext { epoch: 1, salt: 7 },
        created_us: NOW,
        bytes: 64 << 20,
    };
    let later = SegmentHeader { base_lsn: 1 << 40, prev_end_lsn: (1 << 40) - 8, created_us: -5, ..first };
    vec![first, later, SegmentHeader { segment: segment::NUMBER + 1, ..first }]
}

fn files() -> Vec<Vec<u8>> {
    let origin = |base_offset, values| FileOrigin {
        store: "0f".repeat(16),
        topic: "orders".into(),
        topic_id: 1,
        partition: 2,
        base_offset,
        values,
        columns: match values {
            ValueType::Json => ["a:int64", "b=/b/c:date"].map(|column| column.parse().expect("it is one")).into(),
            _ => [].into(),
        },
    };
    let stored = |first: Offset, append_us, batch: &Batch| StoredBatch {
        offsets: Offsets::From(first),
        append_us,
        batch: batch.clone(),
    };
    let written = |events: &[StoredBatch], values| {
        let base = events.first().map_or(0, StoredBatch::first);
        new_file(&origin(base, values), events).expect("what is in memory becomes a file")
    };
    let batches = batches();
    let mut files: Vec<Vec<u8>> =
        batches.iter().map(|batch| written(&[stored(7, NOW, batch)], ValueType::Bytes)).collect();
    let json = Batch::from_events(&[Event::new("{\"a\": 1}"), Event::default()], NOW).expect("two events");
    files.push(written(&[stored(0, NOW, &json)], ValueType::Json));
    files.push(written(&[stored(0, NOW, &json)], ValueType::Text));
    // Offsets with gaps, and several appends.
    let gaps = StoredBatch { offsets: Offsets::Each([3, 5, 9].into()), append_us: NOW, batch: batches[2].clone() };
    files.push(written(&[gaps, stored(20, NOW + 1, &batches[4])], ValueType::Bytes));
    let first = Bytes::from(files[3].clone());
    let more = [stored(100, NOW + 9, &batches[7])];
    files.push(grown_file(&first, &origin(7, ValueType::Bytes), &more).expect("a file grows"));
    files
}

fn wire(events: &[Event]) -> Vec<u8> {
    let mut out = Vec::new();
    for event in events {
        let outgoing = Outgoing {
            id: event.id.as_ref().map(String::as_bytes),
            key: event.key.as_deref(),
            value: event.value.as_deref(),
            timestamp_us: event.timestamp_us,
            headers: event.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_ref())),
        };
        outgoing.put(&mut out);
    }
    out
}

fn requests() -> Vec<Vec<u8>> {
    let wires: Vec<Vec<u8>> = events().iter().map(|events| wire(events)).collect();
    let producer = Some(Producer { id: 5, epoch: 1, sequence: 9 });
    let of =
        |wire: &Vec<u8>| PublishRequest { topic: "orders".into(), batch: wire.clone().into(), ..Default::default() };
    let mut requests: Vec<Vec<u8>> = wires.iter().map(|wire| of(wire).encode_to_vec()).collect();
    requests.push(PublishRequest { ack: 2, producer, partition: Some(3), ..of(&wires[2]) }.encode_to_vec());
    let open = PublishStreamOpen { topic: "orders".into(), ack: 3, producer, partition: Some(0) };
    for part in [Request::Open(open), Request::Batch(wires[4].clone().into())] {
        requests.push(PublishStreamRequest { request: Some(part) }.encode_to_vec());
    }
    requests.extend(wires);
    requests
}
