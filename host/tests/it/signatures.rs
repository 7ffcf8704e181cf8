//! Servers that take only what is signed, and images only that a program agrees to.

use crate::harness::{Server, component, python};
use crate::receiver::{Answer, Receiver};
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use tempfile::TempDir;

/// Makes a key, and answers with the place of its public part.
fn key(dir: &TempDir, name: &str) -> String {
    assert!(python("sign.py").arg("keys").arg(name).current_dir(dir.path()).status().unwrap().success());
    dir.path().join(format!("{name}.pub")).display().to_string()
}

fn sign(dir: &TempDir, key: &str, file: &str, signature: &Path) {
    let mut command = python("sign.py");
    command.args(["sign", key, file]).arg(signature).current_dir(dir.path());
    assert!(command.status().unwrap().success());
}

/// What minisign calls a key. The program that made it writes the same bytes from the other end.
fn id(key: &str) -> String {
    let text = std::fs::read_to_string(key).unwrap();
    let written = text.split_whitespace().find(|word| word.len() == 16).unwrap();
    (0..8).rev().map(|byte| &written[2 * byte..2 * byte + 2]).collect()
}

#[test]
fn what_is_not_signed_with_a_key_that_is_trusted_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    let (ada, bob, _) = (key(&dir, "ada"), key(&dir, "bob"), key(&dir, "eve"));
    let server = Server::start_with(&["--component-key", &ada, "--component-key", &bob]);
    let file = dir.path().join("mirror.wasm").display().to_string();
    std::fs::copy(component("copies"), &file).unwrap();
    let push = |more: &[&str]| server.run(&[&["component", "push", &file], more].concat());
    let trusted = format!("key {} or key {}", id(&ada), id(&bob));
    assert_eq!(
        push(&[]).failed(1),
        format!(
            "error: component `mirror` is not signed, and this server takes what is signed with {trusted}\nhint: sign the file with \
             `minisign -Sm FILE`, and give --signature FILE.minisig\n"
        )
    );
    let signature = dir.path().join("signature");
    let given = signature.display().to_string();
    sign(&dir, "eve", &file, &signature);
    let other = format!("error: the signature of component `mirror` is not one of these bytes with {trusted}\n");
    assert_eq!(push(&["--signature", &given]).failed(1), other);
    sign(&dir, "ada", &component("shout"), &signature);
    assert_eq!(push(&["--signature", &given]).failed(1), other);
    std::fs::write(&signature, "no signature").unwrap();
    let no = push(&["--signature", &given]).failed(1);
    assert_eq!(no, "error: the signature of component `mirror` is no signature of minisign\n");
    assert_eq!(server.json(&["component", "list"]), json!([]));

    // Beside the file it is found.
    sign(&dir, "bob", &file, &dir.path().join("mirror.wasm.minisig"));
    push(&[]).ok();
    assert_eq!(server.json(&["component", "inspect", "mirror"])["signed_by"], id(&bob));
    assert!(server.ok(&["component", "inspect", "mirror"]).contains(&format!("  signed by key {}\n", id(&bob))));
}

#[test]
fn a_program_has_a_say_about_images() {
    let registry = Receiver::start(|request| match request.path.contains("/blobs/") {
        true => Answer::body("hello"),
        false => {
            let digest = "sha256:2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
            let layer = json!({ "mediaType": "application/wasm", "digest": digest, "size": 5 });
            Answer::body(json!({ "layers": [layer] }).to_string())
        }
    });
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("verify");
    let asked = dir.path().join("asked");
    let image = format!("{}/acme/a:1", registry.address());
    let pull = |script: &str| {
        std::fs::write(&program, format!("#!/bin/sh\necho \"$@\" > {}\n{script}\n", asked.display())).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o700)).unwrap();
        let options = ["--registry-insecure", &registry.address(), "--verify-image", program.to_str().unwrap()];
        let server = Server::start_with(&options);
        server.run(&["component", "pull", "--image", &image])
    };
    let said = pull("echo first >&2; echo no matching signatures >&2; exit 3").failed(1);
    let refused = format!(
        "error: image {image} is refused by {} (exit status: 3): first; no matching signatures\n",
        program.display()
    );
    assert_eq!(said, refused);
    let asked = std::fs::read_to_string(&asked).unwrap();
    assert!(asked.starts_with(&format!("{image} sha256:")) && asked.trim_end().len() == image.len() + 72, "{asked}");
    // What it agrees to is looked at.
    assert!(pull("exit 0").failed(2).starts_with("error: this is not a WebAssembly component; it looks like text\n"));
}

#[test]
fn a_server_with_what_is_no_key_does_not_start() {
    let dir = std::sync::Arc::new(tempfile::tempdir().unwrap());
    let place = dir.path().join("key").display().to_string();
    std::fs::write(&place, "no key\n").unwrap();
    let said = Server::try_start(dir, "127.0.0.1:0", &["--component-key", &place]).err().unwrap();
    assert!(said.contains(&format!("error: {place} is no public key of minisign\n")), "{said}");
}
