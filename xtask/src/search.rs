//! A search server that knows four images: the answer of the Hub to tutorial S2's `docker search mysql`.

use std::io::{BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};

use crate::http;

const TIMEOUT: Duration = Duration::from_secs(5);
/// What the Hub sends when not asked for a number.
const RESULTS_DEFAULT: usize = 25;

struct Entry {
    name: &'static str,
    description: &'static str,
    stars: u32,
}

const ENTRIES: &[Entry] = &[
    Entry {
        name: "mysql",
        description: "MySQL is a widely used, open-source relational database management system.",
        stars: 13077,
    },
    Entry {
        name: "mariadb",
        description: "MariaDB Server is a high performing open source relational database, forked from MySQL.",
        stars: 5001,
    },
    Entry {
        name: "phpmyadmin",
        description: "phpMyAdmin - A web interface for MySQL and MariaDB.",
        stars: 614,
    },
    Entry {
        name: "percona",
        description: "Percona Server is a fork of the MySQL relational database management system.",
        stars: 584,
    },
];

/// A search server on this machine. It ends with this process.
pub(crate) struct SearchServer {
    /// `127.0.0.1:PORT`
    pub(crate) address: String,
}

impl SearchServer {
    /// Serves from a thread.
    pub(crate) fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .context("cannot open a port for the search server")?;
        let address = listener.local_addr()?.to_string();
        thread::spawn(move || {
            // A client that goes away, or sends nonsense, is its own problem.
            for stream in listener.incoming().flatten() {
                let _ = answer(&stream);
            }
        });
        Ok(Self { address })
    }
}

fn answer(mut stream: &TcpStream) -> anyhow::Result<()> {
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let head = http::read_head(&mut BufReader::new(stream))?;
    let (status, body) = respond(head.lines().next().unwrap_or_default());
    let length = body.len();
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    )?;
    Ok(())
}

/// Status and body for a request line.
fn respond(request_line: &str) -> (&'static str, String) {
    let target =
        request_line.strip_prefix("GET ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    match target.strip_prefix("/v1/search?") {
        Some(query) => ("200 OK", search(query).to_string()),
        None => ("404 Not Found", json!({ "message": "only /v1/search is here" }).to_string()),
    }
}

fn search(query: &str) -> Value {
    let value = |wanted: &str| {
        query
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .find(|(name, _)| *name == wanted)
            .map(|(_, value)| value)
    };
    let term = decode(value("q").unwrap_or_default()).to_lowercase();
    let limit = value("n").and_then(|text| text.parse().ok()).unwrap_or(RESULTS_DEFAULT);
    let matches =
        |entry: &&Entry| entry.name.contains(&term) || entry.description.to_lowercase().contains(&term);
    let results: Vec<_> = ENTRIES.iter().filter(matches).take(limit).map(to_json).collect();
    json!({ "num_results": results.len(), "query": term, "results": results })
}

fn to_json(entry: &Entry) -> Value {
    json!({
        "name": entry.name,
        "description": entry.description,
        "star_count": entry.stars,
        "is_official": true,
        "is_automated": false,
    })
}

/// Undoes the encoding of a query's value.
fn decode(text: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let escaped =
            tail.get(..2).and_then(|hex| u8::from_str_radix(std::str::from_utf8(hex).ok()?, 16).ok());
        let (byte, used) = match (first, escaped) {
            (b'%', Some(byte)) => (byte, 3),
            (b'+', _) => (b' ', 1),
            (other, _) => (other, 1),
        };
        bytes.push(byte);
        rest = &rest[used..];
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(target: &str) -> Vec<String> {
        let (status, body) = respond(&format!("GET {target} HTTP/1.1"));
        assert_eq!(status, "200 OK");
        let value: Value = serde_json::from_str(&body).unwrap();
        value["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|result| result["name"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn mysql_finds_what_the_tutorial_shows() {
        assert_eq!(names("/v1/search?q=mysql&n=25"), ["mysql", "mariadb", "phpmyadmin", "percona"]);
        assert_eq!(names("/v1/search?n=2&q=MySQL"), ["mysql", "mariadb"]);
        assert_eq!(names("/v1/search?q=web%20interface+for"), ["phpmyadmin"]);
        assert_eq!(names("/v1/search?q=nothing-like-it"), [""; 0]);
    }

    #[test]
    fn other_paths_are_not_found() {
        assert_eq!(respond("GET /v2/ HTTP/1.1").0, "404 Not Found");
        assert_eq!(respond("POST /v1/search?q=a HTTP/1.1").0, "404 Not Found");
        assert_eq!(respond("").0, "404 Not Found");
    }

    #[test]
    fn a_bad_escape_stands_for_itself() {
        assert_eq!(decode("50%"), "50%");
        assert_eq!(decode("%zz%41"), "%zzA");
    }
}
