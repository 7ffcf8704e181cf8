//! Requests of any shape and any bytes, to every method: each is answered, and what is not right is the caller's fault.

use crate::harness::{Server, block_on};
use bytes::{Buf as _, BufMut as _, Bytes};
use futures::{StreamExt as _, stream};
use nodata_log::fs::simulated::Chance;
use nodata_proto::DESCRIPTORS;
use prost::Message as _;
use prost::encoding::{WireType, encode_key, encode_varint};
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorSet};
use std::collections::{HashMap, HashSet};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

/// Requests to each method. `NODATA_REQUESTS` asks for more.
const REQUESTS: u64 = 1000;

/// Calls at a time.
const AT_ONCE: usize = 32;

/// Texts that are right somewhere, and some that are right nowhere.
const TEXTS: [&[u8]; 13] = [
    b"orders",
    b"orders",
    b"late",
    b"late-flights",
    b"more",
    b"1",
    b"registry.example/late:1",
    b"",
    b"a/b",
    b"..",
    b"\xff\xfe",
    b"\xf0\x9f\xa6\x80",
    &[b'n'; 300],
];

/// Messages as bytes, so that they can be any.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Raw;
    type Decoder = Raw;

    fn encoder(&mut self) -> Raw {
        Raw
    }

    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(buffer.copy_to_bytes(buffer.remaining())))
    }
}

/// Makes messages from their descriptions.
struct Maker {
    messages: HashMap<String, DescriptorProto>,
    chance: Chance,
    /// Percent of the fields that a request has. One with many of them is refused for one of them, and gets no further.
    filled: u64,
}

/// Fields that name what a request is about: one that is left out says the same as any other wrong one.
const NAMES: [&str; 4] = ["name", "topic", "component", "input"];

impl Maker {
    fn message(&mut self, name: &str, depth: u32) -> Vec<u8> {
        let mut out = Vec::new();
        let fields = self.messages[name].field.clone();
        for field in &fields {
            let is_wanted = NAMES.contains(&field.name()) || self.chance.percent(self.filled);
            let times = match field.label() {
                Label::Repeated if self.chance.percent(3) => 300,
                Label::Repeated if self.filled < 50 && !is_wanted => 0,
                Label::Repeated => self.chance.below(4),
                _ => u64::from(is_wanted),
            };
            for _ in 0..times {
                self.field(field, depth, &mut out);
            }
        }
        out
    }

    fn field(&mut self, field: &FieldDescriptorProto, depth: u32, out: &mut Vec<u8>) {
        let tag = field.number() as u32;
        let bytes = match field.r#type() {
            Type::Message if depth == 0 => return,
            Type::Message => self.message(field.type_name(), depth - 1),
            Type::String => TEXTS[self.chance.below(TEXTS.len() as u64) as usize].to_vec(),
            Type::Bytes => {
                let len = self.chance.below(40);
                (0..len).map(|_| self.chance.number() as u8).collect()
            }
            Type::Fixed64 | Type::Double => {
                encode_key(tag, WireType::SixtyFourBit, out);
                return out.put_u64_le(self.chance.below(3));
            }
            _ => {
                encode_key(tag, WireType::Varint, out);
                // No test waits for nothing.
                let bound = if field.name() == "wait_ms" { 4 } else { 9 };
                let number = match self.chance.below(bound) {
                    at @ 0..4 => at,
                    4 => u64::from(u32::MAX),
                    5 => u64::MAX,
                    6 => 1 << 63,
                    7 => self.chance.below(2000),
                    _ => self.chance.number(),
                };
                return encode_varint(number, out);
            }
        };
        encode_key(tag, WireType::LengthDelimited, out);
        encode_varint(bytes.len() as u64, out);
        out.extend_from_slice(&bytes);
    }

    /// A message, or something that was one.
    fn request(&mut self, name: &str) -> Bytes {
        self.filled = if self.chance.percent(50) { 60 } else { 20 };
        let mut bytes = self.message(name, 6);
        while self.chance.percent(30) {
            let at = self.chance.below(bytes.len() as u64) as usize;
            match self.chance.below(5) {
                0 => bytes.truncate(at),
                1 => bytes.insert(at, self.chance.number() as u8),
                2 => bytes.extend_from_within(..at),
                3 => bytes = (0..at).map(|_| self.chance.number() as u8).collect(),
                _ => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (at % 8)),
            }
        }
        bytes.into()
    }
}

