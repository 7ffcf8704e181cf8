//! Components that are images of other registries: pulled from a real one, to which a client that is not ours pushed, and from some
//! that lie.

use crate::harness::{Ran, Server, component, python};
use crate::receiver::{Answer, Receiver};
use serde_json::json;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

const WASM: &str = "application/wasm";
/// What `htpasswd -B` makes of `ada` and `s3cret`.
const USERS: &str = "ada:$2y$05$nOQ47knlcrUyyuRWCTfb3en85/obujF.s0pwaQb6yxW5bag4CNP3q\n";

/// The registry of the distribution project.
struct Registry {
    child: Child,
    address: String,
    dir: TempDir,
    who: &'static str,
}

impl Registry {
    /// `None`: there is none on this machine.
    fn start(who: &'static str) -> Option<Self> {
        let unpacked = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/registry/usr/bin/docker-registry");
        let program = if unpacked.exists() { unpacked } else { PathBuf::from("docker-registry") };
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).display().to_string();
        let auth = match who {
            "-" => String::new(),
            _ => format!("auth: {{htpasswd: {{realm: here, path: {}}}}}\n", path("users")),
        };
        std::fs::write(path("users"), USERS).unwrap();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n{auth}",
            path("images")
        );
        std::fs::write(path("config.yml"), config).unwrap();
        let mut command = Command::new(program);
        command.arg("serve").arg(path("config.yml")).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                eprintln!(
                    "skipped: there is no docker-registry ({error}); `cargo xtask test` brings one where apt-get is"
                );
                return None;
            }
        };
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map_while(Result::ok);
        let line = said.find(|line| line.contains("listening on ")).unwrap();
        let address = line.split("listening on ").nth(1).unwrap().split('"').next().unwrap().to_owned();
        // It must not wait for somebody to read what it says.
        std::thread::spawn(move || said.for_each(drop));
        Some(Self { child, address, dir, who })
    }

    /// Pushes files, and answers with the digest of the manifest.
    fn push(&self, image: &str, files: &[(&str, &str)]) -> String {
        let mut command = python("push_image.py");
        command.arg(format!("{}/{image}", self.address)).arg(self.who);
        command.args(files.iter().map(|(file, kind)| format!("{file}:{kind}"))).current_dir(self.dir.path());
        let pushed = command.output().unwrap();
        assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
        String::from_utf8(pushed.stdout).unwrap().trim().to_owned()
    }

    fn server(&self) -> Server {
        Server::start_with(&["--registry-insecure", &self.address])
    }

    fn pull(&self, server: &Server, image: &str, more: &[&str]) -> Ran {
        pull(server, &format!("{}/{image}", self.address), more)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pull(server: &Server, image: &str, more: &[&str]) -> Ran {
    server.run(&[&["component", "pull", "--image", image], more].concat())
}

#[test]
fn an_image_is_pulled_and_runs_and_a_moved_tag_changes_nothing() {
    let Some(registry) = Registry::start("-") else { return };
    let (first, second) = (component("copies"), component("rejects-odd"));
    let digest = registry.push("acme/mirror:1.0.0", &[(&first, WASM)]);
    registry.push("acme/mirror:stable", &[(&first, WASM)]);
    let mut server = registry.server();
    let pulled = registry.pull(&server, "acme/mirror:1.0.0", &["--by", "ada"]);
    assert!(pulled.err.contains(": asking the registry\n"), "{}", pulled.err);
    assert!(pulled.ok().starts_with("pulled mirror (1.0.0, "));
    let known = server.json(&["component", "inspect", "mirror@1"]);
    let reference = format!("{}/acme/mirror:1.0.0", registry.address);
    assert_eq!(known["image"], json!({ "reference": reference, "manifest_digest": digest }));
    assert_eq!((&known["labels"], &known["uploaded_by"]), (&json!(["1.0.0"]), &json!("ada")));
    let versions = server.ok(&["component", "versions", "mirror"]);
    assert!(versions.contains(&format!("ada at 127.0.0.1  {reference} ({digest})")), "{versions}");

    for topic in ["in", "out"] {
        server.ok(&["topic", "create", topic]);
    }
    let stable = format!("{}/acme/mirror:stable", registry.address);
    server.ok(&["add-component", "--image", &stable, "--transform", "in:out"]);
    server.publish("in", &["a", "b"]);
    server.wait_until_done("mirror");

    // The tags mean something else now. What runs is what was deployed.
    let moved = registry.push("acme/mirror:1.0.0", &[(&second, WASM)]);
    registry.push("acme/mirror:stable", &[(&second, WASM)]);
    server.kill_and_restart();
    server.publish("in", &["c"]);
    server.wait_until_done("mirror");
    assert_eq!(server.values("out"), ["a", "b", "c"]);
    assert_eq!(server.described("mirror")["digest"], known["digest"]);
    let taken = registry.pull(&server, "acme/mirror:1.0.0", &[]).failed(1);
    assert!(taken.starts_with("error: `1.0.0` is the label of another version of component `mirror`"), "{taken}");
    let other =
        serde_json::from_str::<serde_json::Value>(&registry.pull(&server, "acme/mirror:stable", &["--json"]).ok());
    let other = other.unwrap();
    assert_eq!((&other["image"]["manifest_digest"], &other["labels"]), (&json!(moved), &json!([])));
    assert_ne!(other["digest"], known["digest"]);

    // By its digest, it is what it was.
    let pinned = registry.pull(&server, &format!("acme/mirror@{digest}"), &["--name", "pinned", "--version", "3.0.0"]);
    assert!(pinned.ok().starts_with("pulled pinned (3.0.0, "));
    assert_eq!(server.json(&["component", "inspect", "pinned@3"])["digest"], known["digest"]);
}

#[test]
fn an_image_that_is_no_component_is_refused() {
    let Some(registry) = Registry::start("-") else { return };
    let text = registry.dir.path().join("text.txt").display().to_string();
    std::fs::write(&text, "hello\n").unwrap();
    let file = component("copies");
    registry.push("text:1", &[(&text, "text/plain")]);
    registry.push("both:1", &[(&text, "text/plain"), (&file, WASM)]);
    registry.push("named:1", &[(&text, WASM)]);
    let server = registry.server();
    let refused = |image: &str, code: i32| registry.pull(&server, image, &[]).failed(code);
    let hint = "hint: push the .wasm file as the only layer, of type application/wasm: `wkg oci push` does\n";
    let address = &registry.address;
    assert_eq!(
        refused("text:1", 2),
        format!("error: image {address}/text:1 is no component: its layer is of type text/plain\n{hint}")
    );
    assert_eq!(
        refused("both:1", 2),
        format!("error: image {address}/both:1 is no component: it has 2 layers, 1 of them WebAssembly\n{hint}")
    );
    assert!(refused("named:1", 2).starts_with("error: this is not a WebAssembly component; it looks like text\n"));
    assert_eq!(refused("nothing:1", 1), format!("error: there is no image {address}/nothing:1\n"));
    let other = format!("text@sha256:{}", "0".repeat(64));
    assert_eq!(refused(&other, 1), format!("error: there is no image {address}/{other}\n"));
    assert!(refused("Text:1", 2).contains("its path is lower-case words"));
    assert_eq!(server.json(&["component", "list"]), json!([]));
}

#[test]
fn only_registries_that_are_listed_are_asked() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let registry = Receiver::start(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Answer::status(404)
    });
    let image = format!("{}/a:1", registry.address());
    let check = |more: &[&str], expected: &str| {
        let server = Server::start_with(more);
        let said = pull(&server, &image, &[]).failed(1);
        assert!(said.starts_with(expected), "{said}");
    };
    let refused = format!(
        "error: registry {0} is not one that this server may ask\nhint: whoever runs the server can list it: `nodata serve \
         --registry-allow {0}`\n",
        registry.address()
    );
    check(&[], &refused);
    check(&["--registry-allow", "registry.example"], &refused);
    // Everything is the internet, which this machine is not.
    check(&["--registry-allow", "*"], &format!("error: registry {}: it may not be asked there", registry.address()));
    // Not without TLS, unless it is said.
    check(&["--registry-allow", &registry.address()], &format!("error: registry {}: ", registry.address()));
    assert_eq!(asked.load(Ordering::Relaxed), 0);
    check(&["--registry-insecure", &registry.address()], "error: there is no image ");
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}

