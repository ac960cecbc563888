//! Gzip on several threads, with bytes that depend on the data and the level alone.
//!
//! The input is cut into blocks of [`BLOCK_BYTES`]. Each is deflated by itself, primed with the last 32 KiB
//! of the block before it, and ends on a byte boundary (a sync flush), so that the blocks simply follow one
//! another in a single gzip member that any gunzip reads. Which thread took which block, and how many there
//! are, leaves no trace.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use flate2::{Compress, Compression, Crc, FlushCompress};

/// How much input is deflated at a time. Part of the compressor's identity: another size, other bytes.
pub(crate) const BLOCK_BYTES: usize = 1024 * 1024;
/// How far back deflate looks.
const WINDOW_BYTES: usize = 32 * 1024;
/// No time, no name, unknown operating system: nothing that differs between machines.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];
/// A last, empty block with fixed codes.
const END: [u8; 2] = [3, 0];

/// A gzip writer. [`finish`](Self::finish) must be called; dropping it leaves a truncated stream.
pub(crate) struct Gzip<W: Write> {
    output: W,
    block: Vec<u8>,
    previous: Arc<Vec<u8>>,
    jobs: Option<SyncSender<Job>>,
    pending: VecDeque<Receiver<io::Result<Deflated>>>,
    pending_max: usize,
    crc: Crc,
    workers: Vec<JoinHandle<()>>,
}

struct Job {
    block: Arc<Vec<u8>>,
    previous: Arc<Vec<u8>>,
    done: SyncSender<io::Result<Deflated>>,
}

struct Deflated {
    bytes: Vec<u8>,
    crc: Crc,
}

impl<W: Write> Gzip<W> {
    pub(crate) fn new(mut output: W, level: u32, threads: NonZeroUsize) -> io::Result<Self> {
        output.write_all(&HEADER)?;
        let pending_max = threads.get() * 2;
        let (jobs, queue) = sync_channel(pending_max);
        let queue = Arc::new(Mutex::new(queue));
        let workers = (0..threads.get())
            .map(|_| {
                let queue = Arc::clone(&queue);
                thread::Builder::new().name("gzip".into()).spawn(move || deflate_blocks(&queue, level))
            })
            .collect::<io::Result<_>>()?;
        Ok(Self {
            output,
            block: Vec::with_capacity(BLOCK_BYTES),
            previous: Arc::default(),
            jobs: Some(jobs),
            pending: VecDeque::new(),
            pending_max,
            crc: Crc::new(),
            workers,
        })
    }

    pub(crate) fn finish(mut self) -> io::Result<W> {
        if !self.block.is_empty() {
            self.dispatch()?;
        }
        self.jobs = None;
        while !self.pending.is_empty() {
            self.write_oldest()?;
        }
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| io::Error::other("a compression thread panicked"))?;
        }
        self.output.write_all(&END)?;
        self.output.write_all(&self.crc.sum().to_le_bytes())?;
        self.output.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.output)
    }

    fn dispatch(&mut self) -> io::Result<()> {
        if self.pending.len() == self.pending_max {
            self.write_oldest()?;
        }
        let block = Arc::new(std::mem::replace(&mut self.block, Vec::with_capacity(BLOCK_BYTES)));
        let previous = std::mem::replace(&mut self.previous, Arc::clone(&block));
        let (done, result) = sync_channel(1);
        let jobs = self.jobs.as_ref().ok_or_else(stopped)?;
        jobs.send(Job { block, previous, done }).map_err(|_| stopped())?;
        self.pending.push_back(result);
        Ok(())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(result) = self.pending.pop_front() else { return Ok(()) };
        let deflated = result.recv().map_err(|_| stopped())??;
        self.crc.combine(&deflated.crc);
        self.output.write_all(&deflated.bytes)
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let length = data.len().min(BLOCK_BYTES - self.block.len());
        self.block.extend_from_slice(&data[..length]);
        if self.block.len() == BLOCK_BYTES {
            self.dispatch()?;
        }
        Ok(length)
    }

    /// Passes on what is compressed already. Blocks are never cut short: that would change the bytes.
    fn flush(&mut self) -> io::Result<()> {
        self.output.flush()
    }
}

fn stopped() -> io::Error {
    io::Error::other("a compression thread stopped")
}

fn deflate_blocks(queue: &Mutex<Receiver<Job>>, level: u32) {
    let mut compress = Compress::new(Compression::new(level), false);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // The writer may have gone away with an error of its own; then nobody waits for this block.
        let _ = job.done.send(deflate(&mut compress, &job));
    }
}

fn deflate(compress: &mut Compress, job: &Job) -> io::Result<Deflated> {
    let mut crc = Crc::new();
    crc.update(&job.block);
    compress.reset();
    if !job.previous.is_empty() {
        let window = job.previous.len().saturating_sub(WINDOW_BYTES);
        compress.set_dictionary(&job.previous[window..]).map_err(io::Error::other)?;
    }
    let mut bytes = Vec::with_capacity(job.block.len() / 2 + 1024);
    // Room to spare after a call means the flush is complete (zlib's rule for Z_SYNC_FLUSH).
    loop {
        let consumed = compress.total_in() as usize;
        compress
            .compress_vec(&job.block[consumed..], &mut bytes, FlushCompress::Sync)
            .map_err(io::Error::other)?;
        if bytes.len() < bytes.capacity() && compress.total_in() as usize == job.block.len() {
            return Ok(Deflated { bytes, crc });
        }
        bytes.reserve(job.block.len() / 4 + 1024);
    }
}
