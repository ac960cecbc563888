//! The shim executing itself again, to start its container anew.
//!
//! A container is cloned by a process with a single thread, and the network of the last run may have left others.
//! What is executed in their place is the same process: it keeps the lock, the socket of clients and its number.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use rustix::fs::MemfdFlags;
use serde::{Deserialize, Serialize};

use crate::launch::Step;
use crate::restart::Restarts;
use crate::spawn::Role;
use crate::{ShimRequest, StartError};

/// What is kept of one run for the next.
pub(super) struct Kept {
    pub request: ShimRequest,
    pub restarts: Restarts,
    pub listener: UnixListener,
    pub lock: File,
}

/// The part of it that is written down.
#[derive(Serialize, Deserialize)]
struct Written {
    request: ShimRequest,
    restarts: Restarts,
}

/// Becomes a fresh shim. Returns only if that fails, with what was kept.
pub(super) fn execute(kept: Kept) -> (Kept, StartError) {
    let Err(error) = try_execute(&kept);
    (kept, error)
}

fn try_execute(kept: &Kept) -> Result<std::convert::Infallible, StartError> {
    let exe = dhow_sys::process::protected_self_exe().step("cannot open the running program")?;
    let written = Written { request: kept.request.clone(), restarts: kept.restarts.clone() };
    let memory = in_memory(&written).step("cannot write down what is to be done")?;
    let passed = [memory.as_fd(), kept.listener.as_fd(), kept.lock.as_fd()];
    let numbers = passed.map(|fd| fd.as_raw_fd().to_string());
    let args = [Role::ShimAgain.name(), &numbers[0], &numbers[1], &numbers[2]];
    let error = dhow_sys::process::replace_program(exe.as_fd(), &args, &passed);
    Err(error).step("cannot execute the shim again")
}

fn in_memory(written: &Written) -> io::Result<File> {
    let mut file = File::from(rustix::fs::memfd_create("dhow-shim", MemfdFlags::CLOEXEC)?);
    file.write_all(&serde_json::to_vec(written)?)?;
    file.seek(SeekFrom::Start(0))?;
    Ok(file)
}

/// Takes what the shim kept for itself.
pub(super) fn take() -> Result<Kept, StartError> {
    let numbers: Vec<RawFd> = std::env::args().skip(1).filter_map(|number| number.parse().ok()).collect();
    let [memory, listener, lock] = numbers[..] else {
        return Err(StartError::Setup("this program is a helper of dhow and not for direct use".into()));
    };
    let fd = |number| -> Result<OwnedFd, StartError> {
        dhow_sys::process::take_passed_fd(number).step("cannot take over a descriptor")
    };
    let mut json = Vec::new();
    File::from(fd(memory)?).read_to_end(&mut json).step("cannot read what is to be done")?;
    let Written { request, restarts } =
        serde_json::from_slice(&json).step("cannot read what is to be done")?;
    Ok(Kept { request, restarts, listener: fd(listener)?.into(), lock: fd(lock)?.into() })
}
