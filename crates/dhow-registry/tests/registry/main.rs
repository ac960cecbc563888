//! The client against registries of every temper: a double that misbehaves on order, and Debian's own.

mod debian;
mod download;
mod keychain;
mod pull;
mod push;
mod sign_in;
mod support;
