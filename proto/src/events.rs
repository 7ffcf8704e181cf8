//! The bytes of a `nodata.v1.EventBatch`, read and written without an allocation for each event.

use bytes::BufMut;
use prost::encoding::{encode_varint, encoded_len_varint};
use thiserror::Error;

// Field numbers of `EventBatch`, `Event` and `Header`, as tags: number and wire type.
const BATCH_EVENT: u64 = tag(1, LEN);
const EVENT_ID: u64 = tag(1, LEN);
const EVENT_KEY: u64 = tag(2, LEN);
const EVENT_VALUE: u64 = tag(3, LEN);
const EVENT_HEADER: u64 = tag(4, LEN);
const EVENT_TIMESTAMP: u64 = tag(5, VARINT);
const HEADER_NAME: u64 = tag(1, LEN);
const HEADER_VALUE: u64 = tag(2, LEN);

const VARINT: u64 = 0;
const I64: u64 = 1;
const LEN: u64 = 2;
const I32: u64 = 5;

const fn tag(number: u64, wire_type: u64) -> u64 {
    number << 3 | wire_type
}

/// Bytes that are no `EventBatch`.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
#[error("the event batch is not well-formed protobuf")]
pub struct Malformed;

/// An event inside an `EventBatch`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WireEvent<'a> {
    /// Should be UTF-8; nobody has checked.
    pub id: Option<&'a [u8]>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub timestamp_us: Option<i64>,
    /// How many headers there are.
    pub headers: usize,
    bytes: &'a [u8],
}

impl<'a> WireEvent<'a> {
    fn decode(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let mut event = WireEvent { bytes, ..WireEvent::default() };
        let mut rest = bytes;
        while !rest.is_empty() {
            match varint(&mut rest)? {
                EVENT_ID => event.id = Some(section(&mut rest)?),
                EVENT_KEY => event.key = Some(section(&mut rest)?),
                EVENT_VALUE => event.value = Some(section(&mut rest)?),
                EVENT_TIMESTAMP => event.timestamp_us = Some(varint(&mut rest)? as i64),
                EVENT_HEADER => {
                    header(section(&mut rest)?)?;
                    event.headers += 1;
                }
                other => skip(other, &mut rest)?,
            }
        }
        Ok(event)
    }

    /// Names (which should be UTF-8) and values of the headers, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + Clone + use<'a> {
        let mut rest = if self.headers == 0 { &[][..] } else { self.bytes };
        std::iter::from_fn(move || {
            // The bytes were read once already, so nothing here can fail.
            loop {
                if rest.is_empty() {
                    return None;
                }
                match varint(&mut rest).ok()? {
                    EVENT_HEADER => return header(section(&mut rest).ok()?).ok(),
                    other => skip(other, &mut rest).ok()?,
                }
            }
        })
    }
}

fn header(bytes: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    let (mut name, mut value) = (&[][..], &[][..]);
    let mut rest = bytes;
    while !rest.is_empty() {
        match varint(&mut rest)? {
            HEADER_NAME => name = section(&mut rest)?,
            HEADER_VALUE => value = section(&mut rest)?,
            other => skip(other, &mut rest)?,
        }
    }
    Ok((name, value))
}

/// The events of an `EventBatch`, in order; after bytes that are none, nothing more.
#[derive(Clone, Debug)]
pub struct WireEvents<'a> {
    rest: &'a [u8],
}

/// Reads an `EventBatch`.
pub fn read(batch: &[u8]) -> WireEvents<'_> {
    WireEvents { rest: batch }
}

impl<'a> Iterator for WireEvents<'a> {
    type Item = Result<WireEvent<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let event = next_event(&mut self.rest).transpose();
        if matches!(event, Some(Err(_))) {
            self.rest = &[];
        }
        event
    }
}

fn next_event<'a>(rest: &mut &'a [u8]) -> Result<Option<WireEvent<'a>>, Malformed> {
    while !rest.is_empty() {
        match varint(rest)? {
            BATCH_EVENT => return WireEvent::decode(section(rest)?).map(Some),
            other => skip(other, rest)?,
        }
    }
    Ok(None)
}

