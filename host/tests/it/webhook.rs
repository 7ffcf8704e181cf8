//! The webhook, against receivers that behave in every way: nothing is lost, the order of a partition is kept, and a repeat can be told.

use crate::harness::{Server, component, json_lines, python};
use crate::receiver::{Answer, Receiver, Request};
use nodata_log::fs::simulated::Chance;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[allow(clippy::disallowed_methods, reason = "a test has no settings")]
fn seed() -> u64 {
    std::env::var("NODATA_CRASH_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1)
}

fn add(server: &Server, name: &str, url: &str, more: &[&str]) {
    let (file, url) = (component("webhook"), format!("url={url}"));
    let add =
        ["add-component", "--file", &file, "--sink", "in", "--from", "earliest", "--name", name, "--config", &url];
    server.ok(&[&add, more].concat());
}

/// What a receiver took, request by request.
#[derive(Clone, Default)]
struct Taken(Arc<Mutex<Vec<Request>>>);

impl Taken {
    fn take(&self, request: &Request) {
        self.0.lock().unwrap().push(request.clone());
    }

    fn requests(&self, path: &str) -> Vec<Request> {
        self.0.lock().unwrap().iter().filter(|request| request.path == path).cloned().collect()
    }

    /// The events at a path, as often as they came, by partition.
    fn events(&self, path: &str) -> BTreeMap<u64, Vec<Value>> {
        let mut events: BTreeMap<u64, Vec<Value>> = BTreeMap::new();
        for event in self.requests(path).iter().flat_map(|request| json_lines(&request.body)) {
            events.entry(event["partition"].as_u64().unwrap()).or_default().push(event);
        }
        events
    }
}

/// Events of all partitions.
fn count<T>(by_partition: &BTreeMap<u64, Vec<T>>) -> usize {
    by_partition.values().map(Vec::len).sum()
}

/// The values of events in the order in which they came first. One that comes again must be the same in every way.
fn without_repeats(events: &[Value]) -> Vec<String> {
    let mut seen: BTreeMap<u64, &Value> = BTreeMap::new();
    let mut values = Vec::new();
    for event in events {
        match seen.insert(event["offset"].as_u64().unwrap(), event) {
            None => values.push(event["value"].as_str().unwrap().to_owned()),
            Some(before) => assert_eq!(before, event),
        }
    }
    values
}

#[test]
fn whatever_a_receiver_does_and_whenever_the_server_is_killed_each_event_comes_and_a_repeat_can_be_told() {
    const PARTITIONS: u32 = 3;
    let seed = seed();
    let taken = Taken::default();
    let receiver = Receiver::start({
        let (taken, chance) = (taken.clone(), Mutex::new(Chance::new(seed)));
        move |request| {
            let (takes, how) = {
                let mut chance = chance.lock().unwrap();
                (chance.percent(50), chance.below(40))
            };
            // It may have taken what it does not say that it has, and the other way round never.
            let (takes, answer) = match how {
                0 => (takes, Answer::status(500)),
                1 => (takes, Answer::status(429)),
                2 => (takes, Answer::Nothing),
                3 => (takes, Answer::Half),
                4..8 => (true, Answer::Twice(200)),
                8 => {
                    std::thread::sleep(Duration::from_millis(200));
                    (true, Answer::status(200))
                }
                _ => (true, Answer::status(202)),
            };
            if takes {
                taken.take(request);
            }
            answer
        }
    });
    let mut server = Server::start();
    server.ok(&["topic", "create", "in", "--partitions", &PARTITIONS.to_string()]);
    let grant = ["--allow-http", &receiver.grant()];
    add(&server, "single", &receiver.url("/single"), &grant);
    let many = ["--config", "batch=5", "--config", "format=ndjson"];
    add(&server, "many", &receiver.url("/many"), &[&grant[..], &many].concat());

    let mut published: BTreeMap<u64, Vec<String>> = BTreeMap::new();
    let mut chance = Chance::new(seed);
    for round in 0..4 {
        for partition in 0..PARTITIONS {
            let values: Vec<String> = (0..20 + chance.below(40)).map(|n| format!("{round} {n}")).collect();
            server.publish_to("in", partition, &values.iter().map(String::as_str).collect::<Vec<_>>());
            published.entry(partition.into()).or_default().extend(values);
        }
        std::thread::sleep(Duration::from_millis(chance.below(300)));
        server.kill_and_restart();
    }
    let mut repeats = 0;
    for name in ["single", "many"] {
        let described = server.wait_until_done(name);
        let lost: u64 =
            described["tasks"].as_array().unwrap().iter().map(|task| task["events_rejected"].as_u64().unwrap()).sum();
        assert_eq!(lost, 0, "{described:#}");
        let events = taken.events(&format!("/{name}"));
        let found: BTreeMap<u64, Vec<String>> =
            events.iter().map(|(partition, events)| (*partition, without_repeats(events))).collect();
        assert_eq!(found, published, "{name}, seed {seed}");
        repeats += count(&events) - count(&published);
    }
    assert!(repeats > 0, "the receiver was too good");

    // One event is one id, and the other way round.
    let mut ids: BTreeMap<String, String> = BTreeMap::new();
    for request in taken.requests("/single") {
        let before = ids.insert(request.headers["webhook-id"].clone(), request.body.clone());
        assert!(before.is_none_or(|before| before == request.body));
    }
    assert_eq!(ids.len(), count(&published));
}

#[test]
fn a_receiver_that_is_down_holds_up_only_its_own_sink_and_gets_everything_when_it_is_back() {
    let server = Server::start();
    server.ok(&["topic", "create", "in"]);
    let (up, down) = (Taken::default(), Taken::default());
    let takes = |taken: &Taken| {
        let taken = taken.clone();
        move |request: &Request| {
            taken.take(request);
            Answer::status(200)
        }
    };
    let is_up = Receiver::start(takes(&up));
    let is_down = Receiver::down();
    for (name, receiver) in [("up", &is_up), ("down", &is_down)] {
        add(&server, name, &receiver.url("/"), &["--allow-http", &receiver.grant()]);
    }
    server.publish("in", &["a", "b", "c"]);
    server.wait_until_done("up");
    let described = server.wait_until("down", |described| described["tasks"][0]["attempts"].as_u64() > Some(2));
    assert_eq!((&described["state"], &described["lag"]), (&json!("retrying"), &json!(3)));
    let reason = described["tasks"][0]["reason"].as_str().unwrap();
    let url = is_down.url("/");
    let expected = format!(
        "the component asks to try again later: POST {url}: connection refused (events 0 to 2 of `in`, partition 0)"
    );
    assert_eq!(reason, expected);
    is_down.come_up(takes(&down));
    server.wait_until_done("down");
    for taken in [up, down] {
        let events = taken.events("/");
        assert_eq!(events[&0].len(), 3);
        assert_eq!(without_repeats(&events[&0]), ["a", "b", "c"]);
    }
}

#[test]
fn a_slow_receiver_is_given_what_it_can_take_and_nothing_twice() {
    let server = Server::start();
    server.ok(&["topic", "create", "in"]);
    let taken = Taken::default();
    let receiver = Receiver::start({
        let taken = taken.clone();
        move |request| {
            std::thread::sleep(Duration::from_millis(300));
            taken.take(request);
            Answer::status(200)
        }
    });
    add(&server, "slow", &receiver.url("/"), &["--allow-http", &receiver.grant()]);
    // More than a call delivers in its time.
    let values: Vec<String> = (0..25).map(|n| format!("event {n}")).collect();
    server.publish("in", &values.iter().map(String::as_str).collect::<Vec<_>>());
    let described = server.wait_until("slow", |described| described["tasks"][0]["events_in"].as_u64() > Some(0));
    assert!(described["lag"].as_u64() > Some(0), "{described:#}");
    server.wait_until_done("slow");
    let events = taken.events("/");
    assert_eq!(events[&0].len(), 25);
    assert_eq!(without_repeats(&events[&0]), values);
}

#[test]
fn what_the_receiver_refuses_is_put_aside_and_everything_else_comes_in_order() {
    let server = Server::start();
    server.ok(&["topic", "create", "in"]);
    let taken = Taken::default();
    let receiver = Receiver::start({
        let taken = taken.clone();
        move |request| {
            if request.body.contains("bad") {
                return Answer::Status(422, Vec::new(), "it is bad".to_owned());
            }
            taken.take(request);
            Answer::status(200)
        }
    });
    let grant = ["--allow-http", &receiver.grant()];
    add(&server, "single", &receiver.url("/single"), &grant);
    add(
        &server,
        "many",
        &receiver.url("/many"),
        &[&grant[..], &["--config", "batch=8", "--config", "format=ndjson"]].concat(),
    );
    let value = |n: u32| if [3, 4, 17, 29].contains(&n) { format!("bad {n}") } else { format!("good {n}") };
    let values: Vec<String> = (0..30).map(value).collect();
    server.publish("in", &values.iter().map(String::as_str).collect::<Vec<_>>());
    let good: Vec<&String> = values.iter().filter(|value| !value.contains("bad")).collect();
    for name in ["single", "many"] {
        server.wait_until_done(name);
        assert_eq!(without_repeats(&taken.events(&format!("/{name}"))[&0]).iter().collect::<Vec<_>>(), good);
        let letters = json_lines(&server.ok(&["dlq", "show", name, "--json"]));
        let offsets: Vec<&str> =
            letters.iter().map(|letter| letter["headers"]["nodata-offset"].as_str().unwrap()).collect();
        assert_eq!(offsets, ["3", "4", "17", "29"]);
        let reason = letters[0]["headers"]["nodata-reason"].as_str().unwrap();
        assert!(
            reason.contains(&format!("POST {}: status 422: it is bad", receiver.url(&format!("/{name}")))),
            "{reason}"
        );
    }
}

#[test]
fn what_is_not_granted_and_what_is_moved_is_said_and_costs_no_event() {
    let server = Server::start();
    server.ok(&["topic", "create", "in"]);
    let receiver =
        Receiver::start(|_| Answer::Status(301, vec![("location", "http://elsewhere/".to_owned())], String::new()));
    add(&server, "denied", &receiver.url("/"), &["--allow-http", "https://hooks.example.com"]);
    add(&server, "moved", &receiver.url("/"), &["--allow-http", &receiver.grant()]);
    server.publish("in", &["a", "b"]);
    let reason = |name: &str| {
        let described = server.wait_until(name, |described| described["tasks"][0]["attempts"].as_u64() > Some(1));
        assert_eq!((&described["state"], &described["lag"]), (&json!("retrying"), &json!(2)));
        described["tasks"][0]["reason"].as_str().unwrap().to_owned()
    };
    let denied = reason("denied");
    assert!(
        denied.contains("denied: the deployment may not send this; the log of the deployment says what it may"),
        "{denied}"
    );
    let logged = server.ok(&["deployment", "logs", "denied"]);
    let grant = format!("denied: POST {}; this deployment is granted https://hooks.example.com", receiver.grant());
    assert!(logged.contains(&grant), "{logged}");
    let moved = reason("moved");
    assert!(moved.contains("status 301 to http://elsewhere/; redirects are not followed"), "{moved}");

    let file = component("webhook");
    let said =
        server.run(&["add-component", "--file", &file, "--sink", "in", "--config", "url=x", "--config", "batch=0"]);
    assert_eq!(said.failed(2), "error: component `webhook` does not open: config `batch` is 0; it is 1 to 8192\n");
}

#[test]
fn it_is_signed_and_sent_over_tls_to_whom_the_machine_trusts() {
    let dir = tempfile::tempdir().unwrap();
    let authority = {
        let key = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        rcgen::CertifiedIssuer::self_signed(params, key).unwrap()
    };
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    let [trusted, chain, private] = ["authority.pem", "chain.pem", "key.pem"].map(|name| dir.path().join(name));
    std::fs::write(&trusted, authority.pem()).unwrap();
    std::fs::write(&chain, certificate.pem() + &authority.pem()).unwrap();
    std::fs::write(&private, key.serialize_pem()).unwrap();

    let signing_key = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    let mut receives =
        python("receive.py").arg(&chain).arg(&private).arg(signing_key).stdout(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(receives.stdout.take().unwrap()).lines().map(Result::unwrap);
    let origin = format!("https://localhost:{}", said.next().unwrap());

    let server = Server::start_with_env(&[("SSL_CERT_FILE", trusted.to_str().unwrap())]);
    let strange = Server::start();
    for server in [&server, &strange] {
        server.ok(&["topic", "create", "in"]);
        for (name, value) in [("key-of-hooks", signing_key), ("token", "t0k3n")] {
            server.run_with(&["secret", "put", name], value.as_bytes()).ok();
        }
        let secrets = ["--secret", "signing-key=key-of-hooks", "--secret", "token"];
        add(server, "hook", &format!("{origin}/x"), &[&["--allow-http", &origin], &secrets[..]].concat());
        server.publish("in", &["a", "b"]);
    }
    server.wait_until_done("hook");
    assert_eq!(
        [said.next().unwrap(), said.next().unwrap()],
        ["in/0/0 Bearer t0k3n signed", "in/0/1 Bearer t0k3n signed"]
    );
    let described = strange.wait_until("hook", |described| described["tasks"][0]["attempts"].as_u64() > Some(0));
    let reason = described["tasks"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("the certificate is not one that is trusted"), "{reason}");
    receives.kill().unwrap();
    receives.wait().unwrap();
}
