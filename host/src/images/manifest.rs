//! What an image is made of.

use crate::images::{ImageError, ImageRef};
use nodata_runtime::Digest;
use nodata_runtime::limits::COMPONENT_BYTES_MAX;
use serde::Deserialize;

/// The manifests that are understood. An index is asked for as well, so that it can be said what is wrong with it.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                                 application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

/// Layers that are a component: of the artifact that `wkg` and others write, and of those before it.
const WASM: [&str; 3] = [
    "application/wasm",
    "application/vnd.wasm.content.layer.v1+wasm",
    "application/vnd.module.wasm.content.layer.v1+wasm",
];

/// The one layer of an image that is a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layer {
    pub(super) digest: Digest,
    pub(super) bytes: u64,
}

#[derive(Deserialize)]
struct Manifest {
    /// Of an index.
    manifests: Option<Vec<serde::de::IgnoredAny>>,
    layers: Option<Vec<Descriptor>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    media_type: String,
    digest: String,
    size: u64,
}

/// The component of an image. What the image says about it beside that decides nothing.
pub(super) fn layer(image: &ImageRef, manifest: &[u8]) -> Result<Layer, ImageError> {
    let error = |what: String| ImageError::NoComponent { image: image.to_string(), what };
    let Ok(Manifest { manifests, layers }) = serde_json::from_slice(manifest) else {
        return Err(error("its manifest is not one of an image".to_owned()));
    };
    if let Some(manifests) = manifests {
        return Err(error(format!("it is an index of {} images", manifests.len())));
    }
    let layers = layers.unwrap_or_default();
    let is_wasm = |layer: &Descriptor| WASM.contains(&layer.media_type.as_str());
    let [layer] = &layers[..] else {
        let wasm = layers.iter().filter(|layer| is_wasm(layer)).count();
        return Err(error(format!("it has {} layers, {wasm} of them WebAssembly", layers.len())));
    };
    if !is_wasm(layer) {
        let kind: String = layer.media_type.chars().filter(|c| !c.is_control()).take(100).collect();
        return Err(error(format!("its layer is of type {kind}")));
    }
    if layer.size > COMPONENT_BYTES_MAX as u64 {
        return Err(ImageError::TooLarge { image: image.to_string(), bytes: layer.size });
    }
    let digest = layer.digest.strip_prefix("sha256:").and_then(|digits| digits.parse().ok());
    let digest = digest.ok_or_else(|| error("its layer has no digest of SHA-256".to_owned()))?;
    Ok(Layer { digest, bytes: layer.size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_has_one_layer_and_that_is_a_component() {
        let image: ImageRef = "a.b/c:1".parse().unwrap();
        let digest = Digest::of(b"x");
        let one =
            |kind: &str, size: u64| format!(r#"{{"mediaType":"{kind}","digest":"sha256:{digest}","size":{size}}}"#);
        let read =
            |layers: &str| match layer(&image, format!(r#"{{"schemaVersion":2,"layers":[{layers}]}}"#).as_bytes()) {
                Ok(layer) => format!("{} {}", layer.digest == digest, layer.bytes),
                Err(error) => error.to_string(),
            };
        for kind in WASM {
            assert_eq!(read(&one(kind, 7)), "true 7");
        }
        let wasm = one(WASM[0], 7);
        assert_eq!(read(""), "image a.b/c:1 is no component: it has 0 layers, 0 of them WebAssembly");
        assert!(read(&format!("{wasm},{wasm}")).ends_with("it has 2 layers, 2 of them WebAssembly"));
        let tar = one("application/vnd.oci.image.layer.v1.tar+gzip", 7);
        assert!(read(&tar).ends_with("its layer is of type application/vnd.oci.image.layer.v1.tar+gzip"));
        assert!(read(&format!("{tar},{wasm}")).ends_with("it has 2 layers, 1 of them WebAssembly"));
        assert_eq!(read(&one(WASM[0], 64 << 20)), "true 67108864");
        assert!(read(&one(WASM[0], (64 << 20) + 1)).contains("67108865 bytes"));
        assert!(read(&wasm.replace("sha256:", "sha512:")).ends_with("its layer has no digest of SHA-256"));
        let error = |text: &str| layer(&image, text.as_bytes()).unwrap_err().to_string();
        assert!(error(r#"{"manifests":[{},{}]}"#).ends_with("it is an index of 2 images"));
        assert!(error("<html>").ends_with("its manifest is not one of an image"));
    }
}
