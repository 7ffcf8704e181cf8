//! Versions of components: digests, the labels that name them, who brought them, and how they are referred to.

use crate::harness::{Server, block_on, component};
use nodata_client::proto::deploy_request::Role;
use nodata_client::proto::{DeleteComponentRequest, DeployRequest, Transform};
use serde_json::{Value, json};
use std::time::Duration;

const VERSIONS: [(&str, &str); 4] =
    [("copies", "1.2.0"), ("copies-events", "1.10.0"), ("copies-columns", "2.0.0-rc.1"), ("shout", "")];

/// Uploads four versions of `mirror`, and answers with their digests.
fn upload(server: &Server) -> Vec<String> {
    let push = |(file, label): (&str, &str)| {
        let file = component(file);
        let label = if label.is_empty() { vec![] } else { vec!["--version", label] };
        let pushed = server.json(&[&["component", "push", &file, "--name", "mirror"], &label[..]].concat());
        pushed["digest"].as_str().unwrap().to_owned()
    };
    VERSIONS.into_iter().map(push).collect()
}

fn meant(server: &Server, reference: &str) -> Value {
    server.json(&["component", "inspect", reference])["digest"].clone()
}

#[test]
fn a_version_is_found_by_its_label_and_by_its_digest_also_after_a_kill() {
    let mut server = Server::start();
    let digests = upload(&server);
    let check = |server: &Server| {
        let short = |number: usize| format!("mirror@{}", &digests[number][..12]);
        for (reference, number) in [
            ("mirror", 3),
            ("mirror@1", 1),
            ("mirror@1.2", 0),
            ("mirror@1.2.0", 0),
            ("mirror@1.10.0", 1),
            ("mirror@2.0.0-rc.1", 2),
            (&format!("mirror@sha256:{}", digests[2]), 2),
            (&format!("mirror@sha256:{}", digests[1][..6].to_uppercase()), 1),
            (&short(0), 0),
        ] {
            assert_eq!(meant(server, reference), digests[number], "{reference}");
        }
        let listed = server.json(&["component", "versions", "mirror"]);
        let labels: Vec<&Value> = listed.as_array().unwrap().iter().map(|version| &version["labels"]).collect();
        assert_eq!(labels, [&json!([]), &json!(["2.0.0-rc.1"]), &json!(["1.10.0"]), &json!(["1.2.0"])]);
    };
    check(&server);
    server.kill_and_restart();
    check(&server);
    let refused = |reference: &str, code: i32| server.run(&["component", "inspect", reference]).failed(code);
    let see = "hint: see which there are: `nodata component versions mirror`\n";
    // A prerelease has to be named.
    assert_eq!(refused("mirror@2", 1), format!("error: component `mirror` has no version 2\n{see}"));
    assert_eq!(refused("mirror@1.2.1", 1), format!("error: component `mirror` has no version 1.2.1\n{see}"));
    assert_eq!(
        refused("mirror@123456", 1),
        "error: component `mirror` has no version 123456\nhint: this is a label; the digest that begins so is sha256:123456\n"
    );
    assert!(refused("mirror@newest", 2).starts_with("error: `newest` names no version: give a label such as 2"));
    assert!(server.run(&["component", "versions", "nowhere"]).failed(1).contains("component `nowhere` does not exist"));
    assert!(
        refused("mirror@", 2).starts_with("error: `mirror@` names no version behind the @\nhint: give `mirror` for ")
    );
    for place in ["./nosuch.wasm", "nosuch.wasm", "folder/mirror"] {
        assert!(refused(place, 1).starts_with(&format!("error: cannot read {place}: No such file")), "{place}");
    }
}

