//! Debian's `docker-registry`, the reference implementation: in the clear, with passwords, and over TLS.

use std::fs;
use std::io::{Cursor, Read};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use dhow_oci::{Descriptor, Digest, Reference, media_type};
use dhow_registry::{
    Client, Config, Keychain, Pushed, RegistryConfig, RegistryError, Secret, Security, VerifyingReader,
};
use tempfile::TempDir;

use crate::support::{Image, client, config, keychain, read_all};

const PROGRAM: &str = "/usr/bin/docker-registry";
/// bcrypt of `hunter2`.
const HTPASSWD: &str = "me:$2b$04$vOj5TTHxcgLOww2etxh/fe62Qtd0/6KYVCeEobxeK9lw..isDc4O2\n";

struct Registry {
    child: Child,
    authority: String,
    folder: TempDir,
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have died already, which its test will have noticed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Registry {
    /// Starts a registry with more lines of configuration; `None`, with the reason printed, if there is none.
    fn start(prepare: impl Fn(&Path) -> Option<String>) -> Option<Registry> {
        if !Path::new(PROGRAM).exists() {
            eprintln!("skipped: {PROGRAM} is not installed");
            return None;
        }
        let folder = tempfile::tempdir().expect("a folder");
        let more = prepare(folder.path())?;
        // Another process may take the port before the registry does, so it is tried again.
        (0..5).find_map(|_| Registry::spawn(&folder, &more)).map(|(child, authority)| Registry {
            child,
            authority,
            folder,
        })
    }

    fn spawn(folder: &TempDir, more: &str) -> Option<(Child, String)> {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let authority = listener.local_addr().expect("an address").to_string();
        drop(listener);
        let root = folder.path().join("data");
        let text = format!(
            "version: 0.1\nlog: {{level: panic, accesslog: {{disabled: true}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n{}",
            root.display(),
            more.replace("ADDRESS", &authority)
        );
        let path = folder.path().join("config.yml");
        fs::write(&path, text).expect("written");
        let mut command = Command::new(PROGRAM);
        command.arg("serve").arg(path).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = command.spawn().expect("started");
        for _ in 0..200 {
            if TcpStream::connect(&authority).is_ok() {
                return Some((child, authority));
            }
            if child.try_wait().expect("a child").is_some() {
                return None;
            }
            thread::sleep(Duration::from_millis(20));
        }
        panic!("the registry does not listen");
    }

    fn plain() -> Option<Registry> {
        Registry::start(|_| Some("http: {addr: \"ADDRESS\"}\n".to_owned()))
    }

    fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.authority).parse().expect("a reference")
    }
}

fn push(client: &Client, reference: &Reference, from: Option<&str>) -> Result<Vec<Pushed>, RegistryError> {
    let image = Image::new(200_000);
    let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
    let mut outcomes = Vec::new();
    for (descriptor, bytes) in [(&config, b"{}".to_vec()), (&image.descriptor, image.layer.clone())] {
        let open = || Ok(Box::new(Cursor::new(bytes.clone())) as Box<dyn Read + Send>);
        outcomes.push(client.push_blob(reference, descriptor, from, &open)?);
    }
    client.push_manifest(reference, media_type::OCI_MANIFEST, &image.manifest)?;
    Ok(outcomes)
}

fn check_pull(client: &Client, reference: &Reference) {
    let image = Image::new(200_000);
    let resolved = client.resolve(reference).expect("resolved");
    assert_eq!(resolved.descriptor, Descriptor::of(media_type::OCI_MANIFEST, &image.manifest));
    assert_eq!(client.head(reference).expect("a head"), resolved.descriptor);
    assert_eq!(client.fetch_manifest(reference, &resolved.descriptor).expect("fetched"), image.manifest);
    let reader = client.fetch_blob(reference, &image.descriptor, 0).expect("opened");
    assert_eq!(read_all(VerifyingReader::new(reader, &image.descriptor)).expect("read"), image.layer);
    let reader = client.fetch_blob(reference, &image.descriptor, 150_000).expect("opened");
    assert_eq!(read_all(reader).expect("read"), image.layer[150_000..]);
}

#[test]
fn what_is_pushed_is_pulled() {
    let Some(registry) = Registry::plain() else { return };
    let (client, reference) = (client(), registry.reference("a/b:1"));
    assert_eq!(push(&client, &reference, None).expect("pushed"), [Pushed::Uploaded; 2]);
    assert_eq!(push(&client, &reference, None).expect("pushed"), [Pushed::Existed; 2]);
    let other = registry.reference("c/d:2");
    assert_eq!(push(&client, &other, Some("a/b")).expect("pushed"), [Pushed::Mounted; 2]);
    check_pull(&client, &reference);
    check_pull(&client, &other);
    push(&client, &registry.reference("a/b:3"), None).expect("pushed");
    assert_eq!(client.tags(&reference).expect("tags"), ["1", "3"]);
}

#[test]
fn what_is_missing_is_said_as_by_docker() {
    let Some(registry) = Registry::plain() else { return };
    let say = |error: RegistryError| error.to_string().replace(&registry.authority, "HOST");
    let error = client().resolve(&registry.reference("a/b")).expect_err("an error");
    assert_eq!(say(error), "manifest for HOST/a/b:latest not found: manifest unknown: manifest unknown");
    let error = client().tags(&registry.reference("a/b")).expect_err("an error");
    assert_eq!(
        say(error),
        "repository HOST/a/b not found: name unknown: repository name not known to registry"
    );
    let missing = Descriptor::of(media_type::OCI_LAYER, b"missing");
    let error = client().fetch_blob(&registry.reference("a/b"), &missing, 0).err().expect("an error");
    assert_eq!(say(error), format!("blob {} of HOST/a/b not found in the registry", missing.digest));
}

