//! Bodies between hyper, which waits for many at once, and endpoints, which wait for one.

use std::io::{self, Read, Write};

use bytes::{Buf as _, Bytes};
use http_body_util::BodyExt as _;
use hyper::body::{Frame, Incoming};
use tokio::sync::mpsc;

/// Pieces on their way; a reader or writer that is slow holds the other side back.
const PIECES: usize = 4;
/// As much is written at once.
const PIECE_BYTES: usize = 32 << 10;

/// The body of a request. It is fetched as it is read.
pub(crate) struct BodyReader {
    pieces: Option<mpsc::Receiver<io::Result<Bytes>>>,
    rest: Bytes,
}

impl BodyReader {
    /// Reads from `body` once somebody asks for more than nothing. To be called within the runtime.
    pub(crate) fn of(body: Incoming) -> Self {
        let (sender, pieces) = mpsc::channel(PIECES);
        tokio::spawn(fetch(body, sender));
        Self { pieces: Some(pieces), rest: Bytes::new() }
    }

    /// All of it, which is at most `limit` bytes.
    pub(crate) fn whole(&mut self, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let mut bytes = Vec::new();
        self.take(limit + 1).read_to_end(&mut bytes)?;
        Ok((bytes.len() as u64 <= limit).then_some(bytes))
    }
}

async fn fetch(mut body: Incoming, sender: mpsc::Sender<io::Result<Bytes>>) {
    while let Some(frame) = body.frame().await {
        let piece = match frame {
            Ok(frame) => match frame.into_data() {
                Ok(data) => Ok(data),
                Err(_) => continue,
            },
            Err(error) => Err(io::Error::other(error)),
        };
        let is_end = piece.is_err();
        // Nobody reads any more: the rest is not fetched.
        if sender.send(piece).await.is_err() || is_end {
            return;
        }
    }
}

impl Read for BodyReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.rest.is_empty() {
            let Some(pieces) = &mut self.pieces else { return Ok(0) };
            match pieces.blocking_recv() {
                Some(piece) => self.rest = piece?,
                None => self.pieces = None,
            }
        }
        let count = buffer.len().min(self.rest.len());
        self.rest.copy_to_slice(&mut buffer[..count]);
        Ok(count)
    }
}

/// The body of an answer as it is written.
pub(crate) struct Out {
    sender: mpsc::Sender<Bytes>,
    buffer: Vec<u8>,
}

impl Out {
    /// The writer, and what it writes.
    pub(crate) fn new() -> (Self, OutBody) {
        let (sender, pieces) = mpsc::channel(PIECES);
        (Self { sender, buffer: Vec::new() }, OutBody(pieces))
    }

    /// Whether the client has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Somebody who can tell from another thread whether the client has gone.
    pub(crate) fn watch(&self) -> Watch {
        Watch(self.sender.clone().downgrade())
    }

    /// Writes a line of JSON, at once.
    pub(crate) fn line(&mut self, value: &serde_json::Value) -> io::Result<()> {
        self.write_all(value.to_string().as_bytes())?;
        self.write_all(b"\r\n")?;
        self.flush()
    }
}

/// Knows whether a client has gone.
pub(crate) struct Watch(mpsc::WeakSender<Bytes>);

impl Watch {
    pub(crate) fn is_closed(&self) -> bool {
        self.0.upgrade().is_none_or(|sender| sender.is_closed())
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= PIECE_BYTES {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let piece = Bytes::from(std::mem::take(&mut self.buffer));
        self.sender.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        // A client that has gone misses nothing.
        let _ = self.flush();
    }
}

/// What an [`Out`] writes, as hyper sends it.
pub(crate) struct OutBody(mpsc::Receiver<Bytes>);

impl hyper::body::Body for OutBody {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
