use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::auth::{Action, Rule};
use crate::glob::Glob;
use crate::storage::BucketOptions;

/// The port registries have.
const LISTEN_DEFAULT: &str = "127.0.0.1:5000";

/// What a registry server has to know: the tables of its file, with everything that is left out at its default.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Config {
    /// Where to listen.
    pub listen: Vec<SocketAddr>,
    /// Keep everything in a folder.
    pub folder: Option<PathBuf>,
    /// Keep everything in a bucket.
    pub bucket: Option<BucketOptions>,
    /// Serve other machines without TLS, or without asking who they are.
    pub insecure: bool,
    pub(crate) tls: Option<TlsConfig>,
    pub(crate) auth: Option<AuthConfig>,
    #[serde(rename = "rule")]
    rules: Vec<RuleConfig>,
    pub(crate) limits: LimitsConfig,
    /// What is collected, and when.
    pub gc: GcConfig,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            listen: vec![LISTEN_DEFAULT.parse().expect("a constant address")],
            folder: None,
            bucket: None,
            insecure: false,
            tls: None,
            auth: None,
            rules: Vec::new(),
            limits: LimitsConfig::default(),
            gc: GcConfig::default(),
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct TlsConfig {
    /// The chain of certificates, ours first.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Only clients with a certificate of this authority are served.
    pub(crate) client_ca: Option<PathBuf>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(crate) struct AuthConfig {
    /// The htpasswd file.
    pub(crate) users: PathBuf,
    /// Whether passwords are shown once for a token, or with every request.
    #[serde(default = "yes")]
    pub(crate) tokens: bool,
    #[serde(default = "token_life", deserialize_with = "duration")]
    pub(crate) token_life: Duration,
    /// What this registry calls itself in tokens.
    #[serde(default = "service")]
    pub(crate) service: String,
    /// How clients reach this server, if a proxy stands between.
    pub(crate) public_url: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleConfig {
    repositories: Vec<String>,
    users: Vec<String>,
    allow: Vec<Action>,
}

/// What one client may ask for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(crate) struct LimitsConfig {
    pub(crate) manifest_bytes: u64,
    pub(crate) blob_bytes: u64,
    pub(crate) connections: usize,
    /// How long a client may take for the head of a request, or for the next bytes.
    #[serde(deserialize_with = "duration")]
    pub(crate) patience: Duration,
    /// How long requests under way may take when the server stops.
    #[serde(deserialize_with = "duration")]
    pub(crate) stop: Duration,
}

impl Default for LimitsConfig {
    fn default() -> LimitsConfig {
        LimitsConfig {
            manifest_bytes: dhow_oci::MANIFEST_BYTES_MAX,
            blob_bytes: u64::MAX,
            connections: 1000,
            patience: Duration::from_secs(60),
            stop: Duration::from_secs(30),
        }
    }
}

/// What is collected, and when.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct GcConfig {
    /// How often a server collects; zero is never.
    #[serde(deserialize_with = "duration")]
    pub every: Duration,
    /// Blobs that were pushed or asked for within this time stay.
    #[serde(deserialize_with = "duration")]
    pub grace: Duration,
    /// Uploads that nobody continued for this time go.
    #[serde(deserialize_with = "duration")]
    pub upload_expiry: Duration,
}

impl Default for GcConfig {
    fn default() -> GcConfig {
        let day = Duration::from_secs(24 * 3600);
        GcConfig { every: day, grace: day, upload_expiry: day }
    }
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is not what is expected.
    #[error("{}: {text}", path.display())]
    Text {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        text: String,
    },
    /// It asks for what must not be.
    #[error("{0}")]
    Refused(String),
}

impl Config {
    /// Reads a file.
    pub fn read(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Config::parse(&text).map_err(|text| ConfigError::Text { path: path.to_owned(), text })
    }

    fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|error| error.to_string().trim_end().to_owned())?;
        config.rules()?;
        if config.auth.is_none() && !config.rules.is_empty() {
            return Err(
                "[[rule]] says who may do what, but without [auth] nobody is asked who they are".to_owned()
            );
        }
        Ok(config)
    }

    pub(crate) fn rules(&self) -> Result<Vec<Rule>, String> {
        let rule = |rule: &RuleConfig| {
            let repositories =
                rule.repositories.iter().map(|text| Glob::parse(text)).collect::<Result<_, _>>()?;
            Ok(Rule { repositories, users: rule.users.clone(), allow: rule.allow.clone() })
        };
        self.rules.iter().map(rule).collect()
    }

    /// Whether the outside may be served like this.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let refused = |text: String| Err(ConfigError::Refused(text));
        if self.listen.is_empty() {
            return refused("there is no address to listen on".to_owned());
        }
        if self.folder.is_some() && self.bucket.is_some() {
            return refused("a registry is in a folder or in a bucket, not in both".to_owned());
        }
        let Some(outside) = self.listen.iter().find(|address| !address.ip().is_loopback()) else {
            return Ok(());
        };
        if self.insecure {
            return Ok(());
        }
        let Some(tls) = &self.tls else {
            return refused(format!(
                "{outside} is reached by other machines, and without TLS passwords and images are for all to read and change; \
                 give a certificate in [tls], or say --insecure"
            ));
        };
        if self.auth.is_none() && tls.client_ca.is_none() {
            return refused(format!(
                "{outside} is reached by other machines, and nobody is asked who they are; \
                 give [auth] or a client-ca in [tls], or say --insecure"
            ));
        }
        Ok(())
    }
}

fn yes() -> bool {
    true
}

fn token_life() -> Duration {
    Duration::from_secs(300)
}

fn service() -> String {
    "dhow-registry".to_owned()
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text)
        .ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no time such as 90s, 15m, 24h or 7d")))
}

/// Reads `90s`, `15m`, `24h`, `7d` or `0`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        "" if number == "0" => 0,
        _ => return None,
    };
    Some(Duration::from_secs(number.parse::<u64>().ok()?.checked_mul(seconds)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"
        listen = ["0.0.0.0:443"]
        folder = "/srv/registry"
        [tls]
        certificate = "/etc/registry.pem"
        key = "/etc/registry.key"
        [auth]
        users = "/etc/users"
        token-life = "10m"
        [[rule]]
        repositories = ["public/**"]
        users = ["anonymous"]
        allow = ["pull"]
        [limits]
        patience = "5s"
        [gc]
        grace = "2d"
    "#;

    #[test]
    fn a_configuration_says_what_it_says_and_the_rest_is_default() {
        let config = Config::parse(WHOLE).unwrap();
        config.check().unwrap();
        assert_eq!(config.auth.as_ref().unwrap().token_life, Duration::from_secs(600));
        assert_eq!((config.limits.patience.as_secs(), config.limits.connections), (5, 1000));
        assert_eq!((config.gc.grace.as_secs(), config.gc.every.as_secs()), (2 * 86400, 86400));
        assert_eq!(config.rules().unwrap().len(), 1);
    }

    #[test]
    fn mistakes_are_named() {
        for (text, part) in [
            ("lisen = []", "unknown field `lisen`"),
            ("[gc]\ngrace = \"soon\"", "`soon` is no time"),
            ("[auth]\nusers=\"u\"\n[[rule]]\nrepositories=[\"A\"]\nusers=[]\nallow=[]", "`A` is no pattern"),
            ("[[rule]]\nrepositories=[\"a\"]\nusers=[]\nallow=[\"pull\"]", "without [auth]"),
            (
                "[auth]\nusers=\"u\"\n[[rule]]\nrepositories=[\"a\"]\nusers=[]\nallow=[\"fly\"]",
                "unknown variant `fly`",
            ),
        ] {
            let error = Config::parse(text).unwrap_err();
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn the_outside_is_served_safely_or_not_at_all() {
        let check = |text: &str| Config::parse(text).unwrap().check().map_err(|error| error.to_string());
        assert_eq!(check(""), Ok(()));
        assert_eq!(check("listen = [\"[::1]:5000\"]"), Ok(()));
        assert!(check("listen = [\"0.0.0.0:5000\"]").unwrap_err().contains("without TLS"));
        let tls = "listen = [\"10.0.0.1:5000\"]\n[tls]\ncertificate = \"c\"\nkey = \"k\"\n";
        assert!(check(tls).unwrap_err().contains("nobody is asked"));
        assert_eq!(check(&format!("{tls}client-ca = \"ca\"")), Ok(()));
        assert_eq!(check(&format!("insecure = true\n{tls}")), Ok(()));
        assert_eq!(check("insecure = true\nlisten = [\"0.0.0.0:5000\"]"), Ok(()));
        assert!(check("folder = \"/a\"\n[bucket]\nbucket = \"b\"").unwrap_err().contains("not in both"));
    }
}
