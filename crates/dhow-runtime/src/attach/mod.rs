//! Talking to the shim: the framed protocol of `attach.sock` and the client side of it.

mod client;
mod detach;
mod frame;

pub use client::{AttachEnd, AttachStreams, Attached, SignalProxy};
pub(crate) use client::{Terminal, read_some};
pub(crate) use detach::DetachWatch;
pub use detach::{DETACH_KEYS, DetachKeysError, parse_detach_keys};
pub use frame::{FRAME_BYTES_MAX, Frame};
