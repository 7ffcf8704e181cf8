//! Requests of guests to receivers that behave in every way.

use crate::harness::{runtime, setup};
use nodata_runtime::limits::HTTP_REQUESTS_MAX;
use std::io::{Read as _, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// What a receiver does with a connection.
type Answer = fn(&mut TcpStream);

/// Answers each connection with what a function makes of it, and counts them. The thread ends with the process.
struct Receiver {
    address: String,
    connections: Arc<AtomicUsize>,
}

fn receiver(answer: impl Fn(&mut TcpStream) + Send + Sync + 'static) -> Receiver {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let answer = Arc::new(answer);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
            let (mut stream, answer) = (stream.unwrap(), answer.clone());
            std::thread::spawn(move || answer(&mut stream));
        }
    });
    Receiver { address, connections }
}

/// Reads a request: its header, and as many bytes of a body as it says. `None` at the end.
fn request(stream: &mut TcpStream) -> Option<(String, usize)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).unwrap().to_ascii_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).map_or(0, |n| n.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((head, length))
}

fn say(stream: &mut impl Write, text: &str) {
    let _ = stream.write_all(text.as_bytes());
}

async fn check(grants: &[&str], values: &[&str], expected: &[&str]) {
    let setup = grants.iter().fold(setup("asks-as-told"), |setup, grant| setup.allow_http(grant));
    setup.check(values, &expected.join("\n")).await;
}

