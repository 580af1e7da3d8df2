"""The processes that train together: which one this is, and what they tell each other.

Whoever starts them (`torchrun`, a scheduler, `clickwise train --processes`) sets RANK, WORLD_SIZE, MASTER_ADDR and
MASTER_PORT; LOCAL_RANK says which of its machine's GPUs a process takes. Without them there is one process, and nothing
here communicates. Every process makes the same calls in the same order.
"""

from __future__ import annotations

import contextlib
import datetime
import os
import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist

from clickwise import machine
from clickwise.errors import LAUNCHED, ClickwiseError, EngineError, Interrupted, ToldElsewhere, TrainError

VARIABLES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
_FAILED = "clickwise/failed"  # in the store that all processes see: which one speaks of a failure
_ANSWER_S, _LINGER_S = 10.0, 4.0


class Lost(TrainError):
    """Another process of the training ended, or cannot be reached."""


def rank() -> int:
    """The number of this process, from 0."""
    return dist.get_rank() if _together() else 0


def count() -> int:
    """How many processes train together."""
    return dist.get_world_size() if _together() else 1


def is_first() -> bool:
    """Whether this is the process that writes and speaks for all."""
    return rank() == 0


def _together() -> bool:
    return dist.is_available() and dist.is_initialized()


def asked_for() -> int:
    """How many processes the environment says there are; EngineError where it is no number above 0."""
    return _number("WORLD_SIZE", 1, least=1)


def local_rank() -> int:
    """The number of this process among those of its machine."""
    return _number("LOCAL_RANK", 0, least=0)


def local_count() -> int:
    """How many of the processes that train together this machine has, where whoever started them says so; else 1."""
    return _number("LOCAL_WORLD_SIZE", 1, least=1) if count() > 1 else 1


def _number(name: str, default: int, least: int) -> int:
    text = os.environ.get(name, "")
    if not text:
        return default
    if not text.isdecimal() or int(text) < least:
        raise EngineError(f"the environment variable {name}", found=repr(text), expected=f"a number from {least}")
    return int(text)


@contextlib.contextmanager
def together(*, timeout_s: float = 1800.0) -> Iterator[None]:
    """In the block this process is one of those that the environment names; alone, where it names none.

    An error in one process ends all. The first one to fail raises its error, so that there is one message, and the
    others raise `ToldElsewhere`. Where one was killed, the first to miss it raises `Lost`, unless what started them
    (`launch`) tells of it.
    """
    if asked_for() == 1:
        yield
        return
    speaks = _join(timeout_s)
    is_launched = LAUNCHED in os.environ
    try:
        with _ended_once():
            yield
            dist.barrier()
    except (ClickwiseError, OSError, KeyboardInterrupt) as error:
        is_signal = isinstance(error, Interrupted | KeyboardInterrupt)
        if (is_launched and is_signal) or not speaks():
            raise ToldElsewhere(Interrupted.exit_code if is_signal else getattr(error, "exit_code", 1)) from None
        error.at_once = True
        raise
    except RuntimeError as error:
        if not _is_of_transport(error):
            raise
        if is_launched or not speaks():
            raise ToldElsewhere(Lost.exit_code) from None
        lost = Lost(f"process {rank()} of {count()}",
                    found=f"another process cannot be reached any more: {_shortened(error)}",
                    expected="all processes of the training",
                    do="see what the other processes said, then go on from the last checkpoint: clickwise train "
                       "--resume RUN")
        lost.at_once = True
        raise lost from None
    dist.destroy_process_group()  # not after an error: it would wait for those that are gone


@contextlib.contextmanager
def _ended_once() -> Iterator[None]:
    """A block after whose failure signals are not listened to: what started the processes ends those that are left,
    and this one ends already."""
    try:
        yield
    except BaseException:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        raise


