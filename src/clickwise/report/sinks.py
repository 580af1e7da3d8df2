"""Where the log of a run goes beside its own report: TensorBoard, MLflow, or a sink of your own.

A sink is a class with the methods of `Sink`. The same command may be given again while the run goes on: nothing stands
twice in what it wrote.
"""

from __future__ import annotations

import abc
import dataclasses
import datetime
import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from clickwise import registry
from clickwise.errors import ClickwiseError, EngineError, UsageError
from clickwise.report.run import ABOUT_THE_LINE, Run, is_number, read_run


@dataclasses.dataclass(frozen=True)
class Point:
    """`at` is in seconds since 1970."""

    name: str
    step: int
    value: float
    at: float


class Sink(abc.ABC):
    """Of one run, whose folder is `folder`; `target` is what the user named: a folder, an address."""

    @abc.abstractmethod
    def __init__(self, target: str, folder: Path) -> None: ...

    @abc.abstractmethod
    def settings(self, settings: Mapping[str, Any]) -> None:
        """The recipe: `train.batch_size` → 4096. Comes first."""

    @abc.abstractmethod
    def points(self, points: Sequence[Point]) -> int:
        """Takes those that this process has not sent, in the order of the log; gives how many of them it had not."""

    @abc.abstractmethod
    def finish(self, facts: Mapping[str, Any]) -> None:
        """What the run was made with, once it is finished: `commit`, `versions.torch`, …"""

    @abc.abstractmethod
    def close(self) -> None: ...


class TensorBoard(Sink):
    """Event files below the folder `target`, in `<dataset>-<model>/<time>`; an earlier one of the run is replaced."""

    def __init__(self, target: str, folder: Path) -> None:
        try:
            from tensorboard.compat.proto import event_pb2, summary_pb2, tensor_pb2, types_pb2
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            raise _missing("tensorboard") from None
        self._event, self._summary, self._tensor, self._types = event_pb2, summary_pb2, tensor_pb2, types_pb2
        place = Path(target) / folder.parent.name / folder.name
        if Path(target).is_file():
            raise UsageError(f"--to tensorboard {target}", found="a file", expected="a folder")
        for earlier in place.glob("events.out.tfevents.*.clickwise"):
            earlier.unlink()
        self._writer = EventFileWriter(str(place), filename_suffix=".clickwise")

    def settings(self, settings: Mapping[str, Any]) -> None:
        self._text("settings", settings)

    def points(self, points: Sequence[Point]) -> int:
        for point in points:
            value = self._summary.Summary.Value(tag=point.name, simple_value=point.value)
            self._add(value, step=point.step, wall_time=point.at)
        self._writer.flush()
        return len(points)

    def finish(self, facts: Mapping[str, Any]) -> None:
        self._text("made with", facts)

    def close(self) -> None:
        self._writer.close()

    def _text(self, tag: str, content: Mapping[str, Any]) -> None:
        table = "\n".join(["| | |", "|---|---|", *(f"| {name} | `{value}` |" for name, value in content.items())])
        metadata = self._summary.SummaryMetadata(
            plugin_data=self._summary.SummaryMetadata.PluginData(plugin_name="text"))
        self._add(self._summary.Summary.Value(tag=tag, metadata=metadata, tensor=self._tensor.TensorProto(
            dtype=self._types.DT_STRING, string_val=[table.encode()])))

    def _add(self, value: Any, **when: float) -> None:
        self._writer.add_event(self._event.Event(summary=self._summary.Summary(value=[value]), **when))


class MLflow(Sink):
    """A run in the experiment `<dataset>-<model>` of the tracking server or folder `target`; the one that was made of
    this run folder before goes on."""

    _METRICS, _PARAMS, _LONGEST = 1000, 100, 6000  # of one request; characters of a value

    def __init__(self, target: str, folder: Path) -> None:
        try:
            from mlflow import MlflowClient, entities
            from mlflow.exceptions import MlflowException
        except ImportError:
            raise _missing("mlflow-skinny", extra="mlflow") from None
        self._entities, self._target, self._refused = entities, target, MlflowException
        with self._told():
            self._client = MlflowClient(tracking_uri=target)
            found = self._client.get_experiment_by_name(folder.parent.name)
            experiment = found.experiment_id if found else self._client.create_experiment(folder.parent.name)
            mark = hashlib.sha256(str(folder).encode()).hexdigest()[:32]
            runs = self._client.search_runs([experiment], f"tags.`clickwise.folder` = '{mark}'")
            run = runs[0] if runs else self._client.create_run(
                experiment, run_name=folder.name, tags={"clickwise.folder": mark, "mlflow.source.name": str(folder)})
            self._run, self._known = run.info.run_id, set(run.data.params)
            self._sent = {(name, metric.step) for name in run.data.metrics
                          for metric in self._client.get_metric_history(self._run, name)}

    def settings(self, settings: Mapping[str, Any]) -> None:
        params = [self._entities.Param(_plain(name), str(value)[:self._LONGEST])
                  for name, value in settings.items() if _plain(name) not in self._known]
        with self._told():
            for some in _in_parts(params, self._PARAMS):
                self._client.log_batch(self._run, params=some)

    def points(self, points: Sequence[Point]) -> int:
        metrics = [self._entities.Metric(_plain(point.name), point.value, round(point.at * 1000), point.step)
                   for point in points if (_plain(point.name), point.step) not in self._sent]
        with self._told():
            for some in _in_parts(metrics, self._METRICS):
                self._client.log_batch(self._run, metrics=some)
        return len(metrics)

    def finish(self, facts: Mapping[str, Any]) -> None:
        with self._told():
            for name, value in facts.items():
                self._client.set_tag(self._run, f"clickwise.{_plain(name)}", str(value))
            self._client.set_terminated(self._run)

    def close(self) -> None:
        pass

    def _told(self) -> _Told:
        return _Told(self._target, self._refused)


