//! Records and life cycle of containers and volumes.
#![forbid(unsafe_code)]
