//! `nodata add-component`

use crate::cli::budget::BudgetArgs;
use crate::cli::component::{AboutArgs, name_of, named_by, pull, read, split, upload};
use crate::cli::consume::time_us;
use crate::cli::deployment::to_json;
use crate::cli::{CliError, Common};
use crate::images::{ImageError, ImageRef};
use crate::registry::ComponentRef;
use clap::Args;
use nodata_client::proto::aggregate::Window;
use nodata_client::proto::deploy_request::Role;
use nodata_client::proto::deployment::Role as DeployedRole;
use nodata_client::proto::start_position::{Earliest, Latest, Position};
use nodata_client::proto::{
    Aggregate, Component, DeployRequest, Deployment, ErrorPolicy, OnPoison, SessionWindow, Sink, SlidingWindow, Source,
    StartPosition, Transform, TumblingWindow,
};
use nodata_runtime::HttpGrant;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Upload a component, have it pulled, or take one that the server has, and run it on a topic.
///
/// Where it begins is decided now: what is published while it starts is not missed.
#[derive(Debug, Args)]
pub(crate) struct AddComponentArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// The name of the deployment, and of a component that is uploaded [default: the name of the component, or of its file].
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    about: AboutArgs,
    #[command(flatten)]
    role: RoleArgs,
    #[command(flatten)]
    windows: WindowArgs,
    /// Wire a named port of the component to a topic. Can be given several times.
    #[arg(long, value_name = "PORT=TOPIC", value_parser = pair)]
    port: Vec<(String, String)>,
    /// What the component can read as its configuration. Can be given several times.
    #[arg(long, value_name = "KEY=VALUE", value_parser = pair)]
    config: Vec<(String, String)>,
    /// Let it read a secret, `NAME`, or `NAME=SECRET` where the component has another name for it. Can be given several times.
    #[arg(long, value_name = "NAME[=SECRET]", value_parser = secret)]
    secret: Vec<(String, String)>,
    /// Let it send HTTP requests there: `[METHODS] ORIGIN [in NETWORKS]`, such as `https://api.example.com`, or `POST
    /// http://clickhouse.internal:8123 in 10.0.0.0/8` for a name in a network that is not the internet. Can be given several times.
    #[arg(long, value_name = "GRANT", value_parser = grant)]
    allow_http: Vec<String>,
    /// What to do when the component fails: how often a call is tried again that asks for it, and what becomes of an event that it
    /// cannot process (dead-letter, skip or pause).
    #[arg(long, default_value = "retry=forever,then=dead-letter", value_name = "POLICY", value_parser = whole_policy)]
    on_error: ErrorPolicy,
    /// Where to begin: earliest, latest, an offset, a time such as 2013-06-01T00:00:00Z, or `kept`: where a deployment of this name
    /// was when it was deleted with --keep-position [default: latest]
    #[arg(long, value_name = "POSITION", value_parser = from)]
    from: Option<From>,
    /// How often a component ticks that does: `10s`, `5m` [default: 1s].
    #[arg(long, value_name = "TIME", value_parser = tick)]
    tick: Option<u64>,
    /// Make the topics that do not exist: as the component says that they should be, and otherwise with as many partitions as the
    /// input.
    #[arg(long)]
    create_topics: bool,
    #[command(flatten)]
    budget: BudgetArgs,
    #[command(flatten)]
    common: Common,
}

/// Which component.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct WhichArgs {
    /// The .wasm file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// One that the server has: NAME, NAME@2.1 or NAME@sha256:27b3cf.
    #[arg(long, value_name = "NAME[@VERSION]", conflicts_with_all = ["version", "by", "signature"])]
    component: Option<ComponentRef>,
    /// An image in another registry, which the server pulls: REGISTRY/PATH:TAG or REGISTRY/PATH@sha256:DIGEST.
    #[arg(long, value_name = "REF")]
    image: Option<String>,
}

