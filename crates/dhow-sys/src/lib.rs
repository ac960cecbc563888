//! The kernel behind safe functions; the only room with `unsafe`.
//!
//! Each module wraps one facility; most of it is `rustix`, and what `rustix` does not offer is a small,
//! argued `unsafe` block here. Nothing in this crate decides policy.

pub mod beneath;
pub mod capability;
pub mod cgroup;
pub mod mount;
pub mod netns;
pub mod node;
pub mod overlay;
pub mod process;
pub mod seccomp;
pub mod signal;
pub mod tty;
pub mod userns;
