"""Confinement of a process that runs the models of others.

It may read the libraries that it consists of, write in its own folder, and nothing else: by
Landlock, a part of Linux since 5.13 (here asked for over `ctypes`, as Python has no call for
it). Memory, size of files and open files are limited everywhere.
"""

import ctypes
import os
import resource
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

MEMORY_BYTES = 2 * 1024**3
FILE_BYTES = 256 * 1024**2
OPEN_FILES = 128
_CREATE, _ADD_RULE, _RESTRICT = 444, 445, 446
_PATH_BENEATH, _VERSION = 1, 1
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38
_EXECUTE, _REMOVE_DIR = 1 << 0, 1 << 4
_WRITE_FILE, _READ_FILE, _READ_DIR, _TRUNCATE = 1 << 1, 1 << 2, 1 << 3, 1 << 14
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 5: (1 << 16) - 1}
"""Rights over files that each version of Landlock knows of: all of them are taken away."""
_TCP_SINCE, _SIGNALS_SINCE = 4, 6
_TCP = 0b11
_SIGNALS_AND_SOCKETS = 0b11


class _Ruleset(ctypes.Structure):
    _fields_ = (
        ("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64),
    )  # fmt: skip


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("rights", ctypes.c_uint64), ("folder", ctypes.c_int32))


class Confined(NamedTuple):
    """What of a confinement holds on this machine: limits always; files, where it can."""

    files: bool
    network: bool


def confine(folder: Path) -> Confined:
    """Give up for good whatever a model does not need; for this process and its forks.

    Parameters
    ----------
    folder : Path
        Where it may still write.
    """
    limit()
    if sys.platform != "linux":
        return Confined(files=False, network=False)
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE, None, 0, _VERSION)
    if version < 1:  # an older kernel, another system, or switched off
        return Confined(files=False, network=False)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    files = next(_RIGHTS[v] for v in sorted(_RIGHTS, reverse=True) if v <= version)
    rules = _Ruleset(
        files,
        _TCP if version >= _TCP_SINCE else 0,
        _SIGNALS_AND_SOCKETS if version >= _SIGNALS_SINCE else 0,
    )
    ruleset = libc.syscall(_CREATE, ctypes.byref(rules), _size(version), 0)
    if ruleset < 0:
        return Confined(files=False, network=False)
    try:
        _allow(libc, ruleset, [folder], files & ~_EXECUTE)
        _allow(libc, ruleset, [folder.parent], _REMOVE_DIR)  # empty ones: its own, last
        _allow(libc, ruleset, _libraries(), _READ_FILE | _READ_DIR)
        null = (_READ_FILE | _WRITE_FILE | _TRUNCATE) & files
        _allow(libc, ruleset, [Path(os.devnull)], null)
        held = libc.syscall(_RESTRICT, ruleset, 0) == 0
    finally:
        os.close(ruleset)
    return Confined(held, held and version >= _TCP_SINCE)


def limit() -> None:
    """Limit memory, files and cores of this process."""
    for what, most in (
        (resource.RLIMIT_AS, MEMORY_BYTES), (resource.RLIMIT_FSIZE, FILE_BYTES),
        (resource.RLIMIT_NOFILE, OPEN_FILES), (resource.RLIMIT_CORE, 0),
    ):  # fmt: skip
        hard = resource.getrlimit(what)[1]
        kept = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (kept, kept))


def limit_cpu(more_s: float) -> None:
    """Let this process calculate for so long from now on; then the system ends it [s]."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = int(used.ru_utime + used.ru_stime + more_s) + 1
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    if hard != resource.RLIM_INFINITY:
        most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_CPU, (most, hard))


def end_with_parent(signal: int) -> None:
    """Have a signal sent to this process when the one that began it is gone."""
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal, 0, 0, 0)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal)


def _size(version: int) -> int:
    return 8 if version < _TCP_SINCE else 16 if version < _SIGNALS_SINCE else 24


def _allow(libc: ctypes.CDLL, ruleset: int, paths: Iterable[Path], rights: int) -> None:
    for path in paths:
        try:
            opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except OSError:
            continue  # what is not there needs no right
        try:
            rule = _Beneath(rights, opened)
            libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0)
        finally:
            os.close(opened)


def _libraries() -> list[Path]:
    """Where Python, its packages and the libraries of the system are."""
    found = {"/usr", "/lib", "/lib64", "/opt", "/dev/urandom"}
    found |= {"/etc/ld.so.cache", "/etc/localtime", sys.prefix, sys.base_prefix}
    found |= {path for path in sys.path if path}
    return [Path(path) for path in sorted(found) if Path(path) != Path("/")]
