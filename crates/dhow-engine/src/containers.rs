//! Operations on containers.
