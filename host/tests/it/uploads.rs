//! What is uploaded as a component: accepted, kept and shown, or refused in words that tell its author what to do.

use crate::harness::{Server, block_on, component};
use futures::stream;
use nodata_client::proto::upload_component_request::Request;
use nodata_client::proto::upload_component_response::Answer;
use nodata_client::proto::{Component, ComponentStage, UploadComponentRequest, UploadComponentStart};
use nodata_client::{Client, Error};
use serde_json::json;
use std::path::PathBuf;

/// A file beside the data of the server.
fn file(server: &Server, name: &str, bytes: &[u8]) -> String {
    let path: PathBuf = server.dir().path().join(name);
    std::fs::write(&path, bytes).unwrap();
    path.display().to_string()
}

fn check_refused(server: &Server, file: &str, expected: &str) {
    assert_eq!(server.run(&["component", "push", file]).failed(2), format!("error: {expected}\n"), "{file}");
    let whole = server.run(&["add-component", "--file", file, "--transform", "in:out"]).failed(2);
    assert_eq!(whole, format!("error: {expected}\n"), "{file}");
}

#[test]
fn what_is_no_component_is_refused_and_leaves_nothing() {
    let server = Server::start();
    server.ok(&["topic", "create", "in"]);
    server.ok(&["topic", "create", "out"]);
    let check =
        |name: &str, bytes: &[u8], expected: &str| check_refused(&server, &file(&server, name, bytes), expected);
    let upload = "hint: upload the .wasm file that your build made";
    check("text.wasm", b"hello\n", &format!("this is not a WebAssembly component; it looks like text\n{upload}"));
    check("empty.wasm", b"", &format!("the file is empty\n{upload}"));
    check(
        "module.wasm",
        b"\0asm\x01\0\0\0",
        "this is a core WebAssembly module, not a component\nhint: build for `wasm32-wasip2`, or make a component of it: \
         `wasm-tools component new module.wasm -o component.wasm`",
    );
    let large = file(&server, "large.wasm", &vec![0; (64 << 20) + 1]);
    check_refused(
        &server,
        &large,
        &format!(
            "{large}: the file has 67108865 bytes; a component may have 67108864 (64 MiB)\nhint: leave out the debug \
             information: `wasm-tools strip`"
        ),
    );

    // Neither does what was compiled of one that is refused for what is found only then.
    let check = |name: &str, expected: &str| {
        check_refused(&server, &component(name), expected);
        let cache = std::fs::read_dir(server.data().join("cache")).unwrap();
        assert_eq!(cache.map(|file| file.unwrap().file_name()).collect::<Vec<_>>(), [""; 0], "{name}");
    };
    let hint = "hint: export `nodata:streaming/transformer@0.1.0` (world `transform`) or \
                `nodata:streaming/sink-writer@0.1.0` (world `sink`) or `nodata:streaming/source-reader@0.1.0` (world `source`) or \
                `nodata:streaming/aggregator@0.1.0` (world `aggregate`)";
    check("exports-nothing", &format!("the component exports nothing, which is nothing that this host runs\n{hint}"));
    check(
        "wrong-world",
        &format!(
            "the component exports nodata:streaming/sink-drain@0.1.0, which is nothing that this host runs\n{hint}"
        ),
    );
    check(
        "other-signature",
        "`nodata:streaming/transformer@0.1.0` is not what the contract says: failed to convert function to given type: type \
         mismatch with parameters: expected 2-tuple, found 1-tuple",
    );
    check(
        "wants-newer-host",
        "built against nodata:streaming 0.1.9; this host offers 0.1.0\nhint: build it against nodata:streaming 0.1.0, or use \
         a newer host",
    );
    check(
        "wants-unknown-import",
        "the component imports something that this host does not offer: component imports instance `acme:weather/forecast`, \
         but a matching implementation was not found in the linker: instance export `rain` has the wrong type: function \
         implementation is missing",
    );
    assert_eq!(server.json(&["component", "list"]), json!([]));
    assert_eq!(server.json(&["deployment", "list"]), json!([]));
}

