//! WASI 0.2: all of it is there, and nothing of it is granted.
//!
//! Toolchains import files and sockets whether a component uses them or not, so refusing those imports would refuse most
//! components. They find an empty world instead: no files, no addresses, no names, no environment. The clock and chance
//! are there; what is printed goes to the log of the deployment. HTTP requests go where the deployment may send some.

use crate::guest::Guest;
use crate::guest_log::GuestLog;
use crate::http::HttpClient;
use crate::limits::{HTTP_FIELDS_BYTES_MAX, RANDOM_BYTES_MAX};
use crate::stdio::GuestStream;
use nodata_log::Clock;
use std::sync::Arc;
use std::time::Duration;
use wasmtime::component::Linker;
use wasmtime_wasi::{HostWallClock, WasiCtx};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpCtx, WasiHttpHooks};

/// Once, when the engine starts.
pub(super) fn link(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    wasmtime_wasi::p2::add_to_linker_async(linker)?;
    wasmtime_wasi_http::p2::add_only_http_to_linker_async(linker)
}

/// For each instance.
pub(crate) fn context(stdout: GuestStream, stderr: GuestStream, clock: Arc<dyn Clock>) -> WasiCtx {
    WasiCtx::builder()
        .stdout(stdout)
        .stderr(stderr)
        .wall_clock(WallClock(clock))
        .max_random_size(RANDOM_BYTES_MAX)
        .allow_tcp(false)
        .allow_udp(false)
        .allow_ip_name_lookup(false)
        .build()
}

/// For each instance.
pub(crate) fn http_context() -> WasiHttpCtx {
    let mut http = WasiHttpCtx::new();
    http.set_field_size_limit(HTTP_FIELDS_BYTES_MAX);
    http
}

/// The time of the host, so that a test can turn it by hand for guests too.
struct WallClock(Arc<dyn Clock>);

impl HostWallClock for WallClock {
    fn resolution(&self) -> Duration {
        Duration::from_micros(1)
    }

    fn now(&self) -> Duration {
        Duration::from_micros(self.0.now_us().max(0) as u64)
    }
}

/// Different requests of one instance that its log says were denied: one that asks again and again does not fill the log.
const DENIALS_TOLD: usize = 10;

/// Sends the requests that the deployment is granted, and answers the others with "denied".
pub(crate) struct Requests {
    client: Option<HttpClient>,
    log: Arc<GuestLog>,
    partition: u32,
    told: Vec<String>,
}

impl Requests {
    pub(crate) fn new(client: Option<HttpClient>, log: Arc<GuestLog>, partition: u32) -> Self {
        Self { client, log, partition, told: Vec::new() }
    }

    fn tell(&mut self, text: String) {
        if self.told.len() < DENIALS_TOLD && !self.told.contains(&text) {
            self.log.note(self.partition, &text);
            self.told.push(text);
        }
    }
}

type Done = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Answer = (http::Response<WasiBody>, Done);

impl WasiHttpHooks for Requests {
    fn send_request(
        &mut self,
        request: http::Request<WasiBody>,
        options: Option<RequestOptions>,
        _done: Done,
    ) -> Box<dyn Future<Output = wasmtime_wasi_http::Result<Answer>> + Send> {
        let checked = match &self.client {
            Some(client) => client.check(&request).map(|()| client.clone()).map_err(|refused| refused.to_string()),
            None => {
                let host = request.uri().host().unwrap_or("an unnamed host");
                Err(format!("denied: an HTTP request to {host}; this deployment is not granted any"))
            }
        };
        match checked {
            Ok(client) => Box::new(async move {
                let answer = client.send(request, options.unwrap_or_default()).await?;
                Ok((answer, Box::new(std::future::ready(Ok(()))) as Done))
            }),
            Err(why) => {
                self.tell(why);
                Box::new(std::future::ready(Err(Error::HttpRequestDenied)))
            }
        }
    }
}
