//! `nodata component`

use crate::cli::out::{bytes, has_terminal, table, time};
use crate::cli::{CliError, Common};
use crate::limits::UPLOAD_CHUNK_BYTES;
use bytes::Bytes;
use clap::Subcommand;
use indicatif::ProgressBar;
use nodata_client::Client;
use nodata_client::proto::upload_component_request::Request;
use nodata_client::proto::{
    Component, DescribeComponentRequest, ListComponentsRequest, UploadComponentRequest, UploadComponentStart,
};
use nodata_runtime::{AcceptError, ComponentInfo, Extra, inspect_component, limits::COMPONENT_BYTES_MAX};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Subcommand)]
pub(crate) enum ComponentCommand {
    /// Upload a component. The server checks it, compiles it and tries it.
    Push {
        /// The .wasm file.
        file: PathBuf,
        /// Its name [default: the name of the file].
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        common: Common,
    },
    /// List the components of the server, the latest upload of each name first.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show what a component imports and exports: a file (no server is needed), or one of the server's as NAME or NAME@DIGEST.
    Inspect {
        /// A .wasm file, or the name of a component of the server.
        component: String,
        #[command(flatten)]
        common: Common,
    },
}

pub(crate) async fn run(command: ComponentCommand) -> Result<(), CliError> {
    let json = match &command {
        ComponentCommand::Push { common, .. }
        | ComponentCommand::List { common }
        | ComponentCommand::Inspect { common, .. } => common.json,
    };
    let done = match command {
        ComponentCommand::Push { file, name, common } => push(&file, name, &common).await,
        ComponentCommand::List { common } => list(&common).await,
        ComponentCommand::Inspect { component, common } => inspect(&component, &common).await,
    };
    done.map_err(|error| error.told_as_json(json))
}

async fn push(file: &Path, name: Option<String>, common: &Common) -> Result<(), CliError> {
    let name = name_of(file, name)?;
    let bytes = read(file)?;
    let client = common.connect().await?;
    let component = upload(&client, &name, bytes, common).await?;
    common.out().show(&to_json(&component), || {
        vec![format!("uploaded {} ({}, {})", component.name, short(&component.digest), self::bytes(component.bytes))]
    })
}

/// The name of a component: as given, or that of its file.
pub(crate) fn name_of(file: &Path, name: Option<String>) -> Result<String, CliError> {
    match name.or_else(|| Some(file.file_stem()?.to_str()?.replace('_', "-"))) {
        Some(name) => Ok(name),
        None => Err(CliError::invalid(format!("{} has no name that a component can have", file.display()))
            .hint("give one with --name")),
    }
}

/// Reads a component, and looks at nothing but its size: what is wrong with it, the server says best.
pub(crate) fn read(file: &Path) -> Result<Bytes, CliError> {
    let name = file.display();
    let failed = |error: std::io::Error| CliError::failed(format!("cannot read {name}: {error}"));
    let bytes = std::fs::metadata(file).map_err(failed)?.len();
    if bytes > COMPONENT_BYTES_MAX as u64 {
        let refused = AcceptError::TooLarge { bytes: usize::try_from(bytes).unwrap_or(usize::MAX) };
        return Err(CliError::invalid(refused.to_string()).context(name).hint(refused.hint().unwrap_or_default()));
    }
    Ok(std::fs::read(file).map_err(failed)?.into())
}

/// Uploads a component, and shows that something happens while the server compiles it.
pub(crate) async fn upload(client: &Client, name: &str, file: Bytes, common: &Common) -> Result<Component, CliError> {
    let spinner = if has_terminal() && !common.json {
        let spinner = ProgressBar::new_spinner();
        spinner
            .set_message(format!("uploading {name} ({}); the server checks and compiles it", bytes(file.len() as u64)));
        spinner.enable_steady_tick(Duration::from_millis(100));
        Some(spinner)
    } else {
        None
    };
    let start =
        UploadComponentRequest { request: Some(Request::Start(UploadComponentStart { name: name.to_owned() })) };
    let chunks = (0..file.len()).step_by(UPLOAD_CHUNK_BYTES).map(move |at| {
        let chunk = file.slice(at..(at + UPLOAD_CHUNK_BYTES).min(file.len()));
        UploadComponentRequest { request: Some(Request::Chunk(chunk)) }
    });
    let parts = futures::stream::iter(std::iter::once(start).chain(chunks.collect::<Vec<_>>()));
    let uploaded = client.components().upload_component(parts).await;
    if let Some(spinner) = spinner {
        spinner.finish_and_clear();
    }
    Ok(uploaded?.into_inner().component.unwrap_or_default())
}