#[inline]
fn varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    if let Some((&byte, after)) = rest.split_first()
        && byte < 0x80
    {
        *rest = after;
        return Ok(u64::from(byte));
    }
    long_varint(rest)
}

fn long_varint(rest: &mut &[u8]) -> Result<u64, Malformed> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (&byte, after) = rest.split_first().ok_or(Malformed)?;
        *rest = after;
        // The tenth byte has one bit left.
        if shift == 63 && byte > 1 {
            return Err(Malformed);
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(Malformed)
}

#[inline]
fn section<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let len = usize::try_from(varint(rest)?).map_err(|_| Malformed)?;
    let (section, after) = rest.split_at_checked(len).ok_or(Malformed)?;
    *rest = after;
    Ok(section)
}

/// Leaves out a field of a later version. Groups have not been written for twenty years.
fn skip(tag: u64, rest: &mut &[u8]) -> Result<(), Malformed> {
    let len = match tag & 7 {
        VARINT => return varint(rest).map(drop),
        I64 => 8,
        LEN => return section(rest).map(drop),
        I32 => 4,
        _ => return Err(Malformed),
    };
    *rest = rest.get(len..).ok_or(Malformed)?;
    Ok(())
}

/// Bytes of an event inside an `EventBatch`, with its tag and length in front; and how to write them.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a, H> {
    pub id: Option<&'a [u8]>,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub timestamp_us: Option<i64>,
    /// Names and values, in order; gone through twice.
    pub headers: H,
}

impl<'a, H: Iterator<Item = (&'a [u8], &'a [u8])> + Clone> Outgoing<'a, H> {
    fn body_len(&self) -> usize {
        let optional = |section: Option<&[u8]>| section.map_or(0, |section| 1 + section_len(section.len()));
        let timestamp = self.timestamp_us.map_or(0, |timestamp| 1 + encoded_len_varint(timestamp as u64));
        let headers: usize = self.headers.clone().map(|(name, value)| 1 + section_len(header_len(name, value))).sum();
        optional(self.id) + optional(self.key) + optional(self.value) + timestamp + headers
    }

    /// Bytes that [`put`](Self::put) writes.
    pub fn len(&self) -> usize {
        1 + section_len(self.body_len())
    }

    /// Never: an event without anything still has a tag.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Appends the event to an `EventBatch`.
    pub fn put(&self, out: &mut impl BufMut) {
        encode_varint(BATCH_EVENT, out);
        encode_varint(self.body_len() as u64, out);
        for (tag, section) in [(EVENT_ID, self.id), (EVENT_KEY, self.key), (EVENT_VALUE, self.value)] {
            if let Some(section) = section {
                put_section(tag, section, out);
            }
        }
        for (name, value) in self.headers.clone() {
            encode_varint(EVENT_HEADER, out);
            encode_varint(header_len(name, value) as u64, out);
            put_section(HEADER_NAME, name, out);
            put_section(HEADER_VALUE, value, out);
        }
        if let Some(timestamp) = self.timestamp_us {
            encode_varint(EVENT_TIMESTAMP, out);
            encode_varint(timestamp as u64, out);
        }
    }
}

fn header_len(name: &[u8], value: &[u8]) -> usize {
    2 + section_len(name.len()) + section_len(value.len())
}

fn section_len(len: usize) -> usize {
    encoded_len_varint(len as u64) + len
}

