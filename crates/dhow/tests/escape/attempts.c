// Known ways out of a container, each tried once. Prints a line for each: its name and what came of it.
//
// argv[1]: a file of the host that the container must not reach. argv[2]: an abstract socket of the host.
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <dirent.h>
#include <linux/capability.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/swap.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

static const char *marker;

static void told(const char *name, long worked) {
    if (worked) printf("%s ESCAPED\n", name);
    else printf("%s failed: %s\n", name, strerror(errno));
    fflush(stdout);
    errno = 0;
}
// A call that must not succeed.
#define CALL(name, call) do { errno = 0; told(name, (long)(call) >= 0); } while (0)

static int writes(const char *path, const char *text) {
    int fd = open(path, O_WRONLY);
    if (fd < 0) return -1;
    int result = write(fd, text, strlen(text)) < 0 ? -1 : 0;
    int saved = errno;
    close(fd);
    errno = saved;
    return result;
}
static int reads(const char *path) {
    char byte;
    int fd = open(path, O_RDONLY);
    if (fd < 0) return -1;
    int result = read(fd, &byte, 1) == 1 ? 0 : -1;
    close(fd);
    return result;
}
// Makes the node, which is allowed, and opens it, which is not.
static int opens_node(mode_t kind, int major, int minor, int flags) {
    unlink("/tmp/node");
    if (mknod("/tmp/node", kind | 0600, makedev(major, minor)) < 0) return -1;
    return open("/tmp/node", flags);
}
static int leaked_descriptor(void) {
    DIR *dir = opendir("/proc/self/fd");
    struct dirent *entry;
    char path[4096];
    while (dir && (entry = readdir(dir))) {
        int fd = atoi(entry->d_name);
        if (entry->d_name[0] == '.' || fd == dirfd(dir)) continue;
        snprintf(path, sizeof path, "../../../../../../../../..%s", marker);
        if (openat(fd, path + 1 - 1, O_RDONLY) >= 0) return 0;
        snprintf(path, sizeof path, "/proc/self/fd/%d/../../../../../../..%s", fd, marker);
        if (open(path, O_RDONLY) >= 0) return 0;
    }
    errno = ENOENT;
    return -1;
}
// chroot is allowed; leaving a second one leads to the first, which is the container's own.
static int chroot_escape(void) {
    int up = open("/", O_RDONLY);
    mkdir("/tmp/jail", 0700);
    if (chroot("/tmp/jail") < 0) return -1;
    fchdir(up);
    for (int i = 0; i < 64; i++) if (chdir("..") < 0) break;
    if (chroot(".") < 0) return -1;
    return open(marker, O_RDONLY);
}
static int regains_capabilities(void) {
    struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
    struct __user_cap_data_struct data[2];
    if (syscall(SYS_capget, &header, data) < 0) return 0;
    data[0].permitted |= 1u << CAP_SYS_ADMIN;
    data[0].effective |= 1u << CAP_SYS_ADMIN;
    return syscall(SYS_capset, &header, data);
}
static int connects(const char *name) {
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    strncpy(address.sun_path + 1, name, sizeof address.sun_path - 2);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    return connect(fd, (struct sockaddr *)&address, sizeof(sa_family_t) + 1 + strlen(name));
}
static int shocker(void) {
    struct { struct file_handle handle; unsigned char bytes[8]; } root =
        { .handle = { .handle_bytes = 8, .handle_type = 1 }, .bytes = { 2 } };
    int fd = open("/", O_RDONLY);
    return open_by_handle_at(fd, &root.handle, O_RDONLY);
}

