//! The whole system as one API: a method per user operation, plain data in and out.
#![forbid(unsafe_code)]