class _Told:
    """What MLflow refuses is one message."""

    def __init__(self, target: str, refused: type[Exception]) -> None:
        self._target, self._refused = target, refused

    def __enter__(self) -> None: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, self._refused):
            raise ClickwiseError(f"--to mlflow {self._target}", found=str(error).splitlines()[0],
                                 expected="a tracking server or store of MLflow that can be written") from None


class Sending:
    """Sends a run's log to a sink, what is new each time."""

    def __init__(self, folder: Path, to: str, target: str) -> None:
        self._folder = folder
        run = read_run(folder)
        self._sink: Sink = registry.resolve("sink", to, f"--to {to}")(target, folder.resolve())
        self._sink.settings(run.settings())
        self._sent: set[tuple[str, int]] = set()

    def send(self) -> tuple[int, bool]:
        """How many points were new, and whether the run is finished."""
        run = read_run(self._folder)
        new = [point for point in points(run) if (point.name, point.step) not in self._sent]
        added = self._sink.points(new)
        self._sent |= {(point.name, point.step) for point in new}
        if run.facts is not None:
            facts = run.facts
            told = {"date": facts.date, "commit": facts.commit, "checkpoint": facts.checkpoint,
                    "stopped": facts.stopped or None,
                    **{f"machine.{name}": value for name, value in facts.machine.items()},
                    **{f"versions.{name}": value for name, value in facts.versions.items()}}
            self._sink.finish({name: value for name, value in told.items() if value is not None})
        return added, run.finished

    def close(self) -> None:
        self._sink.close()


def points(run: Run) -> list[Point]:
    """Every finite number of the log, as `train/loss`, `eval/validation/auc` or `final/test/auc`, and those of a
    finished run, as `run/samples_per_s`."""
    return list(_points(run))


def _points(run: Run) -> Iterator[Point]:
    start = _began(run)
    for line in run.lines:
        kind = "/".join(str(line[key]) for key in ("kind", "mapping") if key in line)
        for name, value in line.items():
            if name not in ABOUT_THE_LINE and is_number(value):
                yield Point(f"{kind}/{name}", line["step"], float(value), start + line.get("wall_s", 0.0))
    if (facts := run.facts) is not None:
        whole = {"samples_per_s": facts.samples_per_s, "wall_s": facts.wall_s,
                 "peak_memory_bytes": facts.peak_memory_bytes, "checkpoint_step": facts.checkpoint_step,
                 **{f"parameters_{name}": count for name, count in facts.parameters.items()}}
        for name, value in whole.items():
            if is_number(value):
                yield Point(f"run/{name}", facts.steps or 0, float(value), start + (facts.wall_s or 0.0))


def _began(run: Run) -> float:
    """When the run began, as far as can be told: its end, or the last line of its log, less the seconds it worked."""
    if run.facts is not None and run.facts.date:
        return datetime.datetime.fromisoformat(run.facts.date).timestamp() - (run.facts.wall_s or 0.0)
    log = run.folder / "log.jsonl"
    last = run.lines[-1].get("wall_s", 0.0) if run.lines else 0.0
    return (log.stat().st_mtime if log.exists() else 0.0) - last


def _plain(name: str) -> str:
    """A name that MLflow takes."""
    return re.sub(r"[^\w\-./ ]", "_", name)


def _in_parts(items: list[Any], most: int) -> Iterator[list[Any]]:
    return (items[at:at + most] for at in range(0, len(items), most))


def _missing(package: str, extra: str = "") -> ClickwiseError:
    return EngineError("clickwise log", found=f"no {package}", expected="the package that writes there",
                      do=f"pip install 'clickwise[{extra or package}]'")
