//! A request on its way.

use crate::http::connect::{Connect, ConnectError};
use crate::http::grants::{HttpGrant, Target};
use crate::limits::{
    HTTP_CONNECT, HTTP_CONNECTIONS_KEPT, HTTP_FIELDS_BYTES_MAX, HTTP_FIELDS_MAX, HTTP_IDLE, HTTP_NAMES_AT_ONCE,
    HTTP_REQUESTS_MAX, HTTP_RESPONSE_BYTES_MAX, HTTP_WAIT,
};
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper_rustls::HttpsConnector;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use rustls::{ClientConfig, RootCertStore};
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use thiserror::Error;
use tokio::runtime::{Handle, Runtime};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tokio_util::task::AbortOnDropHandle;
use wasmtime_wasi_http::{Error as WasiError, RequestOptions, WasiBody};

/// What all clients share: a thread for what they send and receive, and the authorities that certificates are checked with.
pub(crate) struct HttpMachine {
    handle: Handle,
    /// `None` when it was stopped.
    runtime: Mutex<Option<Runtime>>,
    /// Read when somebody needs them.
    tls: OnceLock<Arc<ClientConfig>>,
}

impl HttpMachine {
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(HTTP_NAMES_AT_ONCE)
            .thread_name("nodata-http")
            .enable_all()
            .build()?;
        Ok(Self { handle: runtime.handle().clone(), runtime: Mutex::new(Some(runtime)), tls: OnceLock::new() })
    }

    fn tls(&self) -> Arc<ClientConfig> {
        let config = || {
            let mut roots = RootCertStore::empty();
            let found = rustls_native_certs::load_native_certs();
            let (_, unusable) = roots.add_parsable_certificates(found.certs);
            if roots.is_empty() {
                tracing::info!(unusable, errors = ?found.errors, "this machine has no certificate authorities; using those that are built in");
                roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
            }
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let builder = ClientConfig::builder_with_provider(provider);
            // The versions are those that the provider has.
            let builder = builder.with_safe_default_protocol_versions();
            builder.map(|builder| Arc::new(builder.with_root_certificates(roots).with_no_client_auth()))
        };
        self.tls.get_or_init(|| config().unwrap_or_else(|error| unreachable!("{error}"))).clone()
    }
}

impl Drop for HttpMachine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() {
            runtime.shutdown_background();
        }
    }
}

/// Sends the requests of a deployment, to where it may send some. Cheap to clone; clones share their connections.
#[derive(Clone)]
pub struct HttpClient {
    inner: Arc<Inner>,
}

struct Inner {
    machine: Arc<HttpMachine>,
    grants: Arc<[HttpGrant]>,
    client: Client<HttpsConnector<Connect>, WasiBody>,
    /// Requests at once.
    room: Arc<Semaphore>,
    /// Requests so far.
    requests: AtomicU64,
}

/// A request that is not granted, in words for whoever deployed the component.
#[derive(Debug, Error)]
#[error("denied: {method} {to}; {granted}")]
pub(crate) struct Refused {
    method: Method,
    to: String,
    granted: String,
}

impl HttpClient {
    pub(crate) fn new(machine: Arc<HttpMachine>, grants: Vec<HttpGrant>) -> Self {
        let grants: Arc<[HttpGrant]> = grants.into();
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config((*machine.tls()).clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(Connect { grants: grants.clone() });
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(HTTP_IDLE)
            .pool_max_idle_per_host(HTTP_CONNECTIONS_KEPT)
            .http1_max_headers(HTTP_FIELDS_MAX)
            .http1_max_buf_size(HTTP_FIELDS_BYTES_MAX)
            .build(connector);
        let room = Arc::new(Semaphore::new(HTTP_REQUESTS_MAX));
        Self { inner: Arc::new(Inner { machine, grants, client, room, requests: AtomicU64::new(0) }) }
    }

    /// Requests that were sent so far, whatever came of them.
    pub fn requests(&self) -> u64 {
        self.inner.requests.load(Ordering::Relaxed)
    }

    /// Whether this may be sent.
    pub(crate) fn check(&self, request: &Request<WasiBody>) -> Result<(), Refused> {
        let method = request.method();
        // A tunnel would lead to where nobody looks.
        let target = Target::of(request.uri()).filter(|_| *method != Method::CONNECT);
        let grants = &self.inner.grants;
        if target.as_ref().is_some_and(|target| grants.iter().any(|grant| grant.covers(method, target))) {
            return Ok(());
        }
        let granted = match grants.iter().map(HttpGrant::to_string).collect::<Vec<_>>() {
            none if none.is_empty() => "this deployment is not granted any HTTP requests".to_owned(),
            some => format!("this deployment is granted {}", some.join("; ")),
        };
        let to = Target::of(request.uri()).map_or_else(|| "no address".to_owned(), |target| target.to_string());
        Err(Refused { method: method.clone(), to, granted })
    }

    /// Sends what was checked.
    pub(crate) async fn send(
        self,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<Response<WasiBody>, WasiError> {
        let Inner { machine, client, room, requests, .. } = &*self.inner;
        let Ok(permit) = room.clone().acquire_owned().await else { return Err(WasiError::ConnectionLimitReached) };
        let wait = options.first_byte_timeout.unwrap_or(HTTP_WAIT) + options.connect_timeout.unwrap_or(HTTP_CONNECT);
        requests.fetch_add(1, Ordering::Relaxed);
        let answer = client.request(request);
        // The connection lives where it was made, on the thread that may wait for it.
        let answer = AbortOnDropHandle::new(machine.handle.spawn(answer));
        let answer = match tokio::time::timeout(wait, answer).await {
            Ok(Ok(answer)) => answer.map_err(|error| explain(&error))?,
            Ok(Err(_)) => return Err(WasiError::ConnectionTerminated),
            Err(_) => return Err(WasiError::HttpResponseTimeout),
        };
        let idle_for = options.between_bytes_timeout.unwrap_or(HTTP_WAIT);
        Ok(answer.map(|incoming| {
            let idle = Box::pin(tokio::time::sleep(idle_for));
            let left = HTTP_RESPONSE_BYTES_MAX;
            ResponseBody { incoming, left, idle, idle_for, _permit: permit }.boxed_unsync()
        }))
    }
}

impl fmt::Debug for HttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpClient").field("grants", &self.inner.grants).finish()
    }
}

