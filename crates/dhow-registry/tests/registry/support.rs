//! A registry that does what a test tells it to, and remembers what it was asked.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dhow_oci::{Descriptor, Reference, media_type};
use dhow_registry::{Client, Config, Keychain, RegistryConfig, Retry, Timeouts};

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Path and query.
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.target)
    }

    /// The first byte wanted.
    pub(crate) fn range_start(&self) -> usize {
        let range = self.header("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
        range.map_or(0, |start| start.parse().expect("a number"))
    }
}

/// An answer, and how it goes wrong.
#[derive(Clone, Default)]
pub(crate) struct Response {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
    fault: Fault,
}

#[derive(Clone, Copy, Default)]
enum Fault {
    #[default]
    None,
    /// The connection ends after so many bytes of the body.
    CutAfter(usize),
    /// The body never ends.
    Endless,
    /// Nothing is answered.
    Silence,
}

impl Response {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Response {
        Response { status, body: body.into(), ..Response::default() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Response {
        self.headers.push((name.to_owned(), value.into()));
        self
    }

    pub(crate) fn cut_after(mut self, bytes: usize) -> Response {
        self.fault = Fault::CutAfter(bytes);
        self
    }

    pub(crate) fn endless(mut self) -> Response {
        self.fault = Fault::Endless;
        self
    }

    pub(crate) fn silent() -> Response {
        Response { fault: Fault::Silence, ..Response::default() }
    }

    /// A refusal in the words of the distribution-spec.
    pub(crate) fn error(status: u16, code: &str, message: &str) -> Response {
        Response::new(status, format!(r#"{{"errors":[{{"code":"{code}","message":"{message}"}}]}}"#))
            .header("content-type", "application/json")
    }

    /// Part of a body, as a server that does ranges gives it.
    pub(crate) fn ranged(request: &Request, body: &[u8]) -> Response {
        match request.range_start() {
            0 => Response::new(200, body),
            start => Response::new(206, &body[start..])
                .header("content-range", format!("bytes {start}-{}/{}", body.len() - 1, body.len())),
        }
    }

    fn write(&self, out: &mut TcpStream, is_head: bool) -> io::Result<bool> {
        if matches!(self.fault, Fault::Silence) {
            thread::sleep(Duration::from_secs(2));
            return Ok(false);
        }
        let mut head = format!("HTTP/1.1 {} x\r\n", self.status);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        let has_length = self.headers.iter().any(|(name, _)| name == "content-length");
        if !has_length && !matches!(self.fault, Fault::Endless) {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        out.write_all(head.as_bytes())?;
        match self.fault {
            _ if is_head => Ok(true),
            Fault::CutAfter(bytes) => out.write_all(&self.body[..bytes]).map(|()| false),
            Fault::Endless => loop {
                out.write_all(&[b' '; 64 << 10])?;
            },
            _ => out.write_all(&self.body).map(|()| true),
        }
    }
}

/// A server on a port of its own. It ends with the test process.
pub(crate) struct Server {
    pub(crate) authority: String,
    requests: Arc<Mutex<Vec<Request>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) fn start(handle: impl Fn(&Request) -> Response + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let authority = listener.local_addr().expect("an address").to_string();
        let (requests, connections) = (Arc::default(), Arc::new(AtomicUsize::new(0)));
        let server =
            Server { authority, requests: Arc::clone(&requests), connections: Arc::clone(&connections) };
        let handle = Arc::new(handle);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                connections.fetch_add(1, Ordering::SeqCst);
                let (handle, requests) = (Arc::clone(&handle), Arc::clone(&requests));
                // A client that hangs up is its own business.
                thread::spawn(move || serve(stream, &*handle, &requests));
            }
        });
        server
    }

