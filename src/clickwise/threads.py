"""How threads wait, and what torch prints by itself; imports nothing, so that it can be said before torch is loaded."""

from __future__ import annotations

import os


def let_them_sleep() -> None:
    """Has threads that wait spin for a few microseconds, which is as long as most waits in a step on idle cores, and
    then sleep, unless the environment says something else.

    Beside other work on the same cores a thread that goes on spinning keeps the one it waits for from running
    (benchmarks/waiting.py). OpenMP reads this when torch is loaded: GNU's the number, others the policy.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ.update(OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="1000")


def quiet_transport() -> None:
    """Has torch not print where in its source a connection failed, which `processes` tells in words."""
    if "WORLD_SIZE" in os.environ:
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "FATAL")