#[test]
fn a_label_names_the_same_bytes_for_ever() {
    let server = Server::start();
    let (first, second) = (component("copies"), component("copies-events"));
    let push =
        |file: &str, label: &str| server.run(&["component", "push", file, "--name", "mirror", "--version", label]);
    let said = push(&first, "1.0.0").ok();
    assert!(said.starts_with("uploaded mirror (1.0.0, "), "{said}");
    let digest = meant(&server, "mirror@1.0.0");
    let taken = format!(
        "error: `1.0.0` is the label of another version of component `mirror`, sha256:{}, and remains that\n\
         hint: give the new version another label\n",
        digest.as_str().unwrap()
    );
    assert_eq!(push(&second, "1.0.0").failed(1), taken);
    assert_eq!(server.json(&["component", "versions", "mirror"]).as_array().unwrap().len(), 1, "it was not kept");
    // The same again, and another label for the same bytes.
    push(&first, "1.0.0").ok();
    push(&first, "1.0.1").ok();
    assert_eq!(server.json(&["component", "inspect", "mirror"])["labels"], json!(["1.0.1", "1.0.0"]));
    // Labels of another component are its own.
    server.ok(&["component", "push", &second, "--name", "other", "--version", "1.0.0"]);
    let refused = |label: &str| push(&first, label).failed(2);
    assert!(refused("1.0").contains("`1.0` is no label of a version: give a semantic version such as 1.2.0"));
    assert!(refused("1.0.0+5").contains("leave out the build metadata, +5"));
}

#[test]
fn it_is_known_who_uploaded_a_version_and_from_where() {
    let server = Server::start();
    let file = component("copies");
    server.ok(&["component", "push", &file, "--by", "Ada of the night shift"]);
    let known = server.json(&["component", "inspect", "copies"]);
    let keys = ["uploaded_by", "uploaded_from", "image"];
    assert_eq!(keys.map(|key| &known[key]), [&json!("Ada of the night shift"), &json!("127.0.0.1"), &json!(null)]);
    // Whoever brings the same bytes again changes nothing.
    server.ok(&["component", "push", &file, "--by", "somebody else"]);
    assert_eq!(server.json(&["component", "inspect", "copies"]), known);
    let versions = server.ok(&["component", "versions", "copies"]);
    assert!(versions.contains("Ada of the night shift at 127.0.0.1  upload"), "{versions}");

    let refused = |by: &str| server.run(&["component", "push", &file, "--by", by]).failed(2);
    assert_eq!(refused("a\nb"), "error: who uploads a component: it contains the control character '\\n'\n");
    let long = "a".repeat(201);
    assert_eq!(refused(&long), "error: who uploads a component: it has 201 bytes; at most 200 are allowed\n");
    server.ok(&["component", "push", &component("prints")]);
    let by = server.json(&["component", "inspect", "prints"])["uploaded_by"].clone();
    assert!(!by.as_str().unwrap().is_empty(), "the command line says who it is");
}

#[test]
fn what_a_reference_means_is_decided_when_it_is_deployed() {
    let server = Server::start();
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic]);
    }
    let digests = upload(&server);
    let add = |component: &str, name: &str| {
        server.run(&["add-component", "--component", component, "--name", name, "--transform", "in:out"])
    };
    add("mirror@1", "first").ok();
    add("mirror", "second").ok();
    let digest = |deployment: &str| server.described(deployment)["digest"].clone();
    assert_eq!((digest("first"), digest("second")), (json!(digests[1]), json!(digests[3])));
    server.ok(&["component", "push", &component("rejects-odd"), "--name", "mirror", "--version", "1.11.0"]);
    assert_ne!(meant(&server, "mirror@1"), digests[1]);
    assert_eq!(digest("first"), digests[1]);
    assert!(add("mirror@3", "third").failed(1).starts_with("error: component `mirror` has no version 3\n"));
    assert!(add("nothing@3", "third").failed(1).starts_with("error: component `nothing` does not exist\n"));
    // Without a name, the deployment is called like the component.
    server.ok(&["add-component", "--component", "mirror@2.0.0-rc.1", "--transform", "in:out"]);
    assert_eq!(digest("mirror"), digests[2]);
    let both = server.run(&["add-component", "--component", "mirror", "--file", "x.wasm", "--transform", "in:out"]);
    assert!(both.failed(2).contains("cannot be used with"));
    for about in [["--version", "9.0.0"], ["--by", "ada"], ["--signature", "x.minisig"]] {
        let args = ["add-component", "--component", "mirror", "--name", "about", "--transform", "in:out"];
        let refused = server.run(&[&args[..], &about].concat()).failed(2);
        assert!(refused.contains("cannot be used with"), "{refused}");
    }
}

