//! A registry that does what a test tells it to, however wrong, and remembers what it was asked.

use std::collections::BTreeMap;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use dhow_oci::{Descriptor, Digest, media_type};
use serde_json::{Value, json};

/// No request of a test is longer.
const REQUEST_BYTES_MAX: u64 = 64 << 10;
/// How slowly a trickle begins.
const TRICKLE_PIECES: usize = 20;
const TRICKLE_BYTES: usize = 16;
const TRICKLE_PAUSE: Duration = Duration::from_millis(20);

/// A request.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// `GET` and its like.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The first byte wanted.
    pub from: usize,
    /// The version that is there already.
    pub if_none_match: Option<String>,
    /// Who asks, as far as is told.
    pub authorization: Option<String>,
}

/// An answer, right or wrong.
pub struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Body,
}

pub(crate) enum Body {
    Whole(Vec<u8>),
    /// The connection ends after so many bytes.
    Cut(Vec<u8>, usize),
    /// The same, with the other side told that the connection is void.
    Reset(Vec<u8>, usize),
    /// A few bytes at a time to begin with.
    Trickle(Vec<u8>),
    /// Nothing more comes after so many bytes, until the client gives up.
    Stall(Vec<u8>, usize),
    /// The length told is another one.
    Lie(Vec<u8>, u64),
    /// It goes on as long as the client reads; the length, if one is told, is a lie.
    Endless(Option<u64>),
    /// Not even a status.
    Nothing,
}

impl Answer {
    /// One with this body, and its true length.
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, headers: Vec::new(), body: Body::Whole(body.into()) }
    }

    /// The same with a header.
    pub fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    /// The connection breaks after so many bytes of the body.
    pub fn cut_after(mut self, bytes: usize) -> Self {
        if let Body::Whole(body) = self.body {
            let bytes = bytes.min(body.len());
            self.body = Body::Cut(body, bytes);
        }
        self
    }

    /// After so many bytes of the body nothing happens any more.
    pub fn stalls_after(mut self, bytes: usize) -> Self {
        if let Body::Whole(body) = self.body {
            let bytes = bytes.min(body.len());
            self.body = Body::Stall(body, bytes);
        }
        self
    }

    /// Spaces without end, though a length may be told.
    pub fn endless(length: Option<u64>) -> Self {
        Self { status: 200, headers: Vec::new(), body: Body::Endless(length) }
    }

    /// A refusal in the words of the distribution-spec.
    pub fn refusal(status: u16, code: &str, message: &str) -> Self {
        let body = json!({ "errors": [{ "code": code, "message": message }] }).to_string();
        Self::new(status, body).header("content-type", "application/json")
    }

    fn length(&self) -> Option<u64> {
        match &self.body {
            Body::Whole(body)
            | Body::Cut(body, _)
            | Body::Reset(body, _)
            | Body::Stall(body, _)
            | Body::Trickle(body) => Some(body.len() as u64),
            Body::Lie(_, length) => Some(*length),
            Body::Endless(length) => *length,
            Body::Nothing => None,
        }
    }

    fn write(&self, is_head: bool, out: &mut TcpStream) -> io::Result<()> {
        if matches!(self.body, Body::Nothing) {
            return Ok(());
        }
        write!(out, "HTTP/1.1 {} Told\r\nconnection: close\r\n", self.status)?;
        if let Some(length) = self.length() {
            write!(out, "content-length: {length}\r\n")?;
        }
        for (name, value) in &self.headers {
            write!(out, "{name}: {value}\r\n")?;
        }
        out.write_all(b"\r\n")?;
        match &self.body {
            _ if is_head => Ok(()),
            Body::Whole(body) | Body::Lie(body, _) => out.write_all(body),
            Body::Cut(body, bytes) => out.write_all(&body[..*bytes]),
            Body::Reset(body, bytes) => {
                out.write_all(&body[..*bytes])?;
                // Closing now sends a reset, not an end.
                Ok(rustix::net::sockopt::set_socket_linger(out, Some(Duration::ZERO))?)
            }
            Body::Trickle(body) => {
                let (slow, rest) = body.split_at(body.len().min(TRICKLE_PIECES * TRICKLE_BYTES));
                for piece in slow.chunks(TRICKLE_BYTES) {
                    out.write_all(piece)?;
                    thread::sleep(TRICKLE_PAUSE);
                }
                out.write_all(rest)
            }
            Body::Stall(body, bytes) => {
                out.write_all(&body[..*bytes])?;
                // It sends nothing more either: this ends when it hangs up.
                out.read(&mut [0]).map(drop)
            }
            Body::Nothing => Ok(()),
            Body::Endless(_) => loop {
                out.write_all(&[b' '; 64 << 10])?;
            },
        }
    }
}

/// A registry on 127.0.0.1. It ends with the process of the test.
pub struct Double {
    /// `127.0.0.1:PORT`
    pub address: String,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Double {
    /// One that answers so.
    pub fn start(answer: impl Fn(&Asked) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let asked = Arc::default();
        let double = Self { address, asked: Arc::clone(&asked) };
        let answer = Arc::new(answer);
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
                // A client that hangs up is its own business.
                thread::spawn(move || serve(stream, &*answer, &asked));
            }
        });
        double
    }

    /// A registry that has these images, each under its repository's name whatever the tag.
    pub fn with(images: Vec<(&'static str, Image)>) -> Self {
        Self::start(move |asked| {
            let image = images.iter().find(|(name, _)| asked.path.starts_with(&format!("/v2/{name}/")));
            image.map_or_else(|| not_found(asked), |(_, image)| image.answer(asked))
        })
    }

    /// What was asked, such as `GET /v2/a/blobs/sha256:… from 100`.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().expect("no server panics").clone()
    }
}

