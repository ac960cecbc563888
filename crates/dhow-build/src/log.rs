//! The output of programs, whole, beside the results of their steps.
//!
//! A log is a blob: pieces of output as they came, each with its stream and its time, in one zstd stream.
//! `docs/store-format.md` has the layout. It is written while the program runs and published when it ends, so
//! output of any length costs no memory.

use std::collections::HashMap;
use std::io::{self, BufReader, Read, Write};
use std::sync::Mutex;
use std::time::Duration;

use dhow_oci::Digest;
use dhow_solver::VertexId;
use dhow_store::{Ingest, Lease, Store};
use serde::{Deserialize, Serialize};

use crate::error::{StoreFailure, while_doing};
use crate::event::Stream;

const LEVEL: i32 = 3;
/// Stream, microseconds since the start of the program, length.
const HEADER_BYTES: usize = 1 + 8 + 4;
/// The largest piece of output; longer ones are split.
const PIECE_BYTES_MAX: usize = 1 << 20;
const WRITING: &str = "cannot keep the output of a step";

/// The output of a step's program, kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepLog {
    /// The blob it is in.
    pub blob: Digest,
    /// Bytes of output.
    pub bytes: u64,
    /// Lines of output; one without an end counts.
    pub lines: u64,
}

/// A piece of output as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Where it was written.
    pub stream: Stream,
    /// How long the program had been running.
    pub at: Duration,
    /// What was written.
    pub bytes: Vec<u8>,
}

/// The logs of one build while its programs run.
pub(crate) struct Logs<'a> {
    store: &'a Store,
    lease: &'a Lease,
    clock: fn() -> jiff::Timestamp,
    /// One that could not be begun is an error, told at the end since a program cannot be told.
    open: Mutex<HashMap<VertexId, Result<Open, StoreFailure>>>,
}

struct Open {
    writer: zstd::stream::write::Encoder<'static, Ingest>,
    since: jiff::Timestamp,
    bytes: u64,
    line_ends: u64,
    is_in_line: bool,
    /// What went wrong first.
    failure: Option<io::Error>,
}

impl<'a> Logs<'a> {
    pub(crate) fn new(store: &'a Store, lease: &'a Lease, clock: fn() -> jiff::Timestamp) -> Logs<'a> {
        Logs { store, lease, clock, open: Mutex::new(HashMap::new()) }
    }

    /// Adds a piece to the log of a step. A step that says nothing has none.
    pub(crate) fn push(&self, id: VertexId, stream: Stream, bytes: &[u8]) {
        let mut open = self.open.lock().expect("no thread panics while it holds the lock");
        if let Ok(log) = open.entry(id).or_insert_with(|| self.begin()) {
            log.push((self.clock)(), stream, bytes);
        }
    }

    fn begin(&self) -> Result<Open, StoreFailure> {
        let ingest = self.store.content().ingest(self.lease).map_err(while_doing(WRITING))?;
        let writer = zstd::stream::write::Encoder::new(ingest, LEVEL).map_err(while_doing(WRITING))?;
        let since = (self.clock)();
        Ok(Open { writer, since, bytes: 0, line_ends: 0, is_in_line: false, failure: None })
    }

    /// Publishes the log of a step that has ended, well or not.
    pub(crate) fn finish(&self, id: VertexId) -> Result<Option<StepLog>, StoreFailure> {
        let log = self.open.lock().expect("no thread panics while it holds the lock").remove(&id);
        let Some(log) = log.transpose()? else { return Ok(None) };
        if let Some(failure) = log.failure {
            return Err(StoreFailure::new(WRITING, failure));
        }
        let ingest = log.writer.finish().map_err(while_doing(WRITING))?;
        let blob = ingest.commit().map_err(while_doing(WRITING))?.digest;
        Ok(Some(StepLog { blob, bytes: log.bytes, lines: log.line_ends + u64::from(log.is_in_line) }))
    }
}

