use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use crate::endpoint::Endpoint;
use crate::url::{Url, UrlError, is_loopback};
use crate::{ProxyConfig, Retry, Scheme};

/// Everything a client is told about the world.
///
/// What concerns registries can be read from TOML:
///
/// ```toml
/// [registry."docker.io"]
/// mirrors = ["http://127.0.0.1:5000"]     # asked first, in this order, by pulls only
/// location = "https://hub.corp/dockerhub" # stands in for the registry, for pull, push, login and search
/// search = "https://search.corp"          # where `dhow search` asks instead
///
/// [registry."registry.corp:5000"]
/// ca = ["/etc/ssl/corp.pem"]              # trusted besides the system's authorities
/// cert = "/etc/ssl/me.pem"                # client certificate, with its key
/// key = "/etc/ssl/me.key"
/// insecure = true                         # HTTPS without checking the certificate
/// http = true                             # plain HTTP; together with `insecure`: whichever answers
/// ```
/// A path in a mirror or location goes before the repository: `library/alpine` becomes
/// `dockerhub/library/alpine` above. The settings of a mirror's own connection are those of the table that
/// bears its host. A registry on the loopback interface is taken as `http` and `insecure`, as in Docker.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// By registry, as in `[registry."host:port"]`.
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Certificate authorities to trust everywhere, besides the system's (`SSL_CERT_FILE`).
    pub extra_ca: Vec<PathBuf>,
    /// Folders laid out like `/etc/docker/certs.d`: `<host:port>/*.crt`, `*.cert` with `*.key`.
    pub certs_dirs: Vec<PathBuf>,
    /// How to get out.
    pub proxy: ProxyConfig,
    /// How often to try.
    pub retry: Retry,
    /// How long to wait.
    pub timeouts: Timeouts,
}

/// What is said about one registry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegistryConfig {
    /// Stands in for the registry itself.
    pub location: Option<Url>,
    /// Asked before the registry, by pulls.
    pub mirrors: Vec<Url>,
    /// Where to search.
    pub search: Option<Url>,
    /// PEM files with certificate authorities to trust here.
    pub ca: Vec<PathBuf>,
    /// Who we are.
    pub client_certificate: Option<ClientCertificate>,
    /// How much protection to insist on; when unset, all of it except on loopback.
    pub security: Option<Security>,
}

/// A client certificate chain and its private key, both PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCertificate {
    /// The chain, own certificate first.
    pub cert: PathBuf,
    /// The key.
    pub key: PathBuf,
}

/// How much protection to insist on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Security {
    /// HTTPS with a certificate that checks out.
    Verified,
    /// HTTPS with any certificate.
    Unverified,
    /// Plain HTTP.
    PlainHttp,
    /// Plain HTTP or HTTPS with any certificate, whichever the server speaks.
    Any,
}

/// How long the network may stay silent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From the first packet to the end of the TLS handshake.
    pub connect: Duration,
    /// Between two pieces of an answer.
    pub silence: Duration,
    /// For a registry to digest what was uploaded.
    pub commit: Duration,
    /// For the whole of a small answer: a manifest, a token, a list.
    pub small: Duration,
}

impl Default for Timeouts {
    fn default() -> Timeouts {
        let [connect, silence, commit, small] = [10, 30, 300, 60].map(Duration::from_secs);
        Timeouts { connect, silence, commit, small }
    }
}

/// Why a configuration file was not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Not TOML, an unknown key, or a value of the wrong kind.
    #[error("{}:{line}: {message}", file.display())]
    Syntax {
        /// The file.
        file: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A value that makes no sense.
    #[error("{}: {key}: {message}", file.display())]
    Value {
        /// The file.
        file: PathBuf,
        /// The key, from the top.
        key: String,
        /// What is wrong.
        message: String,
    },
}

impl Config {
    /// Reads the `[registry]` tables of a configuration file; other tables are somebody else's. `file` is
    /// used in errors only.
    pub fn parse(file: &Path, text: &str) -> Result<Config, ConfigError> {
        let tables: Tables = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            ConfigError::Syntax { file: file.into(), line, message: error.message().to_owned() }
        })?;
        let mut config = Config::default();
        for (host, table) in tables.registry {
            let registry = table.check(&host).map_err(|(key, message)| {
                let key = format!("registry.{host:?}{key}");
                ConfigError::Value { file: file.into(), key, message }
            })?;
            config.registries.insert(host, registry);
        }
        Ok(config)
    }

    /// Lays the registries of `other`, a more personal file, over these. A table replaces one of its name.
    pub fn overlay(&mut self, other: Config) {
        self.registries.extend(other.registries);
    }

    /// Whom to ask when pulling from `registry`, in order; the last one is the registry itself.
    pub(crate) fn endpoints(&self, registry: &str) -> Vec<Endpoint> {
        let mirrors = self.registries.get(registry).map(|table| table.mirrors.as_slice()).unwrap_or_default();
        let mirrors = mirrors.iter().map(Endpoint::mirror);
        mirrors.chain([self.endpoint(registry)]).collect()
    }

    /// The registry itself, or what stands in for it.
    pub(crate) fn endpoint(&self, registry: &str) -> Endpoint {
        match self.registries.get(registry).and_then(|table| table.location.as_ref()) {
            Some(url) => Endpoint::at(registry, url),
            None => Endpoint::of(registry, self.security(registry, registry)),
        }
    }

    /// The protection that `table` asks for a connection to `authority`.
    pub(crate) fn security(&self, table: &str, authority: &str) -> Security {
        let table = self.registries.get(table);
        let has_ca = table.is_some_and(|table| !table.ca.is_empty());
        let unset = match is_loopback(authority) {
            true if !has_ca => Security::Any,
            _ => Security::Verified,
        };
        table.and_then(|table| table.security).unwrap_or(unset)
    }

    /// Whether a server may send us to this URL although we came by HTTPS.
    pub(crate) fn allows_plain(&self, url: &Url) -> bool {
        let security = self.security(url.authority(), url.authority());
        url.scheme() == Scheme::Https || matches!(security, Security::PlainHttp | Security::Any)
    }
}

