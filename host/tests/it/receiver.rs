//! A receiver of HTTP requests that behaves as a test wants it to.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

/// A request, with the names of its headers in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With its query.
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub(crate) enum Answer {
    Status(u16, Vec<(&'static str, String)>, String),
    /// The same answer, and once more behind it.
    Twice(u16),
    /// The beginning of an answer, and then nothing.
    Half,
    /// The connection is closed.
    Nothing,
}

impl Answer {
    pub(crate) fn status(status: u16) -> Self {
        Self::Status(status, Vec::new(), String::new())
    }

    pub(crate) fn body(body: impl Into<String>) -> Self {
        Self::Status(200, Vec::new(), body.into())
    }
}

/// A receiver that has an address. Its threads end with the process.
pub(crate) struct Receiver {
    address: SocketAddr,
}

impl Receiver {
    /// One that nobody answers for yet: connections are refused.
    pub(crate) fn down() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        Self { address: listener.local_addr().unwrap() }
    }

    pub(crate) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let receiver = Self::down();
        receiver.come_up(answer);
        receiver
    }

    /// Answers each request with what a function makes of it.
    pub(crate) fn come_up(&self, answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) {
        let listener = TcpListener::bind(self.address).unwrap();
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let answer = answer.clone();
                std::thread::spawn(move || serve(stream.unwrap(), &*answer));
            }
        });
    }

    /// As a client of another protocol names it.
    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Lets a deployment send requests here.
    pub(crate) fn grant(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// Answers the requests of one connection.
fn serve(stream: TcpStream, answer: &dyn Fn(&Request) -> Answer) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut stream = stream;
    loop {
        let request = read(&mut reader)?;
        let say = |status: u16, headers: &[(&str, String)], body: &str| {
            let mut said = format!("HTTP/1.1 {status} Said\r\ncontent-length: {}\r\n", body.len());
            headers.iter().for_each(|(name, value)| said += &format!("{name}: {value}\r\n"));
            said + "\r\n" + body
        };
        let said = match answer(&request) {
            Answer::Status(status, headers, body) => say(status, &headers, &body),
            Answer::Twice(status) => say(status, &[], "").repeat(2),
            Answer::Half => {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf");
                return None;
            }
            Answer::Nothing => return None,
        };
        stream.write_all(said.as_bytes()).ok()?;
    }
}

/// The next request; `None` at the end.
fn read(reader: &mut BufReader<TcpStream>) -> Option<Request> {
    let mut line = || {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
        Some(line.trim_end().to_owned())
    };
    let first = line()?;
    let (method, rest) = first.split_once(' ')?;
    let path = rest.strip_suffix(" HTTP/1.1")?;
    let mut headers = BTreeMap::new();
    while let Some((name, value)) = line()?.split_once(':') {
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    let body = String::from_utf8(body).unwrap();
    Some(Request { method: method.to_owned(), path: path.to_owned(), headers, body })
}