impl Open {
    fn push(&mut self, now: jiff::Timestamp, stream: Stream, bytes: &[u8]) {
        let elapsed = now.as_microsecond().saturating_sub(self.since.as_microsecond());
        let micros = u64::try_from(elapsed).unwrap_or(0);
        for piece in bytes.chunks(PIECE_BYTES_MAX) {
            let mut header = [0; HEADER_BYTES];
            header[0] = match stream {
                Stream::Stdout => 1,
                Stream::Stderr => 2,
            };
            header[1..9].copy_from_slice(&micros.to_le_bytes());
            let length = u32::try_from(piece.len()).expect("a piece is at most a megabyte");
            header[9..].copy_from_slice(&length.to_le_bytes());
            let written = self.writer.write_all(&header).and_then(|()| self.writer.write_all(piece));
            if let Err(error) = written {
                self.failure.get_or_insert(error);
                return;
            }
            self.bytes += piece.len() as u64;
            self.line_ends += piece.iter().filter(|byte| **byte == b'\n').count() as u64;
            self.is_in_line = !piece.ends_with(b"\n");
        }
    }
}

/// Reads a log piece by piece.
pub struct LogReader {
    input: zstd::stream::read::Decoder<'static, BufReader<Box<dyn Read + Send>>>,
}

impl LogReader {
    /// Opens the log in `blob`.
    pub fn open(store: &Store, blob: &Digest) -> Result<LogReader, StoreFailure> {
        let reading = "cannot read the output of a step";
        let reader = store.content().open(blob).map_err(while_doing(reading))?;
        LogReader::new(Box::new(reader.into_file())).map_err(while_doing(reading))
    }

    fn new(input: Box<dyn Read + Send>) -> io::Result<LogReader> {
        Ok(LogReader { input: zstd::stream::read::Decoder::new(input)? })
    }

    fn next_piece(&mut self) -> io::Result<Option<Piece>> {
        let mut header = [0; HEADER_BYTES];
        // Nothing at all is the end; a part of a header is not.
        match self.input.read(&mut header[..1])? {
            0 => return Ok(None),
            _ => self.input.read_exact(&mut header[1..])?,
        }
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "the log is malformed");
        let stream = match header[0] {
            1 => Stream::Stdout,
            2 => Stream::Stderr,
            _ => return Err(malformed()),
        };
        let micros = u64::from_le_bytes(header[1..9].try_into().expect("eight bytes"));
        let length = u32::from_le_bytes(header[9..].try_into().expect("four bytes")) as usize;
        if length > PIECE_BYTES_MAX {
            return Err(malformed());
        }
        let mut bytes = vec![0; length];
        self.input.read_exact(&mut bytes)?;
        Ok(Some(Piece { stream, at: Duration::from_micros(micros), bytes }))
    }
}

impl Iterator for LogReader {
    type Item = io::Result<Piece>;

    fn next(&mut self) -> Option<io::Result<Piece>> {
        self.next_piece().transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_back_as_it_was_written_whatever_its_length() {
        let dir = tempfile::tempdir().expect("a folder");
        let store = Store::open(dir.path()).expect("a store");
        let lease = store.lease("test").expect("a lease");
        let logs = Logs::new(&store, &lease, || jiff::Timestamp::UNIX_EPOCH);
        let mut graph = dhow_solver::Graph::new();
        let site = dhow_solver::Site { position: String::new(), instruction: String::new() };
        let id = graph.add(dhow_solver::Vertex {
            op: (),
            inputs: Vec::new(),
            site,
            cache: dhow_solver::CachePolicy::Use,
        });
        assert_eq!(logs.finish(id).expect("nothing to keep"), None);
        let long = vec![b'x'; 3 * PIECE_BYTES_MAX + 5];
        logs.push(id, Stream::Stdout, b"one\ntwo");
        logs.push(id, Stream::Stderr, &long);
        logs.push(id, Stream::Stdout, b"\n");
        let log = logs.finish(id).expect("a log").expect("there was output");
        assert_eq!((log.bytes, log.lines), (long.len() as u64 + 8, 2));
        let pieces: Vec<Piece> =
            LogReader::open(&store, &log.blob).expect("a log").collect::<io::Result<_>>().expect("pieces");
        let of = |stream| {
            let own = pieces.iter().filter(|piece| piece.stream == stream);
            own.flat_map(|piece| piece.bytes.clone()).collect::<Vec<u8>>()
        };
        assert_eq!(of(Stream::Stdout), b"one\ntwo\n");
        assert_eq!(of(Stream::Stderr), long);
    }

    #[test]
    fn a_log_that_was_cut_short_is_an_error() {
        let whole = zstd::encode_all(&[1, 0, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, b'a'][..], 1).expect("bytes");
        let mut reader = LogReader::new(Box::new(io::Cursor::new(whole))).expect("a log");
        assert!(reader.next().expect("an item").is_err());
    }
}
