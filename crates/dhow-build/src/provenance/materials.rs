//! What a build was made of: images, files and repositories from elsewhere.

use std::fmt::Write as _;

use dhow_oci::{Digest, Platform, Reference};
use serde_json::{Value, json};

/// Something from elsewhere.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Material {
    /// A package URL for an image, otherwise where it was got, without passwords.
    pub uri: String,
    /// The name of its digest's algorithm, and the digest.
    digest: (&'static str, String),
}

impl Material {
    pub(crate) fn image(reference: &Reference, platform: &Platform, digest: &Digest) -> Material {
        Material { uri: purl("docker", reference, Some(platform)), digest: ("sha256", digest.hex()) }
    }

    pub(crate) fn file(url: String, digest: &Digest) -> Material {
        Material { uri: url, digest: ("sha256", digest.hex()) }
    }

    pub(crate) fn commit(uri: String, id: &str) -> Material {
        let algorithm = if id.len() == 64 { "sha256" } else { "sha1" };
        Material { uri, digest: (algorithm, id.to_owned()) }
    }

    pub(super) fn digests(&self) -> Value {
        let (algorithm, hex) = &self.digest;
        json!({ *algorithm: hex })
    }

    pub(super) fn json(&self) -> Value {
        json!({ "uri": self.uri, "digest": self.digests() })
    }
}

/// A package URL, as `pkg:docker/alpine@3.17?platform=linux%2Famd64`.
pub(crate) fn purl(kind: &str, reference: &Reference, platform: Option<&Platform>) -> String {
    let mut url = format!("pkg:{kind}/{}", escaped(&reference.familiar_name(), "/"));
    let mut qualifiers = Vec::new();
    match reference.digest() {
        Some(digest) => qualifiers.push(format!("digest={digest}")),
        None => url.push_str(&format!("@{}", escaped(reference.tag().unwrap_or(dhow_oci::DEFAULT_TAG), ""))),
    }
    if let (Some(tag), Some(_)) = (reference.tag(), reference.digest()) {
        url.push_str(&format!("@{}", escaped(tag, "")));
    }
    qualifiers.extend(platform.map(|platform| format!("platform={}", escaped(&platform.to_string(), ""))));
    if qualifiers.is_empty() { url } else { format!("{url}?{}", qualifiers.join("&")) }
}

/// Percent-encoded, but for what package URLs leave as it is and the characters in `kept`.
fn escaped(text: &str, kept: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~:".contains(c) || kept.contains(c) {
            escaped.push(c);
        } else {
            write!(escaped, "%{byte:02X}").expect("a text takes whatever is written");
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_have_package_urls() {
        let url = |text: &str| {
            let platform: Platform = "linux/arm/v7".parse().expect("a platform");
            purl("docker", &text.parse().expect("a reference"), Some(&platform))
        };
        assert_eq!(url("alpine"), "pkg:docker/alpine@latest?platform=linux%2Farm%2Fv7");
        assert_eq!(url("user/app:1_2"), "pkg:docker/user/app@1_2?platform=linux%2Farm%2Fv7");
        assert_eq!(url("h.io:5000/a/b:x"), "pkg:docker/h.io:5000/a/b@x?platform=linux%2Farm%2Fv7");
        let hex = "a".repeat(64);
        assert_eq!(
            url(&format!("alpine@sha256:{hex}")),
            format!("pkg:docker/alpine?digest=sha256:{hex}&platform=linux%2Farm%2Fv7")
        );
    }

    #[test]
    fn commits_say_how_they_are_named() {
        assert_eq!(
            Material::commit(String::new(), &"1".repeat(40)).digests(),
            json!({ "sha1": "1".repeat(40) })
        );
        assert_eq!(
            Material::commit(String::new(), &"1".repeat(64)).digests(),
            json!({ "sha256": "1".repeat(64) })
        );
    }
}