/// The files of the store that belong to a version: itself, and what was compiled of it.
fn files(server: &Server, digest: &str) -> usize {
    let of = |folder: &str| {
        let entries = std::fs::read_dir(server.data().join(folder)).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(digest)).count()
    };
    of("components") + of("cache")
}

#[test]
fn a_version_that_is_needed_is_not_deleted() {
    let mut server = Server::start();
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic]);
    }
    let digests = upload(&server);
    for name in ["runs", "rests", "was"] {
        server.ok(&["add-component", "--component", "mirror@1.2", "--name", name, "--transform", "in:out"]);
    }
    server.ok(&["deployment", "pause", "rests"]);
    server.ok(&["deployment", "delete", "was", "--keep-position"]);
    let needed = |by: &str| {
        format!(
            "error: component `mirror`, sha256:{}, is needed by deployment {by}\nhint: deploy another version there, or delete the \
             deployment, or what is kept of it\n",
            digests[0]
        )
    };
    let delete = |server: &Server| server.run(&["component", "delete", "mirror@1.2.0"]);
    assert_eq!(delete(&server).failed(1), needed("rests, runs, was (kept)"));
    let inspected = server.ok(&["component", "inspect", "mirror@1.2"]);
    assert!(inspected.contains("  used by   rests, runs, was (kept)\n"), "{inspected}");
    server.kill_and_restart();
    server.ok(&["deployment", "delete", "runs"]);
    server.ok(&["deployment", "delete", "rests"]);
    assert_eq!(delete(&server).failed(1), needed("was (kept)"));
    server.ok(&["deployment", "delete", "was"]);
    assert_eq!(files(&server, &digests[0]), 2);
    let deleted = delete(&server).ok();
    assert_eq!(deleted, format!("deleted mirror (1.2.0, {})\n", &digests[0][..12]));
    assert_eq!(files(&server, &digests[0]), 0);
    assert!(delete(&server).failed(1).starts_with("error: component `mirror` has no version 1.2.0\n"));
    server.kill_and_restart();
    let versions = server.json(&["component", "versions", "mirror"]);
    let left: Vec<&Value> = versions.as_array().unwrap().iter().map(|version| &version["digest"]).collect();
    assert_eq!(left, [&digests[3], &digests[2], &digests[1]]);

    // What was called 1.2.0 may come back, and nothing else may be called so.
    let push =
        |file: &str| server.run(&["component", "push", &component(file), "--name", "mirror", "--version", "1.2.0"]);
    assert!(push("rejects-odd").failed(1).contains("is the label of another version"));
    push("copies").ok();
    assert_eq!(meant(&server, "mirror@1.2"), digests[0]);
}

#[test]
fn a_file_stays_as_long_as_one_name_has_it() {
    let server = Server::start();
    for name in ["first", "second"] {
        server.ok(&["component", "push", &component("copies"), "--name", name]);
    }
    let digest = meant(&server, "first").as_str().unwrap().to_owned();
    let which = server.run(&["component", "delete", "first"]).failed(2);
    assert!(
        which.starts_with("error: component `first` may have several versions, and only one can be deleted at once\n")
    );
    server.ok(&["component", "delete", &format!("first@{digest}")]);
    assert_eq!(files(&server, &digest), 2);
    assert_eq!(meant(&server, "second"), digest);
    server.ok(&["component", "delete", &format!("second@{digest}")]);
    assert_eq!(files(&server, &digest), 0);
    assert_eq!(server.json(&["component", "list"]), json!([]));
}

