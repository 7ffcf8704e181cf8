//! Starts guests and shows what they do as text.

use bytes::Bytes;
use nodata_log::model::ModelLog;
use nodata_log::{
    Batch, Clock, Event, Log, Name, Offsets, OwnerId, StoredBatch, TaskKey, TimestampUs, TopicConfig, TopicId, Tp,
    Transaction, ValueType,
};
use nodata_runtime::{
    CallError, Compiler, Deployment, DescribedPort, GuestLog, GuestMetrics, HttpGrant, Input, Instance, InstanceLimits,
    InstanceSettings, Output, Port, Program, Role, Runtime, RuntimeOptions, Secret, Share,
};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

pub(crate) const NOW: TimestampUs = 1_700_000_000_000_000;

/// A clock that stands still.
pub(crate) struct Still;

impl Clock for Still {
    fn now_us(&self) -> TimestampUs {
        NOW
    }
}

/// The component of this guest.
pub(crate) fn guest(name: &str) -> Bytes {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/components");
    let path = PathBuf::from(built).join(format!("{name}.wasm"));
    let hint = "build the components with `cargo xtask components`";
    fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}: {hint}", path.display())).into()
}

pub(crate) fn compiler() -> Compiler {
    Compiler::new(env!("CARGO_BIN_EXE_nodata-compile-child"), [""; 0])
}

/// One component host for all tests. What it compiled is still there at the next run.
pub(crate) fn runtime() -> &'static Runtime {
    static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
        let cache = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("compiled-components");
        Runtime::start(RuntimeOptions::new(compiler(), cache, Arc::new(Still))).unwrap()
    });
    &RUNTIME
}

/// A guest that is to be started.
pub(crate) struct Setup {
    guest: &'static str,
    config: BTreeMap<String, String>,
    secrets: BTreeMap<String, Secret>,
    ports: Vec<Port>,
    http: Vec<HttpGrant>,
    pub(crate) limits: InstanceLimits,
    pub(crate) log: Arc<ModelLog>,
    pub(crate) runtime: Runtime,
}

pub(crate) fn setup(guest: &'static str) -> Setup {
    Setup {
        guest,
        config: BTreeMap::new(),
        secrets: BTreeMap::new(),
        ports: vec![Port { name: String::new(), partitions: 1, event_bytes_max: 16 << 20, values: ValueType::Bytes }],
        http: Vec::new(),
        limits: InstanceLimits::default(),
        log: Arc::new(ModelLog::new(Arc::new(Still))),
        runtime: runtime().clone(),
    }
}

pub(crate) const TASK: TaskKey = TaskKey { owner: OwnerId(1), source: Tp { topic: TopicId(1), partition: 3 } };

impl Setup {
    pub(crate) fn config(mut self, key: &str, value: impl ToString) -> Self {
        self.config.insert(key.to_owned(), value.to_string());
        self
    }

    pub(crate) fn secret(mut self, name: &str, value: &str) -> Self {
        self.secrets.insert(name.to_owned(), value.as_bytes().to_vec().into());
        self
    }

    pub(crate) fn ports(mut self, ports: &[(&str, u32, u32)]) -> Self {
        let port = |&(name, partitions, event_bytes_max): &(&str, u32, u32)| Port {
            name: name.to_owned(),
            partitions,
            event_bytes_max,
            values: ValueType::Bytes,
        };
        self.ports = ports.iter().map(port).collect();
        self
    }

    pub(crate) fn allow_http(mut self, grant: &str) -> Self {
        self.http.push(grant.parse().unwrap());
        self
    }

    pub(crate) fn limits(mut self, change: impl FnOnce(&mut InstanceLimits)) -> Self {
        change(&mut self.limits);
        self
    }

    async fn load(self) -> (Program, Arc<Deployment>, Arc<ModelLog>, Runtime) {
        let (info, program) = self.runtime.accept(guest(self.guest)).await.unwrap();
        assert_eq!(info.digest, program.digest());
        let deployment = Arc::new(Deployment {
            config: self.config,
            secrets: self.secrets,
            ports: self.ports.into(),
            log: Arc::new(GuestLog::new(Arc::new(Still))),
            metrics: Arc::default(),
            http: self.runtime.http_client(&self.http),
            limits: self.limits,
        });
        (program, deployment, self.log, self.runtime)
    }

