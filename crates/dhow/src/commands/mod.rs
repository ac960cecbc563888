//! One file per command: what it accepts, then what it does.

pub(crate) mod build;