/// A registry that answers for manifests and blobs as a test says, and counts who asks for blobs.
fn liar(manifest: impl Fn(&str) -> Answer + Send + Sync + 'static, blob: Answer) -> (Receiver, Arc<AtomicUsize>) {
    let blobs = Arc::new(AtomicUsize::new(0));
    let counted = blobs.clone();
    let receiver = Receiver::start(move |request| {
        if request.path.contains("/blobs/") {
            counted.fetch_add(1, Ordering::Relaxed);
            return blob.clone();
        }
        manifest(&request.path)
    });
    (receiver, blobs)
}

fn manifest(bytes: u64) -> Answer {
    let layer = json!({ "mediaType": WASM, "digest": format!("sha256:{}", "0".repeat(64)), "size": bytes });
    Answer::body(json!({ "schemaVersion": 2, "layers": [layer] }).to_string())
}

fn refused_by(registry: &Receiver, image: &str, code: i32) -> String {
    let server = Server::start_with(&["--registry-insecure", &registry.address()]);
    let said = pull(&server, &format!("{}/{image}", registry.address()), &[]).failed(code);
    assert_eq!(server.json(&["component", "list"]), json!([]));
    said
}

#[test]
fn a_registry_that_lies_is_found_out() {
    let (registry, blobs) = liar(|_| manifest(1 << 30), Answer::body("x"));
    let said = refused_by(&registry, "a:1", 2);
    let image = format!("{}/a:1", registry.address());
    let large =
        format!("error: the component of image {image} has 1073741824 bytes; a component may have 67108864 (64 MiB)\n");
    assert!(said.starts_with(&large), "{said}");
    assert_eq!(blobs.load(Ordering::Relaxed), 0, "nothing was downloaded");

    let (registry, _) = liar(|_| manifest(5), Answer::body("hello"));
    let said = refused_by(&registry, "a:1", 1);
    let hello = "2cf24dba5fb0a30e26e83b2ac5b9e29e1b161e5c1fa7425e73043362938b9824";
    let other = format!("its digest is sha256:{hello}, not sha256:{}\n", "0".repeat(64));
    assert!(said.ends_with(&other) && said.contains("the component of image "), "{said}");

    let (registry, _) = liar(|_| manifest(5), Answer::body("hello and more"));
    assert!(refused_by(&registry, "a:1", 1).contains("has more than the 5 bytes that its manifest says"));

    // Another manifest than the one that was asked for.
    let (registry, blobs) = liar(|_| manifest(5), Answer::body("hello"));
    let said = refused_by(&registry, &format!("a@sha256:{}", "1".repeat(64)), 1);
    assert!(said.contains("the manifest of image ") && said.contains(&"1".repeat(64)), "{said}");
    assert_eq!(blobs.load(Ordering::Relaxed), 0);

    let (registry, _) = liar(|_| manifest(5), Answer::Nothing);
    assert!(refused_by(&registry, "a:1", 1).contains("it broke the connection off"));
}

