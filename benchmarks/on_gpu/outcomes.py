"""A pytest plugin, `-p on_gpu.outcomes`: every test's outcome is a line of the file in $OUTCOMES as soon as it is
known, so that a time limit loses none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from measure import append


@pytest.hookimpl
def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if "PYTEST_XDIST_WORKER" in os.environ or not (report.when == "call" or report.outcome != "passed"):
        return
    error = report.longreprtext.strip().splitlines()[-1][:300] if report.failed and report.longreprtext else None
    append(Path(os.environ["OUTCOMES"]), {"test": report.nodeid, "outcome": report.outcome, "seconds": report.duration,
                                          "error": error})
