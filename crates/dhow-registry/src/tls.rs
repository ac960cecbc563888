//! Whom a connection trusts and who it says it is.

use std::fs;
use std::path::{Path, PathBuf};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

use crate::config::ClientCertificate;
use crate::{Config, RegistryError, Security};

/// Where systems keep their certificate authorities in one file; the first that exists is read.
const SYSTEM_BUNDLES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// The certificate authorities of the system and `extra` ones. Certificates that cannot be read are left out
/// of the system's bundle, which nobody here can mend, but are an error in a file that the user named.
pub(crate) fn common_roots(extra: &[PathBuf]) -> Result<Vec<Certificate<'static>>, RegistryError> {
    let system = SYSTEM_BUNDLES.iter().find_map(|path| fs::read(path).ok()).unwrap_or_default();
    let mut roots: Vec<_> = parse_pem(&system)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    for path in extra {
        roots.extend(certificates(path)?);
    }
    Ok(roots)
}

/// The TLS settings that `table` asks for connections to `authority`.
pub(crate) fn settings(
    config: &Config,
    table: &str,
    authority: &str,
    common: &[Certificate<'static>],
    with_client_certificate: bool,
) -> Result<TlsConfig, RegistryError> {
    let files = Files::of(config, table);
    let mut roots = common.to_vec();
    for path in &files.ca {
        roots.extend(certificates(path)?);
    }
    let client = files.client.filter(|_| with_client_certificate);
    let client = client.as_ref().map(client_certificate).transpose()?;
    let security = config.security(table, authority);
    // A system without any bundle falls back on the authorities that come with the binary.
    let roots = if roots.is_empty() { RootCerts::WebPki } else { RootCerts::from(roots) };
    Ok(TlsConfig::builder()
        .root_certs(roots)
        .client_cert(client)
        .disable_verification(matches!(security, Security::Unverified | Security::Any))
        .build())
}

/// The files that concern one registry, from its table and from folders like `/etc/docker/certs.d`.
struct Files {
    ca: Vec<PathBuf>,
    client: Option<ClientCertificate>,
}

impl Files {
    fn of(config: &Config, table: &str) -> Files {
        let said = config.registries.get(table);
        let mut files = Files {
            ca: said.map(|table| table.ca.clone()).unwrap_or_default(),
            client: said.and_then(|table| table.client_certificate.clone()),
        };
        for folder in &config.certs_dirs {
            files.add_folder(&folder.join(table));
        }
        files
    }

    fn add_folder(&mut self, folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else {
            // Most registries have no such folder.
            return;
        };
        let mut paths: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
        paths.sort();
        for path in paths {
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("crt") => self.ca.push(path),
                Some("cert") if self.client.is_none() => {
                    let key = path.with_extension("key");
                    self.client = Some(ClientCertificate { cert: path, key });
                }
                _ => {}
            }
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, RegistryError> {
    fs::read(path).map_err(|error| unusable(path, error))
}

fn unusable(path: &Path, why: impl ToString) -> RegistryError {
    RegistryError::Certificate { path: path.to_owned(), why: why.to_string() }
}

fn certificates(path: &Path) -> Result<Vec<Certificate<'static>>, RegistryError> {
    let mut found = Vec::new();
    for item in parse_pem(&read(path)?) {
        if let PemItem::Certificate(certificate) = item.map_err(|error| unusable(path, error))? {
            found.push(certificate);
        }
    }
    if found.is_empty() {
        return Err(unusable(path, "no PEM certificate in the file"));
    }
    Ok(found)
}

fn client_certificate(files: &ClientCertificate) -> Result<ClientCert, RegistryError> {
    let chain = certificates(&files.cert)?;
    let pem = read(&files.key)?;
    let key = PrivateKey::from_pem(&pem).map_err(|error| unusable(&files.key, error))?;
    // ureq insists that key and certificate fit and panics otherwise, so they are tried here first.
    let der =
        PrivateKeyDer::from_pem_slice(&pem).map_err(|error| unusable(&files.key, format!("{error:?}")))?;
    let chain_der = chain.iter().map(|cert| CertificateDer::from(cert.der().to_vec())).collect();
    CertifiedKey::from_der(chain_der, der, &rustls::crypto::ring::default_provider())
        .map_err(|error| unusable(&files.key, error))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}
