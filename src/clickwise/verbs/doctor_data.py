"""`clickwise doctor --data NAME [DIR]`: are the raw files of a dataset there, whole, and what comes next?

What is published of each file stands here; `prepare` looks at columns and rows.
"""

from __future__ import annotations

import hashlib
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from clickwise.errors import UsageError, nearest
from clickwise.files import shipped
from clickwise.given_files import no_file
from clickwise.text_scan import is_gzip

TEXT, TABLE = ("", ".gz"), (".csv", ".csv.gz", ".parquet")  # endings that prepare reads
PART = 0.5  # a plain file below this share of the published bytes is a part of it, or made up


@dataclass(frozen=True)
class RawFile:
    """A file, or files, of a pattern without its ending; `published` tells of the original, `least` are its bytes at
    least, unpacked. What `only_for` names alone needs it; without, `prepare` cannot do without it."""

    pattern: str
    endings: tuple[str, ...]
    published: str = ""
    least: float = 0
    only_for: str = ""


@dataclass(frozen=True)
class RawData:
    """`folder` where no other is given; `source` and `checksums` for a person; `command`, the recipe and overrides of
    `prepare` ({folder} stands for the folder), and `made_up`, which writes files like them."""

    folder: str
    files: tuple[RawFile, ...]
    source: str
    checksums: str
    command: tuple[str, ...]
    made_up: str


_NO_SUMS = "none are published"
_CRITEO_ROWS = (195_841_983, 199_563_535, 196_792_019, 181_115_208, 152_115_810, 172_548_507, 204_846_845, 200_801_003,
                193_772_492, 198_424_372, 185_778_055, 153_588_700, 169_003_364, 194_216_520, 194_081_279, 187_154_596,
                177_984_934, 163_382_602, 142_061_091, 156_534_237, 193_627_464, 192_215_183, 189_747_893, 178_274_637)
DATASETS = {
    "criteo": RawData(
        folder="criteo",
        files=tuple(RawFile(f"day_{day}", TEXT, f"{rows:,} rows, 34 to 49 GB", 34e9)
                    for day, rows in enumerate(_CRITEO_ROWS)),
        source="Criteo 1TB Click Logs: ailab.criteo.com, or huggingface.co/datasets/criteo/CriteoClickLogs",
        checksums=_NO_SUMS, command=("criteo/prepare", "dataset.train=[{folder}/day_*]"),
        made_up="clickwise synth criteo_raw --rows 1000000"),
    "outbrain": RawData(
        folder="outbrain",
        files=(RawFile("clicks_train", TABLE, "87,141,731 rows, 1.4 GB", 1.4e9),
               RawFile("events", TABLE, "23,120,126 rows, 1.1 GB", 1.1e9),
               RawFile("promoted_content", TABLE, "559,583 rows, 13 MB", 13e6),
               RawFile("documents_meta", TABLE, "2,999,334 rows"),
               RawFile("documents_categories", TABLE, "5,481,475 rows"),
               RawFile("documents_topics", TABLE, "11,325,960 rows"),
               RawFile("documents_entities", TABLE, "5,537,552 rows"),
               RawFile("page_views", TABLE, "more than 2 billion rows, 100 GB", 100e9, "outbrain/prepare_profiles")),
        source="Outbrain Click Prediction: kaggle.com/c/outbrain-click-prediction",
        checksums=_NO_SUMS, command=("outbrain/prepare", "dataset.folder={folder}"),
        made_up="clickwise synth outbrain_raw --rows 500000"),
    "amazon_books": RawData(
        folder="data/amazon_raw",
        files=(RawFile("reviews_Books.json", TEXT, "22,507,155 reviews"),
               RawFile("meta_Books.json", TEXT, "about 2,370,585 products")),
        source="Amazon product data 2014, Books: snap.stanford.edu/data/amazon/productGraph/categoryFiles/",
        checksums=_NO_SUMS,
        command=("amazon_books/prepare", "dataset.reviews=[{folder}/reviews_Books.json*]",
                 "dataset.metadata=[{folder}/meta_Books.json*]"),
        made_up="clickwise synth amazon_raw --users 20000"),
    "kuairand": RawData(
        folder="",
        files=(RawFile("log_standard_*", TABLE, "1,436,609 impressions in KuaiRand-Pure"),
               RawFile("user_features_*", TABLE, "27,285 users in KuaiRand-Pure"),
               RawFile("video_features_basic_*", TABLE, "7,583 videos in KuaiRand-Pure"),
               RawFile("watch_history_*", (".parquet",), "a part of what is shipped", 0, "kuairand/prepare_history")),
        source="KuaiRand-Pure and -1K: doi.org/10.5281/zenodo.10439422; a part of -Pure is shipped with clickwise",
        checksums="Zenodo shows the MD5 of the archives; the files that are shipped are compared here",
        command=("kuairand/prepare", "dataset.folder={folder}"),
        made_up=""),
}
SHIPPED = {  # SHA-256 of the files that come with clickwise
    "log_standard_4_25_to_5_08_pure.parquet": "863924ddaab5f6c92955cbc96d7c4d65d06cf89c01d6753b4049ec82359f1c09",
    "user_features_pure.csv.gz": "8774bf03b52b644f359f7bba593876782e0354d4c18ca35ed3867937a10773f7",
    "video_features_basic_pure.csv.gz": "46440949fcde92c99b2be65ca9d21386539ca08a00c6f84fbad15a4bb3205db5",
    "watch_history_to_4_24_pure.parquet": "6ed2836b2bbd07ea2f20bc4efc1e92c8a07a57dfaf6a1781aab1d9fa4cd3359a",
}


