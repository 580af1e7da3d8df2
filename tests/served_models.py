"""Exports that the product made of small data, for tests of the server; and clients of the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from kuairand_rows import attributes, key, random_log, write_table

from clickwise.export.folder import export
from clickwise.prepare import run as prepare
from clickwise.serve import shared_memory
from clickwise.serve.options import Options
from clickwise.serve.worker import Shared, application
from clickwise.verbs.train import train

SMALL = ["train.epochs=1", "train.batch_size=32", "model.embedding_dim=4", "baselines=[]", "data.validation=null",
         "schedule={}", "model.top_mlp=[8]", "model.cross_rank=4"]
RAW = ("user_id", "video_id", "date", "hourmin", "time_ms", "tab", "duration_ms")


def log() -> list[dict]:
    rows = {key(row): row for row in random_log(150, seed=3)}
    return sorted(rows.values(), key=lambda row: row["time_ms"])


def raw_rows(count: int | None = None) -> list[dict]:
    """Raw rows of the log, in Python's own values."""
    return [{name: row[name] for name in RAW} for row in log()[:count]]


def kuairand_run(place: Path) -> Path:
    """A DCNv2 on a small KuaiRand, whose states stand still."""
    raw = place / "raw"
    users, videos = attributes()
    write_table(raw / "log_standard_a.csv", log())
    write_table(raw / "user_features_a.csv", users)
    write_table(raw / "video_features_basic_a.csv", videos)
    section = {"name": "kuairand", "folder": str(raw), "frequency_limit": 1, "rate_weight": 4.0,
               "moments_until": "training", "numerical": ["follow_user_num", "duration", "video_tab_click_rate",
                                                          "user_impressions", "earlier_today"],
               "categorical": ["hour", "day_of_week", "user_active_degree", "author_id", "tags"]}
    columns = prepare({"dataset": section, "engine": {"threads": 1}, "out": str(place / "columns")}, "test")
    return train("kuairand/dcnv2", [f"data.path={columns}", *SMALL], out=place / "runs")


def table_rows(count: int) -> list[dict]:
    dice = random.Random(5)
    return [{"city": dice.choice(["Oslo", "Bergen", "Trondheim"]), "age": dice.randrange(18, 80),
             "member": dice.choice(["true", "false"]), "income": round(dice.uniform(1, 9), 3),
             "tags": ";".join(dice.sample(["a", "b", "c", "d"], dice.randrange(0, 4))),
             "label": dice.randrange(2)} for _ in range(count)]


def table_run(place: Path) -> Path:
    """A DCNv2 on a table with a text, numbers, a boolean and lists."""
    from clickwise.verbs.spec import infer

    write_table(place / "table.csv", table_rows(300))
    infer([place / "table.csv"], out=place / "spec", label="label", display=None, categorical=["member"],
          numerical=["age", "income"], multi_hot=["tags=;"], formats=[], ignore=[], delimiter=None, header=None,
          overwrite=False)
    columns = prepare({"dataset": {"name": "table", "spec": str(place / "spec")}, "engine": {"threads": 1},
                       "out": str(place / "columns")}, "test")
    return train("table/dcnv2", [f"data.path={columns}", *SMALL], out=place / "runs")


def made(run: Path, out: Path, **options) -> Path:
    export(run, out, **options)
    return out


class Client:
    """Asks the application of one worker, in this process."""

    def __init__(self, *folders: Path, **options) -> None:
        self._place = tempfile.TemporaryDirectory()
        options = Options(**{"folders": folders, "access_log": False, "states": "memory", **options})
        shared = Shared(Path(self._place.name), shared_memory.counts(options.workers),
                        shared_memory.seen(options.workers))
        self.app = application(options, shared, 0)

    def ask(self, method: str, path: str, content=None, headers=None):
        """Status, headers, and the body: of JSON what it holds."""
        (answer,) = self.ask_together((method, path, content, headers or {}))
        return answer

    def ask_together(self, *requests):
        """The answers to requests that come at the same moment."""
        async def all_of_them():
            return await asyncio.gather(*(self._one(*request) for request in requests))

        return asyncio.run(all_of_them())

    async def _one(self, method, path, content=None, headers=None):
        body = content if isinstance(content, bytes) else b"" if content is None else json.dumps(content).encode()
        scope = {"type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
                 "root_path": "", "headers": [(b"content-length", str(len(body)).encode()), *(
                     (name.lower().encode(), str(value).encode()) for name, value in (headers or {}).items())]}
        sent, parts = [], [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            return parts.pop(0) if parts else {"type": "http.disconnect"}

        async def send(message):
            sent.append(message)

        await self.app(scope, receive, send)
        told = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        body = b"".join(part["body"] for part in sent[1:])
        return sent[0]["status"], told, json.loads(body) if told.get("content-type") == "application/json" else body


@contextlib.contextmanager
def running(*words, stop: bool = True, cwd: Path | None = None):
    """`clickwise serve` in a process of its own, with these words, on a free port: the process and its address."""
    process = subprocess.Popen([sys.executable, "-m", "clickwise.cli", "serve", *map(str, words), "--port", "0"],
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=cwd)
    try:
        line = process.stdout.readline()
        assert line.startswith("ready: "), line + process.communicate()[1]
        yield process, line.split()[1]
    finally:
        if process.poll() is None and stop:
            process.terminate()
        process.communicate()


def infer_request(rows: list[dict], datatypes: dict | None = None) -> dict:
    """A request of the Open Inference Protocol for raw rows."""
    def datatype(value):
        return {bool: "BOOL", int: "INT64", float: "FP64"}.get(type(value), "BYTES")

    return {"inputs": [{"name": name, "datatype": (datatypes or {}).get(name) or datatype(value), "shape": [len(rows)],
                        "data": [row[name] for row in rows]} for name, value in rows[0].items()]}


def scores(answer) -> list[float]:
    """The probabilities of an answer to `infer`."""
    status, _, content = answer
    assert status == 200, content
    return content["outputs"][0]["data"]