struct Method {
    path: String,
    input: String,
}

/// Every method, and every message.
fn described() -> (Vec<Method>, HashMap<String, DescriptorProto>) {
    let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
    let mut messages = HashMap::new();
    let mut methods = Vec::new();
    for file in &files {
        let mut left: Vec<(String, &DescriptorProto)> =
            file.message_type.iter().map(|message| (format!(".{}", file.package()), message)).collect();
        while let Some((around, message)) = left.pop() {
            let name = format!("{around}.{}", message.name());
            left.extend(message.nested_type.iter().map(|nested| (name.clone(), nested)));
            messages.insert(name, message.clone());
        }
        for service in &file.service {
            methods.extend(service.method.iter().map(|method| Method {
                path: format!("/{}.{}/{}", file.package(), service.name(), method.name()),
                input: method.input_type().to_owned(),
            }));
        }
    }
    (methods, messages)
}

/// Sends messages to a method, whatever kind of stream it takes, and reads the beginning of what it answers.
async fn call(channel: Channel, path: String, messages: Vec<Bytes>) -> (String, Status) {
    let mut grpc = Grpc::new(channel);
    grpc.ready().await.unwrap();
    let uri: PathAndQuery = path.parse().unwrap();
    let answer = grpc.streaming(Request::new(stream::iter(messages)), uri, Raw).await;
    (path, answer.map_or_else(|status| status, |_| Status::ok("")))
}

#[test]
fn any_request_is_answered_and_none_does_harm() {
    let mut server = Server::start();
    for topic in ["orders", "late", "untouched"] {
        server.ok(&["topic", "create", topic]);
    }
    server.deploy("late-flights", "orders:late", &[]);
    let values: Vec<String> = (0..100).map(|number| number.to_string()).collect();
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    server.publish("untouched", &values);

    let requests =
        std::env::var_os("NODATA_REQUESTS").map_or(REQUESTS, |asked| asked.to_str().unwrap().parse().unwrap());
    let (methods, messages) = described();
    assert!(methods.len() > 20, "every method is described");
    let mut maker = Maker { messages, chance: Chance::new(requests), filled: 0 };
    let answers: Vec<(String, Status)> = block_on(async {
        let channel = Channel::from_shared(format!("http://{}", server.address())).unwrap().connect().await.unwrap();
        let calls = (0..requests).flat_map(|_| &methods).map(|method| {
            let is_stream = method.path.ends_with("Stream") || method.path.ends_with("/UploadComponent");
            let count = if is_stream { 1 + maker.chance.below(4) } else { 1 };
            let messages = (0..count).map(|_| maker.request(&method.input)).collect();
            call(channel.clone(), method.path.clone(), messages)
        });
        // The calls borrow the maker, so they are made before the first is sent.
        let calls: Vec<_> = calls.collect();
        stream::iter(calls).buffer_unordered(AT_ONCE).collect().await
    });

    let theirs = [
        Code::Ok,
        Code::InvalidArgument,
        Code::NotFound,
        Code::AlreadyExists,
        Code::FailedPrecondition,
        Code::Aborted,
        Code::OutOfRange,
        Code::ResourceExhausted,
    ];
    let mut codes: HashMap<&str, HashSet<Code>> = HashMap::new();
    for (path, status) in &answers {
        assert!(theirs.contains(&status.code()), "{path}: {status:?}");
        codes.entry(path).or_default().insert(status.code());
    }
    // Otherwise nothing behind the first check was tried.
    // By chance no component comes about.
    for method in methods.iter().filter(|method| !method.path.ends_with("/UploadComponent")) {
        let codes = &codes[method.path.as_str()];
        assert!(codes.len() > 1, "{}: {codes:?}", method.path);
    }
    assert!(!server.said().contains("panicked"), "{}", server.said());
    assert_eq!(server.values("untouched"), values);
    server.kill_and_restart();
    assert_eq!(server.values("untouched"), values);
}
