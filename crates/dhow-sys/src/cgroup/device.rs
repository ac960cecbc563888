//! Which devices a control group may use: as text for v1, as a BPF program for v2.

use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::path::Path;

/// The sort of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceKind {
    /// Both sorts.
    All,
    /// Block devices.
    Block,
    /// Character devices.
    Character,
}

/// Allows or forbids the use of devices. The last rule that fits decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceRule {
    /// Allow, or forbid.
    pub allow: bool,
    /// Which sort.
    pub kind: DeviceKind,
    /// Which driver; `None` means any.
    pub major: Option<u32>,
    /// Which device; `None` means any.
    pub minor: Option<u32>,
    /// Opening for reading.
    pub read: bool,
    /// Opening for writing.
    pub write: bool,
    /// Making the node.
    pub mknod: bool,
}

/// The line for `devices.allow` or `devices.deny` of v1.
impl fmt::Display for DeviceRule {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let number = |number: Option<u32>| number.map_or("*".to_string(), |number| number.to_string());
        let kind = match self.kind {
            DeviceKind::All => "a",
            DeviceKind::Block => "b",
            DeviceKind::Character => "c",
        };
        write!(out, "{kind} {}:{} ", number(self.major), number(self.minor))?;
        let access = [(self.read, "r"), (self.write, "w"), (self.mknod, "m")];
        access.iter().filter(|(on, _)| *on).try_for_each(|(_, letter)| out.write_str(letter))
    }
}

/// An instruction of extended BPF.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

// Opcodes, as in linux/bpf_common.h and linux/bpf.h.
const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_IMMEDIATE: u8 = 0xb7;
const AND_IMMEDIATE: u8 = 0x57;
const SHIFT_RIGHT_IMMEDIATE: u8 = 0x77;
const JUMP_NOT_EQUAL_IMMEDIATE: u8 = 0x55;
const EXIT: u8 = 0x95;

// Bits of `access_type`: the access in the upper half, the kind in the lower.
const ACCESS_MKNOD: i32 = 1;
const ACCESS_READ: i32 = 2;
const ACCESS_WRITE: i32 = 4;
const KIND_BLOCK: i32 = 1;
const KIND_CHARACTER: i32 = 2;

/// The program: kind in r2, access in r3, major in r4, minor in r5; for each rule, the last first, give its
/// answer if it fits.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut program = vec![
        instruction(LOAD_WORD, 2, 1, 0, 0),
        instruction(MOVE, 3, 2, 0, 0),
        instruction(AND_IMMEDIATE, 2, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT_IMMEDIATE, 3, 0, 0, 16),
        instruction(LOAD_WORD, 4, 1, 4, 0),
        instruction(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules.iter().rev() {
        program.extend(rule.instructions());
        if rule.fits_all() {
            // The kernel refuses a program with instructions that are never reached.
            return program;
        }
    }
    program.extend(answer(false));
    program
}

fn instruction(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction { code, registers: to | from << 4, offset, immediate }
}

fn answer(allow: bool) -> [Instruction; 2] {
    [instruction(MOVE_IMMEDIATE, 0, 0, 0, allow.into()), instruction(EXIT, 0, 0, 0, 0)]
}

impl DeviceRule {
    fn fits_all(&self) -> bool {
        let DeviceRule { allow: _, kind, major, minor, read, write, mknod } = *self;
        kind == DeviceKind::All && major.is_none() && minor.is_none() && read && write && mknod
    }

    fn instructions(&self) -> Vec<Instruction> {
        // Each check is some preparation and a comparison of a register that must hold.
        let mut checks: Vec<(Vec<Instruction>, u8, i32)> = Vec::new();
        match self.kind {
            DeviceKind::All => {}
            DeviceKind::Block => checks.push((vec![], 2, KIND_BLOCK)),
            DeviceKind::Character => checks.push((vec![], 2, KIND_CHARACTER)),
        }
        let access = [(self.read, ACCESS_READ), (self.write, ACCESS_WRITE), (self.mknod, ACCESS_MKNOD)];
        let beyond: i32 = access.iter().filter(|(on, _)| !on).map(|(_, bit)| bit).sum();
        if beyond != 0 {
            // A rule for some accesses fits only a request that asks for nothing beyond them.
            let prepare = vec![instruction(MOVE, 1, 3, 0, 0), instruction(AND_IMMEDIATE, 1, 0, 0, beyond)];
            checks.push((prepare, 1, 0));
        }
        checks.extend(self.major.map(|major| (vec![], 4, major as i32)));
        checks.extend(self.minor.map(|minor| (vec![], 5, minor as i32)));
        let mut body = answer(self.allow).to_vec();
        for (prepare, register, value) in checks.into_iter().rev() {
            let skip = i16::try_from(body.len()).expect("a rule has at most a dozen instructions");
            let check = instruction(JUMP_NOT_EQUAL_IMMEDIATE, register, 0, skip, value);
            body = [prepare, vec![check], body].concat();
        }
        body
    }
}

