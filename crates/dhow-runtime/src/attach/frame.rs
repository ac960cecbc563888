//! The frames of `attach.sock`.
//!
//! A frame is one byte of kind, four bytes of length (big endian) and the payload. Kinds below 16 go to the
//! shim, the others come from it. An unknown kind ends the connection: both ends are the same program.

use std::io::{self, Read, Write};

use crate::{ExitStatus, WindowSize};

/// The longest payload.
pub const FRAME_BYTES_MAX: usize = 64 * 1024;

const HEADER_BYTES: usize = 5;

/// One message between the shim and an attached client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// To the shim: input for the container.
    Stdin(Vec<u8>),
    /// To the shim: the input ended.
    StdinEnd,
    /// To the shim: the client's terminal has a new size.
    Resize(WindowSize),
    /// To the shim: the networks the container is to be on have changed.
    UpdateNetwork,
    /// From the shim: output of the container (all of it, if there is a terminal).
    Stdout(Vec<u8>),
    /// From the shim: error output of the container.
    Stderr(Vec<u8>),
    /// From the shim: the container ended and all of its output was sent.
    Exit(ExitStatus),
    /// From the shim: the networks are as they are to be, or why not.
    NetworkUpdated(Result<(), String>),
}

impl Frame {
    /// Appends the frame to `buffer`.
    ///
    /// Panics if the payload is longer than [`FRAME_BYTES_MAX`].
    pub fn encode(&self, buffer: &mut Vec<u8>) {
        let (kind, payload) = self.parts();
        assert!(payload.len() <= FRAME_BYTES_MAX, "frames are cut by their sender");
        buffer.push(kind);
        buffer.extend_from_slice(&(payload.len() as u32).to_be_bytes());
        buffer.extend_from_slice(&payload);
    }

    /// Takes the first frame off `buffer`, if it is there completely.
    pub fn decode(buffer: &mut Vec<u8>) -> io::Result<Option<Frame>> {
        let Some((kind, length)) = header(buffer)? else { return Ok(None) };
        if buffer.len() < HEADER_BYTES + length {
            return Ok(None);
        }
        let frame = Frame::from_parts(kind, &buffer[HEADER_BYTES..HEADER_BYTES + length])?;
        buffer.drain(..HEADER_BYTES + length);
        Ok(Some(frame))
    }

    /// Writes the frame to `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let mut buffer = Vec::new();
        self.encode(&mut buffer);
        out.write_all(&buffer)
    }

    /// Reads one frame. `None` means that the other side is gone.
    pub fn read(input: &mut impl Read) -> io::Result<Option<Frame>> {
        let mut head = [0; HEADER_BYTES];
        if let Err(error) = input.read_exact(&mut head) {
            let gone = matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset);
            return if gone { Ok(None) } else { Err(error) };
        }
        let (kind, length) = header(&head)?.expect("the header is complete");
        let mut payload = vec![0; length];
        input.read_exact(&mut payload)?;
        Frame::from_parts(kind, &payload).map(Some)
    }

    fn parts(&self) -> (u8, Vec<u8>) {
        match self {
            Frame::Stdin(data) => (0, data.clone()),
            Frame::StdinEnd => (1, Vec::new()),
            Frame::Resize(size) => (2, [size.rows.to_be_bytes(), size.columns.to_be_bytes()].concat()),
            Frame::UpdateNetwork => (3, Vec::new()),
            Frame::Stdout(data) => (16, data.clone()),
            Frame::Stderr(data) => (17, data.clone()),
            Frame::Exit(status) => (18, serde_json::to_vec(status).expect("plain data serializes")),
            Frame::NetworkUpdated(result) => (19, serde_json::to_vec(result).expect("plain data serializes")),
        }
    }

    fn from_parts(kind: u8, payload: &[u8]) -> io::Result<Frame> {
        Ok(match (kind, payload) {
            (0, data) => Frame::Stdin(data.to_vec()),
            (1, []) => Frame::StdinEnd,
            (2, &[a, b, c, d]) => {
                let (rows, columns) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                Frame::Resize(WindowSize { rows, columns })
            }
            (3, []) => Frame::UpdateNetwork,
            (16, data) => Frame::Stdout(data.to_vec()),
            (17, data) => Frame::Stderr(data.to_vec()),
            (18, data) => Frame::Exit(serde_json::from_slice(data)?),
            (19, data) => Frame::NetworkUpdated(serde_json::from_slice(data)?),
            (kind, _) => return Err(invalid(format!("frame of kind {kind} is malformed"))),
        })
    }
}

fn header(buffer: &[u8]) -> io::Result<Option<(u8, usize)>> {
    let Some(&[kind, a, b, c, d]) = buffer.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > FRAME_BYTES_MAX {
        return Err(invalid(format!("frame of {length} bytes is too long")));
    }
    Ok(Some((kind, length)))
}

fn invalid(message: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_survives_the_wire_in_any_pieces() {
        let frames = [
            Frame::Stdin(b"hello".to_vec()),
            Frame::StdinEnd,
            Frame::Resize(WindowSize { rows: 24, columns: 300 }),
            Frame::Stderr(Vec::new()),
            Frame::UpdateNetwork,
            Frame::NetworkUpdated(Err("no".into())),
        ];
        let mut wire = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut wire));
        let (mut buffer, mut seen) = (Vec::new(), Vec::new());
        for byte in wire {
            buffer.push(byte);
            seen.extend(Frame::decode(&mut buffer).unwrap());
        }
        assert_eq!(seen, frames);
        assert!(buffer.is_empty());
    }

    #[test]
    fn a_frame_beyond_the_limit_is_refused() {
        assert!(Frame::decode(&mut vec![0, 0xff, 0, 0, 0]).is_err());
        assert!(Frame::decode(&mut vec![99, 0, 0, 0, 0]).is_err());
    }
}