/// What is told to a component about a request without an answer.
fn explain(error: &hyper_util::client::legacy::Error) -> WasiError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<ConnectError>() {
            return match error {
                ConnectError::Forbidden(_) => WasiError::DestinationIpProhibited,
                ConnectError::Resolve(error) => WasiError::DnsError { rcode: Some(error.to_string()), info_code: None },
                ConnectError::TimedOut => WasiError::ConnectionTimeout,
                ConnectError::Refused(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
                    WasiError::ConnectionRefused
                }
                ConnectError::Refused(_) => WasiError::DestinationUnavailable,
                ConnectError::Invalid => WasiError::HttpRequestUriInvalid,
            };
        }
        if let Some(error) = error.downcast_ref::<hyper::Error>() {
            return explain_hyper(error);
        }
        // rustls hides behind errors of input and output, which do not name what is in them as their source.
        if let Some(inner) = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            cause = Some(inner);
            continue;
        }
        if let Some(error) = error.downcast_ref::<rustls::Error>() {
            return match error {
                rustls::Error::InvalidCertificate(_) => WasiError::TlsCertificateError,
                rustls::Error::AlertReceived(alert) => WasiError::TlsAlertReceived {
                    alert_id: Some(u8::from(*alert)),
                    alert_message: Some(format!("{alert:?}")),
                },
                _ => WasiError::TlsProtocolError,
            };
        }
        cause = error.source();
    }
    WasiError::ConnectionTerminated
}

fn explain_hyper(error: &hyper::Error) -> WasiError {
    if error.is_parse_too_large() {
        WasiError::HttpResponseHeaderSectionSize(Some(HTTP_FIELDS_BYTES_MAX as u32))
    } else if error.is_parse() {
        WasiError::HttpProtocolError
    } else {
        WasiError::ConnectionTerminated
    }
}

/// The body of an answer: of a bounded size, and it does not stand still for ever.
struct ResponseBody<B> {
    incoming: B,
    left: u64,
    idle: Pin<Box<Sleep>>,
    idle_for: Duration,
    _permit: OwnedSemaphorePermit,
}

impl<B: Body<Data = Bytes, Error = hyper::Error> + Unpin> Body for ResponseBody<B> {
    type Data = Bytes;
    type Error = WasiError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, WasiError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.incoming).poll_frame(cx) else {
            ready!(self.idle.as_mut().poll(cx));
            return Poll::Ready(Some(Err(WasiError::ConnectionReadTimeout)));
        };
        let idle_for = self.idle_for;
        self.idle.as_mut().reset(tokio::time::Instant::now() + idle_for);
        Poll::Ready(frame.map(|frame| {
            let frame = frame.map_err(|error| match explain_hyper(&error) {
                WasiError::ConnectionTerminated => WasiError::HttpResponseIncomplete,
                other => other,
            })?;
            let bytes = frame.data_ref().map_or(0, |data| data.len() as u64);
            match self.left.checked_sub(bytes) {
                Some(left) => self.left = left,
                None => return Err(WasiError::HttpResponseBodySize(Some(HTTP_RESPONSE_BYTES_MAX))),
            }
            Ok(frame)
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bodies of so many bytes in each part, without end.
    struct Endless(usize);

    impl Body for Endless {
        type Data = Bytes;
        type Error = hyper::Error;

        fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
            match self.0 {
                0 => Poll::Pending,
                bytes => Poll::Ready(Some(Ok(Frame::data(vec![0; bytes].into())))),
            }
        }
    }

    async fn last_of(incoming: Endless, left: u64) -> (u64, WasiError) {
        let idle_for = Duration::from_millis(1);
        let idle = Box::pin(tokio::time::sleep(idle_for));
        let permit = Arc::new(Semaphore::new(1)).acquire_owned().await.unwrap();
        let mut body = ResponseBody { incoming, left, idle, idle_for, _permit: permit };
        let mut bytes = 0;
        loop {
            match body.frame().await.unwrap() {
                Ok(frame) => bytes += frame.into_data().unwrap().len() as u64,
                Err(error) => return (bytes, error),
            }
        }
    }

    #[tokio::test]
    async fn a_body_without_end_has_one_and_so_has_one_that_stands_still() {
        assert!(matches!(last_of(Endless(7), 20).await, (14, WasiError::HttpResponseBodySize(_))));
        assert!(matches!(last_of(Endless(0), 20).await, (0, WasiError::ConnectionReadTimeout)));
    }
}