int main(int argc, char **argv) {
    char buffer[4096] = { 0 };
    marker = argv[1];
    CALL("core_pattern", writes("/proc/sys/kernel/core_pattern", "|/tmp/x"));
    CALL("modprobe path", writes("/proc/sys/kernel/modprobe", "/tmp/x"));
    CALL("sysrq-trigger", writes("/proc/sysrq-trigger", "h"));
    CALL("proc irq", writes("/proc/irq/default_smp_affinity", "1"));
    CALL("uevent_helper", writes("/sys/kernel/uevent_helper", "/tmp/x"));
    CALL("sys power state", writes("/sys/power/state", "mem"));
    CALL("transparent hugepages", writes("/sys/kernel/mm/transparent_hugepage/enabled", "never"));
    CALL("own memory limit v1", writes("/sys/fs/cgroup/memory/memory.limit_in_bytes", "-1"));
    CALL("own memory limit v2", writes("/sys/fs/cgroup/memory.max", "max"));
    CALL("release_agent", writes("/sys/fs/cgroup/memory/release_agent", "/tmp/x"));
    CALL("make a cgroup", mkdir("/sys/fs/cgroup/memory/x", 0755));
    CALL("mount a cgroup", mount("x", "/mnt", "cgroup", 0, "memory"));
    CALL("kcore", reads("/proc/kcore"));
    CALL("keys of others", reads("/proc/keys"));
    CALL("firmware", open("/sys/firmware/acpi/tables", O_RDONLY));
    CALL("mount tmpfs", mount("x", "/mnt", "tmpfs", 0, 0));
    CALL("mount proc", mount("x", "/mnt", "proc", 0, 0));
    CALL("bind mount", mount("/proc", "/mnt", 0, MS_BIND, 0));
    CALL("remount proc sys", mount(0, "/proc/sys", 0, MS_REMOUNT | MS_BIND, 0));
    CALL("umount proc sys", umount2("/proc/sys", MNT_DETACH));
    CALL("fsopen", syscall(SYS_fsopen, "tmpfs", 0));
    CALL("open_tree clone", syscall(SYS_open_tree, AT_FDCWD, "/", 1));
    CALL("pivot_root", syscall(SYS_pivot_root, "/tmp", "/tmp"));
    CALL("unshare mount", unshare(CLONE_NEWNS));
    CALL("unshare user", unshare(CLONE_NEWUSER));
    CALL("clone user", syscall(SYS_clone, CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0));
    CALL("clone3", syscall(SYS_clone3, buffer, 88));
    CALL("setns", setns(open("/proc/1/ns/mnt", O_RDONLY), 0));
    CALL("root of process 1", access((snprintf(buffer, 4096, "/proc/1/root%s", marker), buffer), F_OK));
    CALL("host's marker", access(marker, F_OK));
    CALL("leaked descriptor", leaked_descriptor());
    CALL("kill a process outside", kill(4194000, 0));
    CALL("add_key", syscall(SYS_add_key, "user", "a", "b", 1, -4));
    CALL("keyctl", syscall(SYS_keyctl, 0, -4, 0));
    CALL("request_key", syscall(SYS_request_key, "user", "a", 0, 0));
    CALL("raw disk loop0", opens_node(S_IFBLK, 7, 0, O_RDONLY));
    CALL("raw disk sda", opens_node(S_IFBLK, 8, 0, O_RDONLY));
    CALL("raw disk vda", opens_node(S_IFBLK, 254, 0, O_RDONLY));
    CALL("memory of the machine", opens_node(S_IFCHR, 1, 1, O_RDONLY));
    CALL("kernel log device", opens_node(S_IFCHR, 1, 11, O_RDONLY));
    CALL("fuse device", opens_node(S_IFCHR, 10, 229, O_RDWR));
    CALL("kvm device", opens_node(S_IFCHR, 10, 232, O_RDWR));
    CALL("open_by_handle_at", shocker());
    CALL("bpf", syscall(SYS_bpf, 0, buffer, 48));
    CALL("perf_event_open", syscall(SYS_perf_event_open, buffer, 0, -1, -1, 0));
    CALL("userfaultfd", syscall(SYS_userfaultfd, 0));
    CALL("io_uring_setup", syscall(SYS_io_uring_setup, 4, buffer));
    CALL("kexec_load", syscall(SYS_kexec_load, 0, 0, 0, 0));
    CALL("init_module", syscall(SYS_init_module, buffer, 4, ""));
    CALL("finit_module", syscall(SYS_finit_module, 0, "", 0));
    CALL("delete_module", syscall(SYS_delete_module, "x", 0));
    CALL("reboot", syscall(SYS_reboot, 0xfee1dead, 672274793, 0, 0));
    CALL("swapon", swapon("/tmp/node", 0));
    CALL("swapoff", swapoff("/tmp/node"));
#ifdef SYS_iopl
    CALL("iopl", syscall(SYS_iopl, 3));
    CALL("ioperm", syscall(SYS_ioperm, 0x80, 1, 1));
#endif
    CALL("personality", syscall(SYS_personality, 0x0400000));
    CALL("syslog", syscall(SYS_syslog, 3, buffer, 100));
    CALL("settimeofday", syscall(SYS_settimeofday, 0, 0));
    CALL("sethostname", sethostname("x", 1));
    CALL("quotactl", syscall(SYS_quotactl, 0, "/", 0, 0));
    CALL("acct", syscall(SYS_acct, "/tmp/x"));
    CALL("nice", setpriority(0, 0, -20));
    CALL("mbind", syscall(SYS_mbind, 0, 0, 0, 0, 0, 0));
    CALL("kcmp", syscall(SYS_kcmp, 1, 1, 0, 0, 0));
    CALL("vsock", socket(40, SOCK_STREAM, 0));
    CALL("abstract socket of the host", connects(argv[2]));
    CALL("TIOCSTI", ioctl(0, TIOCSTI, "x"));
    CALL("more capabilities", regains_capabilities());
    CALL("ambient capability", prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_SYS_ADMIN, 0, 0));
    CALL("chroot", chroot_escape());
    return 0;
}
