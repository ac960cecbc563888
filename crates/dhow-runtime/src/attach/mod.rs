//! Talking to the shim: the framed protocol of `attach.sock` and the client side of it.

mod frame;

pub use frame::{FRAME_BYTES_MAX, Frame};
