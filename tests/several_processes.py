"""Starts processes that train together, without whatever starts them elsewhere: environment variables only."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

TESTS = Path(__file__).parent


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def start(processes, words, place, of_rank=None, **environment):
    """Python with `words`, and for a rank with those `of_rank`, in so many processes, from the folder `place`; their
    output goes to files there."""
    port, started = free_port(), []
    for rank in range(processes):
        more = (of_rank or {}).get(rank, [])
        variables = {**os.environ, "RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(processes),
                     "LOCAL_WORLD_SIZE": str(processes), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
                     "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), *filter(None, [
                         os.environ.get("PYTHONPATH")])]), **environment}
        with open(place / f"out{rank}", "w") as out:
            started.append(subprocess.Popen([sys.executable, *map(str, [*words, *more])], cwd=place, env=variables,
                                            stdout=out, stderr=subprocess.STDOUT))
    return started


def ended(started, place):
    """(exit code, what was printed) of each, when all have ended."""
    codes = [each.wait(timeout=1500) for each in started]
    return [(code, (place / f"out{rank}").read_text()) for rank, code in enumerate(codes)]


def run(processes, words, place, **environment):
    """What all print; they must end well."""
    found = ended(start(processes, words, place, **environment), place)
    assert all(code == 0 for code, _ in found), "\n".join(out for _, out in found)
    return [out for _, out in found]


def train(processes, words, place, **environment):
    """The results that `clickwise train … --json` prints."""
    out, *others = run(processes, ["-m", "clickwise", "train", *words, "--json"], place, **environment)
    assert not any(other.strip() for other in others), others
    return json.loads(out[out.index("{"):])