#[test]
fn only_what_is_named_exactly_is_deleted() {
    let server = Server::start();
    let digests = upload(&server);
    server.ok(&["component", "push", &component("copies"), "--name", "mirror", "--version", "1.3.0"]);
    for several in ["mirror@1", "mirror@1.2"] {
        assert_eq!(
            server.run(&["component", "delete", several]).failed(2),
            format!(
                "error: `{several}` may be several versions, and only one can be deleted at once: give a whole label or a digest\n\
                 hint: see which there are: `nodata component versions mirror`\n"
            )
        );
    }
    // The highest label of these bytes is another one.
    let deleted = server.ok(&["component", "delete", "mirror@1.2.0"]);
    assert_eq!(deleted, format!("deleted mirror (1.2.0, {})\nit was also called 1.3.0\n", &digests[0][..12]));
    let deleted = server.ok(&["component", "delete", &format!("mirror@sha256:{}", &digests[1][..12])]);
    assert_eq!(deleted, format!("deleted mirror ({})\nit was also called 1.10.0\n", &digests[1][..12]));
}

#[test]
fn a_version_is_deployed_or_deleted_and_never_both() {
    let server = Server::start();
    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic]);
    }
    let file = component("copies");
    let mut outcomes = [0, 0];
    block_on(async {
        let client = server.client().await;
        for round in 0..40u64 {
            let digest = server.json(&["component", "push", &file])["digest"].as_str().unwrap().to_owned();
            // So that sometimes the one and sometimes the other is first.
            let (deploys_after, deletes_after) = if round % 2 == 0 { (round / 8, 0) } else { (0, round / 8) };
            let deploy = async {
                tokio::time::sleep(Duration::from_millis(deploys_after)).await;
                let request = DeployRequest {
                    name: "mirror".to_owned(),
                    component: "copies".to_owned(),
                    role: Some(Role::Transform(Transform {
                        input: "in".to_owned(),
                        outputs: [(String::new(), "out".to_owned())].into(),
                    })),
                    ..DeployRequest::default()
                };
                client.deployments().deploy(request).await
            };
            let delete = async {
                tokio::time::sleep(Duration::from_millis(deletes_after)).await;
                let request = DeleteComponentRequest { name: "copies".to_owned(), version: digest };
                client.components().delete_component(request).await
            };
            let (deployed, deleted) = tokio::join!(deploy, delete);
            assert!(deployed.is_ok() != deleted.is_ok(), "round {round}: {deployed:?} {deleted:?}");
            outcomes[usize::from(deployed.is_ok())] += 1;
            if deployed.is_ok() {
                server.publish("in", &["x"]);
                server.wait_until_done("mirror");
                server.ok(&["deployment", "delete", "mirror"]);
            }
        }
    });
    assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
}

#[test]
fn what_a_component_could_do_is_said_in_words() {
    let server = Server::start();
    let file = component("http-poll");
    let could = "  asks to   send HTTP requests, where its deployment grants it\n";
    let of_file = server.ok(&["component", "inspect", &file]);
    assert!(of_file.contains(could), "{of_file}");
    server.ok(&["component", "push", &file, "--version", "0.3.0", "--by", "ada"]);
    let of_server = server.ok(&["component", "inspect", "http-poll@0.3"]);
    assert!(of_server.starts_with("http-poll\n  labels    0.3.0\n  digest    sha256:"), "{of_server}");
    assert!(of_server.contains(could), "{of_server}");
    assert!(
        of_server.contains(
            " by ada at 127.0.0.1\n  source    upload\n  signed by not asked for\n  used by   no deployment\n\n"
        ),
        "{of_server}"
    );
    let json = server.json(&["component", "inspect", "http-poll"]);
    assert_eq!(json["asks"][0], "http");
    assert_eq!(json["deployments"], json!([]));
}
