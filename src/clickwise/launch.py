"""Starts the processes that train together on this machine, as `torchrun` does for several machines."""

from __future__ import annotations

import logging
import os
import signal
import sys

from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from clickwise import machine
from clickwise.errors import LAUNCHED, Interrupted, TrainError, UsageError

OPTION = "--processes"


def launch(processes: int) -> int:
    """Runs the command line that this process was called with in so many processes, and waits for them: the exit code.

    One that fails tells why, and the others are ended. TrainError where one was killed; Interrupted where this process
    is asked to end, as then the others are.
    """
    if "WORLD_SIZE" in os.environ:
        raise UsageError(f"{OPTION} {processes}", found=f"WORLD_SIZE={os.environ['WORLD_SIZE']}: the processes were "
                         "started already", expected=f"{OPTION} alone, or torchrun alone", do=f"leave {OPTION} out")
    _silence_elastic()
    config = LaunchConfig(min_nodes=1, max_nodes=1, nproc_per_node=processes, rdzv_backend="c10d",
                          rdzv_endpoint="localhost:0", local_addr="localhost", max_restarts=0, run_id="clickwise")
    threads = str(max(1, machine.usable_cores() // processes))
    inherited = {LAUNCHED: "1", "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", threads)}
    try:
        os.environ.update(inherited)
        elastic_launch(config, sys.executable)("-m", "clickwise", *_without_option(sys.argv[1:]))
    except ChildFailedError as error:
        number, failure = error.get_first_failure()
        if failure.exitcode > 0:
            return failure.exitcode
        raise TrainError(f"process {number} of {processes}", found=f"killed by {_name_of(-failure.exitcode)}",
                         expected="a training that ends by itself; the other processes were ended",
                         do="go on from the last checkpoint: clickwise train --resume RUN") from None
    except SignalException as received:
        interrupted = Interrupted("interrupted", found="a training that has not ended", do="go on from the last "
                                  "checkpoint, if there is one: clickwise train --resume RUN")
        interrupted.exit_code = 128 + received.sigval
        raise interrupted from None
    finally:
        del os.environ[LAUNCHED]
    return 0


def _silence_elastic() -> None:
    """What there is to say is said by the processes, or here."""
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("torch.distributed.elastic"):
            logging.getLogger(name).setLevel(logging.CRITICAL)


def _name_of(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _without_option(words: list[str]) -> list[str]:
    kept, skip = [], False
    for word in words:
        if skip or word.startswith(f"{OPTION}="):
            skip = False
        elif word == OPTION:
            skip = True
        else:
            kept.append(word)
    return kept
