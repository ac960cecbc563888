//! Just enough HTTP to put images into a registry on this machine: one plain request per connection.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};

/// Long enough for a registry that syncs a large blob.
const TIMEOUT: Duration = Duration::from_secs(60);
const HEAD_BYTES_MAX: u64 = 64 * 1024;
const BODY_BYTES_MAX: u64 = 1024 * 1024;

/// A request without its host.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    /// Path and query.
    pub(crate) target: &'a str,
    pub(crate) content_type: &'a str,
    pub(crate) body: Body<'a>,
}

/// What a request carries.
pub(crate) enum Body<'a> {
    Bytes(&'a [u8]),
    File(&'a Path),
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Names are in lower case.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: String,
}

impl<'a> Request<'a> {
    /// A request with neither body nor type.
    pub(crate) fn new(method: &'a str, target: &'a str) -> Self {
        Self { method, target, content_type: "", body: Body::Bytes(b"") }
    }

    /// Sends this to `host` (a name or an address, with a port) and reads the answer.
    pub(crate) fn send(&self, host: &str) -> anyhow::Result<Response> {
        self.exchange(host).with_context(|| format!("{} http://{host}{} failed", self.method, self.target))
    }

    fn exchange(&self, host: &str) -> anyhow::Result<Response> {
        let mut stream = connect(host)?;
        let (mut body, length) = self.body.open()?;
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\nContent-Length: {length}\r\n",
            self.method, self.target
        );
        if !self.content_type.is_empty() {
            head += &format!("Content-Type: {}\r\n", self.content_type);
        }
        head += "\r\n";
        stream.write_all(head.as_bytes())?;
        io::copy(&mut body, &mut stream)?;
        parse_response(BufReader::new(stream))
    }
}

impl<'a> Body<'a> {
    fn open(&self) -> anyhow::Result<(Box<dyn Read + 'a>, u64)> {
        Ok(match self {
            Self::Bytes(bytes) => (Box::new(*bytes), bytes.len() as u64),
            Self::File(path) => {
                let file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
                let length = file.metadata()?.len();
                (Box::new(file), length)
            }
        })
    }
}

fn connect(host: &str) -> anyhow::Result<TcpStream> {
    let address = host.to_socket_addrs()?.next().context("the name has no address")?;
    let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    Ok(stream)
}

fn parse_response(mut input: impl BufRead) -> anyhow::Result<Response> {
    let head = read_head(&mut input)?;
    let mut lines = head.lines();
    let status_line = lines.next().unwrap_or_default();
    let status = match status_line.split_whitespace().nth(1).map(str::parse) {
        Some(Ok(status)) if status_line.starts_with("HTTP/") => status,
        _ => bail!("`{status_line}` is not the beginning of an HTTP answer"),
    };
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let mut body = Vec::new();
    input.take(BODY_BYTES_MAX).read_to_end(&mut body)?;
    // A server may answer in chunks when it does not know the length beforehand; none we talk to does for what we ask.
    ensure!(
        !headers.contains_key("transfer-encoding") || body.is_empty(),
        "the answer comes in chunks, which are not read"
    );
    Ok(Response { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
}

/// Reads up to the empty line that ends a head.
pub(crate) fn read_head(input: &mut impl BufRead) -> anyhow::Result<String> {
    let mut head = String::new();
    let mut input = input.take(HEAD_BYTES_MAX);
    loop {
        let start = head.len();
        input.read_line(&mut head)?;
        match &head[start..] {
            "\r\n" | "\n" => return Ok(head),
            line => ensure!(line.ends_with('\n'), "the head of an HTTP message is cut off or too long"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_status_headers_and_body() {
        let response =
            parse_response(&b"HTTP/1.1 202 Accepted\r\nLocation: /v2/x?a=b:c\r\n\r\nhi"[..]).unwrap();
        assert_eq!(response.status, 202);
        assert_eq!(response.headers["location"], "/v2/x?a=b:c");
        assert_eq!(response.body, "hi");
    }

    #[test]
    fn what_is_not_http_is_refused() {
        for text in ["", "HTTP/1.1 200 OK\r\nA: b", "SSH-2.0-OpenSSH\r\n\r\n", "HTTP/1.1\r\n\r\n"] {
            assert!(parse_response(text.as_bytes()).is_err(), "{text:?}");
        }
        let endless = io::repeat(b'a');
        assert!(parse_response(BufReader::new(endless)).is_err());
    }
}