/// What it is deployed as.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct RoleArgs {
    /// Read topic IN and write to topic OUT. Without `:OUT` the component has no default port.
    #[arg(long, value_name = "IN[:OUT]")]
    transform: Option<String>,
    /// Read topic IN, and deliver its events to somewhere else.
    #[arg(long, value_name = "IN")]
    sink: Option<String>,
    /// Bring events in, and write them to topic OUT.
    #[arg(long, value_name = "OUT")]
    source: Option<String>,
    /// Read topic IN, fold its events, and write to topic OUT when windows close. Without `:OUT` the component has no default port.
    #[arg(long, value_name = "IN[:OUT]")]
    aggregate: Option<String>,
}

/// How an aggregate divides time.
#[derive(Debug, Args)]
struct WindowArgs {
    /// For an aggregate: `tumbling=1h`, `sliding=1h/10m` (size and slide), or `session=30m` (longest gap) [default: none].
    #[arg(long, value_name = "WINDOW", value_parser = window)]
    window: Option<Window>,
    /// For an aggregate: how much earlier than the latest event of its partition an event may be.
    #[arg(long, value_name = "TIME", value_parser = micros)]
    lateness: Option<i64>,
    /// For an aggregate: time goes on with the clock in a partition without events for so long.
    #[arg(long, value_name = "TIME", value_parser = micros)]
    idle: Option<i64>,
    /// For an aggregate that says which group an event is in: all events of a group are in one partition, because the group follows
    /// from the key. Without it, windows are put together from all partitions.
    #[arg(long)]
    keyed: bool,
}

fn micros(text: &str) -> Result<i64, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "give a time such as 90s, 15m or 1h30m".to_owned())?;
    i64::try_from(span.as_micros()).map_err(|_| "it is too long".to_owned())
}

pub(crate) fn tick(text: &str) -> Result<u64, String> {
    u64::try_from(micros(text)?).map_err(|_| "it is negative".to_owned())
}

fn window(text: &str) -> Result<Window, String> {
    match text.split_once('=') {
        Some(("tumbling", size)) => Ok(Window::Tumbling(TumblingWindow { size_us: micros(size)? })),
        Some(("session", gap)) => Ok(Window::Session(SessionWindow { gap_us: micros(gap)? })),
        Some(("sliding", both)) => match both.split_once('/') {
            Some((size, slide)) => {
                Ok(Window::Sliding(SlidingWindow { size_us: micros(size)?, slide_us: micros(slide)? }))
            }
            None => Err("give size and slide, such as sliding=1h/10m".to_owned()),
        },
        _ => Err("give tumbling=SIZE, sliding=SIZE/SLIDE or session=GAP".to_owned()),
    }
}

pub(crate) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("give NAME=VALUE".to_owned()),
    }
}

pub(crate) fn secret(text: &str) -> Result<(String, String), String> {
    if text.contains('=') { pair(text) } else { Ok((text.to_owned(), text.to_owned())) }
}

/// Told here, before anything is uploaded.
pub(crate) fn grant(text: &str) -> Result<String, String> {
    text.parse().map(|grant: HttpGrant| grant.to_string()).map_err(|error| error.to_string())
}

/// Where a deployment begins.
#[derive(Clone, Debug)]
enum From {
    At(Position),
    Kept,
}

fn from(text: &str) -> Result<From, String> {
    if text == "kept" { Ok(From::Kept) } else { position(text).map(From::At) }
}

pub(crate) fn position(text: &str) -> Result<Position, String> {
    match text {
        "earliest" => Ok(Position::Earliest(Earliest {})),
        "latest" => Ok(Position::Latest(Latest {})),
        _ => match text.parse() {
            Ok(offset) => Ok(Position::Offset(offset)),
            Err(_) => time_us(text)
                .map(Position::TimestampUs)
                .ok_or_else(|| "give earliest, latest, an offset, or a time such as 2013-06-01T00:00:00Z".to_owned()),
        },
    }
}

/// What is said of an error policy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PolicyParts {
    retries: Option<Option<u32>>,
    then: Option<OnPoison>,
}

impl PolicyParts {
    /// The policy, with what is not said as it was.
    pub(crate) fn over(self, before: ErrorPolicy) -> ErrorPolicy {
        let then = self.then.unwrap_or(before.then());
        ErrorPolicy { retries: self.retries.unwrap_or(before.retries), then: then.into() }
    }
}

