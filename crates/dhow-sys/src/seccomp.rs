//! Seccomp filters: from a list of rules to a BPF program, and into the kernel.

mod table;

use std::io;

use table::SYSCALLS;

/// What happens to a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// It is done.
    Allow,
    /// It fails with this error number.
    Errno(u16),
    /// The process is killed.
    KillProcess,
    /// The thread is killed.
    KillThread,
    /// The process gets SIGSYS.
    Trap,
    /// It is done and written to the kernel's log.
    Log,
}

impl Action {
    fn code(self) -> u32 {
        match self {
            Action::Allow => libc::SECCOMP_RET_ALLOW,
            Action::Errno(errno) => libc::SECCOMP_RET_ERRNO | u32::from(errno),
            Action::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
            Action::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Action::Trap => libc::SECCOMP_RET_TRAP,
            Action::Log => libc::SECCOMP_RET_LOG,
        }
    }
}

/// How an argument of a system call is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// Is this.
    Equal(u64),
    /// Is anything else.
    NotEqual(u64),
    /// Is less than this.
    Less(u64),
    /// Is this or less.
    LessOrEqual(u64),
    /// Is greater than this.
    Greater(u64),
    /// Is this or greater.
    GreaterOrEqual(u64),
    /// Has, among the bits of `mask`, exactly those of `value`.
    Masked {
        /// The bits to look at.
        mask: u64,
        /// What they shall be.
        value: u64,
    },
}

/// A condition on one argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub argument: u8,
    /// The comparison.
    pub compare: Compare,
}

/// A system call, by name, whose arguments meet all conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The name, as in `read`. Names an architecture does not have are left out there.
    pub name: String,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// What happens then.
    pub action: Action,
}

/// The rules of a filter. The first rule that fits decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    /// What happens when no rule fits.
    pub default: Action,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// A machine language system calls come in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Architecture {
    X86_64,
    X86,
    Aarch64,
}

impl Architecture {
    /// Those this kernel can run, the native one first.
    const NATIVE: &[Architecture] = if cfg!(target_arch = "x86_64") {
        &[Architecture::X86_64, Architecture::X86]
    } else if cfg!(target_arch = "aarch64") {
        &[Architecture::Aarch64]
    } else {
        &[]
    };

    /// `AUDIT_ARCH_*`.
    fn audit(self) -> u32 {
        match self {
            Architecture::X86_64 => 0xC000_003E,
            Architecture::X86 => 0x4000_0003,
            Architecture::Aarch64 => 0xC000_00B7,
        }
    }

    fn number(self, name: &str) -> Option<u32> {
        let index = SYSCALLS.binary_search_by(|row| row.0.cmp(name)).ok()?;
        self.column(&SYSCALLS[index])
    }

    fn column(self, row: &(&str, i32, i32, i32)) -> Option<u32> {
        let number = match self {
            Architecture::X86_64 => row.1,
            Architecture::X86 => row.2,
            Architecture::Aarch64 => row.3,
        };
        u32::try_from(number).ok()
    }

    fn highest_number(self) -> u32 {
        SYSCALLS.iter().filter_map(|row| self.column(row)).max().unwrap_or(0)
    }
}

/// Whether some architecture has a system call of this name.
pub fn is_syscall(name: &str) -> bool {
    SYSCALLS.binary_search_by(|row| row.0.cmp(name)).is_ok()
}

/// One instruction of classic BPF.
type Instruction = libc::sock_filter;

/// A filter compiled for the machine at hand.
#[derive(Clone)]
pub struct Program(Vec<Instruction>);

/// The longest program the kernel takes.
pub const INSTRUCTIONS_MAX: usize = 4096;

const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
const OFFSET_ARGUMENTS: u32 = 16;

/// System calls of the x32 machine language carry this bit.
const X32_BIT: u32 = 0x4000_0000;

impl Filter {
    /// Makes a program of the filter.
    ///
    /// A system call newer than this table fails with `ENOSYS` if the default is an error: a C library then
    /// falls back to an older call, where `EPERM` would make it give up.
    pub fn compile(&self) -> io::Result<Program> {
        let mut program = vec![load(OFFSET_ARCHITECTURE)];
        for architecture in Architecture::NATIVE {
            let section = self.section(*architecture);
            // Jumps of one instruction reach 255 ahead, an unconditional one any distance.
            program.push(jump_equal(architecture.audit(), 1, 0));
            program.push(jump(section.len()));
            program.extend(section);
        }
        program.push(give(Action::KillProcess));
        match program.len() {
            0..=INSTRUCTIONS_MAX => Ok(Program(program)),
            _ => Err(io::Error::new(io::ErrorKind::InvalidInput, "the seccomp profile has too many rules")),
        }
    }

