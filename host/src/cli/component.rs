//! `nodata component`

use crate::cli::out::{bytes, table, time};
use crate::cli::progress::ComponentWait;
use crate::cli::{CliError, Common};
use crate::limits::UPLOAD_CHUNK_BYTES;
use crate::registry::{ComponentRef, VersionRef, label};
use bytes::Bytes;
use clap::{Args, Subcommand};
use futures::Stream;
use nodata_client::Client;
use nodata_client::proto::pull_component_response::Answer as Pulled;
use nodata_client::proto::upload_component_request::Request;
use nodata_client::proto::upload_component_response::Answer;
use nodata_client::proto::{
    Component, DeleteComponentRequest, DescribeComponentRequest, DescribeComponentResponse, ImageSource,
    ListComponentsRequest, PullComponentRequest, UploadComponentRequest, UploadComponentStart,
};
use nodata_runtime::limits::COMPONENT_BYTES_MAX;
use nodata_runtime::{AcceptError, Ask, ComponentInfo, Extra, Grant, asks, inspect_component};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

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
        about: AboutArgs,
        #[command(flatten)]
        common: Common,
    },
    /// Have the server pull a component that is an image in another registry. What the image means now is kept: a tag that is moved
    /// later changes nothing.
    Pull {
        /// REGISTRY/PATH:TAG or REGISTRY/PATH@sha256:DIGEST.
        #[arg(long, value_name = "REF")]
        image: String,
        /// Its name [default: the last part of the path].
        #[arg(long)]
        name: Option<String>,
        #[command(flatten)]
        about: AboutArgs,
        #[command(flatten)]
        common: Common,
    },
    /// List the components of the server, the latest upload of each name first.
    List {
        #[command(flatten)]
        common: Common,
    },
    /// List the versions of a component, the latest upload first.
    Versions {
        /// Its name.
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// Delete a version that no deployment needs. Its labels go on naming these bytes.
    Delete {
        /// NAME@2.1.0 or NAME@sha256:27b3cf.
        #[arg(value_name = "NAME@VERSION")]
        component: ComponentRef,
        #[command(flatten)]
        common: Common,
    },
    /// Show what a component imports and exports: a file (no server is needed), or one of the server's.
    Inspect {
        /// A .wasm file, or a component of the server: NAME is the latest upload, NAME@2, NAME@2.1 and NAME@2.1.0 the highest label
        /// that fits, NAME@sha256:27b3cf the version whose digest begins so.
        component: String,
        #[command(flatten)]
        common: Common,
    },
}

/// What is said about a component that is uploaded.
#[derive(Clone, Debug, Args)]
pub(crate) struct AboutArgs {
    /// A label for it, such as 1.2.0: it names these bytes, and no others ever.
    #[arg(long, value_name = "VERSION", value_parser = version)]
    version: Option<String>,
    /// Who uploads it, for those who read it later [default: user@machine].
    #[arg(long, value_name = "WHO")]
    by: Option<String>,
    /// A signature of it, for a server that asks for one, as `minisign -Sm FILE` makes it [default: FILE.minisig, if it is there].
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
}

impl AboutArgs {
    fn start(self, name: &str) -> Result<UploadComponentStart, CliError> {
        let uploaded_by = self.by.unwrap_or_else(user_and_machine);
        let signature = match &self.signature {
            None => String::new(),
            Some(place) => std::fs::read_to_string(place)
                .map_err(|error| CliError::failed(format!("cannot read the signature {}: {error}", place.display())))?,
        };
        let version = self.version.unwrap_or_default();
        Ok(UploadComponentStart { name: name.to_owned(), version, uploaded_by, signature })
    }

    /// The first of the options that is given.
    pub(crate) fn given(&self) -> Option<&'static str> {
        let given = [
            ("--version", self.version.is_some()),
            ("--by", self.by.is_some()),
            ("--signature", self.signature.is_some()),
        ];
        given.into_iter().find_map(|(option, is_given)| is_given.then_some(option))
    }

    /// With the signature that is beside a file, unless another one is given.
    pub(crate) fn beside(mut self, file: &Path) -> Self {
        let mut place = file.as_os_str().to_owned();
        place.push(".minisig");
        let place = PathBuf::from(place);
        self.signature = self.signature.or_else(|| place.is_file().then_some(place));
        self
    }
}

/// Told here, before anything is uploaded.
fn version(text: &str) -> Result<String, String> {
    label(text).map(|label| label.to_string()).map_err(|error| error.to_string())
}

