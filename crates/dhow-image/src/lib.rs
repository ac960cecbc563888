//! Moves images between registry, archive, store and snapshots.
#![forbid(unsafe_code)]