#[test]
fn a_token_is_fetched_where_the_registry_says_and_told_to_nobody_else() {
    let told = Arc::new(std::sync::Mutex::new(Vec::new()));
    // Where the bytes are is not where the image is.
    let seen = told.clone();
    let blobs = Receiver::start(move |request| {
        seen.lock().unwrap().push(("blobs", request.headers.get("authorization").cloned()));
        Answer::body("hello")
    });
    let (place, seen) = (Arc::new(std::sync::OnceLock::<String>::new()), told.clone());
    let (own, location) = (place.clone(), blobs.url("/there"));
    let registry = Receiver::start(move |request| {
        let authorization = request.headers.get("authorization").cloned();
        if request.path.starts_with("/token?") {
            assert_eq!(request.path, "/token?service=the%20shop&scope=repository%3Aacme%2Fa%3Apull");
            seen.lock().unwrap().push(("token", authorization));
            return Answer::body("{\"token\":\"t0ken\"}");
        }
        if authorization.as_deref() != Some("Bearer t0ken") {
            let realm = format!("Bearer realm=\"http://{}/token\",service=\"the shop\"", own.get().unwrap());
            return Answer::Status(401, vec![("www-authenticate", realm)], String::new());
        }
        match request.path.contains("/blobs/") {
            true => Answer::Status(307, vec![("location", location.clone())], String::new()),
            false => manifest(5),
        }
    });
    place.set(registry.address()).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let auth = credentials(dir.path(), &registry.address(), "s3cret");
    let (own, other) = (registry.address(), blobs.address());
    let server =
        Server::start_with(&["--registry-insecure", &own, "--registry-insecure", &other, "--registry-auth", &auth]);
    let said = pull(&server, &format!("{own}/acme/a:1"), &[]).failed(1);
    assert!(said.contains("the component of image ") && said.contains("2cf24dba5fb0a30e"), "{said}");
    let basic = Some("Basic YWRhOnMzY3JldA==".to_owned());
    assert_eq!(*told.lock().unwrap(), [("token", basic), ("blobs", None)]);
}