async fn list(common: &Common) -> Result<(), CliError> {
    let mut components = common.connect().await?.components();
    let mut found = Vec::new();
    let mut request = ListComponentsRequest { page_size: 1000, ..Default::default() };
    loop {
        let page = components.list_components(request.clone()).await?.into_inner();
        found.extend(page.components);
        if page.next_page_token.is_empty() {
            break;
        }
        request.page_token = page.next_page_token;
    }
    common.out().show(&Value::Array(found.iter().map(to_json).collect()), || {
        let row = |component: &Component| {
            vec![
                component.name.clone(),
                short(&component.digest).to_owned(),
                abilities(&component.roles, &component.extras),
                bytes(component.bytes),
                time(component.uploaded_timestamp_us),
            ]
        };
        table(&["NAME", "DIGEST", "ROLES", "SIZE", "UPLOADED"], &found.iter().map(row).collect::<Vec<_>>())
    })
}

async fn inspect(component: &str, common: &Common) -> Result<(), CliError> {
    let path = Path::new(component);
    let (json, title, imports, wit) = if path.is_file() {
        let bytes = read(path)?;
        let info = inspect_component(&bytes).map_err(|error| {
            let failed = CliError::invalid(format!("{}: {error}", path.display()));
            match error.hint() {
                Some(hint) => failed.hint(hint),
                None => failed,
            }
        })?;
        let ComponentInfo { digest, bytes, roles, extras, imports, wit, .. } = info;
        let roles: Vec<String> = roles.iter().map(|role| role.world().to_owned()).collect();
        let extras: Vec<String> = extras.iter().map(|extra| extra.interface().to_owned()).collect();
        let json = json!({
            "file": component, "digest": digest.to_string(), "bytes": bytes, "roles": roles, "extras": extras,
            "imports": imports, "wit": wit,
        });
        let title = format!("{component}: {}, {}, sha256 {digest}", abilities(&roles, &extras), self::bytes(bytes));
        (json, title, imports, wit)
    } else {
        let (name, digest) = component.split_once('@').unwrap_or((component, ""));
        let request = DescribeComponentRequest { name: name.to_owned(), digest: digest.to_owned() };
        let described = common.connect().await?.components().describe_component(request).await?.into_inner();
        let found = described.component.unwrap_or_default();
        let mut json = to_json(&found);
        json["wit"] = described.wit.clone().into();
        let title = format!(
            "{}: {}, {}, sha256 {}, uploaded {}",
            found.name,
            abilities(&found.roles, &found.extras),
            bytes(found.bytes),
            found.digest,
            time(found.uploaded_timestamp_us)
        );
        (json, title, found.imports, described.wit)
    };
    common.out().show(&json, || {
        let mut lines = vec![title, String::new(), "imports".to_owned()];
        lines.extend(imports.iter().map(|import| format!("  {import}")));
        lines.push(String::new());
        lines.extend(wit.lines().map(str::to_owned));
        lines
    })
}

/// What a component can be deployed as, and what it does beside that.
fn abilities(roles: &[String], extras: &[String]) -> String {
    let says = |name: &String| Extra::by_interface(name).map_or(name.clone(), |extra| extra.says().to_owned());
    let extras: Vec<String> = extras.iter().map(says).collect();
    let roles = roles.join(", ");
    if extras.is_empty() { roles } else { format!("{roles} ({})", extras.join(", ")) }
}

/// Enough of a digest to tell components apart.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

pub(crate) fn to_json(component: &Component) -> Value {
    json!({
        "name": component.name,
        "digest": component.digest,
        "bytes": component.bytes,
        "roles": component.roles,
        "extras": component.extras,
        "imports": component.imports,
        "uploaded": time(component.uploaded_timestamp_us),
    })
}
