//! Components in other registries, as images: found, checked and fetched.
//!
//! Redirects and the places where tokens are given are named by a registry, so each is a request like any other: to an origin that may
//! be asked, at an address that was checked.

mod auth; // what a registry asks for before it answers
mod credentials; // who we are there
mod error; // why there is no image
mod manifest; // what an image is made of
mod reference; // how an image is named

pub use credentials::{Credentials, CredentialsError};
pub use error::ImageError;
pub use reference::{ImageRef, Pinned};

use auth::Challenge;
use bytes::{Bytes, BytesMut};
use manifest::Layer;
use nodata_runtime::{Digest, HttpAnswer, HttpClient, HttpGrant, HttpGrantError, Runtime};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use crate::limits::{
    IMAGE_CONNECT, IMAGE_IDLE, IMAGE_MANIFEST_BYTES_MAX, IMAGE_REDIRECTS_MAX, IMAGE_TOKEN_BYTES_MAX, IMAGE_WALL,
};

/// Every address: of a registry that is listed, and of no other.
const ANYWHERE: &str = "in 0.0.0.0/0,::/0";

/// Which registries may be asked, and as whom.
#[derive(Clone, Debug, Default)]
pub struct ImageSettings {
    /// `HOST` or `HOST:PORT`; `*`: every one with addresses of the internet.
    pub allow: BTreeSet<String>,
    /// The same, of those that are asked without TLS. They need not be in the other list.
    pub insecure: BTreeSet<String>,
    pub credentials: Credentials,
}

/// Fetches images. Cheap to clone.
#[derive(Clone)]
pub struct Images {
    settings: Arc<ImageSettings>,
    /// `None`: no registry is listed.
    http: Option<HttpClient>,
}

/// A component in an image, before it is fetched.
#[derive(Debug)]
pub struct Found {
    image: ImageRef,
    /// SHA-256 of its manifest.
    pub manifest_digest: Digest,
    layer: Layer,
    authorization: Option<auth::Authorization>,
}

impl Found {
    pub fn bytes(&self) -> u64 {
        self.layer.bytes
    }
}

impl Images {
    /// Images of these registries.
    pub fn new(settings: ImageSettings, runtime: &Runtime) -> Result<Self, (String, HttpGrantError)> {
        let mut grants: Vec<HttpGrant> = Vec::new();
        let mut add = |registry: &String, grant: String| {
            grants.push(grant.parse().map_err(|error| (registry.clone(), error))?);
            Ok(())
        };
        for registry in &settings.allow {
            match registry.as_str() {
                "*" => {}
                host => add(registry, format!("GET https://{} {ANYWHERE}", reference::host_of(host)))?,
            }
        }
        for registry in &settings.insecure {
            add(registry, format!("GET http://{registry} {ANYWHERE}"))?;
        }
        // Where a registry redirects to, and where it gives tokens: anywhere on the internet.
        if !(settings.allow.is_empty() && settings.insecure.is_empty()) {
            add(&"*".to_owned(), "GET https://*".to_owned())?;
        }
        Ok(Self { settings: Arc::new(settings), http: runtime.http_client(&grants) })
    }

    /// Whether this registry may be asked.
    fn http_of(&self, image: &ImageRef) -> Result<&HttpClient, ImageError> {
        let ImageSettings { allow, insecure, .. } = &*self.settings;
        let is_listed = |list: &BTreeSet<String>| list.contains(&image.registry);
        match &self.http {
            Some(http) if is_listed(allow) || is_listed(insecure) || allow.contains("*") => Ok(http),
            _ => Err(ImageError::NotListed { registry: image.registry.clone() }),
        }
    }

    /// The component that an image is, at this moment.
    pub async fn find(&self, image: &ImageRef) -> Result<Found, ImageError> {
        self.in_time(image, async {
            let mut authorization = None;
            let mut answer = self.ask(image, &format!("manifests/{}", image.wanted()), &mut authorization).await?;
            let manifest = self.read(image, &mut answer, IMAGE_MANIFEST_BYTES_MAX, "manifest").await?;
            let found = Digest::of(&manifest);
            match &image.pinned {
                Pinned::Digest(expected) if *expected != found => {
                    let (image, what) = (image.to_string(), "manifest");
                    Err(ImageError::OtherBytes { image, what, expected: *expected, found })
                }
                _ => {
                    let layer = manifest::layer(image, &manifest)?;
                    Ok(Found { image: image.clone(), manifest_digest: found, layer, authorization })
                }
            }
        })
        .await
    }

    /// The bytes of a component that was found. Tells how many there are already.
    pub async fn fetch(&self, found: Found, tell: impl Fn(u64) + Send + Sync) -> Result<Bytes, ImageError> {
        let Found { image, layer: Layer { digest, bytes }, mut authorization, .. } = found;
        self.in_time(&image, async {
            let mut answer = self.ask(&image, &format!("blobs/sha256:{digest}"), &mut authorization).await?;
            let mut file = BytesMut::new();
            tell(0);
            while let Some(part) = answer.part().await.map_err(|error| ImageError::unreachable(&image, &error))? {
                file.extend_from_slice(&part);
                if file.len() as u64 > bytes {
                    return Err(ImageError::Longer { image: image.to_string(), bytes });
                }
                tell(file.len() as u64);
            }
            let file = file.freeze();
            let found = Digest::of(&file);
            if found == digest {
                return Ok(file);
            }
            let (image, what) = (image.to_string(), "component");
            Err(ImageError::OtherBytes { image, what, expected: digest, found })
        })
        .await
    }

