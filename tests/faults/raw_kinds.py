"""Raw logs, tables, recipes and Feature Specs that are damaged, each with a strict reader of Python's own."""

from __future__ import annotations

import csv
import datetime
import functools
import gzip
import io
import itertools
import json
import math
import re
import zlib
from collections import Counter
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from amazon_rows import products, random_reviews, review, write_lines
from criteo_rows import random_lines, read, write_raw

from clickwise.encoding.raw_types import SPACE
from clickwise.feature_spec import MISSING_NUMBERS, FeatureSpec
from faults.children import command
from faults.kinds import Close, Kind, Refused, of_command
from faults.mutate import BYTES, STRUCTURE, TEXT

NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")


def prepared(folder: Path, *words: object) -> Path:
    of_command(command("prepare", *words, "out=out", "engine.threads=1", "engine.memory_limit=600MB", folder=folder))
    return folder / "out"


def plain_bytes(path: Path) -> bytes:
    content = path.read_bytes()
    if not content.startswith(b"\x1f\x8b"):
        return content
    try:
        return gzip.decompress(content)
    except (EOFError, zlib.error, OSError) as error:
        raise Refused(error) from None


def ids(values: list) -> np.ndarray:
    """By descending count, equal counts in ascending order; 0 is what is missing."""
    counts = Counter(value for value in values if value is not None)
    order = sorted(counts, key=lambda value: (-counts[value], value.encode() if isinstance(value, str) else value))
    number = {value: index for index, value in enumerate(order, 1)}
    return np.array([number.get(value, 0) for value in values])


# ---- Criteo's log: tabs, no header, no quotes


def make_criteo(folder: Path) -> None:
    write_raw(folder / "day_0", random_lines(25, 3, values=6))


def read_criteo(folder: Path) -> dict[str, np.ndarray]:
    out = prepared(folder, "criteo/prepare", "dataset.train=[day_0]", "dataset.split=files",
                   "dataset.frequency_limit=1", "dataset.shuffle=false")
    return {name: column.astype(np.float64) for name, column in read(out, "train").items()}


def plain_criteo(folder: Path, good: object) -> list[dict[str, np.ndarray]]:
    rows = []
    for line in re.split(rb"\r\n|\n|\r", plain_bytes(folder / "day_0").removeprefix(b"\xef\xbb\xbf")):
        if not line:
            continue
        try:
            fields = line.decode("ascii").split("\t")
        except UnicodeDecodeError as error:
            raise Refused(error) from None
        if fields[40:] == [""]:
            fields.pop()
        if len(fields) != 40 or fields[0] not in ("0", "1") or not all(
                not text or NUMBER.fullmatch(text) for text in fields[1:14]) or not all(
                re.fullmatch("[0-9a-fA-F]{0,8}", text) for text in fields[14:]):
            raise Refused(f"the line {line[:200]!r}")
        rows.append(fields)
    if not rows:
        raise Refused("no rows")
    numbers = [[float(text) if text else -3.0 for text in row[1:14]] for row in rows]
    columns = {"label": np.array([float(row[0]) for row in rows]), "numerical": Close(np.array(
        [[float(np.float16(np.float32(math.log(x + 3)))) if x > -3 else 0.0 for x in row] for row in numbers]))}
    return [columns | {f"cat_{index}": ids([int(row[14 + index], 16) if row[14 + index] else None
                                           for row in rows]).astype(np.float64) for index in range(26)}]


# ---- a table of one's own, as CSV and as Parquet

NAMES = ("click", "town", "shop", "price", "note")
SPEC = {"feature_spec": {"click": {"dtype": "int64"}, "price": {"dtype": "float32"},
                         **{name: {"dtype": "str", "cardinality": "auto"} for name in ("town", "shop", "note")}},
        "channel_spec": {"label": ["click"], "numerical": ["price"], "categorical": ["town", "shop", "note"]}}
TOWNS = ["Oslo", "Bonn", "São Paulo", "a,b", 'the "old" town', "two\nlines", "Kyōto", "", "x y"]


def table_rows() -> list[tuple]:
    return [(index * 7 % 5 % 2, TOWNS[index * index % len(TOWNS)], 100 + index % 6, (index * 37 % 400) / 8,
             ["na", "ok", "7 up", "é"][index % 4]) for index in range(30)]