fn not_found(asked: &Asked) -> Answer {
    match asked.path.as_str() {
        "/v2/" => Answer::new(200, "{}"),
        _ => Answer::refusal(404, "MANIFEST_UNKNOWN", "manifest unknown"),
    }
}

fn serve(
    stream: TcpStream,
    answer: &(dyn Fn(&Asked) -> Answer + Send + Sync),
    log: &Mutex<Vec<String>>,
) -> io::Result<()> {
    let mut out = stream.try_clone()?;
    let mut input = BufReader::new(stream.take(REQUEST_BYTES_MAX));
    // On loopback TLS is tried first.
    if !input.fill_buf()?.first().is_some_and(u8::is_ascii_uppercase) {
        return Ok(());
    }
    let asked = read_request(&mut input)?;
    let from = if asked.from > 0 { format!(" from {}", asked.from) } else { String::new() };
    log.lock().expect("no server panics").push(format!("{} {}{from}", asked.method, asked.path));
    answer(&asked).write(asked.method == "HEAD", &mut out)
}

fn read_request(input: &mut impl BufRead) -> io::Result<Asked> {
    let mut line = String::new();
    input.read_line(&mut line)?;
    let mut words = line.split_whitespace().map(str::to_owned);
    let mut asked = Asked {
        method: words.next().unwrap_or_default(),
        path: words.next().unwrap_or_default(),
        from: 0,
        if_none_match: None,
        authorization: None,
    };
    loop {
        let mut line = String::new();
        input.read_line(&mut line)?;
        let Some((name, value)) = line.split_once(':') else { return Ok(asked) };
        if name.eq_ignore_ascii_case("if-none-match") {
            asked.if_none_match = Some(value.trim().to_owned());
        }
        if name.eq_ignore_ascii_case("authorization") {
            asked.authorization = Some(value.trim().to_owned());
        }
        if name.eq_ignore_ascii_case("range") {
            let start = value.trim().strip_prefix("bytes=").and_then(|range| range.split('-').next());
            asked.from = start.and_then(|start| start.parse().ok()).unwrap_or(0);
        }
    }
}

/// An image made up by a test: a manifest, and the blobs it speaks of.
#[derive(Clone)]
pub struct Image {
    /// The manifest, byte for byte.
    pub manifest: Vec<u8>,
    /// Its layers and its configuration.
    pub blobs: BTreeMap<Digest, Vec<u8>>,
}

impl Image {
    /// One with this tar as its only layer.
    pub fn of(layer: &[u8]) -> Self {
        Self::layered(&[layer.to_vec()])
    }

    /// One with these tars as its layers.
    pub fn layered(layers: &[Vec<u8>]) -> Self {
        let diff_ids: Vec<String> = layers.iter().map(|tar| Digest::sha256_of(tar).to_string()).collect();
        Self::travelling(layers, media_type::OCI_LAYER, &diff_ids)
    }

    /// One with layers as they travel, and with what its configuration says they unpack to.
    pub fn travelling(layers: &[Vec<u8>], media_type: &str, diff_ids: &[String]) -> Self {
        let config = json!({
            "architecture": "amd64", "os": "linux",
            "config": { "Cmd": ["/bin/sh"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        })
        .to_string()
        .into_bytes();
        let descriptors: Vec<Descriptor> =
            layers.iter().map(|layer| Descriptor::of(media_type, layer)).collect();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media_type::OCI_MANIFEST,
            "config": Descriptor::of(media_type::OCI_CONFIG, &config),
            "layers": descriptors,
        });
        let blobs = layers.iter().cloned().chain([config]);
        let blobs = blobs.map(|blob| (Digest::sha256_of(&blob), blob)).collect();
        Self { manifest: manifest.to_string().into_bytes(), blobs }
    }

    /// What an honest registry says.
    pub fn answer(&self, asked: &Asked) -> Answer {
        if asked.path.contains("/manifests/") {
            return manifest(self.manifest.clone());
        }
        let digest = asked.path.rsplit('/').next().and_then(|digest| digest.parse().ok());
        match digest.and_then(|digest: Digest| self.blobs.get(&digest)) {
            Some(blob) if asked.from == 0 => Answer::new(200, blob.clone()),
            Some(blob) => {
                let range = format!("bytes {}-{}/{}", asked.from, blob.len() - 1, blob.len());
                Answer::new(206, &blob[asked.from..]).header("content-range", range)
            }
            None => not_found(asked),
        }
    }
}

/// A manifest or index as a registry gives it.
pub fn manifest(bytes: Vec<u8>) -> Answer {
    let kind = serde_json::from_slice(&bytes)
        .ok()
        .and_then(|value: Value| Some(value["mediaType"].as_str()?.to_owned()));
    let digest = Digest::sha256_of(&bytes).to_string();
    Answer::new(200, bytes)
        .header("content-type", kind.unwrap_or_else(|| media_type::OCI_MANIFEST.to_owned()))
        .header("docker-content-digest", digest)
}