    /// The part for one architecture. Every way through it ends in a return.
    fn section(&self, architecture: Architecture) -> Vec<Instruction> {
        let mut section = vec![load(OFFSET_NUMBER)];
        if architecture == Architecture::X86_64 {
            section.extend([jump_if(libc::BPF_JGE, X32_BIT, 0, 1), give(self.default)]);
        }
        if matches!(self.default, Action::Errno(_)) {
            let newest = architecture.highest_number();
            section.extend([jump_if(libc::BPF_JGT, newest, 0, 1), give(Action::Errno(libc::ENOSYS as u16))]);
        }
        for rule in &self.rules {
            if let Some(number) = architecture.number(&rule.name) {
                section.extend(rule.instructions(number));
            }
        }
        section.push(give(self.default));
        section
    }
}

impl Rule {
    /// Returns the action or falls through with the system call's number loaded again.
    fn instructions(&self, number: u32) -> Vec<Instruction> {
        let mut body: Vec<Instruction> = Vec::new();
        // Built from the end, so that each condition knows how far away the way out is.
        let tail = if self.conditions.is_empty() { vec![] } else { vec![load(OFFSET_NUMBER)] };
        let end = [vec![give(self.action)], tail].concat();
        for condition in self.conditions.iter().rev() {
            let miss = body.len() + 1;
            body = [condition.instructions(miss), body].concat();
        }
        let body = [body, end].concat();
        [vec![jump_equal(number, 0, body.len())], body].concat()
    }
}

impl Condition {
    /// Falls through if the condition holds, else skips `miss` instructions after its own.
    fn instructions(&self, miss: usize) -> Vec<Instruction> {
        let low = OFFSET_ARGUMENTS + 8 * u32::from(self.argument);
        let high = low + 4;
        let halves = |value: u64| ((value >> 32) as u32, value as u32);
        match self.compare {
            Compare::Equal(value) => masked(low, high, u64::MAX, value, miss),
            Compare::Masked { mask, value } => masked(low, high, mask, value, miss),
            Compare::NotEqual(value) => {
                let (above, below) = halves(value);
                vec![load(high), jump_equal(above, 0, 2), load(low), jump_equal(below, miss, 0)]
            }
            Compare::Greater(value) => ordered(low, high, halves(value), libc::BPF_JGT, miss, true),
            Compare::GreaterOrEqual(value) => ordered(low, high, halves(value), libc::BPF_JGE, miss, true),
            Compare::Less(value) => ordered(low, high, halves(value), libc::BPF_JGE, miss, false),
            Compare::LessOrEqual(value) => ordered(low, high, halves(value), libc::BPF_JGT, miss, false),
        }
    }
}

fn masked(low: u32, high: u32, mask: u64, value: u64, miss: usize) -> Vec<Instruction> {
    vec![
        load(high),
        and((mask >> 32) as u32),
        jump_equal((value >> 32) as u32, 0, miss + 3),
        load(low),
        and(mask as u32),
        jump_equal(value as u32, 0, miss),
    ]
}

/// Compares the argument with `(above, below)` by `test`, and holds if that gives `wanted`.
fn ordered(
    low: u32,
    high: u32,
    (above, below): (u32, u32),
    test: u32,
    miss: usize,
    wanted: bool,
) -> Vec<Instruction> {
    // After the last instruction: 0 is the hit, `miss` the way out.
    let (yes, no) = if wanted { (0, miss) } else { (miss, 0) };
    vec![
        load(high),
        jump_if(libc::BPF_JGT, above, yes + 3, 0),
        jump_equal(above, 0, no + 2),
        load(low),
        jump_if(test, below, yes, no),
    ]
}

fn instruction(code: u32, k: u32, yes: usize, no: usize) -> Instruction {
    let offset =
        |jump: usize| u8::try_from(jump).expect("a rule has at most six conditions of six instructions");
    Instruction { code: code as u16, jt: offset(yes), jf: offset(no), k }
}

fn load(offset: u32) -> Instruction {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn and(mask: u32) -> Instruction {
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, mask, 0, 0)
}

fn jump(distance: usize) -> Instruction {
    instruction(libc::BPF_JMP | libc::BPF_JA, distance as u32, 0, 0)
}

fn jump_if(test: u32, value: u32, yes: usize, no: usize) -> Instruction {
    instruction(libc::BPF_JMP | test | libc::BPF_K, value, yes, no)
}

fn jump_equal(value: u32, yes: usize, no: usize) -> Instruction {
    jump_if(libc::BPF_JEQ, value, yes, no)
}

fn give(action: Action) -> Instruction {
    instruction(libc::BPF_RET | libc::BPF_K, action.code(), 0, 0)
}

impl Program {
    /// Puts the calling thread under this filter, for good.
    ///
    /// Needs `CAP_SYS_ADMIN` or no-new-privileges.
    pub fn load(&self) -> io::Result<()> {
        let length = u16::try_from(self.0.len()).expect("checked when it was compiled");
        let program = libc::sock_fprog { len: length, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: program points to `len` valid instructions that outlive the call; the kernel checks and
        // copies them.
        let result =
            unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, 0, &raw const program) };
        if result == -1 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the program as the kernel would, for a native system call.
    fn run(filter: &Filter, name: &str, arguments: &[u64]) -> u32 {
        let native = Architecture::NATIVE[0];
        let number = native.number(name).unwrap_or_else(|| name.parse().unwrap());
        run_raw(&filter.compile().unwrap(), native.audit(), number, arguments)
    }