def make_table(folder: Path) -> None:
    with open(folder / "rows.csv", "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerows([NAMES, *table_rows()])
    save_spec(folder, "csv", header=True)


def make_parquet(folder: Path) -> None:
    columns = zip(*table_rows(), strict=True)
    pq.write_table(pa.table(dict(zip(NAMES, map(pa.array, columns), strict=True))), folder / "rows.parquet",
                   row_group_size=12)
    save_spec(folder, "parquet")


def save_spec(folder: Path, kind: str, **options: object) -> None:
    chunk = {"type": kind, "features": list(NAMES), "files": [f"rows.{kind}"], **options}
    (folder / "feature_spec.yaml").write_text(json.dumps({**SPEC, "metadata": {}, "source_spec": {"train": [chunk]}}))


def read_table(folder: Path) -> dict[str, np.ndarray]:
    out = prepared(folder, "table/prepare", "dataset.spec=.", "dataset.test_share=0", "dataset.validation_share=0",
                   "dataset.shuffle=false", "dataset.frequency_limit=1", "dataset.bins=0", "dataset.log_numericals=[]")
    spec = FeatureSpec.load(out)
    dtypes = {name: feature.dtype for name, feature in spec.features.items()}
    columns = {chunk.features[0]: np.fromfile(out / chunk.files[0], dtypes[chunk.features[0]]).astype(float)
               for chunk in spec.mappings["train"]}
    raw = json.loads((out / "preparation/encoding.json").read_text())["raw"]
    return columns | {"types": {name: raw[name]["type"] for name in ("town", "shop", "note")}}


def plain_csv(folder: Path, good: object) -> list:
    content = plain_bytes(folder / "rows.csv")
    how = "utf-16" if content[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        text = content.decode(how)
    except UnicodeDecodeError:
        text = content.decode("cp1252", "replace")
    found, told = [], Refused("no reading")
    for how in ({"strict": True}, {"strict": True, "skipinitialspace": True}, {"quoting": csv.QUOTE_NONE}):
        for read_so in (text, text.replace("\r\n", "\n").replace("\r", "\n")):
            try:
                rows = [row for row in csv.reader(io.StringIO(read_so, newline=""), **how) if row]
                found += expected(rows[1:])
            except (csv.Error, Refused) as error:
                told = Refused(error)
    if not found:
        raise told
    return found


csv.field_size_limit(1 << 30)


def plain_parquet(folder: Path, good: object) -> list:
    try:
        table = pq.read_table(folder / "rows.parquet")
        rows = list(zip(*(table[name].to_pylist() for name in NAMES), strict=True))
    except (pa.ArrowException, OSError, KeyError, UnicodeDecodeError) as error:
        raise Refused(error) from None
    return expected([["" if value is None or value != value else str(value) for value in row] for row in rows])


def expected(rows: list[list[str]]) -> list[dict]:
    """What these rows are as columns, in any choice of raw types that all values of a column have."""
    for row in rows:
        if len(row) != len(NAMES):
            raise Refused(f"{len(row)} fields")
    label = [row[0].strip(SPACE) for row in rows]
    if bad := set(label) - {"0", "1", "0.0", "1.0", "", "true", "false", "True", "False", "TRUE", "FALSE"}:
        raise Refused(f"the label {bad}")
    kept = [row for row, text in zip(rows, label, strict=True) if text]
    if not kept:
        raise Refused("no rows")
    price = [row[3].strip(SPACE) for row in kept]
    if bad := [text for text in price if text not in MISSING_NUMBERS and not NUMBER.fullmatch(text)]:
        raise Refused(f"the number {bad[0]!r}")
    price = np.array([np.nan if text in MISSING_NUMBERS else float(text) for text in price])
    mean, deviation = (np.nanmean(price), np.nanstd(price)) if not np.isnan(price).all() else (0.0, 1.0)
    scaled = np.where(np.isnan(price), 0, (price - mean) / (deviation or 1.0))
    columns = {"click": np.array([float(text.lower() in ("1", "1.0", "true")) for text in label if text]),
               "price": Close(scaled)}
    readings = []
    names = ("town", "shop", "note")
    for types in itertools.product(*(types_of([row[NAMES.index(name)] for row in kept]) for name in names)):
        of_types = {name: ids([normal(type_, row[NAMES.index(name)]) for row in kept]).astype(float)
                    for name, type_ in zip(names, types, strict=True)}
        readings.append({**columns, **of_types, "types": dict(zip(names, types, strict=True))})
    return readings


def types_of(values: list[str]) -> list[str]:
    known = [value.strip(SPACE) for value in values if value.strip(SPACE)]
    return ["text"] + [type_ for type_, fits in (("integer", r"[+-]?[0-9]+(\.0*)?"), ("boolean", "(?i)true|false|0|1"))
                       if known and all(re.fullmatch(fits, value, re.ASCII) for value in known)]


def normal(type_: str, value: str) -> object:
    value = value.strip(SPACE)
    if not value or type_ == "text":
        return value or None
    return int(Decimal(value)) if type_ == "integer" else value.lower() in ("true", "1")


# ---- reviews and products, JSON a line


def make_reviews(folder: Path) -> None:
    write_lines(folder / "reviews.json", [review(*row) for row in random_reviews(users=5)])
    write_lines(folder / "meta.json", products())


def read_reviews(folder: Path) -> dict:
    out = prepared(folder, "amazon_books/prepare", "dataset.reviews=[reviews.json]", "dataset.metadata=[meta.json]",
                   "dataset.min_events=3", "dataset.min_history=1", "dataset.repeats=keep", "dataset.fit_on=all")
    offsets = np.fromfile(out / "events/offsets.bin", "<i8")
    spec = FeatureSpec.load(out)
    item = np.fromfile(out / "events/item.bin", spec.features["item"].dtype)
    names = {feature: {id_: value for value, id_ in zip(*pq.read_table(
        out / f"preparation/vocabularies/{feature}.parquet").select(["value", "id"]).to_pydict().values(), strict=True)}
        for feature in ("user_id", "item")}
    return {names["user_id"].get(user, user): [names["item"].get(int(id_)) for id_ in item[first:end]]
            for user, (first, end) in enumerate(itertools.pairwise(offsets)) if end > first}


def plain_reviews(folder: Path, good: object) -> list[dict]:
    """User → items by time; of one moment in the order of their ids, which only the good file tells."""
    rows = []
    for line in re.split(rb"\r\n|\n|\r", plain_bytes(folder / "reviews.json")):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode("utf-8"), parse_constant=refuse)
            found = row["reviewerID"], row["asin"], row["unixReviewTime"]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise Refused(f"{error}: {line[:200]!r}") from None
        if not isinstance(found[0], str) or not isinstance(found[1], str) or isinstance(found[2], bool) or \
                not isinstance(found[2], (int, float)) or found[2] != int(found[2]):
            raise Refused(f"the values {found}")
        rows.append(found)
    counts = Counter(user for user, _, _ in rows)
    return [{user: [item for _, item in sorted((time, item) for u, item, time in rows if u == user)]
             for user in counts if counts[user] >= 3}]


def refuse(name: str) -> None:
    raise ValueError(f"{name} is no JSON")


# ---- recipes and Feature Specs

RECIPE = """# A recipe of one's own.
data:
  synthetic: {numericals: 4, cardinalities: [40, 25, 60], rows: {train: 2_000, validation: 200, test: 500}, alpha: 1.05}
  validation: validation
model: {name: dlrm, embedding_dim: 8, bottom_mlp: [32, 8], top_mlp: [64, 32]}
embedding:
  optimizer: {name: adam, lr: 0.02}
optimizer: {name: adam, lr: 5e-3}
train: {batch_size: 2048, epochs: 3, evaluation_batch_size: 16384, seed: 1}
metrics: [auc, log_loss]
"""


def make_recipe(folder: Path) -> None:
    (folder / "recipe.yaml").write_text(RECIPE)


def read_recipe(folder: Path) -> dict:
    from clickwise.recipe import load

    of_command(command("recipes", "check", "recipe.yaml", folder=folder))
    return load(str(folder / "recipe.yaml"))


def plain_yaml(name: str, folder: Path, good: object) -> list[dict]:
    try:
        found = yaml.safe_load((folder / name).read_bytes().decode("utf-8-sig"))
        json.dumps(found, default=str, allow_nan=False)
    except Exception as error:  # PyYAML raises a dozen types
        raise Refused(f"{type(error).__name__}: {error}") from None
    return [numbers_as_numbers(found)]


def numbers_as_numbers(value: object) -> object:
    """YAML 1.2 has 5e-3 as a number, PyYAML as a text."""
    if isinstance(value, dict):
        return {key: numbers_as_numbers(item) for key, item in value.items()}
    if isinstance(value, list):
        return [numbers_as_numbers(item) for item in value]
    if isinstance(value, datetime.date):
        return value
    is_number = isinstance(value, str) and re.fullmatch(r"[-+]?(\d[\d_]*\.?[\d_]*[eE][-+]?\d+|\.\d+(?:[eE][-+]?\d+)?)",
                                                        value)
    return float(value.replace("_", "")) if is_number else value


def make_spec(folder: Path) -> None:
    make_table(folder)
    spec = json.loads((folder / "feature_spec.yaml").read_text())
    (folder / "feature_spec.yaml").write_text(yaml.safe_dump(spec))


def any_reading_of_spec(folder: Path, good: object) -> list:
    """A changed spec may name other types and columns: it is read as YAML at least, and the rows are as many."""
    plain_yaml("feature_spec.yaml", folder, good)
    found = read_table(folder)
    if any(len(column) != len(good["click"]) for name, column in found.items() if name != "types"):
        raise Refused("another number of rows")
    return [found]


def files(*names: str):
    return functools.partial(_files, names)


def _files(names: tuple[str, ...], folder: Path) -> list[Path]:
    return [folder / name for name in names]


KINDS = [
    Kind("criteo", make_criteo, files("day_0"), TEXT, read_criteo, plain_criteo),
    Kind("csv", make_table, files("rows.csv"), TEXT, read_table, plain_csv),
    Kind("parquet", make_parquet, files("rows.parquet"), BYTES, read_table, plain_parquet),
    Kind("json", make_reviews, files("reviews.json"), TEXT, read_reviews, plain_reviews),
    Kind("recipe", make_recipe, files("recipe.yaml"), STRUCTURE, read_recipe,
         functools.partial(plain_yaml, "recipe.yaml")),
    Kind("feature spec", make_spec, files("feature_spec.yaml"), STRUCTURE, read_table, any_reading_of_spec),
]
