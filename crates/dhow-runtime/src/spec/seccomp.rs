//! The default seccomp profile, equal in effect to Docker's.
//!
//! What is not listed fails with `EPERM`. Calls that a capability guards are allowed to containers that have
//! the capability, so that `--cap-add` is all a user needs to say.

use dhow_sys::capability::Capabilities;
use serde_json::{Value, json};

/// Harmless in any container.
const ALLOWED: &str = "
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown chown32
    clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime clock_gettime64
    clock_nanosleep clock_nanosleep_time64 close close_range connect copy_file_range creat dup dup2 dup3
    epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old
    eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate
    fanotify_mark fchdir fchmod fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync
    fgetxattr flistxattr flock fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync
    ftruncate ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
    get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid geteuid32
    getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid getppid getpriority
    getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage getsid getsockname getsockopt
    gettid gettimeofday getuid getuid32 getxattr getxattrat inotify_add_watch inotify_init inotify_init1
    inotify_rm_watch io_cancel io_destroy io_getevents io_pgetevents io_pgetevents_time64 io_setup
    io_submit ioctl ioprio_get ioprio_set ipc kill landlock_add_rule landlock_create_ruleset
    landlock_restrict_self lchown lchown32 lgetxattr link linkat listen listxattr listxattrat llistxattr
    _llseek lremovexattr lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create
    memfd_secret mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect
    mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend
    mq_timedsend_time64 mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
    name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl pread64
    preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6 pselect6_time64
    ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv recvfrom recvmmsg
    recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename renameat renameat2
    restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn
    rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sched_get_priority_max
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler
    sched_rr_get_interval sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam
    sched_setscheduler sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send
    sendfile sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid
    setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid setpriority
    setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setrlimit setsid
    setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt shmget shutdown sigaltstack signalfd
    signalfd4 sigprocmask sigreturn socketcall socketpair splice stat stat64 statfs statfs64 statx symlink
    symlinkat sync sync_file_range syncfs sysinfo tee tgkill time timer_create timer_delete
    timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 timerfd_create
    timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64 times tkill truncate truncate64
    ugetrlimit umask uname unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice
    wait4 waitid waitpid write writev arch_prctl modify_ldt";

