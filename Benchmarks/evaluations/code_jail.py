"""The process in which code_runner.py runs one program. It shuts itself in before it reads a line of the program.

- Limits: address space, processor time, no bytes in files, few descriptors and threads, no core.
- Another user, with an id that nobody has, where this process may change it.
- Namespaces without network and with nobody's shared memory, where they can be had.
- Landlock: of the file system only Python's library and the system's can be read.
- seccomp: a list of calls, all others fail. No sockets, no new processes, no files opened for writing, no signals to others.

The last two must stand, or nothing is run. What the program cannot be kept from is to find the word in this process's memory that says "passed":
a model that sets out to cheat its test can; one that ends the process, or its output, cannot.
"""

import ctypes
import json
import os
import platform
import resource
import struct
import sys

NETWORK, IPC, USER, MOUNT = 0x40000000, 0x08000000, 0x10000000, 0x00020000
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
EPERM, EACCES, ENOSYS = 1, 13, 38
libc = ctypes.CDLL(None, use_errno=True)


class Refused(Exception):
    pass


def limit(job):
    def most(which, value):
        hard = resource.getrlimit(which)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(which, (value, value))

    most(resource.RLIMIT_CPU, job["seconds"])
    most(resource.RLIMIT_FSIZE, 0)
    most(resource.RLIMIT_NOFILE, 64)
    most(resource.RLIMIT_CORE, 0)
    most(resource.RLIMIT_AS, job["memory"])


def library_folders():
    """Folders that imports read, this interpreter's and the system's."""
    return [path for path in sys.path if os.path.isdir(path)]


def leave_namespaces():
    """Goes where there is no network, and no shared memory. seccomp forbids both all the same."""
    if libc.unshare(NETWORK | IPC) != 0 and os.getuid() != 0:
        libc.unshare(USER | NETWORK | IPC)


def change_user():
    """Becomes a user that nobody is, if this one may. The interpreter's library must stay readable: below a private home it is not, unless it is
    mounted elsewhere for this process alone."""
    if os.geteuid() != 0:
        return
    hidden = sys.base_prefix
    parents = [hidden[:index] or "/" for index, letter in enumerate(hidden) if letter == "/"] + [hidden]
    if not all(os.stat(parent).st_mode & 0o005 == 0o005 for parent in parents):
        private = libc.unshare(MOUNT) == 0 and libc.mount(None, b"/", None, 0x4000 | 0x40000, None) == 0  # MS_REC | MS_PRIVATE
        if not private or libc.mount(os.fsencode(hidden), b"/mnt", None, 0x1000, None) != 0:  # MS_BIND
            return
        sys.path[:] = ["/mnt" + path[len(hidden):] if path.startswith(hidden) else path for path in sys.path]
        sys.path_importer_cache.clear()
    user = 2_000_000_000 + os.getpid()
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    resource.setrlimit(resource.RLIMIT_NPROC, (32, 32))


def close_files():
    """Landlock: whatever is not below these folders cannot be opened."""
    create_ruleset, add_rule, restrict_self = 444, 445, 446
    version = libc.syscall(create_ruleset, None, 0, 1)
    if version < 1:
        raise Refused("the kernel has no Landlock (Linux 5.13 and later have it)")
    access = (1 << 13) - 1 | (1 << 13 if version >= 2 else 0) | (1 << 14 if version >= 3 else 0) | (1 << 15 if version >= 5 else 0)
    attributes = struct.pack("=QQ", access, 3 if version >= 4 else 0)
    ruleset = libc.syscall(create_ruleset, attributes, 16 if version >= 4 else 8, 0)
    if ruleset < 0:
        raise Refused("Landlock refuses a rule set")
    read_file, read_folder = 4, 8
    for path in [*library_folders(), "/usr/lib", "/lib", "/lib64", "/usr/share/zoneinfo", "/etc/localtime", "/etc/ld.so.cache"]:
        try:
            place = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue
        allowed = read_file | (read_folder if os.path.isdir(path) else 0)
        failed = libc.syscall(add_rule, ruleset, 1, struct.pack("=Qi", allowed, place), 0)
        os.close(place)
        if failed:
            raise Refused(f"Landlock refuses a rule for {path}")
    if libc.syscall(restrict_self, ruleset, 0) != 0:
        raise Refused("Landlock cannot be switched on")
    os.close(ruleset)


