//! Pretend surroundings for tests.
//!
//! [`Double`] is a registry on 127.0.0.1 that answers as a test says, right or wrong, and remembers what it was asked.
//! [`Mischief`] makes the answers of an honest one go wrong by dice that fall the same way for the same seed;
//! [`crooked`] makes an image lie about itself.
#![forbid(unsafe_code)]

mod crooked;
mod dice;
mod mischief;
mod registry;

pub use crooked::crooked;
pub use mischief::Mischief;
pub use registry::{Answer, Asked, Double, Image, manifest};
