"""A pytest plugin, `-p on_gpu.outcomes`: every test's outcome is a line of the file in $OUTCOMES as soon as it is
known, so that a time limit loses none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from measure import append


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):  # the process that hears of all tests, in whichever they run
        config.pluginmanager.register(_Outcomes(Path(os.environ["OUTCOMES"])))


class _Outcomes:
    def __init__(self, file: Path) -> None:
        self.file = file

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call" and report.outcome == "passed":
            return
        error = report.longreprtext.strip().splitlines()[-1][:300] if report.failed and report.longreprtext else None
        append(self.file, {"test": report.nodeid, "outcome": report.outcome, "seconds": report.duration,
                           "error": error})
