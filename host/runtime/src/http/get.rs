//! Requests of the host itself, which go where it is said that they may, as those of components do.

use crate::http::client::HttpClient;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body_util::{BodyExt as _, Empty};
use std::time::Duration;
use thiserror::Error;
use wasmtime_wasi_http::{Error as WasiError, RequestOptions, WasiBody};

/// The answer to a request.
pub struct HttpAnswer {
    status: u16,
    fields: HeaderMap,
    body: WasiBody,
}

/// Why there is no answer, or not all of it.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum HttpGetError {
    #[error("`{uri}` is no address")]
    Address { uri: String },
    #[error("it may not be asked there: {origin}")]
    NotGranted { origin: String },
    #[error("{what}")]
    Failed { what: String },
}

impl HttpClient {
    /// Asks for what is at an address. A redirect is an answer. `connect` bounds the wait for a connection, `idle` that for the answer to
    /// begin, and for each part of it.
    pub async fn get(
        &self,
        uri: &str,
        fields: &[(&str, &str)],
        connect: Duration,
        idle: Duration,
    ) -> Result<HttpAnswer, HttpGetError> {
        let mut request = Request::get(uri);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        let body: WasiBody = Empty::<Bytes>::new().map_err(|never| match never {}).boxed_unsync();
        let request = request.body(body).map_err(|_| HttpGetError::Address { uri: shown(uri) })?;
        self.check(&request).map_err(|_| HttpGetError::NotGranted { origin: shown(uri) })?;
        let options = RequestOptions {
            connect_timeout: Some(connect),
            first_byte_timeout: Some(idle),
            between_bytes_timeout: Some(idle),
        };
        let answer = self.clone().send(request, options).await.map_err(|error| failed(&error, connect + idle))?;
        let (head, body) = answer.into_parts();
        Ok(HttpAnswer { status: head.status.as_u16(), fields: head.headers, body })
    }
}

impl HttpAnswer {
    pub fn status(&self) -> u16 {
        self.status
    }

    /// A header field, if it is there once and is text.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.to_str().ok()
    }

    /// The next part of its body.
    pub async fn part(&mut self) -> Result<Option<Bytes>, HttpGetError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|error| failed(&error, Duration::ZERO))?;
            // Trailers are nothing to us.
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// An address without what may be secret in it.
fn shown(uri: &str) -> String {
    let uri = uri.split('?').next().unwrap_or_default();
    uri.chars().filter(|c| !c.is_control()).take(200).collect()
}

fn failed(error: &WasiError, wait: Duration) -> HttpGetError {
    let what = match error {
        WasiError::DestinationIpProhibited => "its address is not one of the internet, and it is not listed".to_owned(),
        WasiError::DnsError { .. } | WasiError::DnsTimeout => "its name could not be resolved".to_owned(),
        WasiError::ConnectionRefused => "the connection was refused".to_owned(),
        WasiError::ConnectionTimeout => "no connection came about in time".to_owned(),
        WasiError::HttpResponseTimeout => format!("it did not answer within {} s", wait.as_secs()),
        WasiError::ConnectionReadTimeout => "it stopped in the middle of an answer".to_owned(),
        WasiError::HttpResponseIncomplete => "it broke off in the middle of an answer".to_owned(),
        WasiError::ConnectionTerminated => "it broke the connection off".to_owned(),
        WasiError::TlsCertificateError => "its certificate is not one that this machine trusts".to_owned(),
        WasiError::TlsProtocolError | WasiError::TlsAlertReceived { .. } => "it does not speak TLS as we do".to_owned(),
        WasiError::HttpProtocolError => "it does not speak HTTP".to_owned(),
        other => format!("{other:?}"),
    };
    HttpGetError::Failed { what }
}
