//! Pretend surroundings for tests.
//!
//! [`Double`] is a registry on 127.0.0.1 that answers as a test says, right or wrong, and remembers what it was asked.
//! [`Mischief`] makes the answers of an honest one go wrong by dice that fall the same way for the same seed.
#![forbid(unsafe_code)]

mod mischief;
mod registry;

pub use mischief::Mischief;
pub use registry::{Answer, Asked, Double, Image, manifest};
