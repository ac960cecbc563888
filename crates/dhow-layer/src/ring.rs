//! A bounded ring of buffers between a thread that makes bytes and one that uses them.
//!
//! Buffers travel back when they are empty, so a whole layer passes through a handful of allocations. If
//! either side goes away the other notices at its next step: the reader gets an error unless the writer said
//! [`finish`](RingWriter::finish), and the writer's next write fails.

use std::io::{self, BufRead, Read, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// How many bytes travel at once.
const BUFFER_BYTES: usize = 256 * 1024;
/// How many buffers are under way. Enough to ride out a slow file system call, small enough for the cache.
const BUFFERS: usize = 8;

/// How much is read in one step; the room for it is zeroed first.
const STEP_BYTES: usize = 64 * 1024;

enum Message {
    Data(Vec<u8>),
    End,
}

/// The end that takes bytes.
pub(crate) struct RingWriter {
    full: SyncSender<Message>,
    empty: Receiver<Vec<u8>>,
    current: Vec<u8>,
    allocated: usize,
}

/// The end that gives them.
pub(crate) struct RingReader {
    full: Receiver<Message>,
    empty: SyncSender<Vec<u8>>,
    current: Vec<u8>,
    position: usize,
    ended: bool,
}

/// Makes a ring.
pub(crate) fn ring() -> (RingWriter, RingReader) {
    let (full_sender, full) = sync_channel(BUFFERS);
    let (empty_sender, empty) = sync_channel(BUFFERS + 1);
    let writer =
        RingWriter { full: full_sender, empty, current: Vec::with_capacity(BUFFER_BYTES), allocated: 1 };
    let reader = RingReader { full, empty: empty_sender, current: Vec::new(), position: 0, ended: false };
    (writer, reader)
}

impl RingWriter {
    /// Sends what is left and says that this was all.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.send()?;
        self.full.send(Message::End).map_err(|_| reader_gone())
    }

    /// Makes sure that [`fill_from`](Self::fill_from) has somewhere to read to; waits for the reader.
    pub(crate) fn make_room(&mut self) -> io::Result<()> {
        if self.current.len() == BUFFER_BYTES { self.send() } else { Ok(()) }
    }

    /// Reads once from `input` into the current buffer, without a copy in between. Returns what was read,
    /// empty at the end of the input; any error is the input's. Needs [`make_room`](Self::make_room) before.
    pub(crate) fn fill_from(&mut self, input: &mut impl Read) -> io::Result<&[u8]> {
        let start = self.current.len();
        self.current.resize(BUFFER_BYTES.min(start + STEP_BYTES), 0);
        let result = loop {
            match input.read(&mut self.current[start..]) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => break result,
            }
        };
        self.current.truncate(start + *result.as_ref().unwrap_or(&0));
        result?;
        Ok(&self.current[start..])
    }

    fn send(&mut self) -> io::Result<()> {
        if self.current.is_empty() {
            return Ok(());
        }
        let next = self.next_buffer()?;
        let full = std::mem::replace(&mut self.current, next);
        self.full.send(Message::Data(full)).map_err(|_| reader_gone())
    }

    fn next_buffer(&mut self) -> io::Result<Vec<u8>> {
        if self.allocated < BUFFERS {
            self.allocated += 1;
            return Ok(Vec::with_capacity(BUFFER_BYTES));
        }
        self.empty.recv().map_err(|_| reader_gone())
    }
}

impl Write for RingWriter {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.make_room()?;
        let length = data.len().min(BUFFER_BYTES - self.current.len());
        self.current.extend_from_slice(&data[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.send()
    }
}

impl Read for RingReader {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let available = self.fill_buf()?;
        let length = available.len().min(out.len());
        out[..length].copy_from_slice(&available[..length]);
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for RingReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.position == self.current.len() && !self.ended {
            let mut used = std::mem::take(&mut self.current);
            if used.capacity() > 0 {
                used.clear();
                // A writer that has finished needs no more buffers.
                let _ = self.empty.try_send(used);
            }
            self.position = 0;
            match self.full.recv() {
                Ok(Message::Data(data)) => self.current = data,
                Ok(Message::End) => self.ended = true,
                Err(_) => {
                    return Err(io::Error::new(io::ErrorKind::BrokenPipe, "the sending thread stopped"));
                }
            }
        }
        Ok(&self.current[self.position..])
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount;
    }
}

fn reader_gone() -> io::Error {
    io::Error::new(io::ErrorKind::BrokenPipe, "the receiving thread stopped")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_fits_at_once_passes_in_order() {
        let data: Vec<u8> = (0..5 * BUFFERS * BUFFER_BYTES + 17).map(|i| (i / 7 % 251) as u8).collect();
        let (mut writer, mut reader) = ring();
        let sent = data.clone();
        let sender = std::thread::spawn(move || writer.write_all(&sent).and_then(|()| writer.finish()));
        let mut received = Vec::new();
        reader.read_to_end(&mut received).unwrap();
        sender.join().unwrap().unwrap();
        assert!(received == data);
    }

    #[test]
    fn a_side_that_goes_away_is_noticed_by_the_other() {
        let (writer, mut reader) = ring();
        drop(writer);
        assert_eq!(reader.fill_buf().unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let (mut writer, reader) = ring();
        drop(reader);
        let error = writer.write_all(&vec![0; 2 * BUFFER_BYTES]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