def doctor_data(name: str, folder: Path | None = None) -> dict[str, Any]:
    """Of the dataset `name` in `folder` (by default its recipe's): `files`, each with what is published of it and what
    was found (`path`, `bytes`, `note`); `missing` and `problems`, texts; `source`, `checksums`, and `next`, commands.
    """
    if name not in DATASETS:
        raise UsageError("--data", found=repr(name), expected=", ".join(DATASETS), do=nearest(name, DATASETS))
    data = DATASETS[name]
    is_shipped = folder is None and not data.folder
    folder = shipped("data/kuairand_pure") if is_shipped else folder or Path(data.folder)
    files, missing, problems = [], [], []
    for wanted in data.files:
        found = _files(folder, wanted)
        for path in found:
            problem, note = _looked_at(path, wanted)
            problems += [f"{path}: {problem}"] if problem else []
            files.append({"name": path.name, "path": str(path), "bytes": path.stat().st_size, "note": problem or note,
                          "published": wanted.published})
        if not found:
            names = wanted.pattern + (" or ".join(wanted.endings) if len(wanted.endings[0]) else " or .gz")
            missing += [] if wanted.only_for else [names]
            note = f"missing; only {wanted.only_for} needs it" if wanted.only_for else "missing"
            files.append({"name": names, "path": None, "bytes": None, "note": note, "published": wanted.published})
    return {"data": name, "folder": str(folder), "files": files, "missing": missing, "problems": problems,
            "source": data.source, "checksums": data.checksums,
            "next": _next(name, folder, files, missing, problems, is_shipped)}


def _files(folder: Path, wanted: RawFile) -> list[Path]:
    return sorted({path for ending in wanted.endings for path in folder.glob(wanted.pattern + ending)})


def _looked_at(path: Path, wanted: RawFile) -> tuple[str, str]:
    """What is wrong with a file, and what else there is to say; "" where there is nothing."""
    if kind := no_file(path):
        return f"{kind}, no file", ""
    size = path.stat().st_size
    if size == 0:
        return "an empty file", ""
    if is_gzip(path) != (path.suffix == ".gz"):
        return "its name says .gz, but it is not compressed" if path.suffix == ".gz" else "compressed, without .gz", ""
    if path.name in SHIPPED:
        same = hashlib.sha256(path.read_bytes()).hexdigest() == SHIPPED[path.name]
        return ("", "checksum right") if same else ("", "another file than the one that is shipped")
    if path.suffix not in (".gz", ".parquet") and size < PART * wanted.least:
        return "", "smaller than published: a part, or made up"
    return "", "there"


def _next(name: str, folder: Path, files: list[dict[str, Any]], missing: list[str], problems: list[str],
          is_shipped: bool) -> list[str]:
    """Commands, or what to do, the first first."""
    data = DATASETS[name]
    if is_shipped:
        return [_prepare(data.command[0])]
    kaggle = next((path for ending in TEXT if (path := folder / f"train.txt{ending}").is_file()), None)
    if name == "criteo" and kaggle is not None and len(missing) == len(data.files):
        return [_prepare("criteo/prepare", f"dataset.train=[{kaggle}]", "dataset.split=fraction_last")]
    command = _prepare(*(word.format(folder=folder) for word in data.command))
    if problems:
        return ["copy these files again: " + ", ".join(problem.partition(": ")[0] for problem in problems)]
    if not missing:
        return [command]
    found = [f"get what is missing from {data.source.partition(': ')[2]}"]
    if name == "kuairand":
        return [*found, f"or take the part that is shipped: {_prepare(data.command[0])}"]
    if not any(file["path"] for file in files):
        return [*found, f"or have files like them made: {data.made_up} --out {shlex.quote(str(folder))}"]
    return [*found, f"or prepare the days that are there, the last as test: {command}"] if name == "criteo" else found


def _prepare(*words: str) -> str:
    return shlex.join(["clickwise", "prepare", *words])


def shown(found: dict[str, Any]) -> str:
    """What was found as lines of text."""
    width = max(len(file["name"]) for file in found["files"])
    lines = [f"{found['data']}, raw files in {found['folder']}"]
    lines += [f"  {file['name']:<{width}}  {'' if file['bytes'] is None else format(file['bytes'], ','):>15}  "
              f"{file['note']:<16}  published: {file['published']}" for file in found["files"]]
    lines += [f"{'source':<10} {found['source']}", f"{'checksums':<10} {found['checksums']}"]
    lines += [f"{'next' if not index else '':<10} {text}" for index, text in enumerate(found["next"])]
    return "\n".join(lines)
