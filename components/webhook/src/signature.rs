//! Signatures as Standard Webhooks 1.0 says: HMAC-SHA256 over what identifies the request, when it is sent, and its body.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit as _, Mac as _};
use nodata_component::{Error, Result};
use sha2::Sha256;

/// How a key begins when it is written down.
const PREFIX: &str = "whsec_";
/// Bytes of a key.
const KEY_BYTES_MIN: usize = 24;
const KEY_BYTES_MAX: usize = 64;

/// What requests are signed with: each with every key, so that a receiver may change from one to the next.
pub(crate) struct Signer {
    keys: Vec<Hmac<Sha256>>,
}

impl Signer {
    /// From keys with white space between them. What is said of a wrong one does not repeat it.
    pub(crate) fn new(secret: &[u8]) -> Result<Self> {
        let refused = |what: &str| Error::permanent(format_args!("secret `signing-key`: {what}"));
        let text = std::str::from_utf8(secret).map_err(|_| refused("it is not text"))?;
        let key = |text: &str| {
            let encoded = text.strip_prefix(PREFIX).ok_or_else(|| refused("a key begins with `whsec_`"))?;
            let key = BASE64.decode(encoded).map_err(|_| refused("what follows `whsec_` is not base64"))?;
            if !(KEY_BYTES_MIN..=KEY_BYTES_MAX).contains(&key.len()) {
                let bytes = key.len();
                return Err(refused(&format!("a key of {bytes} bytes; it has {KEY_BYTES_MIN} to {KEY_BYTES_MAX}")));
            }
            Hmac::new_from_slice(&key).map_err(|_| refused("a key of this length cannot be used"))
        };
        let keys = text.split_ascii_whitespace().map(key).collect::<Result<Vec<_>>>()?;
        if keys.is_empty() { Err(refused("there is no key in it")) } else { Ok(Self { keys }) }
    }

    /// The header `webhook-signature` of a request.
    pub(crate) fn sign(&self, id: &str, timestamp_s: u64, body: &[u8]) -> String {
        let signature = |key: &Hmac<Sha256>| {
            let mut mac = key.clone();
            mac.update(format!("{id}.{timestamp_s}.").as_bytes());
            mac.update(body);
            format!("v1,{}", BASE64.encode(mac.finalize().into_bytes()))
        };
        self.keys.iter().map(signature).collect::<Vec<_>>().join(" ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_signed_with_each_key() {
        // Computed with `openssl dgst -sha256 -mac HMAC`.
        let key = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
        let once = Signer::new(key.as_bytes()).unwrap().sign("t/0/5", 1_674_087_231, b"{\"a\":1}");
        assert_eq!(once, "v1,rxG/brEBd7k+kIEd5Q1+dyx90tA3OKrbToFF9n360nw=");
        let twice = Signer::new(format!("{key}\n{key}\n").as_bytes()).unwrap();
        assert_eq!(twice.sign("t/0/5", 1_674_087_231, b"{\"a\":1}"), format!("{once} {once}"));
    }

    #[test]
    fn a_key_that_is_none_is_said_and_not_repeated() {
        let refused = |secret: &str| Signer::new(secret.as_bytes()).err().unwrap().message().to_owned();
        assert_eq!(refused(""), "secret `signing-key`: there is no key in it");
        assert_eq!(refused("hunter2"), "secret `signing-key`: a key begins with `whsec_`");
        assert_eq!(refused("whsec_hunter!"), "secret `signing-key`: what follows `whsec_` is not base64");
        assert_eq!(refused("whsec_aHVudGVyMg=="), "secret `signing-key`: a key of 7 bytes; it has 24 to 64");
    }
}
