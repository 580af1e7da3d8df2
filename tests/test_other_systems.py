"""What Windows lacks is hidden: clickwise was never run there, but nothing of it asks for more than there is."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

from clickwise.errors import EngineError

SOURCE = Path(__file__).parents[1] / "src" / "clickwise"

# Libraries are loaded first: they know the system that they were built for.
HIDE = """
import ctypes, importlib, os, pkgutil, select, signal, sys
import duckdb, ibis, numpy, onnxruntime, pyarrow.csv, pyarrow.dataset, pyarrow.parquet, redis, rich.progress, torch
import torch._inductor, torch.distributed.launcher.api, typer, uvicorn.protocols.http.httptools_impl, yaml
import onnxscript, sklearn, starlette.applications

for name in ("fcntl", "resource", "pwd", "grp", "termios", "tty", "pty", "uvloop", "triton"):
    sys.modules[name] = None
for module, names in ((os, ("fork", "mkfifo", "sched_getaffinity", "sysconf", "getuid", "geteuid", "WNOHANG",
                            "O_NONBLOCK", "set_blocking", "statvfs", "uname", "getloadavg", "killpg")),
                      (signal, ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGUSR1", "ITIMER_REAL", "setitimer",
                                "pthread_sigmask", "sigtimedwait", "sigwait")),
                      (select, ("poll", "epoll"))):
    for name in names:
        delattr(module, name)

class CDLL(ctypes.CDLL):
    def __init__(self, name, *arguments, **options):
        if name is None:
            raise OSError("Windows has no such library")
        super().__init__(name, *arguments, **options)

ctypes.CDLL = CDLL
sys.platform = "win32"
"""
IMPORT_ALL = HIDE + """
import clickwise
loaded, failed = [], {}
for found in pkgutil.walk_packages(clickwise.__path__, "clickwise."):
    try:
        importlib.import_module(found.name)
        loaded.append(found.name)
    except ImportError as error:
        failed[found.name] = error.name
import json
print(json.dumps([len(loaded), failed]))
"""
TRAIN = HIDE + """
from clickwise.cli import main
sys.argv = ["clickwise", "train", "tiny/dlrm", "train.steps=3", "--out", sys.argv[1], "--json"]
main()
"""


def test_every_module_loads_without_what_windows_lacks():
    done = subprocess.run([sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    loaded, failed = json.loads(done.stdout.splitlines()[-1])
    assert loaded > 250
    # Kernels of a GPU are loaded where there is one, the last by Triton's own server.
    assert failed.pop("clickwise.serve.triton_model") == "triton_python_backend_utils"
    assert all(name.endswith(".triton") and missing == "triton" for name, missing in failed.items()), failed


def test_a_model_trains_without_what_windows_lacks(tmp_path):
    done = subprocess.run([sys.executable, "-c", TRAIN, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["steps"] == 3 and told["peak_memory_bytes"] is None


def test_a_server_says_which_system_it_needs(monkeypatch):
    from clickwise.serve import process

    monkeypatch.delattr(process.os, "fork")
    with pytest.raises(EngineError, match="Linux"):
        process._check_system(workers=1)


def test_texts_are_written_alike_on_every_system():
    """A text file that is opened says its encoding, and one that is written its line ends too: manifests sum them."""
    assert [where for file in SOURCE.rglob("*.py") for where in left_to_the_system(file)] == []


def left_to_the_system(file):
    """Where a text file is opened in the encoding, or written with the line ends, of the system."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if not isinstance(node, ast.Call):
            continue
        options = {option.arg for option in node.keywords}
        is_method = isinstance(node.func, ast.Attribute)
        name = node.func.attr if is_method else getattr(node.func, "id", "")
        mode = node.args[1].value if len(node.args) > 1 and isinstance(node.args[1], ast.Constant) else "r"
        needed = set()
        if name == "open" and not is_method and "b" not in str(mode):
            needed = {"encoding"} if mode == "r" else {"encoding", "newline"}
        elif name == "read_text" and is_method and not node.args:  # an engine of preparation has another
            needed = {"encoding"}
        elif name == "write_text" and "encoding" in options:  # ours has none
            needed = {"newline"}
        if needed - options:
            yield f"{file.relative_to(SOURCE)}:{node.lineno}: {name} without {', '.join(sorted(needed - options))}"
