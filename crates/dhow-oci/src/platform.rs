use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What an image runs on (image-spec image-index.md, `platform`), written `os/architecture[/variant]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Platform {
    /// CPU architecture in Go's spelling, such as `amd64`.
    pub architecture: String,
    /// Operating system in Go's spelling, such as `linux`.
    pub os: String,
    /// Required version of the operating system (Windows).
    #[serde(rename = "os.version", default, skip_serializing_if = "Option::is_none")]
    pub os_version: Option<String>,
    /// Required features of the operating system (Windows).
    #[serde(rename = "os.features", default, skip_serializing_if = "Vec::is_empty")]
    pub os_features: Vec<String>,
    /// Variant of the CPU, such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
}

impl Platform {
    /// The platform this binary was compiled for.
    pub fn host() -> Platform {
        Platform::new("linux", std::env::consts::ARCH, None)
    }

    fn new(os: &str, architecture: &str, variant: Option<&str>) -> Platform {
        let os = match os.to_ascii_lowercase().as_str() {
            "macos" => "darwin".to_owned(),
            other => other.to_owned(),
        };
        let (architecture, variant) = normalize(&architecture.to_ascii_lowercase(), variant);
        Platform { architecture, os, os_version: None, os_features: Vec::new(), variant }
    }

    /// Whether an image made for `self` runs on `host`. Variants of ARM are upward compatible.
    pub fn runs_on(&self, host: &Platform) -> bool {
        self.os == host.os && self.fits_cpu(host)
    }

    fn fits_cpu(&self, host: &Platform) -> bool {
        let (architecture, variant) = normalize(&self.architecture, self.variant.as_deref());
        let (host_architecture, host_variant) = normalize(&host.architecture, host.variant.as_deref());
        architecture == host_architecture
            && match (&variant, &host_variant) {
                (Some(wanted), Some(offered)) => level(wanted) <= level(offered),
                _ => true,
            }
    }

    /// How good a choice an image for `self` is on `host`; the greatest wins among those that run.
    pub fn preference(&self) -> u32 {
        self.variant.as_deref().map_or(0, level)
    }
}

fn level(variant: &str) -> u32 {
    variant.trim_start_matches('v').parse().unwrap_or(0)
}

/// One name per CPU, as containerd's platforms package spells them.
fn normalize(architecture: &str, variant: Option<&str>) -> (String, Option<String>) {
    let variant = variant.filter(|variant| !variant.is_empty()).map(str::to_ascii_lowercase);
    match (architecture, variant.as_deref()) {
        ("x86_64" | "x86-64" | "amd64", Some("v1") | None) => ("amd64".into(), None),
        ("x86_64" | "x86-64", _) => ("amd64".into(), variant),
        ("i386" | "i486" | "i586" | "i686" | "x86", _) => ("386".into(), None),
        ("aarch64" | "arm64", Some("8" | "v8") | None) => ("arm64".into(), None),
        ("aarch64", _) => ("arm64".into(), variant),
        ("armhf", _) => ("arm".into(), Some("v7".into())),
        ("armel", _) => ("arm".into(), Some("v6".into())),
        ("arm", None | Some("7")) => ("arm".into(), Some("v7".into())),
        ("arm", Some(number @ ("5" | "6" | "8"))) => ("arm".into(), Some(format!("v{number}"))),
        ("powerpc64le", _) => ("ppc64le".into(), variant),
        _ => (architecture.to_owned(), variant),
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

/// Why a text is not a platform.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a platform, write it as linux/amd64 or linux/arm64/v8")]
pub struct ParsePlatformError {
    text: String,
}

impl FromStr for Platform {
    type Err = ParsePlatformError;

    fn from_str(text: &str) -> Result<Platform, ParsePlatformError> {
        let error = || ParsePlatformError { text: text.to_owned() };
        let parts: Vec<&str> = text.split('/').collect();
        let well_formed = |part: &&str| {
            !part.is_empty() && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"_.-".contains(&c))
        };
        if !parts.iter().all(well_formed) {
            return Err(error());
        }
        match parts[..] {
            [one] if is_os(one) => Ok(Platform { os: one.to_ascii_lowercase(), ..Platform::host() }),
            [architecture] if is_architecture(architecture) => Ok(Platform::new("linux", architecture, None)),
            [os, architecture] => Ok(Platform::new(os, architecture, None)),
            [os, architecture, variant] => Ok(Platform::new(os, architecture, Some(variant))),
            _ => Err(error()),
        }
    }
}

fn is_os(name: &str) -> bool {
    matches!(name.to_ascii_lowercase().as_str(), "linux" | "windows" | "darwin" | "freebsd")
}

fn is_architecture(name: &str) -> bool {
    matches!(
        name.to_ascii_lowercase().as_str(),
        "amd64"
            | "x86_64"
            | "arm64"
            | "aarch64"
            | "arm"
            | "armhf"
            | "386"
            | "i386"
            | "ppc64le"
            | "s390x"
            | "riscv64"
            | "mips64le"
            | "loong64"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_are_normalised() {
        for (text, printed) in [
            ("linux/amd64", "linux/amd64"),
            ("linux/x86_64", "linux/amd64"),
            ("arm64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("linux/arm", "linux/arm/v7"),
            ("Linux/armhf", "linux/arm/v7"),
        ] {
            assert_eq!(text.parse::<Platform>().expect(text).to_string(), printed);
        }
        for text in ["", "linux/", "/", "a/b/c/d", "linux/am d64", "nonsense"] {
            assert!(text.parse::<Platform>().is_err(), "{text}");
        }
    }

    #[test]
    fn older_arm_images_run_on_newer_arm() {
        let image = |text: &str| text.parse::<Platform>().expect(text);
        assert!(image("linux/arm/v6").runs_on(&image("linux/arm/v7")));
        assert!(!image("linux/arm/v7").runs_on(&image("linux/arm/v6")));
        assert!(!image("windows/amd64").runs_on(&image("linux/amd64")));
    }
}
