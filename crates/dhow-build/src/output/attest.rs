//! From the text of `--attest` and `--provenance` to what is meant.

use std::collections::BTreeMap;

use super::{Attributes, OutputError, split_csv};

/// What provenance tells, and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProvenanceRequest {
    /// How much.
    pub mode: ProvenanceMode,
    /// The version of SLSA's predicate.
    pub version: ProvenanceVersion,
    /// Who built it, as a URI; empty if nobody says.
    pub builder_id: String,
    /// Whether it says that another build makes the same.
    pub reproducible: bool,
    /// Whether it stays out of folders and tars.
    pub inline_only: bool,
    /// The name of its file in folders and tars.
    pub filename: String,
}

/// How much provenance tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvenanceMode {
    /// No build arguments, labels, secrets' ids and steps.
    Min,
    /// All that is known, but for values that may be secret.
    Max,
}

/// A version of SLSA's predicate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProvenanceVersion {
    /// `https://slsa.dev/provenance/v1`
    V1,
    /// `https://slsa.dev/provenance/v0.2`
    V02,
}

/// Reads the value of `--attest`. One that is turned off is `None`.
pub fn parse_attestation(text: &str) -> Result<Option<ProvenanceRequest>, OutputError> {
    let mut values = BTreeMap::new();
    for field in split_csv(text)? {
        let Some((name, value)) = field.split_once('=') else {
            return Err(OutputError::new(format!(
                "--attest {text}: {field:?} is not of the form name=value"
            )));
        };
        values.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
    }
    let kind = values.remove("type").unwrap_or_default();
    let mut attributes = Attributes::of_attestation(&kind, values);
    let is_off = attributes.truth("disabled")?.unwrap_or(false);
    match kind.as_str() {
        _ if is_off && matches!(kind.as_str(), "provenance" | "sbom") => Ok(None),
        "provenance" => provenance(attributes).map(Some),
        "sbom" => Err(OutputError::new("attestations of type sbom are not supported yet")
            .hint("leave it out, or turn it off with --sbom=false")),
        "" => Err(OutputError::new(format!("--attest {text}: it wants type=provenance"))),
        other => Err(OutputError::new(format!("unknown attestation type {other:?}; dhow knows provenance"))),
    }
}

/// Reads the value of `--provenance` or `--sbom`, which are short for `--attest type=…`.
pub fn parse_short_attestation(kind: &str, text: &str) -> Result<Option<ProvenanceRequest>, OutputError> {
    match text.to_ascii_lowercase().as_str() {
        "true" | "1" | "t" => parse_attestation(&format!("type={kind}")),
        "false" | "0" | "f" => parse_attestation(&format!("type={kind},disabled=true")),
        _ => parse_attestation(&format!("type={kind},{text}")),
    }
}

fn provenance(mut attributes: Attributes) -> Result<ProvenanceRequest, OutputError> {
    let mode = match attributes.take("mode").as_deref() {
        None | Some("max" | "full") => ProvenanceMode::Max,
        Some("min") => ProvenanceMode::Min,
        Some(other) => return Err(attributes.invalid("mode", other, "it is min or max")),
    };
    let version = match attributes.take("version").as_deref() {
        None | Some("v1") => ProvenanceVersion::V1,
        Some("v0.2") => ProvenanceVersion::V02,
        Some(other) => return Err(attributes.invalid("version", other, "it is v1 or v0.2")),
    };
    let filename = attributes.take("filename").unwrap_or_else(|| "provenance.json".to_owned());
    if filename.is_empty() || filename.contains('/') || filename == "." || filename == ".." {
        return Err(attributes.invalid("filename", &filename, "it is the name of a file, without a folder"));
    }
    let request = ProvenanceRequest {
        mode,
        version,
        builder_id: attributes.take("builder-id").unwrap_or_default(),
        reproducible: attributes.truth("reproducible")?.unwrap_or(false),
        inline_only: attributes.truth("inline-only")?.unwrap_or(false),
        filename,
    };
    attributes.end()?;
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(text: &str, message: &str) {
        assert_eq!(parse_attestation(text).expect_err(text).to_string(), message);
    }

    #[test]
    fn provenance_is_asked_for_in_full_or_in_short() {
        let full = parse_attestation("type=provenance,mode=min,version=v0.2,builder-id=https://ci/7");
        let full = full.expect("an attestation").expect("it is on");
        assert_eq!((full.mode, full.version), (ProvenanceMode::Min, ProvenanceVersion::V02));
        assert_eq!((full.builder_id.as_str(), full.filename.as_str()), ("https://ci/7", "provenance.json"));
        let short = |text| parse_short_attestation("provenance", text).expect(text);
        assert_eq!(short("true").map(|it| it.mode), Some(ProvenanceMode::Max));
        assert_eq!(short("mode=min,reproducible=true").map(|it| it.reproducible), Some(true));
        assert_eq!(short("false"), None);
        assert_eq!(parse_short_attestation("sbom", "false"), Ok(None));
        assert_eq!(parse_attestation("type=sbom,disabled=true"), Ok(None));
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        refused("type=sbom", "attestations of type sbom are not supported yet");
        refused("type=vex", "unknown attestation type \"vex\"; dhow knows provenance");
        refused("type=vex,disabled=true", "unknown attestation type \"vex\"; dhow knows provenance");
        refused("mode=max", "--attest mode=max: it wants type=provenance");
        refused("provenance", "--attest provenance: \"provenance\" is not of the form name=value");
        refused("type=provenance,mode=all", "invalid value \"all\" for mode of attestation provenance");
        refused("type=provenance,version=v2", "invalid value \"v2\" for version of attestation provenance");
        refused(
            "type=provenance,filename=a/b",
            "invalid value \"a/b\" for filename of attestation provenance",
        );
        refused("type=provenance,generator=x", "unknown attribute \"generator\" of attestation provenance");
    }
}
