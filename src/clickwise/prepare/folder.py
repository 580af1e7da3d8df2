"""The folder that a preparation writes: hidden and partial until all of it is there, and resumable until then."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.metadata
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import clickwise
from clickwise.errors import ClickwiseError, PrepareError, disk_error
from clickwise.feature_spec import FILE_NAME
from clickwise.files import only_one, put_back, put_in_place, to_disk, write_json, write_text
from clickwise.given_files import read_given_json
from clickwise.manifest import write_manifest
from clickwise.prepare.engine import CutShort, Engine, EngineConfig
from clickwise.prepare.scatter import ScatterFile
from clickwise.progress import say
from clickwise.recipe import to_dict, to_yaml

SUMMARY, STATE = "preparation/summary.json", "state.json"
DATABASE, TABLES = "tables.duckdb", "tables"  # an engine's tables, and those that need none


class PreparationFolder:
    """`with PreparationFolder(out, recipe, inputs, engine) as folder:` … `folder.finish(summary)`.

    recipe        what is asked, with the section `dataset`
    inputs        the raw files by what they are for; `file_keys` are the keys of `dataset` that only name them, so
                  that another spelling of the same files is the same recipe
    tables_bytes  about how large the engine's tables will be; None where nobody knows

    dataset       the folder to write columns, feature_spec.yaml and preparation/ into
    work          the folder for the engine's tables and for what it spills; gone at the end
    buffer_bytes  how much the writer may hold

    Both folders lie in `.<name>.partial` beside `out`. A run that ends early leaves them there if it had finished a
    `stage`, its tables lie on disk, and neither recipe nor input were at fault. The next run with the same recipe and
    input files (path, size, time of change) resumes after it, if all that the finished stages wrote is still there;
    any other run starts clean. Either is logged. `unchanged` is true where `out` is already the result of this
    very preparation: there is nothing to do then.

    `state.json` in the partial folder tells the finished stages, the files of the dataset with their sizes, and which
    folder they are in, by its number on the disk (inode): once that folder has gone to `out`, no other is taken for it.
    What it tells of is on the disk before it does. `placed` stands there before the folder goes to `out`.
    """

    def __init__(self, out: str | os.PathLike, *, recipe: Mapping[str, Any], inputs: Mapping[str, Sequence[Path]],
                 engine: EngineConfig, file_keys: Sequence[str] = (), tables_bytes: int | None = None,
                 overwrite: bool = False) -> None:
        self.started = time.monotonic()
        self.out = Path(os.path.abspath(out))
        self.recipe, self.engine_config, self.tables_bytes = to_dict(recipe), engine, tables_bytes
        self.partial = self.out.with_name(f".{self.out.name}.partial")
        self.dataset, self.work = self.partial / "dataset", self.partial / "work"
        self.preparation = self.dataset / "preparation"
        self.buffer_bytes = engine.memory_bytes // 8
        self.inputs = [{"for": use, "file": str(file.resolve()), "bytes": (stat := file.stat()).st_size,
                        "changed_ns": stat.st_mtime_ns} for use, files in inputs.items() for file in files]
        asked = {key: value for key, value in self.recipe["dataset"].items() if key not in file_keys}
        identity = {"recipe": asked, "inputs": self.inputs, "version": clickwise.__version__}
        self.fingerprint = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()
        put_back(self.out)
        self.unchanged = self._look_at_out(overwrite)
        if self.unchanged:
            self._clear_partial()
        self._stages: dict[str, Any] = {}
        self._engine: Engine | None = None
        self.summary_of_engine: dict[str, str] = {}
        self._kept = True  # for a later run: not where the engine's tables lie in memory

    def _look_at_out(self, overwrite: bool) -> bool:
        if not os.path.exists(self.out):
            return False
        if not self.out.is_dir():
            raise PrepareError(self.out, found="a file", expected="a folder to write into", do="choose another name")
        with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
            is_same = read_given_json(self.out / SUMMARY)["fingerprint"] == self.fingerprint
            if is_same and (not overwrite or self._was_placed()):
                return True
        if any(self.out.iterdir()):
            if not (self.out / FILE_NAME).exists():
                raise PrepareError(self.out, found="a folder with other things in it", expected="a new or empty folder",
                                   do="choose another output folder")
            if not overwrite:
                raise PrepareError(self.out, found="a dataset of another recipe, input or version of clickwise",
                                   expected="a new or empty folder",
                                   do="give another folder as out=…, or replace this one with --overwrite")
        return False

    def __enter__(self) -> PreparationFolder:
        self._held = contextlib.ExitStack()
        try:
            self.partial.mkdir(parents=True, exist_ok=True)
            self._held.enter_context(only_one(self.partial, PrepareError))
            self._resume_or_start_clean()
        except OSError as error:
            self._held.close()
            raise PrepareError(self.out, found=f"no folder can be made there: {error.strerror}",
                               expected="a folder to write into", do="give another folder as out=…") from None
        return self

    def _resume_or_start_clean(self) -> None:
        state = self._read_state()
        if state.get("fingerprint") == self.fingerprint and state.get("stages") and self._all_there(state):
            self._stages = state["stages"]
            say(f"{self.out.name}: resuming an earlier run after: {', '.join(self._stages)}")
        else:
            if state.get("stages"):
                same = state.get("fingerprint") == self.fingerprint
                why = "finished, or part of what it wrote is gone" if same else \
                    "had another recipe, input or version of clickwise"
                say(f"{self.out.name}: starting clean (an earlier run {why})")
            elif self.work.exists():
                say(f"{self.out.name}: starting clean (an earlier run had finished no stage)")
            (self.partial / STATE).unlink(missing_ok=True)
            for folder in filter(Path.exists, (self.dataset, self.work)):
                shutil.rmtree(folder)
        self.preparation.mkdir(parents=True, exist_ok=True)
        self.work.mkdir(exist_ok=True)
        self._number = self.dataset.stat().st_ino

    def _read_state(self) -> dict[str, Any]:
        """What `_write_state` wrote; empty where nothing stands there, or something else."""
        try:
            state = read_given_json(self.partial / STATE)
            kinds = {"fingerprint": str, "stages": dict, "folder": int, "files": dict, "tables": bool, "columns": dict,
                     "placed": bool}
            return state if all(isinstance(state[key], kind) for key, kind in kinds.items()) else {}
        except (OSError, ValueError, LookupError, TypeError):
            return {}

    def _was_placed(self) -> bool:
        """Whether `out` is what a run of this very preparation put there that was killed just after."""
        state = self._read_state()
        return state.get("placed", False) and state["fingerprint"] == self.fingerprint and \
            self.out.stat().st_ino == state["folder"] and _sizes(self.out) == state["files"]

    def _write_state(self, placed: bool = False) -> None:
        if self._kept:
            if not placed:  # else the folder goes to the disk as it goes to its place
                to_disk(self.dataset)
                to_disk(self.work / TABLES)
            write_json(self.partial / STATE, {"fingerprint": self.fingerprint, "stages": self._stages,
                                              "folder": self._number, "files": _sizes(self.dataset),
                                              "tables": (self.work / DATABASE).exists(),
                                              "columns": _sizes(self.work / TABLES), "placed": placed})

    def _all_there(self, state: Mapping[str, Any]) -> bool:
        """Whether the folder of the finished stages is here, with all their files and the engine's tables."""
        try:
            is_same = self.dataset.stat().st_ino == state["folder"]
        except FileNotFoundError:
            return False
        sizes = _sizes(self.dataset)
        return is_same and all(sizes.get(file) == size for file, size in state["files"].items()) and \
            _sizes(self.work / TABLES).items() >= state["columns"].items() and \
            ((self.work / DATABASE).exists() or not state["tables"])

    def _is_in_out(self) -> bool:
        """Whether the folder that this run wrote has gone to `out`."""
        return self.out.exists() and self.out.stat().st_ino == self._number

    def _clear_partial(self) -> None:
        """Deletes what a run that was killed after its last step left, unless another process works in it."""
        if self.partial.exists():
            with contextlib.suppress(OSError, PrepareError), only_one(self.partial, PrepareError):
                self._forget()

    def _forget(self) -> None:
        with contextlib.suppress(OSError):
            (self.partial / STATE).unlink(missing_ok=True)  # first: what is half deleted must not be resumed
        shutil.rmtree(self.partial, ignore_errors=True)

    def stage(self, name: str, work: Callable[[], Any]) -> Any:
        """What `work()` returns (anything JSON holds): now, or in the earlier run that finished this stage.

        Everything up to the end of a stage need not be done again.
        """
        if name not in self._stages:
            self._stages[name] = work()
            self._write_state()
        return self._stages[name]

    @property
    def engine(self) -> Engine:
        """The engine, opened at its first use. Its tables lie in `work`, there for the next run, or in memory."""
        if self._engine is None:
            self._decide_what_is_kept()
            self._engine = self.engine_config.open(self.work / "spill", self.work / DATABASE if self._kept else None)
            self.summary_of_engine = {"ibis": importlib.metadata.version("ibis-framework")}
        return self._engine

    @functools.cached_property
    def tables(self) -> Path:
        """A folder for tables in files. They are there for the next run where an engine's would be."""
        self._decide_what_is_kept()
        (self.work / TABLES).mkdir(exist_ok=True)
        return self.work / TABLES

    def _decide_what_is_kept(self) -> None:
        self._kept = bool(self._stages) or not self.engine_config.holds_in_memory(self.tables_bytes)

    @property
    def keeps_tables(self) -> bool:
        """Whether the engine's tables lie on disk, so that a run that was stopped can resume."""
        return self._kept

    @property
    def scatter_file(self) -> Callable[..., ScatterFile]:
        """`ScatterFile` that holds no more than the writer may: `scatter_file(path, rows, dtype, width=1)`."""
        return functools.partial(ScatterFile, buffer_bytes=self.buffer_bytes, spill_folder=self.work / "spill")

    def finish(self, summary: Mapping[str, Any]) -> Path:
        """Writes the recipe and the summary beside the columns and puts the whole in place."""
        write_text(self.preparation / "recipe.yaml", to_yaml(self.recipe))
        write_json(self.dataset / SUMMARY, {"fingerprint": self.fingerprint, "inputs": self.inputs, **summary,
                                             **self.summary_of_engine,
                                             "seconds": round(time.monotonic() - self.started, 3)})
        self._close()
        write_manifest(self.dataset)
        self._write_state(placed=True)
        put_in_place(self.dataset, self.out)
        return self.out

    def _close(self) -> None:
        if self._engine is not None:
            self._engine.close()
            self._engine = None

    def __exit__(self, kind, error, trace) -> None:
        with contextlib.suppress(Exception):
            self._close()
        at_fault = isinstance(error, ClickwiseError) and not isinstance(error, CutShort)  # once corrected, starts clean
        if self._is_in_out() or not self._stages or not self._kept or at_fault:
            self._forget()
        else:
            say(f"{self.out.name}: stopped; what was finished ({', '.join(self._stages)}) is kept in {self.partial} "
                "for the next run")
        self._held.close()
        if isinstance(error, OSError) and (cause := disk_error(error, self.out, PrepareError)):
            raise cause from error


def _sizes(folder: Path) -> dict[str, int]:
    """Of every file in the folder, by its name there, the size in bytes."""
    return {file.relative_to(folder).as_posix(): file.stat().st_size
            for file in sorted(folder.rglob("*")) if file.is_file()}