    fn run_raw(program: &Program, audit: u32, number: u32, arguments: &[u64]) -> u32 {
        let word = |offset: u32| match offset {
            OFFSET_NUMBER => number,
            OFFSET_ARCHITECTURE => audit,
            _ => {
                let value = arguments[((offset - OFFSET_ARGUMENTS) / 8) as usize];
                if offset.is_multiple_of(8) { value as u32 } else { (value >> 32) as u32 }
            }
        };
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let Instruction { code, jt, jf, k } = program.0[at];
            let code = u32::from(code);
            at += 1;
            let test = match code & 0xf7 {
                0x20 => {
                    accumulator = word(k);
                    continue;
                }
                0x54 => {
                    accumulator &= k;
                    continue;
                }
                0x06 => return k,
                0x05 => {
                    at += k as usize;
                    continue;
                }
                0x15 => accumulator == k,
                0x25 => accumulator > k,
                0x35 => accumulator >= k,
                other => panic!("instruction {other:#x}"),
            };
            at += usize::from(if test { jt } else { jf });
        }
    }

    fn filter(name: &str, compares: &[(u8, Compare)]) -> Filter {
        let conditions = compares
            .iter()
            .map(|(argument, compare)| Condition { argument: *argument, compare: *compare })
            .collect();
        let rule = Rule { name: name.into(), conditions, action: Action::Allow };
        let other = Rule { name: "write".into(), conditions: vec![], action: Action::Allow };
        Filter { default: Action::Errno(1), rules: vec![rule, other] }
    }

    const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
    const EPERM: u32 = libc::SECCOMP_RET_ERRNO | 1;

    #[test]
    fn the_table_is_ordered_and_agrees_with_libc() {
        assert!(SYSCALLS.is_sorted_by(|a, b| a.0 < b.0));
        let native = Architecture::NATIVE[0];
        for (name, number) in [
            ("read", libc::SYS_read),
            ("newfstatat", libc::SYS_newfstatat),
            ("clone3", libc::SYS_clone3),
            ("mmap", libc::SYS_mmap),
            ("faccessat2", libc::SYS_faccessat2),
        ] {
            assert_eq!(native.number(name), Some(number as u32), "{name}");
        }
    }

    #[test]
    fn every_comparison_decides_as_arithmetic_does() {
        const BIG: u64 = 0x1_0000_0005;
        let values = [0, 4, 5, 6, 0x1_0000_0004, BIG, BIG + 1, 0x2_0000_0000, u64::MAX];
        type Truth = fn(u64) -> bool;
        let compares: [(Compare, Truth); 7] = [
            (Compare::Equal(BIG), |value| value == BIG),
            (Compare::NotEqual(BIG), |value| value != BIG),
            (Compare::Less(BIG), |value| value < BIG),
            (Compare::LessOrEqual(BIG), |value| value <= BIG),
            (Compare::Greater(BIG), |value| value > BIG),
            (Compare::GreaterOrEqual(BIG), |value| value >= BIG),
            (Compare::Masked { mask: 0x1_0000_0006, value: 0x1_0000_0004 }, |value| {
                value & 0x1_0000_0006 == 0x1_0000_0004
            }),
        ];
        for (compare, truth) in compares {
            // A second condition behind it shows that the way out is taken from the middle, too.
            let filter = filter("clone", &[(1, compare), (2, Compare::Equal(7))]);
            for value in values {
                let expected = if truth(value) { ALLOW } else { EPERM };
                assert_eq!(run(&filter, "clone", &[0, value, 7]), expected, "{compare:?} {value:#x}");
                assert_eq!(run(&filter, "clone", &[0, value, 8]), EPERM);
            }
            assert_eq!(run(&filter, "write", &[0, 0, 0]), ALLOW, "the next rule is reached");
        }
    }

    #[test]
    fn a_call_from_the_future_does_not_exist_yet() {
        let filter = filter("read", &[]);
        assert_eq!(run(&filter, "9999", &[]), libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32);
        assert_eq!(run(&filter, "mount", &[]), EPERM);
    }

    #[test]
    fn other_machine_languages_are_filtered_by_their_own_numbers() {
        let program = filter("read", &[]).compile().unwrap();
        if cfg!(target_arch = "x86_64") {
            let x86 = Architecture::X86.audit();
            assert_eq!(run_raw(&program, x86, 3, &[]), ALLOW, "read is 3 in 32-bit programs");
            assert_eq!(run_raw(&program, x86, 0, &[]), EPERM, "and not 0");
            assert_eq!(run_raw(&program, Architecture::X86_64.audit(), X32_BIT, &[]), EPERM);
        }
        assert_eq!(run_raw(&program, 0, 0, &[]), libc::SECCOMP_RET_KILL_PROCESS);
    }
}
