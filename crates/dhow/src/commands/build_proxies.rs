//! Proxies that docker's own configuration sets for builds.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::error::CliError;

/// The part of `~/.docker/config.json` that is read here.
#[derive(Deserialize)]
struct DockerConfig {
    #[serde(default)]
    proxies: BTreeMap<String, Proxies>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Proxies {
    http_proxy: String,
    https_proxy: String,
    no_proxy: String,
    ftp_proxy: String,
    all_proxy: String,
}

/// Adds the proxies of the docker configuration at `path` to `build_args`, in both spellings, unless they are
/// given there in either. As in docker, those of `default` are meant, since there is no daemon with a name.
pub(crate) fn add_proxies(path: &Path, build_args: &mut BTreeMap<String, String>) -> Result<(), CliError> {
    let failed = |what: String| CliError::new(format!("cannot read {}: {what}", path.display()));
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        text => text.map_err(|error| failed(error.to_string()))?,
    };
    add(&text, build_args).map_err(|error| failed(error.to_string()))
}

fn add(text: &str, build_args: &mut BTreeMap<String, String>) -> serde_json::Result<()> {
    let mut config: DockerConfig = serde_json::from_str(text)?;
    let Proxies { http_proxy, https_proxy, no_proxy, ftp_proxy, all_proxy } =
        config.proxies.remove("default").unwrap_or_default();
    let named = [
        ("HTTP_PROXY", http_proxy),
        ("HTTPS_PROXY", https_proxy),
        ("NO_PROXY", no_proxy),
        ("FTP_PROXY", ftp_proxy),
        ("ALL_PROXY", all_proxy),
    ];
    for (upper, value) in named.into_iter().filter(|(_, value)| !value.is_empty()) {
        let lower = upper.to_ascii_lowercase();
        if !build_args.contains_key(upper) && !build_args.contains_key(&lower) {
            build_args.insert(upper.to_owned(), value.clone());
            build_args.insert(lower, value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_added_in_both_spellings_unless_given() {
        let text = r#"{"auths": {}, "proxies": {"default": {"httpProxy": "http://p:1", "noProxy": "a,b"}, "tcp://x": {"ftpProxy": "f"}}}"#;
        let mut args = BTreeMap::from([("no_proxy".to_owned(), "c".to_owned())]);
        add(text, &mut args).expect("JSON");
        let args: Vec<String> = args.into_iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(args, ["HTTP_PROXY=http://p:1", "http_proxy=http://p:1", "no_proxy=c"]);
        assert!(add("{", &mut BTreeMap::new()).is_err());
    }
}