def _join(timeout_s: float) -> Callable[[], bool]:
    """Makes the group; what comes back says whether this process is the one to tell of a failure."""
    on_gpus = torch.cuda.is_available()
    if on_gpus and not dist.is_nccl_available():
        raise EngineError("several processes on GPUs", found=f"torch {torch.__version__} without NCCL",
                          expected="NCCL, which torch for GPUs on Linux has", do=machine.INSTALL_TORCH)
    missing = [name for name in VARIABLES if not os.environ.get(name)]
    where = ", ".join(VARIABLES)
    if missing:
        raise EngineError(f"the environment variables {where}", found=f"WORLD_SIZE, but no {', '.join(missing)}",
                          expected="all four", do="start with torchrun, or clickwise train RECIPE --processes N")
    mine, of = _number("RANK", 0, least=0), asked_for()
    if mine >= of:
        raise EngineError("the environment variable RANK", found=f"{mine} of {of}", expected=f"0 … {of - 1}")
    timeout = datetime.timedelta(seconds=timeout_s)
    try:
        store, _, _ = next(dist.rendezvous("env://", timeout=timeout))
        dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpus else "gloo", store=store, rank=mine, world_size=of,
                                timeout=timeout)
    except (RuntimeError, ValueError) as error:
        if not isinstance(error, ValueError) and not _is_of_transport(error):
            raise
        raise EngineError(f"the environment variables {where}",
                          found=f"process {mine} of {of} cannot join the others: {_shortened(error)}",
                          expected=f"{of} processes that reach {os.environ['MASTER_ADDR']}, a port that is free there",
                          do="set another MASTER_PORT, or see whether all processes were started") from None

    def speaks() -> bool:
        answers: list[bytes] = []

        def ask() -> None:
            with contextlib.suppress(RuntimeError):  # gone with process 0, which kept it
                answers.append(store.compare_set(_FAILED, "", str(mine)))
                if mine:
                    store.set(f"{_FAILED}/{mine}", "asked")
                else:  # the others fail too, most of them at the same time, and ask this process
                    store.wait([f"{_FAILED}/{other}" for other in range(1, of)], datetime.timedelta(seconds=_LINGER_S))

        asking = threading.Thread(target=ask, daemon=True)
        asking.start()
        asking.join(_ANSWER_S)  # one that was cut off never answers
        # Where none can be asked, the next one speaks, on another machine the first.
        return answers[0] == str(mine).encode() if answers else mine == 1 or local_rank() == 0

    return speaks


def _shortened(error: Exception) -> str:
    """The first sentence or two, without where in torch's source it was raised."""
    return re.sub(r"^\[\S+\] ", "", str(error).splitlines()[0])[:150]


def _is_of_transport(error: RuntimeError) -> bool:
    text = str(error)
    return isinstance(error, dist.DistError) or any(
        part in text for part in ("gloo", "NCCL", "Connection ", "connection ", "Socket", "Timed out waiting", "EADDR"))


# What they tell each other --------------------------------------------------------------------------------------------


def sum_over_all(tensor: torch.Tensor) -> torch.Tensor:
    """Adds to the tensor, in place, those of the other processes."""
    if count() > 1:
        dist.all_reduce(tensor)
    return tensor


def greatest_of_all(tensor: torch.Tensor) -> torch.Tensor:
    """Makes each value, in place, the greatest that any process has."""
    if count() > 1:
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
    return tensor


class _SumOverAll(torch.autograd.Function):
    """A sum over the processes, and backward the sum of what its users in all of them want."""

    @staticmethod
    def forward(ctx, tensor):
        return sum_over_all(tensor.clone())

    @staticmethod
    def backward(ctx, grad):
        return sum_over_all(grad.clone())


def differentiable_sum(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of the processes' tensors, through which gradients flow back into each."""
    return _SumOverAll.apply(tensor) if count() > 1 else tensor


def from_first(value: Any) -> Any:
    """What the first process has."""
    if count() == 1:
        return value
    box = [value if is_first() else None]
    dist.broadcast_object_list(box, src=0, device=torch.device("cpu"))
    return box[0]


def from_each(value: Any) -> list[Any]:
    """The values of all processes, in every process."""
    if count() == 1:
        return [value]
    found: list[Any] = [None] * count()
    dist.all_gather_object(found, value)
    return found


def at_first(value: Any) -> list[Any]:
    """The values of all processes, in the first; in the others none."""
    if count() == 1:
        return [value]
    found = [None] * count() if is_first() else None
    dist.gather_object(value, found)
    return found or []


def require_same(facts: dict[str, Any]) -> None:
    """EngineError, in every process, where one has another value of a fact than the first."""
    of_all = from_each(facts)
    for number, of_one in enumerate(of_all):
        for name, value in of_all[0].items():
            if of_one[name] != value:
                raise EngineError(f"process {number} of {count()}", found=f"{name}: {of_one[name]}",
                                  expected=f"{value}, as process 0 has it",
                                  do="start all processes with the same command, code and data")


@contextlib.contextmanager
def agreed() -> Iterator[None]:
    """A block that may fail in one process alone, where others would wait for it: at its end all know, and all fail."""
    if count() == 1:
        yield
        return
    error = None
    try:
        yield
    except ClickwiseError as raised:
        error = raised
    errors: Sequence[ClickwiseError | None] = from_each(error)
    if (first := next((error for error in errors if error is not None), None)) is not None:
        raise error or first