fn user_and_machine() -> String {
    #[expect(clippy::disallowed_methods, reason = "this is a default of the command line, and is shown as what it is")]
    let user = std::env::var("USER").ok();
    let uname = rustix::system::uname();
    let machine = uname.nodename().to_string_lossy();
    match user {
        Some(user) => format!("{user}@{machine}"),
        None => machine.into_owned(),
    }
}

pub(crate) async fn run(command: ComponentCommand) -> Result<(), CliError> {
    let json = match &command {
        ComponentCommand::Push { common, .. }
        | ComponentCommand::Pull { common, .. }
        | ComponentCommand::List { common }
        | ComponentCommand::Versions { common, .. }
        | ComponentCommand::Delete { common, .. }
        | ComponentCommand::Inspect { common, .. } => common.json,
    };
    let done = match command {
        ComponentCommand::Push { file, name, about, common } => push(&file, name, about, &common).await,
        ComponentCommand::Pull { image, name, about, common } => {
            let pulled = pull(&common.connect().await?, image, name, about, &common).await;
            pulled.and_then(|component| {
                common.out().show(&to_json(&component), || {
                    vec![format!("pulled {} ({}, {})", component.name, named(&component), bytes(component.bytes))]
                })
            })
        }
        ComponentCommand::List { common } => list(&common).await,
        ComponentCommand::Versions { name, common } => versions(&name, &common).await,
        ComponentCommand::Delete { component, common } => delete(&component, &common).await,
        ComponentCommand::Inspect { component, common } => inspect(&component, &common).await,
    };
    done.map_err(|error| error.told_as_json(json))
}

async fn push(file: &Path, name: Option<String>, about: AboutArgs, common: &Common) -> Result<(), CliError> {
    let name = name_of(file, name)?;
    let bytes = read(file)?;
    let client = common.connect().await?;
    let component = upload(&client, &name, bytes, about.beside(file), common).await?;
    common.out().show(&to_json(&component), || {
        vec![format!("uploaded {} ({}, {})", component.name, named(&component), self::bytes(component.bytes))]
    })
}

/// Has the server pull a component, and shows what it does about it.
pub(crate) async fn pull(
    client: &Client,
    image: String,
    name: Option<String>,
    about: AboutArgs,
    common: &Common,
) -> Result<Component, CliError> {
    let wait = ComponentWait::new(name.as_deref().unwrap_or(&image), "pulling it", common);
    let UploadComponentStart { name, version, uploaded_by, signature } = about.start(&name.unwrap_or_default())?;
    let request = PullComponentRequest { image: image.clone(), name, version, uploaded_by, signature };
    let mut answers = client.components().pull_component(request).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        match answer.answer {
            Some(Pulled::Component(component)) => return Ok(component),
            Some(Pulled::Progress(progress)) => wait.tell(common, progress),
            None => {}
        }
    }
    Err(CliError::failed(format!("the server said nothing of image {image} at the end")))
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

/// The messages of an upload.
pub(crate) fn upload_parts(
    start: UploadComponentStart,
    file: &Bytes,
) -> impl Stream<Item = UploadComponentRequest> + use<> {
    let chunk = |at: usize| Request::Chunk(file.slice(at..(at + UPLOAD_CHUNK_BYTES).min(file.len())));
    let chunks = (0..file.len()).step_by(UPLOAD_CHUNK_BYTES).map(chunk);
    let parts = std::iter::once(Request::Start(start)).chain(chunks);
    let parts = parts.map(|part| UploadComponentRequest { request: Some(part) });
    futures::stream::iter(parts.collect::<Vec<_>>())
}

/// Uploads a component, and shows what the server does about it.
pub(crate) async fn upload(
    client: &Client,
    name: &str,
    file: Bytes,
    about: AboutArgs,
    common: &Common,
) -> Result<Component, CliError> {
    let wait = ComponentWait::new(name, &format!("uploading {}", bytes(file.len() as u64)), common);
    let parts = upload_parts(about.start(name)?, &file);
    let mut answers = client.components().upload_component(parts).await?.into_inner();
    while let Some(answer) = answers.message().await? {
        match answer.answer {
            Some(Answer::Component(component)) => return Ok(component),
            Some(Answer::Progress(progress)) => wait.tell(common, progress),
            None => {}
        }
    }
    Err(CliError::failed(format!("the server said nothing of component {name} at the end")))
}

