//! The `dhow` command.
#![forbid(unsafe_code)]

fn main() {}