/// The part of `union bpf_attr` that loading a program reads.
#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    kind: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that attaching a program reads.
#[repr(C)]
struct AttachAttr {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
}

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

/// Puts the rules in force for the v2 group `directory`. No rules: nothing to do.
pub(super) fn attach(directory: &Path, rules: &[DeviceRule]) -> io::Result<()> {
    if rules.is_empty() {
        return Ok(());
    }
    let group = std::fs::File::open(directory)?;
    let program = load(&program(rules))?;
    let attr = AttachAttr {
        target: group.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: BPF_CGROUP_DEVICE,
        flags: BPF_F_ALLOW_MULTI,
    };
    // The group keeps the program; our descriptor may go.
    bpf(BPF_PROG_ATTACH, &attr).map(drop)
}

fn load(program: &[Instruction]) -> io::Result<OwnedFd> {
    let attr = LoadAttr {
        kind: BPF_PROG_TYPE_CGROUP_DEVICE,
        instruction_count: program.len() as u32,
        instructions: program.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadAttr::default()
    };
    let fd = bpf(BPF_PROG_LOAD, &attr)?;
    // SAFETY: the kernel just returned this descriptor to us and nobody else holds it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn bpf<T>(command: libc::c_int, attr: &T) -> io::Result<i32> {
    // SAFETY: attr is one of the structures above, whose layout the kernel defines; it reads size_of::<T>()
    // bytes of it and, for a load, the instructions and license it points to, which outlive the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if result == -1 { Err(io::Error::last_os_error()) } else { Ok(result as i32) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: DeviceRule = DeviceRule {
        allow: false,
        kind: DeviceKind::All,
        major: None,
        minor: None,
        read: true,
        write: true,
        mknod: true,
    };
    const NULL: DeviceRule =
        DeviceRule { allow: true, kind: DeviceKind::Character, major: Some(1), minor: Some(3), ..NONE };
    const MKNOD: DeviceRule =
        DeviceRule { allow: true, kind: DeviceKind::Character, read: false, write: false, ..NONE };

    /// Runs the program as the kernel would.
    fn allowed(rules: &[DeviceRule], kind: i32, access: i32, major: i32, minor: i32) -> bool {
        let program = program(rules);
        let mut registers = [0u64; 6];
        let context = [(kind | access << 16) as u64, major as u64, minor as u64];
        let mut at = 0;
        loop {
            let Instruction { code, registers: pair, offset, immediate } = program[at];
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            at += 1;
            match code {
                LOAD_WORD => registers[to] = context[offset as usize / 4],
                MOVE => registers[to] = registers[from],
                MOVE_IMMEDIATE => registers[to] = immediate as u64,
                AND_IMMEDIATE => registers[to] &= immediate as u64,
                SHIFT_RIGHT_IMMEDIATE => registers[to] >>= immediate,
                JUMP_NOT_EQUAL_IMMEDIATE if registers[to] != immediate as u64 => at += offset as usize,
                JUMP_NOT_EQUAL_IMMEDIATE => {}
                EXIT => return registers[0] == 1,
                other => panic!("instruction {other:#x}"),
            }
        }
    }

    #[test]
    fn the_last_rule_that_fits_decides() {
        let rules = [NONE, MKNOD, NULL];
        assert!(allowed(&rules, KIND_CHARACTER, ACCESS_READ | ACCESS_WRITE, 1, 3), "null");
        assert!(!allowed(&rules, KIND_CHARACTER, ACCESS_READ, 1, 1), "mem");
        assert!(!allowed(&rules, KIND_BLOCK, ACCESS_READ, 1, 3), "a block device of that number");
        assert!(allowed(&rules, KIND_CHARACTER, ACCESS_MKNOD, 9, 9));
        assert!(!allowed(&rules, KIND_CHARACTER, ACCESS_MKNOD | ACCESS_READ, 9, 9));
        assert!(!allowed(&[NULL, NONE], KIND_CHARACTER, ACCESS_READ, 1, 3));
    }

    #[test]
    fn the_kernel_takes_the_program() {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: needs root");
            return;
        }
        load(&program(&[NONE, MKNOD, NULL])).unwrap();
    }

    #[test]
    fn a_rule_reads_as_v1_wants_it() {
        assert_eq!(NONE.to_string(), "a *:* rwm");
        assert_eq!(NULL.to_string(), "c 1:3 rwm");
        assert_eq!(MKNOD.to_string(), "c *:* m");
    }
}