async fn list(common: &Common) -> Result<(), CliError> {
    let found = listed("", common).await?;
    common.out().show(&Value::Array(found.iter().map(to_json).collect()), || {
        let row = |component: &Component| {
            vec![
                component.name.clone(),
                component.labels.join(", "),
                short(&component.digest).to_owned(),
                abilities(&component.roles, &component.extras),
                bytes(component.bytes),
                time(component.uploaded_timestamp_us),
            ]
        };
        let head = ["NAME", "VERSION", "DIGEST", "ROLES", "SIZE", "UPLOADED"];
        table(&head, &found.iter().map(row).collect::<Vec<_>>())
    })
}

async fn versions(name: &str, common: &Common) -> Result<(), CliError> {
    let found = listed(name, common).await?;
    common.out().show(&Value::Array(found.iter().map(to_json).collect()), || {
        let row = |component: &Component| {
            vec![
                component.labels.join(", "),
                short(&component.digest).to_owned(),
                abilities(&component.roles, &component.extras),
                bytes(component.bytes),
                time(component.uploaded_timestamp_us),
                who(component),
                source(component),
            ]
        };
        let head = ["VERSION", "DIGEST", "ROLES", "SIZE", "UPLOADED", "BY", "FROM"];
        table(&head, &found.iter().map(row).collect::<Vec<_>>())
    })
}

/// The versions of a component, or of all.
async fn listed(name: &str, common: &Common) -> Result<Vec<Component>, CliError> {
    let mut components = common.connect().await?.components();
    let mut found = Vec::new();
    let mut request = ListComponentsRequest { page_size: 1000, name: name.to_owned(), ..Default::default() };
    loop {
        let page = components.list_components(request.clone()).await?.into_inner();
        found.extend(page.components);
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}

/// Who uploaded it, as was said, and from where.
fn who(component: &Component) -> String {
    match (component.uploaded_by.as_str(), component.uploaded_from.as_str()) {
        ("", "") => "somebody".to_owned(),
        ("", from) => format!("somebody at {from}"),
        (by, "") => by.to_owned(),
        (by, from) => format!("{by} at {from}"),
    }
}

fn source(component: &Component) -> String {
    match &component.image {
        None => "upload".to_owned(),
        Some(ImageSource { reference, manifest_digest }) => match reference.ends_with(manifest_digest.as_str()) {
            true => reference.clone(),
            false => format!("{reference} ({manifest_digest})"),
        },
    }
}

async fn delete(component: &ComponentRef, common: &Common) -> Result<(), CliError> {
    if let VersionRef::Major(_) | VersionRef::Minor(..) = component.version {
        // It would be another one tomorrow.
        let error = CliError::invalid(format!(
            "`{component}` may be several versions, and only one can be deleted at once: give a whole label or a digest"
        ));
        return Err(error.hint(format!("see which there are: `nodata component versions {}`", component.name)));
    }
    let (name, version) = split(&component.to_string())?;
    let request = DeleteComponentRequest { name, version };
    let deleted = common.connect().await?.components().delete_component(request).await?.into_inner();
    let deleted = deleted.component.unwrap_or_default();
    common.out().show(&to_json(&deleted), || {
        let asked = match &component.version {
            VersionRef::Exact(label) => label.to_string(),
            _ => String::new(),
        };
        let others: Vec<&str> = deleted.labels.iter().map(String::as_str).filter(|label| *label != asked).collect();
        let mut lines = vec![format!("deleted {} ({})", deleted.name, named_by(&asked, &deleted.digest))];
        if !others.is_empty() {
            lines.push(format!("it was also called {}", others.join(", ")));
        }
        lines
    })
}

async fn inspect(component: &str, common: &Common) -> Result<(), CliError> {
    let path = Path::new(component);
    let is_place = component.contains('/') || component.ends_with(".wasm");
    if !is_place && !path.is_file() {
        return inspect_known(component, common).await;
    }
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
        "imports": imports, "asks": asks_to_json(&imports), "wit": wit,
    });
    let facts = [
        ("digest", format!("sha256:{digest}")),
        ("size", self::bytes(bytes)),
        ("is", abilities(&roles, &extras)),
        ("asks to", asked(&imports)),
    ];
    common.out().show(&json, || described(component, &facts, &wit))
}