#[tokio::test]
async fn requests_and_answers_are_whole_and_connections_are_kept() {
    let receiver = receiver(|stream| {
        while let Some((head, length)) = request(stream) {
            assert!(head.contains("x-asks: as told") && head.contains("host: 127.0.0.1:"), "{head}");
            let large = "y".repeat(length);
            say(stream, &format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{large}"));
        }
    });
    let Receiver { address, connections } = &receiver;
    let grant = format!("http://{address}");
    let ask = |how: &str| how.replace("HERE", &grant);
    let values = [ask("POST HERE/a?b 5"), ask("GET HERE"), ask("PUT HERE/c 3000000"), ask("POST HERE/ 1")];
    let values: Vec<&str> = values.iter().map(String::as_str).collect();
    check(&[&grant], &values, &["200, 5 bytes", "200, 0 bytes", "200, 3000000 bytes", "200, 1 bytes"]).await;
    assert_eq!(connections.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn what_is_not_granted_does_not_leave() {
    let receiver = receiver(|_| ());
    let Receiver { address, connections } = &receiver;
    let port = address.split_once(':').unwrap().1;
    let setup = setup("asks-as-told").allow_http("https://example.com").allow_http(&format!("GET http://{address}"));
    let setup = setup.allow_http(&format!("http://2130706433:{port}"));
    let mut running = setup.start().await;
    let post = format!("POST http://{address}/x?token=secret");
    let user = format!("GET http://example.com@{address}/");
    let number = format!("GET http://2130706433:{port}/");
    let values =
        [&post, &user, "GET https://example.org/", "CONNECT https://example.com/", "GET ftp://example.com/", &number];
    let output = running.call(&values).await;
    let denied = "denied: the deployment may not send this; the log of the deployment says what it may";
    let shown = running.show(&output);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], format!("permanent(\"POST http://{address}/x: {denied}\")"));
    assert_eq!(lines[1], format!("permanent(\"GET http://example.com@{address}/: {denied}\")"));
    assert_eq!(lines[2], format!("permanent(\"GET https://example.org/: {denied}\")"));
    assert_eq!(lines[3], format!("permanent(\"CONNECT https://example.com/: {denied}\")"));
    assert!(lines[4].contains("it is no URL"), "{}", lines[4]);
    let address_denied =
        "denied: the host is at an address that is not of the internet, and the deployment is not granted it";
    assert_eq!(lines[5], format!("permanent(\"GET http://2130706433:{port}/: {address_denied}\")"));
    assert_eq!(connections.load(Ordering::Relaxed), 0);
    let granted =
        format!("this deployment is granted https://example.com; GET http://{address}; http://2130706433:{port}");
    assert_eq!(running.logged()[0], format!("Host 3: denied: POST http://{address}; {granted}"));
    assert_eq!(running.logged()[2], format!("Host 3: denied: GET https://example.org; {granted}"));
}

#[tokio::test]
async fn an_address_that_is_not_of_the_internet_is_refused_however_it_is_written() {
    let receiver = receiver(|_| ());
    let port = receiver.address.split_once(':').unwrap().1;
    let setup = setup("asks-as-told").allow_http(&format!("http://*:{port}"));
    let mut running = setup.start().await;
    let denied = "denied: the host is at an address that is not of the internet, and the deployment is not granted it";
    for host in [
        "127.0.0.1",
        "127.0.0.1.",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.1",
        "0177.0.0.1",
        "0",
        "localhost",
        "LOCALHOST.",
        "169.254.169.254",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[64:ff9b::127.0.0.1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fc00::1]",
    ] {
        let ask = format!("GET http://{host}:{port}/");
        let output = running.call(&[&ask]).await;
        assert_eq!(running.show(&output), format!("permanent(\"{ask}: {denied}\")"));
    }
    assert_eq!(receiver.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn whoever_is_asked_is_who_is_granted() {
    let inner = receiver(|_| ());
    let outer = receiver(|stream| {
        while let Some((head, _)) = request(stream) {
            let host = head.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
            say(stream, &format!("HTTP/1.1 200 OK\r\nlocation: {host}\r\ncontent-length: 0\r\n\r\n"));
        }
    });
    let (granted, other) = (&outer.address, &inner.address);
    let denied = "denied: the deployment may not send this; the log of the deployment says what it may";
    let setup = setup("asks-as-told").allow_http(&format!("http://{granted}"));
    let mut running = setup.start().await;
    for url in [
        format!("http://{other}/"),
        format!("http://{granted}@{other}/"),
        format!("http://user:password@{granted}/"),
        format!("http://{other}#@{granted}/"),
        format!("http://{other}?@{granted}/"),
        format!("https://{granted}/"),
    ] {
        let output = running.call(&[&format!("GET {url}")]).await;
        let shown = running.show(&output);
        assert!(shown.starts_with("permanent(\"GET http") && shown.contains(denied), "{url}: {shown}");
    }
    // It says whom it asks, and no component can have it say otherwise.
    let output = running.call(&[&format!("GET http://{granted}/")]).await;
    assert_eq!(running.show(&output), format!("200 to {granted}, 0 bytes"));
    for field in ["host", "Host", "connection", "transfer-encoding", "proxy-connection", "upgrade"] {
        let setup = self::setup("asks-as-told").allow_http(&format!("http://{granted}")).config("field", field);
        let mut running = setup.start().await;
        let output = running.call(&[&format!("GET http://{granted}/")]).await;
        let shown = running.show(&output);
        assert!(shown.starts_with("permanent("), "{field}: {shown}");
    }
    assert_eq!(inner.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn so_many_requests_at_once_and_one_more_waits() {
    let (go, gone) = std::sync::mpsc::sync_channel::<()>(2 * HTTP_REQUESTS_MAX);
    let gone = std::sync::Mutex::new(gone);
    let receiver = receiver(move |stream| {
        request(stream);
        // Each waits until it may go.
        let _ = gone.lock().unwrap().recv();
        say(stream, "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    });
    let origin = format!("http://{}", receiver.address);
    let client = runtime().http_client(&[origin.parse().unwrap()]).unwrap();
    let ask = || {
        let (client, origin) = (client.clone(), origin.clone());
        let wait = Duration::from_secs(3600);
        tokio::spawn(async move { client.get(&origin, &[], wait, wait).await.unwrap().status() })
    };
    let asked: Vec<_> = (0..HTTP_REQUESTS_MAX + 10).map(|_| ask()).collect();
    while receiver.connections.load(Ordering::Relaxed) < HTTP_REQUESTS_MAX {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // Another deployment has room of its own.
    let other = runtime().http_client(&[origin.parse().unwrap()]).unwrap();
    let others = {
        let origin = origin.clone();
        tokio::spawn(async move {
            let wait = Duration::from_secs(3600);
            other.get(&origin, &[], wait, wait).await.unwrap().status()
        })
    };
    while receiver.connections.load(Ordering::Relaxed) < HTTP_REQUESTS_MAX + 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(receiver.connections.load(Ordering::Relaxed), HTTP_REQUESTS_MAX + 1);
    (0..asked.len() + 1).for_each(|_| go.send(()).unwrap());
    for answer in asked {
        assert_eq!(answer.await.unwrap(), 200);
    }
    assert_eq!(others.await.unwrap(), 200);
}

#[tokio::test]
async fn a_redirect_is_an_answer() {
    let inner = receiver(|_| ());
    let to = inner.address.clone();
    let outer = receiver(move |stream| {
        request(stream);
        say(stream, &format!("HTTP/1.1 302 Found\r\nlocation: http://{to}/secret\r\ncontent-length: 0\r\n\r\n"));
    });
    let address = &outer.address;
    let grant = format!("http://{address}");
    let expected = format!("302 to http://{}/secret, 0 bytes", inner.address);
    check(&[&grant], &[&format!("GET http://{address}/")], &[&expected]).await;
    assert_eq!(inner.connections.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_receiver_that_behaves_badly_is_an_error_that_may_pass() {
    let cases: [(Answer, &str); 10] = [
        (|_| (), "the connection was closed without an answer"),
        (|stream| drop(request(stream)), "the connection was closed without an answer"),
        (
            |stream| {
                request(stream);
                say(stream, "I speak no HTTP\r\n\r\n");
            },
            "the answer is no HTTP",
        ),
        (
            |stream| {
                request(stream);
                say(stream, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
            },
            "incomplete HTTP response",
        ),
        (
            |stream| {
                request(stream);
                // It never answers, until the other side has had enough.
                let _ = stream.read(&mut [0]);
            },
            "no answer in time",
        ),
        (
            |stream| {
                request(stream);
                say(stream, "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
                let _ = stream.read(&mut [0]);
            },
            "no answer in time",
        ),
        (
            |stream| {
                request(stream);
                say(stream, "HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n");
                // Something comes all the time, and it will not end.
                while stream.write_all(b"x").is_ok() {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
            },
            "no answer in time",
        ),
        (
            |stream| {
                request(stream);
                say(stream, "HTTP/1.1 200 OK\r\n");
                let field = format!("x: {}\r\n", "y".repeat(1000));
                while stream.write_all(field.as_bytes()).is_ok() {}
            },
            "the header of the answer is too large",
        ),
        (
            |stream| {
                request(stream);
                // A header that never ends, byte for byte.
                say(stream, "HTTP/1.1 200 OK\r\nx: ");
                while stream.write_all(b"y").is_ok() {
                    std::thread::sleep(std::time::Duration::from_millis(20));
                }
            },
            "no answer in time",
        ),
        (
            |stream| {
                request(stream);
                // Something is promised again and again.
                while stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n").is_ok() {}
            },
            "no answer in time",
        ),
    ];
    for (answer, why) in cases {
        let receiver = receiver(answer);
        let address = &receiver.address;
        let may_pass = if why.contains("too large") { "permanent" } else { "transient" };
        let expected = format!("{may_pass}(\"POST http://{address}/: {why}\")");
        let setup = setup("asks-as-told").allow_http(&format!("http://{address}")).config("timeout-ms", 1000);
        setup.check(&[&format!("POST http://{address}/ 10")], &expected).await;
    }
}

#[tokio::test]
async fn nobody_there_and_no_such_name() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    drop(listener);
    let values = [format!("GET http://{address}/"), "GET http://no-such-host.invalid/".to_owned()];
    let setup =
        setup("asks-as-told").allow_http(&format!("http://{address}")).allow_http("http://no-such-host.invalid");
    let mut running = setup.start().await;
    let output = running.call(&[&values[0], &values[1]]).await;
    let shown = running.show(&output);
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines[0], format!("transient(\"GET http://{address}/: connection refused\")"));
    assert!(lines[1].starts_with("transient(\"GET http://no-such-host.invalid/: "), "{}", lines[1]);
}

#[tokio::test]
async fn an_answer_without_end_has_one() {
    let receiver = receiver(|stream| {
        request(stream);
        say(stream, "HTTP/1.1 200 OK\r\n\r\n");
        while stream.write_all(&[0; 65536]).is_ok() {}
    });
    let address = &receiver.address;
    let expected = format!("permanent(\"GET http://{address}/: the answer is larger than 62914560 bytes\")");
    check(&[&format!("http://{address}")], &[&format!("GET http://{address}/")], &[&expected]).await;
}

#[tokio::test]
async fn a_certificate_that_nobody_signed_is_refused() {
    // Whatever comes is no TLS, which is the least of it.
    let receiver = receiver(|stream| {
        let _ = stream.read(&mut [0; 1024]);
        say(stream, "HTTP/1.1 400 Bad Request\r\n\r\n");
    });
    let address = &receiver.address;
    let expected = format!("transient(\"GET https://{address}/: TLS failed\")");
    check(&[&format!("https://{address}")], &[&format!("GET https://{address}/")], &[&expected]).await;
}