/// The policy of a new deployment.
fn whole_policy(text: &str) -> Result<ErrorPolicy, String> {
    policy(text).map(|said| said.over(ErrorPolicy { retries: None, then: OnPoison::DeadLetter.into() }))
}

pub(crate) fn policy(text: &str) -> Result<PolicyParts, String> {
    let mut policy = PolicyParts::default();
    for part in text.split(',') {
        match part.split_once('=') {
            Some(("retry", "forever")) => policy.retries = Some(None),
            Some(("retry", times)) => {
                let times = times.parse().map_err(|_| format!("retry={times}: give a number, or `forever`"))?;
                policy.retries = Some(Some(times));
            }
            Some(("then", "dead-letter")) => policy.then = Some(OnPoison::DeadLetter),
            Some(("then", "skip")) => policy.then = Some(OnPoison::Skip),
            Some(("then", "pause")) => policy.then = Some(OnPoison::Pause),
            Some(("then", what)) => return Err(format!("then={what}: give dead-letter, skip or pause")),
            _ => return Err("give retry=N, then=dead-letter, or both with a comma between them".to_owned()),
        }
    }
    Ok(policy)
}

/// A policy in the words of the command line.
pub(crate) fn policy_text(policy: &ErrorPolicy) -> String {
    let retries = policy.retries.map_or_else(|| "forever".to_owned(), |times| times.to_string());
    let then = match policy.then() {
        OnPoison::Unspecified | OnPoison::DeadLetter => "dead-letter",
        OnPoison::Skip => "skip",
        OnPoison::Pause => "pause",
    };
    format!("retry={retries},then={then}")
}

pub(crate) async fn run(args: AddComponentArgs) -> Result<(), CliError> {
    let json = args.common.json;
    add(args).await.map_err(|error| error.told_as_json(json))
}

async fn add(args: AddComponentArgs) -> Result<(), CliError> {
    let name = match (&args.which, args.name.clone()) {
        (WhichArgs { component: Some(component), .. }, name) => name.unwrap_or_else(|| component.name.to_string()),
        (WhichArgs { file: Some(file), .. }, name) => name_of(file, name)?,
        (WhichArgs { image, .. }, name) => match name {
            Some(name) => name,
            None => {
                let image: ImageRef = image.as_deref().unwrap_or_default().parse().map_err(|error: ImageError| {
                    CliError::invalid(error.to_string()).hint(error.hint().unwrap_or_default())
                })?;
                image.last().to_owned()
            }
        },
    };
    let role = wiring(&args)?;
    let config = unique("--config", args.config)?;
    let secrets = unique("--secret", args.secret)?;
    let file = args.which.file.as_deref().map(read).transpose()?;
    let client = args.common.connect().await?;
    // Wrong topics are told before anything is compiled.
    for topic in topics(&role).into_iter().filter(|_| !args.create_topics) {
        client.offsets(topic).await.map_err(|error| {
            let is_missing = error.reason() == "UNKNOWN_TOPIC";
            let error = CliError::from(error);
            if is_missing { error.or("have it made with --create-topics") } else { error }
        })?;
    }
    let of = |component: Component| (component.name, format!("sha256:{}", component.digest));
    let (component, version) = match (file, &args.which.component) {
        (Some(file), _) => {
            let about = match &args.which.file {
                Some(place) => args.about.beside(place),
                None => args.about,
            };
            of(upload(&client, &name, file, about, &args.common).await?)
        }
        (None, Some(component)) => split(&component.to_string())?,
        (None, None) => {
            let image = args.which.image.clone().unwrap_or_default();
            of(pull(&client, image, Some(name.clone()), args.about, &args.common).await?)
        }
    };
    let (from, from_kept) = match args.from {
        None => (None, false),
        Some(From::Kept) => (None, true),
        Some(From::At(position)) => (Some(StartPosition { position: Some(position) }), false),
    };
    let request = DeployRequest {
        name: name.clone(),
        component,
        version,
        role: Some(role),
        from,
        from_kept,
        config,
        secrets,
        allow_http: args.allow_http,
        on_error: Some(args.on_error),
        tick_us: args.tick,
        budget: Some(args.budget.budget()),
        create_topics: args.create_topics,
    };
    let deployed = client.deployments().deploy(request).await?.into_inner();
    let deployment = deployed.deployment.unwrap_or_default();
    args.common.out().show(&to_json(&deployment), || {
        let version = named_by(&deployment.label, &deployment.digest);
        vec![
            format!("deployed {} ({version}): {}", deployment.name, said(&deployment)),
            format!("see how it does: nodata deployment describe {}", deployment.name),
        ]
    })
}

