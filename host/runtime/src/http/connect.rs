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
    /// Connects to where a name leads, which is asked once.
    async fn connect<F>(self, uri: Uri, look_up: impl FnOnce(Target) -> F) -> Result<TcpStream, ConnectError>
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>>,
    {
        let target = Target::of(&uri).ok_or(ConnectError::Invalid)?;
        let addresses = self.resolve(&target, look_up).await?;
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
    async fn resolve<F>(
        &self,
        target: &Target,
        look_up: impl FnOnce(Target) -> F,
    ) -> Result<Vec<SocketAddr>, ConnectError>
    where
        F: Future<Output = io::Result<Vec<SocketAddr>>>,
    {
        let found: Vec<SocketAddr> = match target.address() {
            Some(address) => vec![(address, target.port).into()],
            None => {
                let found = within(HTTP_CONNECT, look_up(target.clone())).await;
                let found = found.unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into()));
                found.map_err(ConnectError::Resolve)?
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

/// Asks this machine for the addresses of a name.
async fn look_up(target: Target) -> io::Result<Vec<SocketAddr>> {
    Ok(lookup_host((target.host.as_str(), target.port)).await?.collect())
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
        let connecting = self.clone().connect(uri, look_up);
        Box::pin(async move { connecting.await.map(TokioIo::new) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt as _;
    use std::future::ready;
    use std::net::Ipv4Addr;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::net::TcpListener;

    async fn resolved(grants: &[&str], uri: &str) -> String {
        let grants = grants.iter().map(|grant| grant.parse().unwrap()).collect();
        let target = Target::of(&uri.parse().unwrap()).unwrap();
        match (Connect { grants }).resolve(&target, look_up).await {
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

    #[tokio::test]
    async fn a_name_that_changes_its_answer_gains_nothing() {
        let (right, wrong) = (Ipv4Addr::LOCALHOST, Ipv4Addr::new(127, 0, 0, 2));
        let granted = TcpListener::bind((right, 0)).await.unwrap();
        let port = granted.local_addr().unwrap().port();
        let inner = TcpListener::bind((wrong, port)).await.unwrap();
        let uri: Uri = format!("http://moves.example:{port}").parse().unwrap();
        let grants = [format!("http://moves.example:{port} in {right}").parse().unwrap()];
        let connect = Connect { grants: grants.into() };
        // It answers with one address, then with both, then with the other one.
        let answers = [vec![right], vec![wrong, right], vec![wrong]];
        let asked = AtomicUsize::new(0);
        let name = |target: Target| {
            let answer = &answers[asked.fetch_add(1, Ordering::Relaxed).min(2)];
            ready(Ok(answer.iter().map(|address| (*address, target.port).into()).collect()))
        };
        let mut connected = Vec::new();
        for _ in 0..4 {
            let answer = connect.clone().connect(uri.clone(), name).await;
            connected.push(match answer {
                Ok(stream) => stream.peer_addr().unwrap().ip().to_string(),
                Err(error) => error.to_string(),
            });
        }
        let refused = "the address 127.0.0.2 is not of the internet, and not granted";
        assert_eq!(connected, ["127.0.0.1", "127.0.0.1", refused, refused]);
        assert_eq!(asked.load(Ordering::Relaxed), 4, "what was checked is what is connected to");
        assert!(inner.accept().now_or_never().is_none(), "nobody came");
    }

    #[tokio::test]
    async fn a_name_of_a_private_address_is_refused_whatever_else_it_answers() {
        let connect = Connect { grants: ["http://*".parse().unwrap()].into() };
        let target = Target::of(&"http://rebinds.example".parse().unwrap()).unwrap();
        let resolved = async |answers: &[&str]| {
            let answers = answers.iter().map(|address| (address.parse::<IpAddr>().unwrap(), 80).into()).collect();
            match connect.resolve(&target, |_| ready(Ok(answers))).await {
                Ok(addresses) => addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(" "),
                Err(error) => error.to_string(),
            }
        };
        for private in
            ["169.254.169.254", "10.0.0.1", "::1", "::ffff:10.0.0.1", "64:ff9b::a00:1", "2002:a00:1::", "fe80::1"]
        {
            let refused = format!("the address {private} is not of the internet, and not granted");
            assert_eq!(resolved(&[private]).await, refused);
            assert_eq!(resolved(&[private, "8.8.8.8"]).await, "8.8.8.8:80");
        }
        let none = "the name could not be resolved: there is no address";
        assert_eq!(resolved(&[]).await, none);
        assert_eq!(resolved(&["8.8.8.8"; 9]).await, ["8.8.8.8:80"; HTTP_ADDRESSES_MAX].join(" "));
    }
}
