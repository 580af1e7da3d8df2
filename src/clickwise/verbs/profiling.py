"""`--profile DIR`: a trace of some steps that https://ui.perfetto.dev opens, and the operators that took longest."""

from __future__ import annotations

import contextlib
import gzip
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import profiler

from clickwise.errors import UsageError
from clickwise.files import whole_file, write_json

STEPS, WARMUP = 10, 2  # traced; before them, so that the profiler's own start is not in the trace
MOST = 10  # operators


class Profile:
    """Where traces go: `folder`, which is made; UsageError where a file has its name."""

    def __init__(self, folder: Path) -> None:
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"--profile {folder}", found="a file", expected="a folder, or a name that is free")
        os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # torch's profiler reports its start and end else
        self.folder = folder
        self.found: list[dict[str, Any]] = []  # of each trace: `name`, `trace` (its file), `steps`, `operators`

    @contextlib.contextmanager
    def traced(self, step: Callable[..., Any], name: str, skip: int = 0) -> Iterator[Callable[..., Any]]:
        """`step`, of whose calls STEPS are traced, `skip` + WARMUP after the first; fewer where it is called less
        often. Its other attributes are those of `step`."""
        kinds = [profiler.ProfilerActivity.CPU]
        if torch.cuda.is_available():
            kinds.append(profiler.ProfilerActivity.CUDA)
        schedule = profiler.schedule(wait=skip, warmup=WARMUP, active=STEPS, repeat=1)
        traced = _TracedStep(step, WARMUP + skip)
        with profiler.profile(activities=kinds, schedule=schedule,
                              on_trace_ready=lambda done: self._write(done, name, traced.steps)) as traced.profiler:
            yield traced

    def of_calls(self, call: Callable[[], object], name: str) -> None:
        """Traces some calls."""
        with self.traced(call, name) as traced:
            for _ in range(WARMUP + STEPS):
                traced()

    def _write(self, done: profiler.profile, name: str, steps: int) -> None:
        if steps < 1:
            return
        trace = self.folder / f"{name}.json.gz"
        with tempfile.TemporaryDirectory() as folder, whole_file(trace) as temporary:
            done.export_chrome_trace(f"{folder}/plain.json")
            with open(f"{folder}/plain.json", "rb") as plain, gzip.open(temporary, "wb") as packed:
                shutil.copyfileobj(plain, packed)
        found = {"name": name, "trace": str(trace), "steps": steps, "operators": costliest(done, steps)}
        write_json(self.folder / f"{name}.operators.json", found)
        self.found.append(found)


class _TracedStep:
    def __init__(self, step: Callable[..., Any], before: int) -> None:
        self._step, self._before, self._calls = step, before, 0
        self.profiler: profiler.profile | None = None

    @property
    def steps(self) -> int:
        """Calls that are in the trace."""
        return min(STEPS, self._calls - self._before)

    def __call__(self, *given: Any) -> Any:
        result = self._step(*given)
        self._calls += 1
        if self._calls <= self._before + STEPS:
            self.profiler.step()
        return result

    def __getattr__(self, name: str) -> Any:
        return getattr(self._step, name)


def costliest(done: profiler.profile, steps: int) -> list[dict[str, Any]]:
    """At most MOST operators by the time in themselves, without what they call: `name`, `calls` and `ms` of a step,
    `share` of all operators. On a GPU it is the time of the GPU."""
    on_gpu = torch.cuda.is_available()

    def microseconds(event: Any) -> float:
        return event.self_device_time_total if on_gpu else event.self_cpu_time_total

    events = [event for event in done.key_averages() if not event.key.startswith("ProfilerStep")]
    total = sum(map(microseconds, events)) or 1.0
    events.sort(key=microseconds, reverse=True)
    return [{"name": event.key, "calls": round(event.count / steps, 1),
             "ms": round(microseconds(event) / steps / 1e3, 4), "share": round(microseconds(event) / total, 4)}
            for event in events[:MOST]]


def shown(found: dict[str, Any]) -> str:
    """One trace as a table."""
    lines = [f"{found['name']}, {found['steps']} steps: {found['trace']} (open it in https://ui.perfetto.dev)",
             f"{'operator':<56} {'calls/step':>10} {'ms/step':>10} {'share':>6}"]
    lines += [f"{row['name'][:56]:<56} {row['calls']:>10g} {row['ms']:>10.3f} {row['share']:>6.1%}"
              for row in found["operators"]]
    return "\n".join(lines)
