"""The system calls that a sandbox never needs, denied by a filter written as plain BPF bytes.

A deny list: training code uses too much of the kernel for an allow list that survives the next torch. Sockets are an
allow list of one family, Unix, without which data-loader workers hang.
"""

from __future__ import annotations

import errno
import os
import struct

ALLOW = 0x7FFF0000
ERRNO = 0x00050000
KILL_PROCESS = 0x80000000

LOAD_WORD = 0x20  # BPF_LD | BPF_W | BPF_ABS
JUMP_EQUAL = 0x15  # BPF_JMP | BPF_JEQ | BPF_K
JUMP_AT_LEAST = 0x35  # BPF_JMP | BPF_JGE | BPF_K
JUMP_ANY_BIT = 0x45  # BPF_JMP | BPF_JSET | BPF_K
RETURN = 0x06  # BPF_RET | BPF_K

NUMBER, ARCHITECTURE, ARGUMENT_0, ARGUMENT_1 = 0, 4, 16, 24  # offsets into struct seccomp_data, little endian

AF_UNIX = 1
NEW_NAMESPACES = 0x7E020000  # every CLONE_NEW* flag that clone() takes, user namespaces among them
TERMINAL_INJECTION = (0x5412, 0x541C)  # TIOCSTI, TIOCLINUX

ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
X32_BIT = 0x40000000

# name: (x86_64, aarch64)
DENIED = {
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "unshare": (272, 97), "setns": (308, 268),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "lookup_dcookie": (212, 18),
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "quotactl": (179, 60), "quotactl_fd": (443, 443), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "fanotify_init": (300, 262),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225),
    "acct": (163, 89), "syslog": (103, 116), "vhangup": (153, 58), "sethostname": (170, 161),
    "setdomainname": (171, 162), "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266),
    "adjtimex": (159, 171),
}  # fmt: skip
CLONE = (56, 220)
CLONE3 = (435, 435)
SOCKET = (41, 198)
IOCTL = (16, 29)


def _instruction(code: int, constant: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("=HBBI", code, if_true, if_false, constant)


def _deny(number: int) -> bytes:
    return _instruction(RETURN, ERRNO | number)


def program(machine: str | None = None) -> bytes:
    """The filter as an array of `struct sock_filter`; empty for an architecture it does not know."""
    machine = machine or os.uname().machine
    if machine not in ARCHITECTURES:
        return b""
    column = 0 if machine == "x86_64" else 1
    lines = [
        _instruction(LOAD_WORD, ARCHITECTURE),
        _instruction(JUMP_EQUAL, ARCHITECTURES[machine], 1, 0),
        _instruction(RETURN, KILL_PROCESS),
        _instruction(LOAD_WORD, NUMBER),
    ]
    if machine == "x86_64":
        lines += [_instruction(JUMP_AT_LEAST, X32_BIT, 0, 1), _deny(errno.ENOSYS)]
    for numbers in DENIED.values():
        lines += [_instruction(JUMP_EQUAL, numbers[column], 0, 1), _deny(errno.EPERM)]
    # clone3 hides its flags behind a pointer; "not implemented" makes the C library fall back to clone.
    lines += [_instruction(JUMP_EQUAL, CLONE3[column], 0, 1), _deny(errno.ENOSYS)]
    lines += [
        _instruction(JUMP_EQUAL, CLONE[column], 0, 4),
        _instruction(LOAD_WORD, ARGUMENT_0),
        _instruction(JUMP_ANY_BIT, NEW_NAMESPACES, 0, 1),
        _deny(errno.EPERM),
        _instruction(RETURN, ALLOW),
    ]
    lines += [
        _instruction(JUMP_EQUAL, SOCKET[column], 0, 4),
        _instruction(LOAD_WORD, ARGUMENT_0),
        _instruction(JUMP_EQUAL, AF_UNIX, 1, 0),
        _deny(errno.EAFNOSUPPORT),
        _instruction(RETURN, ALLOW),
    ]
    lines += [
        _instruction(JUMP_EQUAL, IOCTL[column], 0, 5),
        _instruction(LOAD_WORD, ARGUMENT_1),
        _instruction(JUMP_EQUAL, TERMINAL_INJECTION[0], 1, 0),
        _instruction(JUMP_EQUAL, TERMINAL_INJECTION[1], 0, 1),
        _deny(errno.EPERM),
        _instruction(RETURN, ALLOW),
    ]
    lines.append(_instruction(RETURN, ALLOW))
    return b"".join(lines)
