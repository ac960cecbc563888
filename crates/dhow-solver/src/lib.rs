//! Which build steps must run, in what order, and why. Knows neither Docker nor disks.
#![forbid(unsafe_code)]