#[test]
fn content_that_does_not_match_its_digest_is_not_taken() {
    let Some(registry) = Registry::plain() else { return };
    let descriptor = Descriptor::new(media_type::OCI_LAYER, Digest::sha256_of(b"other"), 4);
    let open = || Ok(Box::new(Cursor::new(b"this".to_vec())) as Box<dyn Read + Send>);
    let error =
        client().push_blob(&registry.reference("a/b"), &descriptor, None, &open).expect_err("an error");
    assert!(error.to_string().contains("registry answered 400: digest invalid"), "{error}");
}

#[test]
fn a_password_is_needed_and_suffices() {
    let registry = Registry::start(|folder| {
        let htpasswd = folder.join("htpasswd");
        fs::write(&htpasswd, HTPASSWD).expect("written");
        let path = htpasswd.display();
        Some(format!("http: {{addr: \"ADDRESS\"}}\nauth: {{htpasswd: {{realm: here, path: {path}}}}}\n"))
    });
    let Some(registry) = registry else { return };
    let reference = registry.reference("a/b:1");
    let error = push(&client(), &reference, None).expect_err("an error");
    assert!(matches!(error, RegistryError::Denied { .. }), "{error}");
    client().login(&registry.authority, "me", &Secret::new("hunter2")).expect("in");
    let error = client().login(&registry.authority, "me", &Secret::new("x")).expect_err("an error");
    assert!(matches!(error, RegistryError::Unauthorized { .. }), "{error}");

    let client = Client::new(config(), keychain(&registry.folder, &[&registry.authority]));
    push(&client, &reference, None).expect("pushed");
    check_pull(&client, &reference);
}

/// An authority and a certificate for `localhost` that it signed.
fn certificates(folder: &Path) -> Option<()> {
    let script = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem \
        -days 2 -subj /CN=test && openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem \
        -out csr.pem -subj /CN=localhost && echo subjectAltName=DNS:localhost > ext && openssl x509 -req -in csr.pem \
        -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out cert.pem";
    let status = Command::new("sh").args(["-c", script]).current_dir(folder).stderr(Stdio::null()).status();
    if status.is_ok_and(|status| status.success()) {
        return Some(());
    }
    eprintln!("skipped: openssl cannot make certificates here");
    None
}

#[test]
fn certificates_are_checked_unless_told_otherwise() {
    let registry = Registry::start(|folder| {
        certificates(folder)?;
        let (cert, key) = (folder.join("cert.pem"), folder.join("key.pem"));
        let tls = format!("{{certificate: {}, key: {}}}", cert.display(), key.display());
        Some(format!("http: {{addr: \"ADDRESS\", tls: {tls}}}\n"))
    });
    let Some(registry) = registry else { return };
    let host = registry.authority.replace("127.0.0.1", "localhost");
    let reference: Reference = format!("{host}/a/b:1").parse().expect("a reference");
    let with = |table: RegistryConfig| {
        let mut config: Config = config();
        config.registries.insert(host.clone(), table);
        Client::new(config, Keychain::anonymous())
    };
    let ca = vec![registry.folder.path().join("ca.pem")];
    let trusting = with(RegistryConfig { ca: ca.clone(), ..RegistryConfig::default() });
    push(&trusting, &reference, None).expect("pushed");
    check_pull(&trusting, &reference);
    // On loopback both protocols are tried, and any certificate will do.
    check_pull(&client(), &reference);
    check_pull(
        &with(RegistryConfig { security: Some(Security::Unverified), ..Default::default() }),
        &reference,
    );

    let strict = with(RegistryConfig { security: Some(Security::Verified), ..RegistryConfig::default() });
    let error = strict.resolve(&reference).expect_err("an error");
    assert!(error.to_string().contains("certificate is signed by an unknown authority"), "{error}");

    let folder = registry.folder.path();
    let stranger =
        dhow_registry::ClientCertificate { cert: folder.join("cert.pem"), key: folder.join("ca.key") };
    let confused =
        with(RegistryConfig { ca, client_certificate: Some(stranger), ..RegistryConfig::default() });
    let error = confused.resolve(&reference).expect_err("an error");
    assert!(matches!(error, RegistryError::Certificate { .. }), "{error}");
}

#[test]
fn a_client_certificate_is_found_where_docker_keeps_it() {
    let registry = Registry::start(|folder| {
        certificates(folder)?;
        let [cert, key, ca] =
            ["cert.pem", "key.pem", "ca.pem"].map(|name| folder.join(name).display().to_string());
        let tls = format!("{{certificate: {cert}, key: {key}, clientcas: [{ca}]}}");
        Some(format!("http: {{addr: \"ADDRESS\", tls: {tls}}}\n"))
    });
    let Some(registry) = registry else { return };
    let host = registry.authority.replace("127.0.0.1", "localhost");
    let reference: Reference = format!("{host}/a/b:1").parse().expect("a reference");
    let certs = registry.folder.path().join("certs.d");
    let mut config = config();
    config.certs_dirs = vec![certs.clone()];
    let client = |config: &Config| Client::new(config.clone(), Keychain::anonymous());
    assert!(client(&config).resolve(&reference).is_err());

    fs::create_dir_all(certs.join(&host)).expect("a folder");
    for (from, to) in [("ca.pem", "ca.crt"), ("cert.pem", "client.cert"), ("key.pem", "client.key")] {
        fs::copy(registry.folder.path().join(from), certs.join(&host).join(to)).expect("copied");
    }
    push(&client(&config), &reference, None).expect("pushed");
    check_pull(&client(&config), &reference);
}
