//! Little-endian fields of the small records in the log.
//!
//! A record only ever grows at its end: a reader takes what it knows and leaves the rest, and a field that an older
//! writer did not have reads as absent.

use bytes::Bytes;

/// Appends fields.
pub(crate) trait Put {
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    /// A `u32` length, then the bytes.
    fn put_bytes(&mut self, value: &[u8]);
    /// As [`put_bytes`](Put::put_bytes), with a length of `u32::MAX` for none.
    fn put_optional(&mut self, value: Option<&[u8]>);
}

impl Put for Vec<u8> {
    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_bytes(&mut self, value: &[u8]) {
        self.put_u32(value.len() as u32);
        self.extend_from_slice(value);
    }

    fn put_optional(&mut self, value: Option<&[u8]>) {
        match value {
            Some(value) => self.put_bytes(value),
            None => self.put_u32(u32::MAX),
        }
    }
}

/// Takes fields off the front; `None` when they are not all there.
#[derive(Clone, Debug)]
pub(crate) struct Take(Bytes);

impl Take {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self(bytes)
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        let value = u32::from_le_bytes(*self.0.first_chunk()?);
        let _ = self.0.split_to(4);
        Some(value)
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        let value = u64::from_le_bytes(*self.0.first_chunk()?);
        let _ = self.0.split_to(8);
        Some(value)
    }

    pub(crate) fn bytes(&mut self) -> Option<Bytes> {
        self.optional()?
    }

    pub(crate) fn optional(&mut self) -> Option<Option<Bytes>> {
        let len = self.u32()?;
        if len == u32::MAX {
            return Some(None);
        }
        let len = len as usize;
        (len <= self.0.len()).then(|| Some(self.0.split_to(len)))
    }

    pub(crate) fn text(&mut self) -> Option<String> {
        String::from_utf8(self.bytes()?.to_vec()).ok()
    }
}
