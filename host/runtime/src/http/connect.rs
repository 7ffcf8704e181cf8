//! From a name to a connection.

use crate::http::grants::{HttpGrant, Target};
use crate::limits::{HTTP_ADDRESSES_MAX, HTTP_CONNECT};
use http::Uri;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use thiserror::Error;
use tokio::net::{TcpStream, lookup_host};
use tower_service::Service;

/// Why there is no connection.
#[derive(Debug, Error)]
pub(crate) enum ConnectError {
    #[error("the name could not be resolved: {0}")]
    Resolve(#[source] io::Error),
    #[error("the address {0} is not of the internet, and not granted")]
    Forbidden(IpAddr),
    #[error("no connection: {0}")]
    Refused(#[source] io::Error),
    #[error("no connection within {} s", HTTP_CONNECT.as_secs())]
    TimedOut,
    #[error("this is no address")]
    Invalid,
}

/// Connects to the addresses that a deployment is granted, and to no other.
#[derive(Clone)]
pub(crate) struct Connect {
    pub(crate) grants: Arc<[HttpGrant]>,
}

impl Connect {
    async fn connect(self, uri: Uri) -> Result<TcpStream, ConnectError> {
        let target = Target::of(&uri).ok_or(ConnectError::Invalid)?;
        let addresses = self.resolve(&target).await?;
        // One after the other, each with its share of the time: the first may be one that nobody answers at.
        let share = HTTP_CONNECT / addresses.len().max(1) as u32;
        let mut failure = ConnectError::TimedOut;
        for address in addresses {
            match within(share, TcpStream::connect(address)).await {
                Some(Ok(stream)) => {
                    // Whole messages are written at once; waiting for more gains nothing.
                    let _ = stream.set_nodelay(true);
                    return Ok(stream);
                }
                Some(Err(error)) => failure = ConnectError::Refused(error),
                None => failure = ConnectError::TimedOut,
            }
        }
        Err(failure)
    }

    /// The addresses that may be connected to.
    async fn resolve(&self, target: &Target) -> Result<Vec<SocketAddr>, ConnectError> {
        let found: Vec<SocketAddr> = match target.address() {
            Some(address) => vec![(address, target.port).into()],
            None => {
                let found = within(HTTP_CONNECT, lookup_host((target.host.as_str(), target.port))).await;
                let found = found.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
                found.map_err(ConnectError::Resolve)?.collect()
            }
        };
        let Some(first) = found.first().map(SocketAddr::ip) else {
            return Err(ConnectError::Resolve(io::Error::other("there is no address")));
        };
        let of_target = |grant: &&HttpGrant| grant.is_of(target);
        let is_granted =
            |address: &SocketAddr| self.grants.iter().filter(of_target).any(|grant| grant.admits(address.ip()));
        let granted: Vec<SocketAddr> = found.into_iter().filter(is_granted).take(HTTP_ADDRESSES_MAX).collect();
        if granted.is_empty() { Err(ConnectError::Forbidden(first)) } else { Ok(granted) }
    }
}

async fn within<T>(limit: Duration, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout(limit, future).await.ok()
}

impl Service<Uri> for Connect {
    type Response = TokioIo<TcpStream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connecting = self.clone().connect(uri);
        Box::pin(async move { connecting.await.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn resolved(grants: &[&str], uri: &str) -> String {
        let grants = grants.iter().map(|grant| grant.parse().unwrap()).collect();
        let target = Target::of(&uri.parse().unwrap()).unwrap();
        match (Connect { grants }).resolve(&target).await {
            Ok(addresses) => addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" "),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn an_address_is_checked_however_it_is_written() {
        let refused = "the address 127.0.0.1 is not of the internet, and not granted";
        for uri in ["http://127.0.0.1", "http://2130706433", "http://0x7f000001", "http://127.1", "http://0177.0.0.1"] {
            assert_eq!(resolved(&["http://*"], uri).await, refused, "{uri}");
        }
        let written = "the address ::ffff:127.0.0.1 is not of the internet, and not granted";
        assert_eq!(resolved(&["http://*"], "http://[::ffff:127.0.0.1]").await, written);
        assert_eq!(resolved(&["http://* in 127.0.0.0/8"], "http://[::ffff:7f00:1]").await, "[::ffff:127.0.0.1]:80");
        assert_eq!(resolved(&["http://127.0.0.1"], "http://127.0.0.1").await, "127.0.0.1:80");
        assert_eq!(resolved(&["http://8.8.8.8:81"], "http://8.8.8.8:81").await, "8.8.8.8:81");
    }

    #[tokio::test]
    async fn a_network_that_is_granted_to_one_name_is_not_granted_to_another() {
        let grants = ["http://127.1 in 127.0.0.0/8", "http://127.2"];
        assert_eq!(resolved(&grants, "http://127.1").await, "127.0.0.1:80");
        let refused = "the address 127.0.0.2 is not of the internet, and not granted";
        assert_eq!(resolved(&grants, "http://127.2").await, refused);
    }
}
