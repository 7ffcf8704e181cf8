//! Requests as WASI takes them.

use crate::http::{Failure, Request, Response, Url};
use std::time::Duration;
use wasip2::clocks::monotonic_clock::subscribe_duration;
use wasip2::http::outgoing_handler::handle;
use wasip2::http::types::{
    ErrorCode, Fields, IncomingResponse, Method, OutgoingBody, OutgoingRequest, RequestOptions, Scheme, http_error_code,
};
use wasip2::io::poll::{Pollable, poll};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

/// Bytes that are asked for at once.
const READ_BYTES: u64 = 64 << 10;

/// What the host may wait longer than the whole is to take: so it is here that a request ends, and it ends in one way.
const HOST_MARGIN: Duration = Duration::from_secs(1);

/// When all of it should be done.
struct End(Pollable);

impl End {
    fn after(timeout: Duration) -> Self {
        Self(subscribe_duration(nanos(timeout)))
    }

    /// Waits for something, but not for ever.
    fn wait(&self, ready: &Pollable) -> Result<(), Failure> {
        match poll(&[ready, &self.0]).contains(&0) {
            true => Ok(()),
            false => Err(Failure::transient("no answer in time")),
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

pub(crate) fn send(request: Request) -> Result<Response, Failure> {
    let (headers, timeout, body_max) = request.parts();
    let url = Url::of(request.url())?;
    let mut fields = headers.to_vec();
    let body = request.body_bytes();
    if !body.is_empty() {
        fields.push(("content-length".to_owned(), body.len().to_string().into_bytes()));
    }
    let fields =
        Fields::from_list(&fields).map_err(|error| Failure::permanent(format!("a header cannot be sent: {error}")))?;
    let outgoing = OutgoingRequest::new(fields);
    let scheme = if url.is_tls { Scheme::Https } else { Scheme::Http };
    outgoing.set_method(&method(request.method())).map_err(|()| Failure::permanent("it has no such method"))?;
    outgoing.set_scheme(Some(&scheme)).map_err(|()| Failure::permanent("it has no such scheme"))?;
    outgoing.set_authority(Some(url.authority)).map_err(|()| Failure::permanent("the URL has no such host"))?;
    outgoing.set_path_with_query(Some(&url.path)).map_err(|()| Failure::permanent("the URL has no such path"))?;
    let outgoing_body = outgoing.body().map_err(|()| Failure::permanent("it has no body"))?;

    let options = RequestOptions::new();
    let host = Some(nanos(timeout + HOST_MARGIN));
    // A host that knows no timeouts has its own.
    let _ = options.set_connect_timeout(host);
    let _ = options.set_first_byte_timeout(host);
    let _ = options.set_between_bytes_timeout(host);

    let end = End::after(timeout);
    let answer = handle(outgoing, Some(options)).map_err(failure)?;
    // Where the body cannot be sent, the answer says why.
    if write(&outgoing_body, body, &end)?.is_ok() {
        OutgoingBody::finish(outgoing_body, None).map_err(failure)?;
    } else {
        drop(outgoing_body);
    }
    let ready = answer.subscribe();
    end.wait(&ready)?;
    drop(ready);
    match answer.get() {
        Some(Ok(response)) => read(response.map_err(failure)?, body_max, &end),
        Some(Err(())) | None => Err(Failure::transient("there is no answer")),
    }
}

/// Sends a body; what is inside says whether all of it was taken.
fn write(body: &OutgoingBody, mut bytes: &[u8], end: &End) -> Result<Result<(), StreamError>, Failure> {
    let Ok(stream): Result<OutputStream, ()> = body.write() else { return Ok(Err(StreamError::Closed)) };
    let ready = stream.subscribe();
    let room = || stream.check_write().map(|room| usize::try_from(room).unwrap_or(usize::MAX));
    while !bytes.is_empty() {
        match room() {
            Ok(0) => end.wait(&ready)?,
            Ok(room) => {
                let (now, later) = bytes.split_at(room.min(bytes.len()));
                if let Err(error) = stream.write(now) {
                    return Ok(Err(error));
                }
                bytes = later;
            }
            Err(error) => return Ok(Err(error)),
        }
    }
    if let Err(error) = stream.flush() {
        return Ok(Err(error));
    }
    end.wait(&ready)?;
    Ok(room().map(drop))
}

fn read(response: IncomingResponse, body_max: usize, end: &End) -> Result<Response, Failure> {
    let mut read = Response::new(response.status());
    for (name, value) in response.headers().entries() {
        read = read.with_header(&name, value);
    }
    let incoming = response.consume().map_err(|()| Failure::transient("the answer has no body"))?;
    let stream: InputStream = incoming.stream().map_err(|()| Failure::transient("the answer has no body"))?;
    let ready = stream.subscribe();
    let mut body = Vec::new();
    loop {
        end.wait(&ready)?;
        match stream.read(READ_BYTES) {
            Ok(some) => body.extend_from_slice(&some),
            Err(StreamError::Closed) => return Ok(read.with_body(body)),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(match http_error_code(&error) {
                    Some(code) => failure(code),
                    None => Failure::transient(error.to_debug_string()),
                });
            }
        }
        if body.len() > body_max {
            return Err(Failure::too_large(body_max));
        }
    }
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

fn failure(code: ErrorCode) -> Failure {
    match code {
        ErrorCode::HttpRequestDenied => {
            Failure::permanent("denied: the deployment may not send this; the log of the deployment says what it may")
        }
        ErrorCode::DestinationIpProhibited => Failure::permanent(
            "denied: the host is at an address that is not of the internet, and the deployment is not granted it",
        ),
        ErrorCode::HttpRequestMethodInvalid => Failure::permanent("there is no such method"),
        ErrorCode::HttpRequestUriInvalid | ErrorCode::HttpRequestUriTooLong => {
            Failure::permanent("there is no such URL")
        }
        ErrorCode::HttpResponseHeaderSectionSize(_) => Failure::permanent("the header of the answer is too large"),
        ErrorCode::DnsError(error) => {
            Failure::transient(error.rcode.unwrap_or_else(|| "the name could not be resolved".to_owned()))
        }
        ErrorCode::ConnectionRefused => Failure::transient("connection refused"),
        ErrorCode::ConnectionTimeout => Failure::transient("no connection in time"),
        ErrorCode::DestinationUnavailable => Failure::transient("no connection"),
        ErrorCode::ConnectionTerminated => Failure::transient("the connection was closed without an answer"),
        ErrorCode::HttpResponseTimeout => Failure::transient("no answer in time"),
        ErrorCode::HttpProtocolError => Failure::transient("the answer is no HTTP"),
        ErrorCode::TlsCertificateError => Failure::transient("the certificate is not one that is trusted"),
        ErrorCode::TlsAlertReceived(alert) => {
            Failure::transient(format!("TLS: {}", alert.alert_message.unwrap_or_else(|| "alert".to_owned())))
        }
        ErrorCode::TlsProtocolError => Failure::transient("TLS failed"),
        other => Failure::transient(format!("{other:?}")),
    }
}
