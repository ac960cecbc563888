//! The distribution-spec client: resolve, fetch, push, search, authenticate, mirrors, retries.
//!
//! A [`Client`] is told everything it must know by a [`Config`] and a [`Keychain`]: which server stands for a
//! registry, which mirrors to try before it, whom to trust, how long to wait. It deals in bytes, readers and
//! descriptors, and has never heard of a store.
//!
//! The layers inside, from the wire up: `transport` does one HTTP exchange and knows TLS and proxies;
//! `auth` answers challenges and keeps tokens; `client` puts the two together with retries; `manifest`,
//! `blob`, `upload`, `tags`, `search` and `login` are the operations. `download` fetches any other file the same way.
#![forbid(unsafe_code)]

mod auth;
mod blob;
mod challenge;
mod client;
mod config;
mod credentials;
mod download;
mod endpoint;
mod error;
mod helper;
mod login;
mod manifest;
mod proxy;
mod retry;
mod search;
mod secret;
mod tags;
mod tls;
mod transport;
mod upload;
mod url;

pub use blob::{BlobReader, VerifyingReader};
pub use challenge::Challenge;
pub use client::Client;
pub use config::{ClientCertificate, Config, ConfigError, RegistryConfig, Security, Timeouts};
pub use credentials::{Credential, CredentialsError, Keychain, server_key};
pub use download::{Content, Download, DownloadError, DownloadRequest};
pub use endpoint::Endpoint;
pub use error::{Action, RegistryError};
pub use helper::HelperError;
pub use login::LoginOutcome;
pub use manifest::Resolved;
pub use proxy::ProxyConfig;
pub use retry::Retry;
pub use search::SearchResult;
pub use secret::Secret;
pub use upload::{OpenContent, Pushed};
pub use url::{Scheme, Url, UrlError};
