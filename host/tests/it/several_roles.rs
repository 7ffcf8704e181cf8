//! One component that is several things: it is uploaded once, and deployed as each of them.

use crate::harness::{Server, block_on, component, json_lines};
use nodata_client::proto::deploy_request::Role;
use nodata_client::proto::start_position::{Earliest, Position};
use nodata_client::proto::{Aggregate, DeployRequest, Sink, Source, StartPosition, Transform};
use serde_json::json;
use std::collections::BTreeMap;

/// Deploys what was uploaded before, or says why not.
fn deploy(server: &Server, name: &str, role: Role) -> Result<(), String> {
    block_on(async {
        let request = DeployRequest {
            name: name.to_owned(),
            component: "plays-three-parts".to_owned(),
            role: Some(role),
            from: Some(StartPosition { position: Some(Position::Earliest(Earliest {})) }),
            ..DeployRequest::default()
        };
        let deployed = server.client().await.deployments().deploy(request).await;
        deployed.map(drop).map_err(|status| status.message().to_owned())
    })
}

fn printed(server: &Server, deployment: &str) -> Vec<String> {
    let lines = json_lines(&server.ok(&["deployment", "logs", deployment, "--json"]));
    let own = lines.iter().filter(|line| line["stream"] == "stdout");
    own.map(|line| line["text"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_component_plays_each_of_its_parts_and_no_other() {
    let mut server = Server::start();
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic]);
    }
    server.ok(&["component", "push", &component("plays-three-parts")]);
    let listed = server.json(&["component", "list"]);
    assert_eq!(listed[0]["roles"], json!(["transform", "sink", "aggregate"]));

    let input = || "in".to_owned();
    let outputs = || BTreeMap::from([(String::new(), "out".to_owned())]);
    let aggregate = Aggregate { input: input(), ..Aggregate::default() };
    deploy(&server, "transforms", Role::Transform(Transform { input: input(), outputs: outputs() })).unwrap();
    deploy(&server, "delivers", Role::Sink(Sink { input: input() })).unwrap();
    deploy(&server, "aggregates", Role::Aggregate(aggregate)).unwrap();
    let refused = deploy(&server, "brings", Role::Source(Source { outputs: outputs() })).unwrap_err();
    assert_eq!(refused, "component `plays-three-parts` is no source; it is transform, sink, aggregate");
    assert_eq!(server.json(&["component", "list"]).as_array().unwrap().len(), 1, "it was uploaded once");

    let lines = |range: std::ops::Range<u32>| -> String {
        range.map(|n| format!("{{\"k\":\"{}\",\"n\":{n}}}\n", if n % 3 == 0 { "a" } else { "b" })).collect()
    };
    let publish = |server: &Server, range| {
        server.run_with(&["publish", "in", "--key-field", "k"], lines(range).as_bytes()).ok();
        for name in ["transforms", "delivers", "aggregates"] {
            server.wait_until_done(name);
        }
    };
    publish(&server, 0..5);
    // Each plays its own part only.
    assert_eq!(printed(&server, "transforms"), ["transforms"]);
    let delivered: Vec<String> = lines(0..5).lines().map(|line| format!("delivers {line}")).collect();
    assert_eq!(printed(&server, "delivers"), delivered);
    assert_eq!(printed(&server, "aggregates"), ["aggregates"]);

    // What each has come to is its own, also over a kill.
    server.kill_and_restart();
    publish(&server, 5..8);
    assert_eq!(server.values("out"), lines(0..8).lines().collect::<Vec<_>>());
    let shown = server.json(&["aggregate", "scan", "aggregates"]);
    assert_eq!(shown, json!([{ "key": "a", "value": "a: 3" }, { "key": "b", "value": "b: 5" }]));
    let delivered: Vec<String> = lines(5..8).lines().map(|line| format!("delivers {line}")).collect();
    assert_eq!(printed(&server, "delivers"), delivered);
}
