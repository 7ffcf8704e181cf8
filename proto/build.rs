//! Generates the messages twice, from the same files: for whoever calls and for whoever answers.
//!
//! Both sides see an `EventBatch` as the bytes it is encoded in (the wire format of a message and of a byte string is the
//! same), so that a thousand events are not a thousand allocations: `events` reads and writes those bytes. The server writes
//! a `StoredBatch` straight from the columns of the log, with its own type.

use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FileDescriptorSet};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::{env, fs};

const FILES: [&str; 8] = ["event", "publish", "consume", "topic", "component", "deployment", "aggregate", "secret"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=nodata");
    println!("cargo:rerun-if-changed=build.rs");
    let files: Vec<String> = FILES.iter().map(|file| format!("nodata/v1/{file}.proto")).collect();
    let described = protox::compile(&files, ["."])?;
    let out = PathBuf::from(env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    fs::write(out.join("nodata.bin"), prost::Message::encode_to_vec(&described))?;

    let mut plain = described;
    for message in plain.file.iter_mut().flat_map(|file| &mut file.message_type) {
        event_batches_as_bytes(message);
    }
    if env::var_os("CARGO_FEATURE_CLIENT").is_some() {
        generate(&out.join("client"), plain.clone(), false)?;
    }
    if env::var_os("CARGO_FEATURE_SERVER").is_some() {
        generate(&out.join("server"), plain, true)?;
    }
    Ok(())
}

fn event_batches_as_bytes(message: &mut DescriptorProto) {
    for field in &mut message.field {
        if field.type_name() == ".nodata.v1.EventBatch" {
            field.type_name = None;
            field.set_type(Type::Bytes);
        }
    }
    message.nested_type.iter_mut().for_each(event_batches_as_bytes);
}

fn generate(dir: &Path, described: FileDescriptorSet, server: bool) -> Result<(), Box<dyn Error>> {
    fs::create_dir_all(dir)?;
    let mut builder = tonic_prost_build::configure()
        .build_client(!server)
        .build_server(server)
        .build_transport(false)
        .bytes(".")
        // `map` keeps no order; whoever prints one wants the same text each time.
        .btree_map(".")
        .codec_path(if server { "crate::codec::ServerCodec" } else { "crate::codec::Codec" })
        .out_dir(dir);
    if server {
        builder = builder.extern_path(".nodata.v1.StoredBatch", "crate::stored::StoredBatch");
    }
    builder.compile_fds(described)?;
    Ok(())
}
