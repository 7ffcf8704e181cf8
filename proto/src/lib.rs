#![doc = include_str!("../README.md")]

pub mod codec; // how messages become bytes
pub mod events; // the bytes of an `EventBatch`
#[cfg(feature = "server")]
pub mod stored; // a `StoredBatch`, written from columns

/// The messages and stubs of whoever calls.
#[cfg(feature = "client")]
#[allow(clippy::all, clippy::allow_attributes_without_reason, unreachable_pub, reason = "generated")]
pub mod client {
    tonic::include_proto!("client/nodata.v1");
}

/// The messages and traits of whoever answers.
#[cfg(feature = "server")]
#[allow(clippy::all, clippy::allow_attributes_without_reason, unreachable_pub, reason = "generated")]
pub mod server {
    tonic::include_proto!("server/nodata.v1");
}

/// All files, described for reflection: an encoded `google.protobuf.FileDescriptorSet`.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/nodata.bin"));

/// The domain of every `google.rpc.ErrorInfo` that nodata gives.
pub const ERROR_DOMAIN: &str = "nodata";
