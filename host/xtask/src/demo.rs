//! Shows it on real data: flights in, a component in the middle, late flights out.

use crate::components;
use crate::step::{self, Failed, cargo, print, root, say, target_dir};
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SAMPLE: &str = "host/tests/data/flights-sample.ndjson";

pub(crate) fn run() -> Result<(), Failed> {
    say("This builds nodata and two components. The first time, that takes some minutes.");
    step::run("building nodata", &mut cargo(&["build", "--locked", "--package", "nodata"]))?;
    let component = components::build_one("late-flights")?;
    let aggregate = components::build_one("aggregate-fields")?;
    let nodata = target_dir().join("debug/nodata");

    let store = tempfile::Builder::new().prefix("nodata-demo-").tempdir()?;
    say(&format!("==> starting a server on a new store in {}", store.path().display()));
    let server = Server::start(&nodata, store.path())?;
    let run = |args: &[&str]| server.run(&nodata, args);

    say("==> making two topics, with 4 partitions each");
    run(&["topic", "create", "flights", "--partitions", "4"])?;
    run(&["topic", "create", "late-flights", "--partitions", "4"])?;
    say("==> deploying the component late-flights between them: it keeps flights that arrived an hour late or more");
    let file = component.display().to_string();
    run(&["add-component", "--file", &file, "--transform", "flights:late-flights", "--from", "earliest"])?;
    say("==> deploying the component aggregate-fields: it counts flights and adds up distances, by origin and hour");
    let folds = aggregate.display().to_string();
    run(&["topic", "create", "by-hour"])?;
    let compute = "compute=flights=count,miles=sum(distance),longest_delay=max(dep_delay)";
    let how =
        ["--aggregate", "flights:by-hour", "--window", "tumbling=1h", "--config", "by=origin", "--config", compute];
    run(&[&["add-component", "--file", &folds, "--from", "earliest"], &how[..]].concat())?;
    let sample = root().join(SAMPLE).display().to_string();
    say("==> publishing real flights of January 2013, keyed by carrier; each is acknowledged when it is durable");
    let published = json(&run(&[
        "publish",
        "flights",
        "--file",
        &sample,
        "--key-field",
        "carrier",
        "--id-field",
        "id",
        "--time-field",
        "time_hour",
        "--json",
    ])?)?;

    for deployment in ["late-flights", "aggregate-fields"] {
        let lag = || Ok::<_, Failed>(json(&run(&["deployment", "describe", deployment, "--json"])?)?["lag"].as_u64());
        while lag()? != Some(0) {
            std::thread::sleep(Duration::from_millis(50));
        }
    }
    let late = run(&["consume", "late-flights"])?;
    let events: Vec<&str> = late.lines().collect();
    print(&format!("\n{} flights went in, {} late ones came out. Three of them:\n", published["events"], events.len()));
    for event in events.iter().take(3) {
        print(&format!("  {}", json(event)?["value"]));
    }
    print("\nWindows of an hour that are closed, three of them:\n");
    for event in run(&["consume", "by-hour"])?.lines().take(3) {
        print(&format!("  {}", json(event)?["value"]));
    }
    print(&next_steps(&nodata, &file));
    say("==> stopping the server and removing the store");
    drop(server);
    store.close()?;
    Ok(())
}

fn json(text: &str) -> Result<Value, Failed> {
    serde_json::from_str(text).map_err(|error| Failed::new(format!("{text}: {error}")))
}

fn next_steps(nodata: &Path, component: &str) -> String {
    let nodata = nodata.strip_prefix(root()).map_or_else(|_| nodata.to_owned(), PathBuf::from);
    let nodata = nodata.display();
    let component = Path::new(component);
    let component = component.strip_prefix(root()).unwrap_or(component).display();
    format!(
        "
What to try next:
  {nodata} serve                                    a server that stays, with its store in ./nodata-data
  {nodata} topic create flights                     and in another terminal, topics
  {nodata} topic create late
  {nodata} add-component --file {component} --transform flights:late
  {nodata} publish flights --file {SAMPLE}
  {nodata} consume late --from earliest --follow
  {nodata} deployment describe late-flights         how the component is doing
  components/README.md                                         how to write your own in five minutes
"
    )
}

/// A server that ends when it is dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(nodata: &Path, store: &Path) -> Result<Self, Failed> {
        let mut child = Command::new(nodata)
            .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn", "--data"])
            .arg(store.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut ready = String::new();
        if let Some(out) = child.stdout.take() {
            BufReader::new(out).read_line(&mut ready)?;
        }
        match ready.trim_end().strip_prefix("nodata is ready on ") {
            Some(address) => Ok(Self { address: address.to_owned(), child }),
            None => Err(Failed::new("the server did not start; its messages are above")),
        }
    }

    fn run(&self, nodata: &Path, args: &[&str]) -> Result<String, Failed> {
        let mut command = Command::new(nodata);
        step::read(&format!("nodata {}", args.join(" ")), command.args(args).env("NODATA_SERVER", &self.address))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        // It stops in order when it is asked to, and it is ended if that is not possible.
        if !step::works(Command::new("kill").args(["-TERM", &pid])) {
            let _ = self.child.kill();
        }
        let _ = self.child.wait();
    }
}