/// Allowed to containers with the capability.
const BY_CAPABILITY: &[(&str, &str)] = &[
    ("DAC_READ_SEARCH", "open_by_handle_at"),
    (
        "SYS_ADMIN",
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie mount mount_setattr
         move_mount open_tree perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog
         umount umount2 unshare",
    ),
    ("SYS_BOOT", "reboot"),
    ("SYS_CHROOT", "chroot"),
    ("SYS_MODULE", "delete_module init_module finit_module"),
    ("SYS_PACCT", "acct"),
    ("SYS_PTRACE", "kcmp pidfd_getfd process_madvise"),
    ("SYS_RAWIO", "iopl ioperm"),
    ("SYS_TIME", "settimeofday stime clock_settime clock_settime64"),
    ("SYS_TTY_CONFIG", "vhangup"),
    ("SYS_NICE", "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    ("SYSLOG", "syslog"),
    ("BPF", "bpf"),
    ("PERFMON", "perf_event_open"),
];

/// The execution domains programs ask for: Linux, also with 32-bit machine names and fixed addresses, and
/// the question which one it is.
const PERSONALITIES: [u64; 5] = [0x0, 0x8, 0x20000, 0x20008, 0xffff_ffff];
/// Sockets to the hypervisor reach past every network namespace.
const AF_VSOCK: u64 = 40;
/// The `CLONE_NEW*` flags.
const CLONE_NAMESPACES: u64 = 0x7e02_0000;
const ENOSYS: u32 = 38;
const EPERM: u32 = 1;

/// The profile for a container with `capabilities`, as in `linux.seccomp` of the runtime configuration.
pub(super) fn default_profile(capabilities: Capabilities) -> Value {
    let mut syscalls = vec![allow(ALLOWED)];
    for (capability, names) in BY_CAPABILITY {
        if has(capabilities, capability) {
            syscalls.push(allow(names));
        }
    }
    if !has(capabilities, "SYS_ADMIN") {
        syscalls.push(allow_if("clone", 0, CLONE_NAMESPACES, Some(0), "SCMP_CMP_MASKED_EQ"));
        // Its flags are in memory, out of a filter's sight. Told that it does not exist, callers use clone.
        syscalls.push(json!({ "names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": ENOSYS }));
    }
    syscalls.push(allow_if("socket", 0, AF_VSOCK, None, "SCMP_CMP_NE"));
    syscalls.extend(PERSONALITIES.map(|domain| allow_if("personality", 0, domain, None, "SCMP_CMP_EQ")));
    json!({
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": EPERM,
        "architectures": if cfg!(target_arch = "x86_64") {
            vec!["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
        } else {
            vec!["SCMP_ARCH_AARCH64"]
        },
        "syscalls": syscalls,
    })
}

fn has(capabilities: Capabilities, name: &str) -> bool {
    capabilities.contains(name.parse().expect("the table names real capabilities"))
}

fn allow(names: &str) -> Value {
    let names: Vec<&str> = names.split_ascii_whitespace().collect();
    json!({ "names": names, "action": "SCMP_ACT_ALLOW" })
}

fn allow_if(name: &str, index: u32, value: u64, value_two: Option<u64>, op: &str) -> Value {
    let mut arg = json!({ "index": index, "value": value, "op": op });
    if let Some(value_two) = value_two {
        arg["valueTwo"] = value_two.into();
    }
    json!({ "names": [name], "action": "SCMP_ACT_ALLOW", "args": [arg] })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_a_system_call() {
        let names = BY_CAPABILITY.iter().map(|(_, names)| *names).chain([ALLOWED]);
        // Calls that only architectures or kernels have which are not in the table.
        let elsewhere = ["recv", "send", "uretprobe"];
        let unknown: Vec<&str> = names
            .flat_map(str::split_ascii_whitespace)
            .filter(|name| !dhow_sys::seccomp::is_syscall(name) && !elsewhere.contains(name))
            .collect();
        assert_eq!(unknown, Vec::<&str>::new());
    }

    /// What docker's documentation lists as blocked. Left out is what kernels of today guard well enough themselves,
    /// which docker's profile allows as well: ptrace, process_vm_readv, process_vm_writev, clock_adjtime.
    const DOCUMENTED: &str = "acct add_key bpf clock_settime create_module delete_module finit_module get_kernel_syms
        get_mempolicy init_module ioperm iopl kcmp kexec_file_load kexec_load keyctl lookup_dcookie mbind mount
        move_pages nfsservctl open_by_handle_at perf_event_open pivot_root query_module quotactl reboot request_key
        set_mempolicy setns settimeofday stime swapon swapoff sysfs _sysctl umount umount2 unshare uselib userfaultfd
        ustat vm86 vm86old io_uring_setup io_uring_enter io_uring_register";

    fn allowed(capabilities: Capabilities) -> Vec<String> {
        let profile = default_profile(capabilities);
        let rules = profile["syscalls"].as_array().expect("rules").clone();
        let whole = rules.iter().filter(|rule| rule["action"] == "SCMP_ACT_ALLOW" && rule["args"].is_null());
        let names = whole.flat_map(|rule| rule["names"].as_array().expect("names").clone());
        names.map(|name| name.as_str().expect("a name").to_owned()).collect()
    }

    #[test]
    fn what_docker_documents_as_blocked_is_blocked() {
        let defaults = super::super::defaults::CAPABILITIES.iter();
        let known = allowed(defaults.map(|name| name.parse().expect("a capability")).collect());
        let wrong: Vec<&str> = DOCUMENTED
            .split_ascii_whitespace()
            .filter(|name| known.iter().any(|held| held == name))
            .collect();
        assert_eq!(wrong, Vec::<&str>::new());
        for conditional in ["clone", "clone3", "personality", "socket"] {
            assert!(
                !known.iter().any(|held| held == conditional),
                "{conditional} is allowed without conditions"
            );
        }
        for usual in ["chroot", "mknod", "ptrace", "seccomp", "openat2", "execveat"] {
            assert!(known.iter().any(|held| held == usual), "{usual} is blocked");
        }
    }

    #[test]
    fn a_capability_opens_what_docker_documents_for_it() {
        for (capability, names) in [
            ("SYS_ADMIN", "bpf clone mount perf_event_open setns umount2 unshare quotactl"),
            ("SYS_MODULE", "init_module finit_module delete_module"),
            ("DAC_READ_SEARCH", "open_by_handle_at"),
            ("SYS_BOOT", "reboot"),
            ("SYS_PACCT", "acct"),
            ("SYS_TIME", "settimeofday clock_settime"),
            ("SYS_RAWIO", "iopl ioperm"),
            ("SYS_NICE", "mbind set_mempolicy get_mempolicy"),
        ] {
            let own: Capabilities = [capability.parse().expect("a capability")].into_iter().collect();
            let known = allowed(own);
            for name in names.split(' ') {
                assert!(known.iter().any(|held| held == name), "{capability} does not open {name}");
            }
        }
    }
}