/// What is read and what is written, for a person.
fn said(deployment: &Deployment) -> String {
    let ports = |outputs: &BTreeMap<String, String>| {
        let port = |(port, topic): (&String, &String)| {
            if port.is_empty() { topic.clone() } else { format!("{topic} (port {port})") }
        };
        let outputs: Vec<String> = outputs.iter().map(port).collect();
        if outputs.is_empty() { "no topic".to_owned() } else { outputs.join(", ") }
    };
    match &deployment.role {
        Some(DeployedRole::Transform(Transform { input, outputs })) => format!("{input} -> {}", ports(outputs)),
        Some(DeployedRole::Sink(Sink { input })) => format!("{input} -> outside"),
        Some(DeployedRole::Aggregate(Aggregate { input, outputs, .. })) => {
            format!("{input} -> groups, {}", ports(outputs))
        }
        Some(DeployedRole::Source(Source { outputs })) => format!("outside -> {}", ports(outputs)),
        None => String::new(),
    }
}

fn topics(role: &Role) -> Vec<&String> {
    match role {
        Role::Transform(Transform { input, outputs }) => std::iter::once(input).chain(outputs.values()).collect(),
        Role::Sink(Sink { input }) => vec![input],
        Role::Source(Source { outputs }) => outputs.values().collect(),
        Role::Aggregate(Aggregate { input, outputs, .. }) => std::iter::once(input).chain(outputs.values()).collect(),
    }
}

fn wiring(args: &AddComponentArgs) -> Result<Role, CliError> {
    let mut outputs = unique("--port", args.port.clone())?;
    let RoleArgs { transform, sink, source, aggregate } = &args.role;
    let WindowArgs { window, lateness, idle, keyed } = &args.windows;
    if aggregate.is_none() && (window.is_some() || lateness.is_some() || idle.is_some() || *keyed) {
        return Err(CliError::invalid("--window, --lateness, --idle and --keyed are for aggregates"));
    }
    if let Some(input) = sink {
        if let Some(port) = outputs.keys().next() {
            return Err(CliError::invalid(format!("--port {port}: a sink writes to no topic")));
        }
        return Ok(Role::Sink(Sink { input: input.clone() }));
    }
    if let Some(output) = source {
        outputs.insert(String::new(), output.clone());
        return Ok(Role::Source(Source { outputs }));
    }
    let (option, text) = match (transform, aggregate) {
        (_, Some(aggregate)) => ("aggregate", aggregate.as_str()),
        (transform, None) => ("transform", transform.as_deref().unwrap_or_default()),
    };
    let (input, default) = match text.split_once(':') {
        Some((input, output)) => (input, Some(output)),
        None => (text, None),
    };
    if input.is_empty() || default.is_some_and(str::is_empty) {
        return Err(CliError::invalid(format!(
            "--{option} {text}: give IN:OUT, or IN if the component writes to no default port"
        )));
    }
    if let Some(output) = default {
        outputs.insert(String::new(), output.to_owned());
    }
    let input = input.to_owned();
    Ok(match aggregate {
        None => Role::Transform(Transform { input, outputs }),
        Some(_) => Role::Aggregate(Aggregate {
            input,
            outputs,
            window: *window,
            lateness_us: lateness.unwrap_or(0),
            idle_us: idle.map(i64::unsigned_abs),
            keyed: *keyed,
        }),
    })
}

pub(crate) fn unique(what: &str, pairs: Vec<(String, String)>) -> Result<BTreeMap<String, String>, CliError> {
    let mut collected = BTreeMap::new();
    for (name, value) in pairs {
        if let Some(before) = collected.insert(name.clone(), value) {
            return Err(CliError::invalid(format!("{what} {name} is given twice ({before} first)")));
        }
    }
    Ok(collected)
}