#[derive(Deserialize)]
struct Tables {
    #[serde(default)]
    registry: BTreeMap<String, Table>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    location: Option<String>,
    #[serde(default)]
    mirrors: Vec<String>,
    search: Option<String>,
    #[serde(default)]
    ca: Vec<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    insecure: Option<bool>,
    http: Option<bool>,
}

impl Table {
    /// The checked form, or the key and what is wrong with it.
    fn check(self, host: &str) -> Result<RegistryConfig, (String, String)> {
        let own = |message: String| (String::new(), message);
        Url::new(Scheme::Https, host, "/").map_err(|_| own("a registry is a host, or host:port".into()))?;
        let client_certificate = match (self.cert, self.key) {
            (Some(cert), Some(key)) => Some(ClientCertificate { cert, key }),
            (None, None) => None,
            _ => return Err(own("`cert` and `key` go together".into())),
        };
        let security = match (self.http, self.insecure) {
            (None, None) => None,
            (Some(true), Some(true)) => Some(Security::Any),
            (Some(true), _) => Some(Security::PlainHttp),
            (_, Some(true)) => Some(Security::Unverified),
            _ => Some(Security::Verified),
        };
        let url = |key: &str, text: &String| {
            Url::parse(text).map_err(|error: UrlError| (format!(".{key}"), format!("{text:?}: {error}")))
        };
        Ok(RegistryConfig {
            location: self.location.as_ref().map(|text| url("location", text)).transpose()?,
            mirrors: self.mirrors.iter().map(|text| url("mirrors", text)).collect::<Result<_, _>>()?,
            search: self.search.as_ref().map(|text| url("search", text)).transpose()?,
            ca: self.ca,
            client_certificate,
            security,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(Path::new("/etc/dhow/config.toml"), text)
    }

    fn check_error(text: &str, expected: Expect) {
        expected.assert_eq(&parse(text).expect_err("a mistake").to_string());
    }

    fn check_endpoints(text: &str, registry: &str, expected: Expect) {
        let endpoints = parse(text).expect("a config").endpoints(registry);
        expected.assert_eq(&endpoints.iter().map(Endpoint::to_string).collect::<Vec<_>>().join(" "));
    }

    #[test]
    fn mistakes_are_named_with_file_and_key() {
        check_error(
            "x = 1\n[registry.a]\nmiror = []",
            expect![[r#"
            /etc/dhow/config.toml:3: unknown field `miror`, expected one of `location`, `mirrors`, `search`, `ca`, `cert`, `key`, `insecure`, `http`"#]],
        );
        check_error(
            "[registry.\"a:1\"]\nmirrors = [\"ftp://x\"]",
            expect![[
                r#"/etc/dhow/config.toml: registry."a:1".mirrors: "ftp://x": a URL starts with http:// or https://"#
            ]],
        );
        check_error(
            "[registry.a]\ncert = \"x\"",
            expect![[r#"/etc/dhow/config.toml: registry."a": `cert` and `key` go together"#]],
        );
        check_error(
            "[registry.\"http://a\"]",
            expect![[r#"/etc/dhow/config.toml: registry."http://a": a registry is a host, or host:port"#]],
        );
    }

    #[test]
    fn mirrors_come_before_the_registry_and_a_location_replaces_it() {
        check_endpoints("", "docker.io", expect!["https://registry-1.docker.io"]);
        check_endpoints("", "quay.io", expect!["https://quay.io"]);
        check_endpoints("", "localhost:5000", expect!["localhost:5000"]);
        check_endpoints("[registry.\"a:1\"]\nhttp = true", "a:1", expect!["http://a:1"]);
        check_endpoints("[registry.\"a:1\"]\nhttp = true\ninsecure = true", "a:1", expect!["a:1"]);
        check_endpoints(
            "[registry.\"localhost:1\"]\nca = [\"x\"]",
            "localhost:1",
            expect!["https://localhost:1"],
        );
        check_endpoints(
            "[registry.\"docker.io\"]\nmirrors = [\"http://m:5000\", \"https://n/x\"]\nlocation = \"https://l\"",
            "docker.io",
            expect!["http://m:5000 https://n/x https://l"],
        );
    }

    #[test]
    fn the_more_personal_file_wins() {
        let mut config = parse("[registry.a]\nhttp = true\n[registry.b]\nhttp = true").expect("a config");
        config.overlay(parse("[registry.a]\ninsecure = true").expect("a config"));
        assert_eq!(config.security("a", "a"), Security::Unverified);
        assert_eq!(config.security("b", "b"), Security::PlainHttp);
    }
}