/// One that the server has.
async fn inspect_known(component: &str, common: &Common) -> Result<(), CliError> {
    let (name, version) = split(component)?;
    let request = DescribeComponentRequest { name, version };
    let found = common.connect().await?.components().describe_component(request).await?.into_inner();
    let DescribeComponentResponse { component, wit, deployments } = found;
    let component = component.unwrap_or_default();
    let mut json = to_json(&component);
    json["asks"] = asks_to_json(&component.imports);
    json["deployments"] = deployments.clone().into();
    json["wit"] = wit.clone().into();
    let or = |words: String, none: &str| if words.is_empty() { none.to_owned() } else { words };
    let facts = [
        ("labels", or(component.labels.join(", "), "none")),
        ("digest", format!("sha256:{}", component.digest)),
        ("size", bytes(component.bytes)),
        ("is", abilities(&component.roles, &component.extras)),
        ("asks to", asked(&component.imports)),
        ("uploaded", format!("{} by {}", time(component.uploaded_timestamp_us), who(&component))),
        ("source", source(&component)),
        (
            "signed by",
            match component.signed_by.as_str() {
                "" => "not asked for".to_owned(),
                key => format!("key {key}"),
            },
        ),
        ("used by", or(deployments.join(", "), "no deployment")),
    ];
    common.out().show(&json, || described(&component.name, &facts, &wit))
}

/// A component for a person.
fn described(title: &str, facts: &[(&str, String)], wit: &str) -> Vec<String> {
    let mut lines = vec![title.to_owned()];
    for (name, fact) in facts {
        let mut name = *name;
        for line in fact.lines() {
            lines.push(format!("  {name:<10}{line}"));
            name = "";
        }
    }
    lines.push(String::new());
    lines.extend(wit.lines().map(str::to_owned));
    lines
}

/// What a component asks for by what it imports, a line for each, and who decides about it.
fn asked(imports: &[String]) -> String {
    let line = |ask: Ask| match ask.grant() {
        Grant::Always => ask.says().to_owned(),
        Grant::Deployment => format!("{}, where its deployment grants it", ask.says()),
        Grant::Never => format!("{}, which is never granted", ask.says()),
    };
    let lines: Vec<String> = asks(imports).into_iter().map(line).collect();
    if lines.is_empty() { "read and emit events, and nothing else".to_owned() } else { lines.join("\n") }
}

fn asks_to_json(imports: &[String]) -> Value {
    asks(imports).into_iter().map(Ask::name).collect()
}

/// What a component can be deployed as, and what it does beside that.
fn abilities(roles: &[String], extras: &[String]) -> String {
    let says = |name: &String| Extra::by_interface(name).map_or(name.clone(), |extra| extra.says().to_owned());
    let extras: Vec<String> = extras.iter().map(says).collect();
    let roles = roles.join(", ");
    if extras.is_empty() { roles } else { format!("{roles} ({})", extras.join(", ")) }
}

/// A reference as requests have it. What else is wrong with it, the server says.
pub(crate) fn split(reference: &str) -> Result<(String, String), CliError> {
    match reference.split_once('@') {
        // To the server that is the latest upload, which nobody asked for.
        Some((name, "")) => Err(CliError::invalid(format!("`{reference}` names no version behind the @")).hint(
            format!("give `{name}` for the latest upload, or see which there are: `nodata component versions {name}`"),
        )),
        Some((name, version)) => Ok((name.to_owned(), version.to_owned())),
        None => Ok((reference.to_owned(), String::new())),
    }
}

/// How a version is called: by its highest label, and by its digest.
pub(crate) fn named(component: &Component) -> String {
    named_by(component.labels.first().map_or("", String::as_str), &component.digest)
}

/// The same; without a label, by its digest alone.
pub(crate) fn named_by(label: &str, digest: &str) -> String {
    if label.is_empty() { short(digest).to_owned() } else { format!("{label}, {}", short(digest)) }
}

/// Enough of a digest to tell components apart.
pub(crate) fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

/// A version of a component, for a person.
pub(crate) fn called(component: &str, label: &str, digest: &str) -> String {
    format!("{component} ({})", named_by(label, digest))
}

pub(crate) fn to_json(component: &Component) -> Value {
    json!({
        "name": component.name,
        "labels": component.labels,
        "digest": component.digest,
        "bytes": component.bytes,
        "roles": component.roles,
        "extras": component.extras,
        "imports": component.imports,
        "uploaded": time(component.uploaded_timestamp_us),
        "uploaded_by": component.uploaded_by,
        "uploaded_from": component.uploaded_from,
        "signed_by": component.signed_by,
        "image": component.image.as_ref().map(|image| {
            json!({ "reference": image.reference, "manifest_digest": image.manifest_digest })
        }),
    })
}
