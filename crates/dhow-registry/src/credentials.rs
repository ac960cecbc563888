//! Docker's `config.json`: who we are at which registry.
//!
//! The file belongs to Docker and to the user. Fields that dhow does not know survive, as do the order of
//! keys and the tabs; a file that cannot be understood is never overwritten.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::Secret;
use crate::helper::{Helper, HelperError};

/// The name under which Docker has always kept the credentials of Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
const FILE_BYTES_MAX: u64 = 16 << 20;

/// What proves to a registry who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    /// User name and password, or an access token used as one.
    Basic {
        /// The user name.
        username: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token that the token server exchanges for access tokens.
    IdentityToken {
        /// The user name it was got with, if known.
        username: Option<String>,
        /// The token.
        token: Secret,
    },
    /// A bearer token to send as it is.
    RegistryToken(Secret),
}

/// Why credentials could not be read or kept.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The file could not be read.
    #[error("cannot read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file could not be written; it is as it was.
    #[error("cannot write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not what Docker would write.
    #[error("{}: {message}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A credential helper was of no help.
    #[error(transparent)]
    Helper(#[from] HelperError),
    /// There is no file to write to.
    #[error("no credentials file to write to")]
    NoFile,
}

/// The credentials of one user: a `config.json` and the helpers it names.
#[derive(Clone, Debug, Default)]
pub struct Keychain {
    path: Option<PathBuf>,
    helper_folders: Vec<PathBuf>,
    /// What somebody brought along for a registry, which goes before all that is kept.
    given: Option<(String, Credential)>,
}

impl Keychain {
    /// Credentials in the file at `path`, which need not exist; helper programs are looked for in
    /// `helper_folders` (the folders of `PATH`).
    pub fn new(path: impl Into<PathBuf>, helper_folders: Vec<PathBuf>) -> Keychain {
        Keychain { path: Some(path.into()), helper_folders, given: None }
    }

    /// The same with a credential for one registry that is not kept anywhere.
    pub fn with(mut self, registry: &str, credential: Credential) -> Keychain {
        self.given = Some((server_key(registry).to_owned(), credential));
        self
    }

    /// No credentials at all.
    pub fn anonymous() -> Keychain {
        Keychain::default()
    }

    /// The credential for a registry, from its helper, the default store or the file itself.
    pub fn get(&self, registry: &str) -> Result<Option<Credential>, CredentialsError> {
        if let Some((server, credential)) = &self.given
            && server == server_key(registry)
        {
            return Ok(Some(credential.clone()));
        }
        let Some(path) = &self.path else { return Ok(None) };
        let file = ConfigFile::read(path)?;
        let key = server_key(registry);
        if let Some(helper) = self.helper(&file, key)? {
            return Ok(helper.get(key)?);
        }
        file.credential(registry)
    }

    /// Keeps a credential. Returns whether it went into a helper rather than, legibly, into the file.
    pub fn store(&self, registry: &str, credential: &Credential) -> Result<bool, CredentialsError> {
        let path = self.path.as_ref().ok_or(CredentialsError::NoFile)?;
        let mut file = ConfigFile::read(path)?;
        let key = server_key(registry);
        let Some(helper) = self.helper(&file, key)? else {
            file.set(key, entry(credential))?;
            return file.write().map(|()| false);
        };
        helper.store(key, credential)?;
        // Docker notes servers kept elsewhere with an empty entry.
        file.set(key, json!({}))?;
        file.write().map(|()| true)
    }

    /// Forgets the credential of a registry. Returns whether there was one.
    pub fn erase(&self, registry: &str) -> Result<bool, CredentialsError> {
        let Some(path) = &self.path else { return Ok(false) };
        let mut file = ConfigFile::read(path)?;
        let key = server_key(registry);
        let mut found = false;
        if let Some(helper) = self.helper(&file, key)? {
            found = helper.get(key)?.is_some();
            helper.erase(key)?;
        }
        let names = file.names_of(registry);
        if !names.is_empty() {
            file.remove(&names)?;
            file.write()?;
        }
        Ok(found || !names.is_empty())
    }