    async fn in_time<T>(
        &self,
        image: &ImageRef,
        work: impl Future<Output = Result<T, ImageError>>,
    ) -> Result<T, ImageError> {
        let late = || ImageError::TooSlow { registry: image.registry.clone(), wall: IMAGE_WALL };
        tokio::time::timeout(IMAGE_WALL, work).await.unwrap_or_else(|_| Err(late()))
    }

    async fn read(
        &self,
        image: &ImageRef,
        answer: &mut HttpAnswer,
        bytes_max: usize,
        what: &'static str,
    ) -> Result<Bytes, ImageError> {
        let mut read = BytesMut::new();
        while let Some(part) = answer.part().await.map_err(|error| ImageError::unreachable(image, &error))? {
            read.extend_from_slice(&part);
            if read.len() > bytes_max {
                return Err(ImageError::Answer {
                    registry: image.registry.clone(),
                    what: format!("a {what} of more than {bytes_max} bytes"),
                });
            }
        }
        Ok(read.freeze())
    }

    /// Asks for a part of an image, says who we are where that is asked, and follows redirects.
    async fn ask(
        &self,
        image: &ImageRef,
        part: &str,
        authorization: &mut Option<auth::Authorization>,
    ) -> Result<HttpAnswer, ImageError> {
        let http = self.http_of(image)?;
        let scheme = if self.settings.insecure.contains(&image.registry) { "http" } else { "https" };
        let first = format!("{scheme}://{}/v2/{}/{part}", reference::host_of(&image.registry), image.path);
        let mut uri = first.clone();
        let mut redirects = 0;
        loop {
            // Nobody but the registry is told who we are: a redirect leads elsewhere.
            let known = authorization.as_ref().filter(|_| uri == first);
            let mut fields = vec![("accept", manifest::ACCEPT), ("user-agent", "nodata")];
            if let Some(known) = known {
                fields.push(("authorization", known.field()));
            }
            let answer = get(http, image, &uri, &fields).await?;
            match answer.status() {
                200 => return Ok(answer),
                301 | 302 | 303 | 307 | 308 => {
                    redirects += 1;
                    let to = answer.field("location").and_then(|location| reference::joined(&uri, location));
                    match to {
                        Some(to) if redirects <= IMAGE_REDIRECTS_MAX => uri = to,
                        _ => {
                            let what = format!("redirects that lead nowhere, {redirects} of them");
                            return Err(ImageError::Answer { registry: image.registry.clone(), what });
                        }
                    }
                }
                401 if authorization.is_none() && uri == first => {
                    let asked = answer.field("www-authenticate").and_then(Challenge::read);
                    *authorization = Some(self.authorize(http, image, asked).await?);
                }
                401 | 403 => return Err(self.denied(image)),
                404 => return Err(ImageError::Unknown { image: image.to_string() }),
                429 => return Err(ImageError::TooMany { registry: image.registry.clone() }),
                status => {
                    let what = format!("status {status}");
                    return Err(ImageError::Answer { registry: image.registry.clone(), what });
                }
            }
        }
    }

    fn denied(&self, image: &ImageRef) -> ImageError {
        let is_known = self.settings.credentials.of(&image.registry).is_some();
        ImageError::Denied { image: image.to_string(), registry: image.registry.clone(), is_known }
    }

    /// What a registry wants to see.
    async fn authorize(
        &self,
        http: &HttpClient,
        image: &ImageRef,
        asked: Option<Challenge>,
    ) -> Result<auth::Authorization, ImageError> {
        let known = self.settings.credentials.of(&image.registry);
        match (asked, known) {
            (Some(Challenge::Basic), Some(known)) => Ok(auth::Authorization::basic(known)),
            (Some(Challenge::Bearer { realm, service }), known) => {
                let uri = auth::token_uri(&realm, &service, &image.path);
                let basic = known.map(auth::Authorization::basic);
                let mut fields = vec![("user-agent", "nodata")];
                if let Some(basic) = &basic {
                    fields.push(("authorization", basic.field()));
                }
                let mut answer = get(http, image, &uri, &fields).await?;
                if answer.status() != 200 {
                    return Err(self.denied(image));
                }
                let token = self.read(image, &mut answer, IMAGE_TOKEN_BYTES_MAX, "token").await?;
                auth::Authorization::bearer(&token).ok_or_else(|| self.denied(image))
            }
            _ => Err(self.denied(image)),
        }
    }
}

async fn get(
    http: &HttpClient,
    image: &ImageRef,
    uri: &str,
    fields: &[(&str, &str)],
) -> Result<HttpAnswer, ImageError> {
    let (connect, idle): (Duration, Duration) = (IMAGE_CONNECT, IMAGE_IDLE);
    http.get(uri, fields, connect, idle).await.map_err(|error| ImageError::unreachable(image, &error))
}