    /// Tries the guest out, as is done when it is deployed, and says what is wrong with it.
    pub(crate) async fn try_out(self) -> String {
        let (program, deployment, _, runtime) = self.load().await;
        let tried = runtime
            .spawn(&Share::default(), async move { program.try_out(Role::Transform, deployment).await })
            .await
            .unwrap();
        match tried {
            Ok(None) => "it is well".to_owned(),
            Ok(Some(ports)) => ports.iter().map(show_port).collect::<Vec<_>>().join("\n"),
            Err(error) => error.to_string(),
        }
    }

    pub(crate) async fn try_start(self) -> Result<Running, CallError> {
        let (program, deployment, log, runtime) = self.load().await;
        let settings =
            InstanceSettings { role: Role::Transform, deployment: deployment.clone(), task: TASK, log: log.clone() };
        let started =
            runtime.spawn(&Share::default(), async move { program.instantiate(settings).await }).await.unwrap();
        Ok(Running {
            instance: Some(started?),
            guest_log: deployment.log.clone(),
            metrics: deployment.metrics.clone(),
            ports: deployment.ports.clone(),
            log,
            runtime,
        })
    }

    pub(crate) async fn start(self) -> Running {
        self.try_start().await.unwrap()
    }

    /// Starts the guest, gives it these values, and compares what it emits.
    pub(crate) async fn check(self, values: &[&str], expected: &str) {
        let mut running = self.start().await;
        let output = running.call(values).await;
        assert_eq!(running.show(&output), expected);
    }

    /// Starts the guest, gives it these values, and compares why it fails.
    pub(crate) async fn check_fails(self, values: &[&str], expected: &str) -> (Running, CallError) {
        let mut running = self.start().await;
        let error = running.try_call(batch(&events(values))).await.unwrap_err();
        assert_eq!(error.to_string(), expected);
        (running, error)
    }
}

/// A guest that was started.
pub(crate) struct Running {
    /// Taken while a call runs on a guest thread.
    instance: Option<Instance>,
    pub(crate) guest_log: Arc<GuestLog>,
    pub(crate) metrics: Arc<GuestMetrics>,
    ports: Arc<[Port]>,
    pub(crate) log: Arc<ModelLog>,
    runtime: Runtime,
}

impl Running {
    pub(crate) fn instance(&self) -> &Instance {
        self.instance.as_ref().unwrap()
    }

    pub(crate) async fn try_call(&mut self, input: Input) -> Result<Output, CallError> {
        let mut instance = self.instance.take().unwrap();
        let call = async move {
            let output = instance.process(input).await;
            (instance, output)
        };
        let (instance, output) = self.runtime.spawn(&Share::default(), call).await.unwrap();
        self.instance = Some(instance);
        output
    }

    /// Has it tick at this time.
    pub(crate) async fn tick(&mut self, now_us: TimestampUs) -> Result<Output, CallError> {
        let mut instance = self.instance.take().unwrap();
        let call = async move {
            let output = instance.tick(now_us, None).await;
            (instance, output)
        };
        let (instance, output) = self.runtime.spawn(&Share::default(), call).await.unwrap();
        self.instance = Some(instance);
        output
    }

    /// Gives it the memory of another one.
    pub(crate) async fn restore(&mut self, saved: Bytes, saved_by: &'static str) -> Result<(), CallError> {
        let mut instance = self.instance.take().unwrap();
        let call = async move {
            let restored = instance.restore(saved, saved_by).await;
            (instance, restored)
        };
        let (instance, restored) = self.runtime.spawn(&Share::default(), call).await.unwrap();
        self.instance = Some(instance);
        restored
    }

    /// Lets the instance go in order.
    pub(crate) async fn let_go(&mut self) -> Result<(), CallError> {
        let instance = self.instance.take().unwrap();
        self.runtime.spawn(&Share::default(), instance.let_go()).await.unwrap()
    }