#[test]
fn a_component_is_kept_listed_and_inspected_also_after_a_kill() {
    let mut server = Server::start();
    let copies = component("copies");
    let said = server.ok(&["component", "push", &copies, "--name", "mirror"]);
    let listed = server.json(&["component", "list"]);
    let digest = listed[0]["digest"].as_str().unwrap();
    assert!(said.starts_with(&format!("uploaded mirror ({}, ", &digest[..12])), "{said}");
    let bytes = std::fs::metadata(&copies).unwrap().len();
    assert_eq!(
        (&listed[0]["name"], &listed[0]["bytes"], &listed[0]["roles"]),
        (&json!("mirror"), &json!(bytes), &json!(["transform"]))
    );
    let check_inspected = |server: &Server| {
        let text = server.ok(&["component", "inspect", "mirror"]);
        assert!(text.contains(digest), "{text}");
        assert!(text.contains("import nodata:streaming/types@0.1.0;"), "{text}");
        assert!(text.contains("export nodata:streaming/transformer@0.1.0;"), "{text}");
        assert_eq!(server.json(&["component", "inspect", "mirror"])["digest"], digest);
    };
    check_inspected(&server);
    server.kill_and_restart();
    check_inspected(&server);
    assert_eq!(server.json(&["component", "list"]), listed);
    let said = server.run(&["component", "inspect", "nowhere"]).failed(1);
    assert!(said.starts_with("error: component `nowhere` does not exist\n"), "{said}");
    let said = server.run(&["component", "push", &copies, "--name", "a/b"]).failed(2);
    assert!(said.contains("name `a/b` contains '/'"), "{said}");
}

/// The messages of an upload.
fn parts(name: &str) -> Vec<UploadComponentRequest> {
    let start = Request::Start(UploadComponentStart { name: name.to_owned(), ..Default::default() });
    let file = Request::Chunk(std::fs::read(component(name)).unwrap().into());
    [start, file].map(|part| UploadComponentRequest { request: Some(part) }).into()
}

/// Uploads a component, and answers with the stages that were told.
async fn upload(client: &Client, name: &str) -> Result<(Vec<ComponentStage>, Component), Error> {
    let mut answers = client.components().upload_component(stream::iter(parts(name))).await?.into_inner();
    let mut stages = Vec::new();
    loop {
        match answers.message().await?.unwrap().answer.unwrap() {
            Answer::Progress(progress) => stages.push(progress.stage()),
            Answer::Component(component) => {
                assert!(answers.message().await?.is_none(), "that is the last answer");
                return Ok((stages, component));
            }
        }
    }
}

#[test]
fn it_is_told_what_is_done_about_a_component() {
    let server = Server::start();
    let pushed = server.run(&["component", "push", &component("shout")]);
    assert_eq!(pushed.code, 0, "{}", pushed.err);
    let lines: Vec<&str> = pushed.err.lines().collect();
    assert!(lines[0].starts_with("component shout: uploading "), "{lines:?}");
    assert!(lines.contains(&"component shout: compiling it"), "{lines:?}");
    let json = server.run(&["component", "push", &component("copies"), "--json"]);
    assert_eq!((json.code, json.err.as_str()), (0, ""));

    block_on(async {
        let (stages, _) = upload(&server.client().await, "prints").await.unwrap();
        assert!(stages.contains(&ComponentStage::Compiling), "{stages:?}");
        assert!(stages.is_sorted(), "{stages:?}");
    });
}

#[test]
fn a_component_is_taken_although_its_client_went_away() {
    let server = Server::start();
    block_on(async {
        let client = server.client().await;
        let mut answers =
            client.components().upload_component(stream::iter(parts("shout"))).await.unwrap().into_inner();
        answers.message().await.unwrap().unwrap();
    });
    while server.json(&["component", "list"]) == json!([]) {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    // It was told so early that this would have been the end of it.
    assert_eq!(server.json(&["component", "list"])[0]["name"], "shout");
}

#[test]
fn who_asks_for_the_same_joins() {
    let server = Server::start();
    block_on(async {
        let client = server.client().await;
        // More than are taken at once, if each were taken.
        let taken = futures::future::join_all((0..20).map(|_| upload(&client, "shout"))).await;
        let taken: Vec<Component> = taken.into_iter().map(|taken| taken.unwrap().1).collect();
        assert!(taken.iter().all(|component| *component == taken[0]), "{taken:?}");
    });
    assert_eq!(server.json(&["component", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn so_many_components_are_taken_at_once_and_one_more_is_told_so() {
    let server = Server::start();
    block_on(async {
        let client = server.client().await;
        // They say that they begin, and then nothing.
        let begin = || {
            let mut components = client.components();
            let first = stream::iter(parts("copies").into_iter().take(1));
            let silent = futures::StreamExt::chain(first, stream::pending());
            tokio::spawn(async move { components.upload_component(silent).await.map(drop) })
        };
        let mut begun: Vec<_> = (0..8).map(|_| begin()).collect();
        // Until they have all places, there is one for others.
        let refused = loop {
            if let Err(refused) = upload(&client, "copies").await {
                break refused;
            }
        };
        assert_eq!(refused.reason(), "TOO_MANY_AT_ONCE");
        assert_eq!(refused.to_string(), "8 components are being taken, which is the most at once");
        begun.pop().unwrap().abort();
        upload(&client, "copies").await.unwrap();
    });
}