# Calls by number, x86-64 and arm64. Names are the kernel's.
CALLS = {
    "x86_64": {
        "read": 0, "write": 1, "open": 2, "close": 3, "stat": 4, "fstat": 5, "lstat": 6, "poll": 7, "lseek": 8, "mmap": 9, "mprotect": 10,
        "munmap": 11, "brk": 12, "rt_sigaction": 13, "rt_sigprocmask": 14, "rt_sigreturn": 15, "ioctl": 16, "pread64": 17, "writev": 20,
        "access": 21, "pipe": 22, "select": 23, "sched_yield": 24, "mremap": 25, "madvise": 28, "dup": 32, "dup2": 33, "pause": 34,
        "nanosleep": 35, "getpid": 39, "clone": 56, "exit": 60, "uname": 63, "fcntl": 72, "getcwd": 79, "readlink": 89, "gettimeofday": 96,
        "getrlimit": 97, "getrusage": 98, "sysinfo": 99, "times": 100, "getuid": 102, "getgid": 104, "geteuid": 107, "getegid": 108,
        "getppid": 110, "sigaltstack": 131, "gettid": 186, "futex": 202, "sched_getaffinity": 204, "getdents64": 217, "clock_gettime": 228,
        "clock_getres": 229, "clock_nanosleep": 230, "exit_group": 231, "tgkill": 234, "openat": 257, "newfstatat": 262, "readlinkat": 267,
        "faccessat": 269, "pselect6": 270, "ppoll": 271, "set_robust_list": 273, "dup3": 292, "pipe2": 293, "prlimit64": 302,
        "getrandom": 318, "statx": 332, "rseq": 334, "clone3": 435, "faccessat2": 439,
    },
    "aarch64": {
        "getcwd": 17, "dup": 23, "dup3": 24, "fcntl": 25, "ioctl": 29, "faccessat": 48, "openat": 56, "close": 57, "pipe2": 59,
        "getdents64": 61, "lseek": 62, "read": 63, "write": 64, "writev": 66, "pread64": 67, "pselect6": 72, "ppoll": 73, "readlinkat": 78,
        "newfstatat": 79, "fstat": 80, "exit": 93, "exit_group": 94, "futex": 98, "set_robust_list": 99, "nanosleep": 101,
        "clock_gettime": 113, "clock_getres": 114, "clock_nanosleep": 115, "sched_getaffinity": 123, "sched_yield": 124, "tgkill": 131,
        "sigaltstack": 132, "rt_sigaction": 134, "rt_sigprocmask": 135, "rt_sigreturn": 139, "times": 153, "uname": 160, "getrlimit": 163,
        "getrusage": 165, "gettimeofday": 169, "getpid": 172, "getppid": 173, "getuid": 174, "geteuid": 175, "getgid": 176, "getegid": 177,
        "gettid": 178, "sysinfo": 179, "brk": 214, "munmap": 215, "mremap": 216, "clone": 220, "mmap": 222, "mprotect": 226, "madvise": 233,
        "prlimit64": 261, "getrandom": 278, "statx": 291, "rseq": 293, "clone3": 435, "faccessat2": 439,
    },
}
AUDIT = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}


def close_calls():
    """seccomp: calls that are not listed fail, and some of the listed with some arguments."""
    machine = platform.machine()
    if machine not in CALLS:
        raise Refused(f"the list of system calls is for x86-64 and arm64, and this is {machine}")
    calls = CALLS[machine]
    allow, deny = 0x7FFF0000, lambda error: 0x00050000 | error
    program = []

    def add(code, value, yes=0, no=0):
        program.append(struct.pack("=HBBI", code, yes, no, value & 0xFFFFFFFF))

    load, equal, at_least, any_bit, answer = 0x20, 0x15, 0x35, 0x45, 0x06
    number, architecture, arguments = 0, 4, 16
    add(load, architecture)
    add(equal, AUDIT[machine], yes=1)
    add(answer, deny(ENOSYS))
    add(load, number)
    # The same calls under other numbers (x32).
    add(at_least, 0x40000000, no=1)
    add(answer, deny(ENOSYS))

    def rule(name, *instructions):
        """The instructions if the call has this name. Each ends with an answer, whichever way it goes."""
        if name in calls:
            add(equal, calls[name], no=len(instructions))
            for instruction in instructions:
                add(*instruction)

    flags = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    for name, place in [("open", 1), ("openat", 2)]:
        rule(name, (load, arguments + 8 * place), (any_bit, flags, 0, 1), (answer, deny(EACCES)), (answer, allow))
    # Threads, but no processes. glibc falls back to clone where clone3 is not there.
    rule("clone", (load, arguments), (any_bit, 0x10000, 0, 1), (answer, allow), (answer, deny(EPERM)))
    rule("clone3", (answer, deny(ENOSYS)))
    # Signals to itself alone, as abort() sends.
    rule("tgkill", (load, arguments), (equal, os.getpid(), 0, 1), (answer, allow), (answer, deny(EPERM)))
    # Limits of its own, which it can only lower.
    rule("prlimit64", (load, arguments), (equal, 0, 0, 1), (answer, allow), (answer, deny(EPERM)))
    # What programs ask descriptors: whether they are terminals, and to be closed at exec.
    rule("ioctl", (load, arguments + 8), (equal, 0x5401, 0, 1), (answer, allow), (equal, 0x5451, 0, 1), (answer, allow), (answer, deny(EPERM)))
    for name, value in calls.items():
        if name not in ("open", "openat", "clone", "clone3", "tgkill", "prlimit64", "ioctl"):
            add(equal, value, no=1)
            add(answer, allow)
    add(answer, deny(EPERM))

    code = ctypes.create_string_buffer(b"".join(program), 8 * len(program))

    class Filter(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    filter = Filter(len(program), ctypes.addressof(code))
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(filter), 0, 0) != 0:
        raise Refused("seccomp cannot be switched on")


def main():
    job = json.load(sys.stdin)
    result = job["result"]
    try:
        # Before its memory is limited, and the library's files are out of sight of what needs them: these are read lazily.
        import encodings.idna, linecache, traceback  # noqa: E401,F401

        limit(job)
        leave_namespaces()
        change_user()
        if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
            raise Refused("the process cannot give up privileges")
        close_files()
        close_calls()
    except (Refused, OSError, ValueError) as error:
        os.write(result, f"jail: {error}".encode())
        return 3
    nonce, program = job["nonce"], job["program"]
    exec(compile(program, "program", "exec"), {"__name__": "__main__", "__builtins__": __builtins__})
    os.write(result, nonce.encode())
    return 0


if __name__ == "__main__":
    sys.exit(main())
