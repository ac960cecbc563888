//! Lowers a Dockerfile to a graph, runs its operations, exports results.
#![forbid(unsafe_code)]
