//! Reads gzip of several members, as layers made by parallel or lazily-pulled compressors are.

use std::io::{self, BufRead, Read};

use flate2::bufread::GzDecoder;

/// Decompresses every member in turn up to the end of the input, which is always read to its last byte so
/// that a digest taken on the way covers all of it.
///
/// Zeros after the last member are padding. Anything else is an error, as it is to Docker.
pub(crate) struct Gunzip<R: BufRead> {
    decoder: GzDecoder<Slot<R>>,
    done: bool,
}

impl<R: BufRead> Gunzip<R> {
    pub(crate) fn new(input: R) -> Self {
        Self { decoder: GzDecoder::new(Slot(Some(input))), done: false }
    }

    /// At the end of a member: is there another?
    fn next_member(&mut self) -> io::Result<bool> {
        let mut input = self.decoder.get_mut().0.take();
        let more = match &mut input {
            Some(input) => skip_zeros(input)?,
            None => false,
        };
        if more {
            self.decoder.reset(Slot(input));
        }
        Ok(more)
    }
}

impl<R: BufRead> Read for Gunzip<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        while !self.done && !out.is_empty() {
            match self.decoder.read(out)? {
                0 => self.done = !self.next_member()?,
                length => return Ok(length),
            }
        }
        Ok(0)
    }
}

/// Skips padding. True if a member follows, false at the end of the input.
fn skip_zeros(input: &mut impl BufRead) -> io::Result<bool> {
    let mut padded = false;
    loop {
        let bytes = input.fill_buf()?;
        let Some(first) = bytes.first() else { return Ok(false) };
        if *first != 0 {
            return match *first == 0x1f && !padded {
                true => Ok(true),
                false => {
                    Err(io::Error::new(io::ErrorKind::InvalidData, "data after the end of the gzip stream"))
                }
            };
        }
        padded = true;
        let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        input.consume(zeros);
    }
}

/// An input that can be taken out and put back; empty without it.
struct Slot<R>(Option<R>);

impl<R: BufRead> Read for Slot<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        self.0.as_mut().map_or(Ok(0), |input| input.read(out))
    }
}

impl<R: BufRead> BufRead for Slot<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.0.as_mut().map_or(Ok(&[]), R::fill_buf)
    }

    fn consume(&mut self, amount: usize) {
        if let Some(input) = &mut self.0 {
            input.consume(amount);
        }
    }
}