    /// Drops a call after a while, unless it has returned by then.
    pub(crate) async fn give_up(&mut self, input: Input, after: Duration) -> bool {
        let mut instance = self.instance.take().unwrap();
        let call = async move {
            let given_up = tokio::time::timeout(after, instance.process(input)).await.is_err();
            (instance, given_up)
        };
        let (instance, given_up) = self.runtime.spawn(&Share::default(), call).await.unwrap();
        self.instance = Some(instance);
        given_up
    }

    pub(crate) async fn call(&mut self, values: &[&str]) -> Output {
        self.try_call(batch(&events(values))).await.unwrap()
    }

    /// Makes the state that a call wrote durable, as a task does.
    pub(crate) async fn commit(&self, output: Output) {
        let topic = Name::new("orders").unwrap();
        if self.log.topic(&topic).is_err() {
            self.log
                .create_topic(topic, TopicConfig { partitions: 4, ..TopicConfig::default() })
                .unwrap()
                .await
                .unwrap();
        }
        let lease = self.log.begin_task(TASK).unwrap().await.unwrap();
        let next = lease.next.unwrap_or(0) + 1;
        let appends = Vec::new();
        let transaction =
            Transaction { task: TASK, epoch: lease.epoch, expect: lease.next, next, appends, state: output.state };
        self.log.commit(transaction).unwrap().await.unwrap();
    }

    /// What was emitted and rejected: one line for each event, in the order of batches.
    pub(crate) fn show(&self, output: &Output) -> String {
        let mut lines = Vec::new();
        for emitted in &output.batches {
            let port = &self.ports[emitted.port].name;
            let place = match (port.as_str(), emitted.partition) {
                ("", 0) => String::new(),
                (port, partition) => format!("{port}/{partition} "),
            };
            lines.extend(emitted.batch.events().map(|event| format!("{place}{}", show_event(&event.to_event()))));
        }
        lines.extend(
            output.rejected.iter().map(|rejected| format!("row {} rejected: {}", rejected.row, rejected.reason)),
        );
        lines.join("\n")
    }

    /// The log of the deployment: one line for each.
    pub(crate) fn logged(&self) -> Vec<String> {
        let line = |line: nodata_runtime::LogLine| format!("{:?} {}: {}", line.source, line.partition, line.text);
        self.guest_log.since(0).into_iter().map(line).collect()
    }
}

/// `key:value #id {header=value} @timestamp`, with only what is there. A tombstone is `-`.
pub(crate) fn show_event(event: &Event) -> String {
    let text = |bytes: &Bytes| String::from_utf8_lossy(bytes).into_owned();
    let mut shown = event.key.as_ref().map_or_else(String::new, |key| format!("{}:", text(key)));
    shown += &event.value.as_ref().map_or_else(|| "-".to_owned(), text);
    if let Some(id) = &event.id {
        shown += &format!(" #{id}");
    }
    for (name, value) in &event.headers {
        shown += &format!(" {{{name}={}}}", text(value));
    }
    if let Some(timestamp_us) = event.timestamp_us.filter(|&timestamp_us| timestamp_us != NOW) {
        shown += &format!(" @{timestamp_us}");
    }
    shown
}

/// `input name: about, json, partitions 3, required`, with only what is there.
fn show_port(port: &DescribedPort) -> String {
    let DescribedPort { direction, name, about, required, values, partitions } = port;
    let partitions = partitions.map_or_else(String::new, |partitions| format!(", partitions {partitions}"));
    let required = if *required { ", required" } else { "" };
    format!("{direction:?} {name}: {about}, {values:?}{partitions}{required}")
}

/// Events with these values and nothing else.
pub(crate) fn events(values: &[&str]) -> Vec<Event> {
    values.iter().map(|value| Event::new((*value).to_owned())).collect()
}

pub(crate) fn stored(first: u64, events: &[Event]) -> StoredBatch {
    StoredBatch { offsets: Offsets::From(first), append_us: NOW, batch: Batch::from_events(events, NOW).unwrap() }
}

/// These events as partition 3 of the topic `orders`, from offset 40 on.
pub(crate) fn batch(events: &[Event]) -> Input {
    Input::new(Name::new("orders").unwrap(), 3, [(stored(40, events), 0..events.len())]).unwrap()
}