    /// What was asked, one line per request.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("no panic").clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.requests().len()
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// An image of this registry.
    pub(crate) fn reference(&self, name: &str) -> Reference {
        format!("{}/{name}", self.authority).parse().expect("a reference")
    }
}

fn serve(
    stream: TcpStream,
    handle: &(dyn Fn(&Request) -> Response + Send + Sync),
    requests: &Mutex<Vec<Request>>,
) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream);
    while let Some(request) = read_request(&mut input)? {
        requests.lock().expect("no panic").push(request.clone());
        if !handle(&request).write(&mut out, request.method == "HEAD")? {
            return out.shutdown(std::net::Shutdown::Both);
        }
    }
    Ok(())
}

fn read_request(input: &mut impl BufRead) -> io::Result<Option<Request>> {
    let mut line = String::new();
    if input.read_line(&mut line)? == 0 {
        return Ok(None);
    }
    let mut words = line.split_whitespace().map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let mut request = Request { method, target, headers, body: Vec::new() };
    let length = request.header("content-length").map_or(0, |length| length.parse().expect("a length"));
    input.take(length).read_to_end(&mut request.body)?;
    Ok(Some(request))
}

/// An image of one layer.
pub(crate) struct Image {
    pub(crate) manifest: Vec<u8>,
    pub(crate) layer: Vec<u8>,
    pub(crate) descriptor: Descriptor,
}

impl Image {
    pub(crate) fn new(layer_bytes: usize) -> Image {
        let layer: Vec<u8> = (0..layer_bytes).map(|index| (index % 251) as u8).collect();
        let descriptor = Descriptor::of(media_type::OCI_LAYER, &layer);
        let config = Descriptor::of(media_type::OCI_CONFIG, b"{}");
        let manifest = dhow_oci::Manifest::new(media_type::OCI_MANIFEST, config, vec![descriptor.clone()]);
        Image { manifest: serde_json::to_vec(&manifest).expect("JSON"), layer, descriptor }
    }

    /// What an honest registry answers to a pull.
    pub(crate) fn serve(&self, request: &Request) -> Response {
        if request.target.contains("/manifests/") {
            return Response::new(200, self.manifest.clone())
                .header("content-type", media_type::OCI_MANIFEST)
                .header("docker-content-digest", dhow_oci::Digest::sha256_of(&self.manifest).to_string());
        }
        if request.target.contains("/blobs/sha256:") {
            return Response::ranged(request, &self.layer);
        }
        Response::error(404, "UNSUPPORTED", "no such thing")
    }
}

/// Quick to try again and to lose patience.
pub(crate) fn config() -> Config {
    let ms = Duration::from_millis;
    Config {
        retry: Retry { attempts_max: 4, delay: ms(1), delay_max: ms(5), retry_after_max: ms(2000) },
        timeouts: Timeouts { silence: ms(300), commit: ms(300), small: ms(1000), ..Timeouts::default() },
        ..Config::default()
    }
}

pub(crate) fn client() -> Client {
    Client::new(config(), Keychain::anonymous())
}

/// A client for which `registry` is served by `location` behind `mirrors`.
pub(crate) fn client_for(registry: &str, location: &str, mirrors: &[&str], keychain: Keychain) -> Client {
    let url = |text: &str| dhow_registry::Url::parse(&format!("http://{text}")).expect("a URL");
    let table = RegistryConfig {
        location: Some(url(location)),
        mirrors: mirrors.iter().map(|mirror| url(mirror)).collect(),
        ..RegistryConfig::default()
    };
    let mut config = config();
    config.registries.insert(registry.to_owned(), table);
    Client::new(config, keychain)
}

/// A keychain with user `me` and password `hunter2` at each of these registries.
pub(crate) fn keychain(folder: &tempfile::TempDir, registries: &[&str]) -> Keychain {
    let keychain = Keychain::new(folder.path().join("config.json"), Vec::new());
    let password = dhow_registry::Secret::new("hunter2");
    for registry in registries {
        let credential =
            dhow_registry::Credential::Basic { username: "me".into(), password: password.clone() };
        keychain.store(registry, &credential).expect("stored");
    }
    keychain
}

pub(crate) fn read_all(mut reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.read_to_end(&mut bytes).map(|_| bytes)
}