    /// The servers with a credential, and the user name where it is known.
    pub fn list(&self) -> Result<BTreeMap<String, String>, CredentialsError> {
        let Some(path) = &self.path else { return Ok(BTreeMap::new()) };
        let file = ConfigFile::read(path)?;
        let mut users = file.users()?;
        if let Some(suffix) = file.text("credsStore") {
            users.extend(Helper::find(suffix, &self.helper_folders)?.list()?);
        }
        Ok(users)
    }

    fn helper(&self, file: &ConfigFile, key: &str) -> Result<Option<Helper>, CredentialsError> {
        let helpers = file.root.get("credHelpers").and_then(Value::as_object);
        let own = helpers.and_then(|helpers| {
            let (_, suffix) =
                helpers.iter().find(|(name, _)| server_key(host_in(name)) == key || *name == key)?;
            suffix.as_str()
        });
        let suffix = own.or_else(|| file.text("credsStore")).filter(|suffix| !suffix.is_empty());
        Ok(suffix.map(|suffix| Helper::find(suffix, &self.helper_folders)).transpose()?)
    }
}

/// The name under which Docker keeps the credentials of a registry.
pub fn server_key(registry: &str) -> &str {
    match registry {
        "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB_KEY,
        other => other,
    }
}

/// The host in a key of the file, which may be written as a URL.
fn host_in(key: &str) -> &str {
    let rest = key.split_once("://").map_or(key, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

/// How a credential is written in `auths`.
fn entry(credential: &Credential) -> Value {
    match credential {
        Credential::Basic { username, password } => {
            json!({ "auth": STANDARD.encode(format!("{username}:{}", password.expose())) })
        }
        Credential::IdentityToken { username, token } => json!({
            "auth": STANDARD.encode(format!("{}:", username.as_deref().unwrap_or_default())),
            "identitytoken": token.expose(),
        }),
        Credential::RegistryToken(token) => json!({ "registrytoken": token.expose() }),
    }
}

struct ConfigFile {
    path: PathBuf,
    root: Map<String, Value>,
}

impl ConfigFile {
    fn read(path: &Path) -> Result<ConfigFile, CredentialsError> {
        let read = |source| CredentialsError::Read { path: path.to_owned(), source };
        let bytes = match fs::metadata(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(read(error)),
            Ok(meta) if meta.len() > FILE_BYTES_MAX => return Err(bad(path, "the file is too large")),
            Ok(_) => fs::read(path).map_err(read)?,
        };
        if bytes.trim_ascii().is_empty() {
            return Ok(ConfigFile { path: path.to_owned(), root: Map::new() });
        }
        // serde's own words could quote a secret; the place is enough.
        let root = serde_json::from_slice(&bytes).map_err(|e| {
            bad(path, &format!("not a JSON object (line {}, column {})", e.line(), e.column()))
        })?;
        Ok(ConfigFile { path: path.to_owned(), root })
    }

    fn text(&self, key: &str) -> Option<&str> {
        self.root.get(key)?.as_str()
    }

    fn auths(&self) -> impl Iterator<Item = (&String, &Value)> {
        self.root.get("auths").and_then(Value::as_object).into_iter().flatten()
    }

    /// The keys that stand for a registry: its own, or a URL with its host.
    fn names_of(&self, registry: &str) -> Vec<String> {
        let key = server_key(registry);
        let is_it = |name: &&String| *name == key || server_key(host_in(name)) == key;
        let mut names: Vec<_> = self.auths().map(|(name, _)| name).filter(is_it).cloned().collect();
        names.sort_by_key(|name| name != key);
        names
    }

    fn credential(&self, registry: &str) -> Result<Option<Credential>, CredentialsError> {
        for name in self.names_of(registry) {
            if let Some((_, entry)) = self.auths().find(|(key, _)| **key == name)
                && let Some(credential) = self.parse(&name, entry)?
            {
                return Ok(Some(credential));
            }
        }
        Ok(None)
    }

    fn parse(&self, name: &str, entry: &Value) -> Result<Option<Credential>, CredentialsError> {
        let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|text| !text.is_empty());
        let pair = text("auth").map(|auth| self.decode(name, auth)).transpose()?;
        let username = pair.as_ref().map(|(user, _)| user.as_str()).or(text("username"));
        if let Some(token) = text("registrytoken") {
            return Ok(Some(Credential::RegistryToken(Secret::new(token))));
        }
        if let Some(token) = text("identitytoken") {
            let username = username.filter(|username| !username.is_empty()).map(str::to_owned);
            return Ok(Some(Credential::IdentityToken { username, token: Secret::new(token) }));
        }
        let password = pair.as_ref().map(|(_, password)| password.as_str()).or(text("password"));
        Ok(username.zip(password).map(|(username, password)| Credential::Basic {
            username: username.to_owned(),
            password: Secret::new(password),
        }))
    }

    fn decode(&self, name: &str, auth: &str) -> Result<(String, String), CredentialsError> {
        let decoded = STANDARD.decode(auth.trim()).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        let pair = decoded.as_deref().and_then(|text| text.split_once(':'));
        match pair {
            // Docker pads with NUL bytes on some platforms.
            Some((user, password)) => Ok((user.to_owned(), password.trim_matches('\0').to_owned())),
            None => Err(bad(&self.path, &format!("auths.{name:?}.auth is not base64 of user:password"))),
        }
    }

    fn users(&self) -> Result<BTreeMap<String, String>, CredentialsError> {
        let mut users = BTreeMap::new();
        for (name, entry) in self.auths() {
            let user = match self.parse(name, entry)? {
                Some(Credential::Basic { username, .. }) => username,
                Some(Credential::IdentityToken { username, .. }) => username.unwrap_or_default(),
                Some(Credential::RegistryToken(_)) => String::new(),
                None => continue,
            };
            users.insert(name.clone(), user);
        }
        Ok(users)
    }

    fn auths_mut(&mut self) -> Result<&mut Map<String, Value>, CredentialsError> {
        let auths = self.root.entry("auths").or_insert_with(|| json!({}));
        auths.as_object_mut().ok_or_else(|| bad(&self.path, "`auths` is not an object"))
    }

    fn set(&mut self, key: &str, entry: Value) -> Result<(), CredentialsError> {
        self.auths_mut()?.insert(key.to_owned(), entry);
        Ok(())
    }

    fn remove(&mut self, names: &[String]) -> Result<(), CredentialsError> {
        self.auths_mut()?.retain(|name, _| !names.contains(name));
        Ok(())
    }

    /// Puts the new file in the place of the old one, whole or not at all, readable by its owner only.
    fn write(&self) -> Result<(), CredentialsError> {
        // A symbolic link (dotfiles in a repository) stays one: what it points to is replaced.
        let path = fs::canonicalize(&self.path).unwrap_or_else(|_| self.path.clone());
        write_atomically(&path, &self.to_json())
            .map_err(|source| CredentialsError::Write { path: self.path.clone(), source })
    }

    fn to_json(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
        let mut serializer = serde_json::Serializer::with_formatter(&mut bytes, tabs);
        self.root.serialize(&mut serializer).expect("JSON values are JSON and memory can be written");
        bytes
    }
}

fn bad(path: &Path, message: &str) -> CredentialsError {
    CredentialsError::Format { path: path.to_owned(), message: message.to_owned() }
}

fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let temporary = folder.join(name);
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The first error is the one to report; a leftover without a reader harms nobody.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    File::open(folder)?.sync_all()
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // A leftover of a process that died under this very number.
    let _ = fs::remove_file(path);
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
