//! The clients attached to a container.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use crate::attach::{FRAME_BYTES_MAX, Frame};
use crate::once::OutputStream;
use crate::{ExitStatus, WindowSize};

/// How much output waits for a client before the container has to.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// How long a client that came later may make the container wait. The one that started it may forever: it is
/// in a pipeline, and nothing of its output may be lost.
const STALL_MAX: Duration = Duration::from_secs(10);
/// How many clients there may be.
pub(super) const CLIENTS_MAX: usize = 64;
/// How much is read from a client at once.
const READ_BYTES: usize = 64 * 1024;

/// One attached client.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) stream: UnixStream,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    /// It started the container.
    foreground: bool,
    stalled_since: Option<Instant>,
    /// It has sent input, whose end counts.
    has_sent_input: bool,
    /// It waits for the networks to be what they are to be.
    pub(super) awaits_network: bool,
}

/// What a client wants.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// This as input.
    Input(Vec<u8>),
    /// No more input.
    InputEnd,
    /// Another size of the terminal.
    Resize(WindowSize),
    /// Other networks.
    UpdateNetwork,
}

impl Client {
    /// A client that connected, or that started the container.
    pub(super) fn new(stream: UnixStream, foreground: bool) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Client {
            stream,
            incoming: Vec::new(),
            outgoing: Vec::new(),
            foreground,
            stalled_since: None,
            has_sent_input: false,
            awaits_network: false,
        })
    }

    /// Queues output for it.
    pub(super) fn output(&mut self, stream: OutputStream, data: &[u8]) {
        for piece in data.chunks(FRAME_BYTES_MAX) {
            let frame = match stream {
                OutputStream::Stdout => Frame::Stdout(piece.to_vec()),
                OutputStream::Stderr => Frame::Stderr(piece.to_vec()),
            };
            frame.encode(&mut self.outgoing);
        }
    }

    /// Queues the last thing it hears.
    pub(super) fn exit(&mut self, status: &ExitStatus) {
        Frame::Exit(status.clone()).encode(&mut self.outgoing);
    }

    /// Queues what became of its wish for other networks.
    pub(super) fn network_updated(&mut self, result: &Result<(), String>) {
        Frame::NetworkUpdated(result.clone()).encode(&mut self.outgoing);
    }

    /// Whether there is something to write to it.
    pub(super) fn is_waiting(&self) -> bool {
        !self.outgoing.is_empty()
    }

    /// Whether the container has to wait for it.
    pub(super) fn is_full(&self) -> bool {
        self.outgoing.len() > WAITING_BYTES_MAX
    }

    /// When it is to be given up if it reads nothing until then.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.stalled_since.filter(|_| !self.foreground).map(|since| since + STALL_MAX)
    }

    /// Writes what it takes now. An error means that it is gone or given up.
    pub(super) fn flush(&mut self, now: Instant) -> io::Result<()> {
        match self.stream.write(&self.outgoing) {
            Ok(0) if !self.outgoing.is_empty() => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                self.outgoing.drain(..bytes);
                if bytes > 0 {
                    self.stalled_since = None;
                }
            }
            Err(error) if is_transient(&error) => {}
            Err(error) => return Err(error),
        }
        if self.is_full() && self.stalled_since.is_none() {
            self.stalled_since = Some(now);
        }
        match self.deadline() {
            Some(deadline) if deadline <= now => Err(io::ErrorKind::TimedOut.into()),
            _ => Ok(()),
        }
    }

    /// Reads what it sent. The flag says that it is gone.
    pub(super) fn read(&mut self) -> (Vec<Wish>, bool) {
        let mut buffer = [0; READ_BYTES];
        let gone = match self.stream.read(&mut buffer) {
            Ok(0) => true,
            Ok(bytes) => {
                self.incoming.extend_from_slice(&buffer[..bytes]);
                false
            }
            Err(error) => !is_transient(&error),
        };
        let mut wishes = Vec::new();
        let malformed = self.parse(&mut wishes).is_err();
        if (gone || malformed) && self.has_sent_input {
            wishes.push(Wish::InputEnd);
        }
        (wishes, gone || malformed)
    }

    fn parse(&mut self, wishes: &mut Vec<Wish>) -> io::Result<()> {
        while let Some(frame) = Frame::decode(&mut self.incoming)? {
            wishes.push(match frame {
                Frame::Stdin(data) => {
                    self.has_sent_input = true;
                    Wish::Input(data)
                }
                Frame::StdinEnd => Wish::InputEnd,
                Frame::Resize(size) => Wish::Resize(size),
                Frame::UpdateNetwork => Wish::UpdateNetwork,
                Frame::Stdout(_) | Frame::Stderr(_) | Frame::Exit(_) | Frame::NetworkUpdated(_) => {
                    return Err(io::ErrorKind::InvalidData.into());
                }
            });
        }
        Ok(())
    }
}

/// Whether trying again later makes sense.
pub(super) fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(foreground: bool) -> (Client, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut client = Client::new(ours, foreground).unwrap();
        client.output(OutputStream::Stdout, &vec![0; 4 << 20]);
        (client, theirs)
    }

    #[test]
    fn a_client_that_does_not_read_is_given_up_unless_it_started_the_container() {
        let now = Instant::now();
        for (foreground, survives) in [(false, false), (true, true)] {
            let (mut client, _theirs) = full(foreground);
            client.flush(now).unwrap();
            assert!(client.is_full());
            client.flush(now + STALL_MAX / 2).unwrap();
            assert_eq!(client.flush(now + STALL_MAX).is_ok(), survives);
        }
    }

    #[test]
    fn a_vanished_client_ends_the_input_it_sent() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let mut client = Client::new(ours, false).unwrap();
        Frame::Stdin(b"a".to_vec()).write(&mut theirs).unwrap();
        assert_eq!(client.read(), (vec![Wish::Input(b"a".to_vec())], false));
        drop(theirs);
        assert_eq!(client.read(), (vec![Wish::InputEnd], true));
    }
}
