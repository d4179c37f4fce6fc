"""Run one program and its tests in this process, which is given up for it: started by `programs`, imported by nobody.

Reads a job (JSON) from stdin: {programs, tests, seconds, memory, folder, token, report}. Of the programs the first that
compiles is run, then the tests in the same module, and then, and only then, the token is written to stdout, or with `report`
the names of the limits that this system refused. Whatever else the program writes goes nowhere. Needs the standard library
alone.

Limits: processor time, memory, size of files and how many are open, no core dump, no new process; on Linux also no thread, no
network, no signal to any process, no writing outside the folder (a seccomp filter and Landlock, which need no privileges).
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import math
import os
import platform
import resource
import struct
import sys
import types
from collections.abc import Callable, Sequence

MAX_FILE = 16 << 20
MAX_OPEN_FILES = 64

_SEEDED = "import random; random.seed(0)"
"""What runs before a program, so that one that draws numbers draws the same ones each time."""
_NO_NEW_PRIVILEGES, _SECCOMP, _DIE_WITH_PARENT = 38, 22, 1
_KILL = 9
_ALLOW, _REFUSE = 0x7FFF0000, 0x00050001
_LOAD, _EQUAL, _AT_LEAST, _RETURN = 0x20, 0x15, 0x35, 0x06
_X32 = 0x40000000

# Of each refused call the number on x86-64 and on arm64; -1 where there is none.
_REFUSED = {
    # processes and threads
    "clone": (56, 220), "fork": (57, -1), "vfork": (58, -1), "clone3": (435, 435),
    "execve": (59, 221), "execveat": (322, 281), "unshare": (272, 97), "setns": (308, 268),
    # other processes
    "kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240), "pidfd_send_signal": (424, 424), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "setpriority": (141, 140),
    "sched_setaffinity": (203, 122),
    "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195), "msgget": (68, 186), "semget": (64, 190),
    # network
    "socket": (41, 198), "io_uring_setup": (425, 425),
    # limits, and memory that they do not count
    "setrlimit": (160, 164), "prlimit64": (302, 261), "memfd_create": (319, 279), "setsid": (112, 157), "setpgid": (109, 154),
    # files, in the ways that Landlock leaves open
    "chmod": (90, -1), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "chown": (92, -1),
    "fchown": (93, 55), "lchown": (94, -1), "fchownat": (260, 54), "utime": (132, -1), "utimes": (235, -1),
    "futimesat": (261, -1), "utimensat": (280, 88), "truncate": (76, 45), "setxattr": (188, 5), "lsetxattr": (189, 6),
    "fsetxattr": (190, 7), "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16),
    # the machine
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "reboot": (169, 142),
    "sethostname": (170, 161), "settimeofday": (164, 170), "clock_settime": (227, 112), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "bpf": (321, 280),
    "perf_event_open": (298, 241), "keyctl": (250, 219), "add_key": (248, 217), "swapoff": (168, 225),
    "open_by_handle_at": (304, 265), "fsopen": (430, 430), "open_tree": (428, 428),
    "move_mount": (429, 429), "mount_setattr": (442, 442),
}  # fmt: skip
_MACHINES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}

# Landlock: the rights over files that are taken away, by the first version of it that knows them.
_WRITE_RIGHTS = {1: 1 << 1 | 0b111111111 << 4, 2: 1 << 13, 3: 1 << 14}
_ON_A_FILE = 1 << 1 | 1 << 14
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446


def main() -> None:
    """Do the job on stdin."""
    job = json.loads(sys.stdin.buffer.read())
    answer = os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nothing, stream)
    os.close(nothing)
    write, leave, token = os.write, os._exit, job["token"].encode()
    missing = confine(job["seconds"], job["memory"], job["folder"])
    if job["report"]:
        token = json.dumps(missing).encode()
    run(job["programs"], job["tests"])
    write(answer, token)
    leave(0)


def run(programs: Sequence[str], tests: str) -> None:
    """Run the first program that compiles, and then the tests, in one module that is not `__main__`."""
    execute, after = exec, compile(tests, "<tests>", "exec")
    module = types.ModuleType("program")
    sys.modules["program"] = module
    execute(_SEEDED, {})
    execute(_compiled(programs), module.__dict__)
    execute(after, module.__dict__)


def _compiled(programs: Sequence[str]) -> types.CodeType:
    for program in programs[:-1]:
        with contextlib.suppress(SyntaxError, ValueError, RecursionError, MemoryError):
            return compile(program, "<program>", "exec")
    return compile(programs[-1], "<program>", "exec")


def confine(seconds: float, memory: int, folder: str) -> list[str]:
    """Put every limit on this process that the system allows; return the names of the others.

    Args:
        seconds: of processor time.
        memory: bytes of address space.
        folder: the only one in which files may be written.
    """
    cpu = max(1, math.ceil(seconds))
    wanted: list[tuple[str, Callable[[], None]]] = [
        ("processor time", lambda: resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 1))),
        ("memory", lambda: resource.setrlimit(resource.RLIMIT_AS, (memory, memory))),
        ("size of files", lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (MAX_FILE, MAX_FILE))),
        ("open files", lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_OPEN_FILES, MAX_OPEN_FILES))),
        ("core dumps", lambda: resource.setrlimit(resource.RLIMIT_CORE, (0, 0))),
        ("writing outside its folder", lambda: landlock(folder)),
        ("number of processes", lambda: resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))),
        ("network, processes and signals", refuse_calls),
    ]
    missing = []
    for name, limit in wanted:
        try:
            limit()
        except (OSError, ValueError, AttributeError, KeyError):
            missing.append(name)
    if wanted[-1][0] in missing and os.geteuid() == 0:
        missing.append("number of processes of root")
    return missing


def landlock(folder: str) -> None:
    """Let this process write files nowhere but in `folder` and to /dev/null.

    Raises:
        OSError: the system has no Landlock.
    """
    library = _linux()
    version = _checked(library.syscall(_CREATE_RULESET, None, *_longs(0, 1)))
    rights = sum(more for since, more in _WRITE_RIGHTS.items() if since <= version)
    attributes = ctypes.create_string_buffer(struct.pack("=Q", rights), 8)
    rules = _checked(library.syscall(_CREATE_RULESET, attributes, *_longs(8, 0)))
    for path, allowed in ((folder, rights), (os.devnull, rights & _ON_A_FILE)):
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        beneath = ctypes.create_string_buffer(struct.pack("=Qi", allowed, opened), 12)
        _checked(library.syscall(_ADD_RULE, *_longs(rules, 1), beneath, *_longs(0)))
        os.close(opened)
    _checked(library.prctl(_NO_NEW_PRIVILEGES, *_longs(1, 0, 0, 0)))
    _checked(library.syscall(_RESTRICT_SELF, *_longs(rules, 0)))
    os.close(rules)


def refuse_calls() -> None:
    """Let the system refuse the calls of `_REFUSED` to this process, for good, and end it with its parent.

    Raises:
        OSError: the system has no seccomp filters.
        KeyError: a machine whose numbers of calls are not known here.
    """
    library = _linux()
    column, architecture = _MACHINES[platform.machine()]
    numbers = sorted(pair[column] for pair in _REFUSED.values() if pair[column] >= 0)
    left = len(numbers)
    steps = [(_LOAD, 0, 0, 4), (_EQUAL, 0, left + 3, architecture), (_LOAD, 0, 0, 0)]
    steps.append((_AT_LEAST, left + 1, 0, _X32))
    steps += [(_EQUAL, left - at, 0, number) for at, number in enumerate(numbers)]
    steps += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _REFUSE)]
    filter_ = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(filter_))
    _checked(library.prctl(_DIE_WITH_PARENT, *_longs(_KILL, 0, 0, 0)))
    _checked(library.prctl(_NO_NEW_PRIVILEGES, *_longs(1, 0, 0, 0)))
    _checked(
        library.prctl(_SECCOMP, *_longs(2), ctypes.create_string_buffer(program, len(program)), *_longs(0, 0))
    )


def _linux() -> ctypes.CDLL:
    if sys.platform != "linux":
        raise OSError("not Linux")
    return ctypes.CDLL(None, use_errno=True)


def _longs(*numbers: int) -> tuple[ctypes.c_long, ...]:
    return tuple(ctypes.c_long(number) for number in numbers)


def _checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), "refused by the system")
    return result


if __name__ == "__main__":
    main()