#[test]
fn a_registry_leads_nobody_into_a_network_that_is_not_listed() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = asked.clone();
    let inside = Receiver::start(move |_| {
        counted.fetch_add(1, Ordering::Relaxed);
        Answer::body("a secret of this network")
    });
    let (plain, private) = (format!("http://{}/x", inside.address()), "https://169.254.169.254/latest".to_owned());
    for (to, expected) in
        [(plain, "it may not be asked there: http://127.0.0.1:"), (private, "its address is not one of the internet")]
    {
        let location = to.clone();
        let (registry, _) = liar(
            move |_| Answer::Status(302, vec![("location", location.clone())], String::new()),
            Answer::status(404),
        );
        let said = refused_by(&registry, "a:1", 1);
        assert!(said.contains(expected), "{said}");
        let realm = format!("Bearer realm=\"{to}\",service=\"x\"");
        let (registry, _) = liar(
            move |_| Answer::Status(401, vec![("www-authenticate", realm.clone())], String::new()),
            Answer::status(404),
        );
        let said = refused_by(&registry, "a:1", 1);
        assert!(said.contains(expected), "{said}");
    }
    assert_eq!(asked.load(Ordering::Relaxed), 0);
}

#[test]
fn a_registry_that_hangs_is_given_up() {
    // It takes connections, and says nothing.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = Server::start_with(&["--registry-insecure", &address]);
    let said = pull(&server, &format!("{address}/a:1"), &[]);
    assert!(said.err.contains(": asking the registry\n"), "{}", said.err);
    assert_eq!(said.failed(1), format!("error: registry {address}: it did not answer within 20 s\n"));
}

/// A file that says who the server is in a registry.
fn credentials(dir: &Path, address: &str, password: &str) -> String {
    let place = dir.join("auth.json");
    let text = json!({ "auths": { address: { "username": "ada", "password": password } } }).to_string();
    std::fs::write(&place, text).unwrap();
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o600)).unwrap();
    place.display().to_string()
}

#[test]
fn a_private_image_is_pulled_by_who_may_and_nobody_reads_the_password() {
    let Some(registry) = Registry::start("ada:s3cret") else { return };
    registry.push("acme/mirror:1.0.0", &[(&component("copies"), WASM)]);
    let start = |password: &str| {
        let auth = credentials(registry.dir.path(), &registry.address, password);
        let options = ["--registry-insecure", &registry.address, "--registry-auth", &auth, "--log", "trace"];
        Server::start_with(&options)
    };
    let denied = |server: &Server| registry.pull(server, "acme/mirror:1.0.0", &[]).failed(1);
    let nobody = denied(&registry.server());
    assert!(nobody.contains("does not give image") && nobody.contains("to just anybody\nhint: "), "{nobody}");
    let server = start("guessed-wrongly");
    let wrong = denied(&server);
    assert!(wrong.contains("to the user that this server is there\n"), "{wrong}");
    let said = server.said() + &wrong;
    assert!(!said.contains("guessed-wrongly") && !said.contains("YWRh"), "{said}");

    let server = start("s3cret");
    registry.pull(&server, "acme/mirror:1.0.0", &[]).ok();
    let inspected = server.ok(&["component", "inspect", "mirror", "--json"]);
    let said = server.said() + &inspected;
    assert!(!said.contains("s3cret") && !said.contains("YWRh"), "{said}");
}

#[test]
fn a_server_with_wrong_options_does_not_start() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let refused = |more: &[&str]| Server::try_start(dir.clone(), "127.0.0.1:0", more).err().unwrap();
    let auth = credentials(dir.path(), "registry.example", "hush");
    std::fs::set_permissions(&auth, std::fs::Permissions::from_mode(0o644)).unwrap();
    let said = refused(&["--registry-auth", &auth]);
    assert!(
        said.ends_with(&format!(
            "others may read the credentials in {auth}: its mode is 644\nhint: chmod 600 {auth}\n"
        )),
        "{said}"
    );
    std::fs::write(&auth, "{\"auths\": hush}").unwrap();
    std::fs::set_permissions(&auth, std::fs::Permissions::from_mode(0o600)).unwrap();
    let said = refused(&["--registry-auth", &auth]);
    assert!(said.contains("line 1, column 11 is not what is expected there") && !said.contains("hush}"), "{said}");
    let said = refused(&["--registry-allow", "https://registry.example"]);
    assert!(said.contains("error: `https://registry.example` is no registry: "), "{said}");
}
