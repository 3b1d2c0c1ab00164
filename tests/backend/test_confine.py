"""A process that runs the models of others writes nowhere else, reaches nothing, stays small."""

import ctypes
import json
import os
import subprocess
import sys

import pytest

from duha_sim.sewer import sewer

landlock = pytest.mark.skipif(
    ctypes.CDLL(None).syscall(444, None, 0, 1) < 1,
    reason="this kernel has no Landlock: only limits hold here",
)

TRY = """
import json, os, pathlib, socket, sys
from duha_backend.drainage.confine import confine
outside = pathlib.Path(sys.argv[1])
held = confine(pathlib.Path.cwd())
told = {"held": held._asdict()}
def attempt(name, call):
    try:
        call()
        told[name] = "done"
    except OSError as error:
        told[name] = error.strerror
attempt("inside", lambda: pathlib.Path("mine.txt").write_text("x"))
attempt("write", lambda: outside.write_text("x"))
attempt("append", lambda: outside.open("a"))
attempt("truncate", lambda: os.truncate(outside, 0))
attempt("remove", outside.unlink)
attempt("replace", lambda: pathlib.Path("mine.txt").replace(outside))
attempt("link", lambda: os.link(outside, "theirs.txt"))
attempt("make", lambda: (outside.parent / "new").mkdir())
attempt("read", outside.read_text)
attempt("users", pathlib.Path("/etc/passwd").read_text)
attempt("program", lambda: os.execv("/bin/true", ["true"]))
attempt("network", lambda: socket.create_connection(("127.0.0.1", 9), 1))
import colorsys  # libraries are still found
print(json.dumps(told))
"""


@landlock
def test_a_confined_process_writes_and_reads_nowhere_else(tmp_path):
    outside, folder = tmp_path / "precious.txt", tmp_path / "scratch"
    outside.write_text("all of the city")
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-I", "-c", TRY, str(outside)],
        cwd=folder, capture_output=True, check=True, timeout=30,
    )  # fmt: skip
    told = json.loads(done.stdout)
    assert told.pop("held")["files"]
    assert told.pop("inside") == "done"
    told.pop("network")  # older kernels do not know it
    assert not [name for name, how in told.items() if how == "done"], told
    assert outside.read_text() == "all of the city"


HOSTILE = """
import sys, pathlib
from duha_backend.drainage.confine import confine
from swmm.toolkit import solver
confine(pathlib.Path.cwd())
solver.swmm_run("m.inp", "m.rpt", "m.out")
"""


@landlock
def test_swmm_itself_cannot_write_a_file_that_slipped_through(tmp_path):
    outside, folder = tmp_path / "precious.txt", tmp_path / "scratch"
    outside.write_text("all of the city")
    folder.mkdir()
    text = f"{sewer(3, ('A',))}\n[FILES]\nSAVE OUTFLOWS {outside}\n"
    (folder / "m.inp").write_text(text)
    subprocess.run(
        [sys.executable, "-I", "-c", HOSTILE], cwd=folder, check=False, timeout=60
    )
    assert "ERROR" in (folder / "m.rpt").read_text(), "it was tried, and refused"
    assert outside.read_text() == "all of the city"


LIMITS = """
import json, pathlib, resource
from duha_backend.drainage.confine import confine, limit_cpu
confine(pathlib.Path.cwd())
limit_cpu(0.1)
told = {"core": resource.getrlimit(resource.RLIMIT_CORE)[0]}
try:
    bytearray(4 << 30)
except MemoryError:
    told["memory"] = "refused"
print(json.dumps(told), flush=True)
while True:
    pass
"""


def test_memory_and_time_of_a_model_have_an_end(tmp_path):
    done = subprocess.run(
        [sys.executable, "-I", "-c", LIMITS],
        cwd=tmp_path, capture_output=True, check=False, timeout=60,
    )  # fmt: skip
    assert json.loads(done.stdout) == {"core": 0, "memory": "refused"}
    assert done.returncode < 0, "ended by the system"


async def test_a_models_process_has_nothing_of_its_parents_environment(monkeypatch):
    from duha_backend.drainage.process import Process

    monkeypatch.setenv("DUHA_TOKEN", "canary")
    process = Process()
    try:
        await process.open(sewer(3, ("A",)).encode(), 1_767_225_600)
        with open(f"/proc/{process.pid}/environ") as file:
            environment = file.read()
        assert "canary" not in environment
        assert process._folder is not None
        assert os.readlink(f"/proc/{process.pid}/cwd") == process._folder.name
    finally:
        await process.close()