#[inline]
fn put_section(tag: u64, section: &[u8], out: &mut impl BufMut) {
    encode_varint(tag, out);
    encode_varint(section.len() as u64, out);
    out.put_slice(section);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    type Parts = (Option<Vec<u8>>, Option<Vec<u8>>, Option<Vec<u8>>, Option<i64>, Vec<(Vec<u8>, Vec<u8>)>);

    /// The messages as the generator of prost sees them.
    #[derive(Clone, PartialEq, prost::Message)]
    struct PlainBatch {
        #[prost(message, repeated, tag = "1")]
        events: Vec<PlainEvent>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
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

    #[derive(Clone, PartialEq, prost::Message)]
    struct PlainHeader {
        #[prost(bytes = "vec", tag = "1")]
        name: Vec<u8>,
        #[prost(bytes = "vec", tag = "2")]
        value: Vec<u8>,
    }

    fn any_bytes() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(any::<u8>(), 0..300)
    }

    fn any_events() -> impl Strategy<Value = Vec<Parts>> {
        let optional = || prop::option::of(any_bytes());
        let headers = prop::collection::vec((any_bytes(), any_bytes()), 0..3);
        prop::collection::vec((optional(), optional(), optional(), any::<Option<i64>>(), headers), 0..6)
    }

    fn write(events: &[Parts]) -> Vec<u8> {
        let mut out = Vec::new();
        for (id, key, value, timestamp_us, headers) in events {
            let outgoing = Outgoing {
                id: id.as_deref(),
                key: key.as_deref(),
                value: value.as_deref(),
                timestamp_us: *timestamp_us,
                headers: headers.iter().map(|(name, value)| (name.as_slice(), value.as_slice())),
            };
            let before = out.len();
            outgoing.put(&mut out);
            assert_eq!(out.len() - before, outgoing.len());
        }
        out
    }

    fn read_back(bytes: &[u8]) -> Result<Vec<Parts>, Malformed> {
        read(bytes)
            .map(|event| {
                let event = event?;
                let owned = |section: Option<&[u8]>| section.map(<[u8]>::to_vec);
                let headers: Vec<_> = event.headers().map(|(name, value)| (name.to_vec(), value.to_vec())).collect();
                assert_eq!(headers.len(), event.headers);
                Ok((owned(event.id), owned(event.key), owned(event.value), event.timestamp_us, headers))
            })
            .collect()
    }

    proptest! {
        #[test]
        fn events_come_back(events in any_events()) {
            prop_assert_eq!(read_back(&write(&events)), Ok(events));
        }

        /// What is written here is read by everyone else's protobuf, and the other way round.
        #[test]
        fn the_bytes_are_plain_protobuf(events in any_events()) {
            let plain = PlainBatch {
                events: events
                    .iter()
                    .cloned()
                    .map(|(id, key, value, timestamp_us, headers)| PlainEvent {
                        id, key, value, timestamp_us,
                        headers: headers.into_iter().map(|(name, value)| PlainHeader { name, value }).collect(),
                    })
                    .collect(),
            };
            let decoded = <PlainBatch as prost::Message>::decode(write(&events).as_slice()).unwrap();
            prop_assert_eq!(decoded, plain.clone());
            prop_assert_eq!(read_back(&prost::Message::encode_to_vec(&plain)), Ok(events));
        }

        #[test]
        fn any_bytes_are_read_without_panic(bytes in any_bytes()) {
            let _ = read_back(&bytes);
        }

        #[test]
        fn cut_bytes_are_refused_or_a_prefix(events in any_events(), cut in any::<prop::sample::Index>()) {
            let bytes = write(&events);
            if let Ok(found) = read_back(&bytes[..cut.index(bytes.len() + 1)]) {
                prop_assert_eq!(&events[..found.len()], found.as_slice());
            }
        }
    }

    #[test]
    fn fields_of_a_later_version_are_left_out() {
        // Field 9 of the batch, then an event with fields 7 (varint), 8 (fixed 64) and 9 (fixed 32) around its value.
        let event = [0x38, 5, 0x1a, 1, b'v', 0x41, 0, 0, 0, 0, 0, 0, 0, 0, 0x4d, 0, 0, 0, 0];
        let mut bytes = vec![0x4a, 1, 0xff, 0x0a, event.len() as u8];
        bytes.extend(event);
        let events: Vec<_> = read(&bytes).map(|event| event.unwrap().value).collect();
        assert_eq!(events, [Some(&b"v"[..])]);
    }
}
