"""A real tritonserver on loopback, where one is installed: `.ci/run` puts it into `.triton`, README says how.

    .triton/server    the wheel nvidia-pytriton, unpacked: tritonserver 2.51 with its python backend
    .triton/env       a virtual environment with what models import there; that backend needs numpy below 2
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
HOME = Path(os.environ.get("TRITON_HOME", ROOT / ".triton"))


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@contextlib.contextmanager
def triton(repository: Path, place: Path, *words: str):
    """(port of HTTP, port of gRPC, the lines it says) of a server of the repository. Skips where none is installed."""
    server = HOME / "server" / "pytriton" / "tritonserver"
    if not server.exists() or not (HOME / "env").exists():
        pytest.skip(f"no tritonserver in {HOME}: see docs/serving.md")
    stub = server / "python_backend_stubs" / f"{sys.version_info.major}.{sys.version_info.minor}"
    backends = place / "backends"
    shutil.copytree(server / "backends", backends)
    shutil.copytree(stub, backends / "python", dirs_exist_ok=True)
    http, grpc = free_port(), free_port()
    packages = next((HOME / "env" / "lib").glob("python3*/site-packages"))
    libraries = [sysconfig.get_config_var("LIBDIR"), str(HOME / "server" / "nvidia_pytriton.libs")]
    process = subprocess.Popen(
        [server / "bin" / "tritonserver", f"--model-repository={repository}", f"--backend-directory={backends}",
         f"--http-port={http}", f"--grpc-port={grpc}", "--http-address=127.0.0.1", "--grpc-address=127.0.0.1",
         "--allow-metrics=false", *words],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace",
        env={**os.environ, "LD_LIBRARY_PATH": ":".join(libraries),
             "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(packages)])})
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line)
            if "Started HTTPService" in line:
                break
        else:
            pytest.fail("tritonserver ended: " + "".join(said)[-3000:])
        threading.Thread(target=lambda: said.extend(process.stdout), daemon=True).start()
        while process.poll() is None:  # it says so a moment before it listens
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", http)):
                break
        yield http, grpc, said
    finally:
        process.terminate()  # its python backends end with it; killed, it would leave them behind
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
