"""The products of an Amazon metadata file -> item and category; lines are Python literals or JSON, plain or gz.

The category is the last element of the product's first category path, further ones are those of other paths. Lines are
parsed by several processes, since Python literals are no format that an engine reads.
"""

from __future__ import annotations

import ast
import contextlib
import gzip
import json
import multiprocessing
import re
import zlib
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from clickwise.errors import PrepareError
from clickwise.prepare.raw_files import BadRows, open_binary
from clickwise.progress import Progress

EXPECTED = "a product a line, as a Python literal or JSON, with asin and categories"
BLOCK_BYTES = 4 << 20
SEPARATOR = "\x1f"  # between several categories
SCHEMA = pa.schema([("item", pa.string()), ("category", pa.string()), ("line", pa.int64())])

# Without double quotes and backslashes every string stands in single quotes and holds none: what looks like a key is
# one.
_PLAIN = re.compile(rb"(?:\{|, )'asin': '([^']*)'")
_PLAIN_PATHS = re.compile(rb"(?:\{|, )'categories': \[(\[(?:'[^']*'(?:, )?)+\](?:, \[(?:'[^']*'(?:, )?)*\])*)\]")


def store_metadata(files: Sequence[Path], path: Path, *, processes: int, bad_rows: BadRows, most: int = 1) -> None:
    """Writes item, its category (missing where it has none) or up to `most` with SEPARATOR between them, and the number
    of its line to the Parquet file `path`. Lines that cannot be read are added to `bad_rows`, which raises PrepareError
    beyond what is allowed."""
    large = sum(file.stat().st_size for file in files) > 4 * BLOCK_BYTES
    with contextlib.ExitStack() as stack:
        bar = stack.enter_context(Progress("reading metadata", unit="products"))
        writer = stack.enter_context(parquet.ParquetWriter(path, SCHEMA))
        # Processes that start afresh: a copy of this one would share locks of the engine's threads.
        pool = stack.enter_context(ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"))) \
            if large and processes > 1 else None
        read = 0
        for file in files:
            first = 1
            for items, categories, errors, lines in _parsed(_blocks(file), pool, processes, most):
                for index, reason in errors:
                    bad_rows.add(file, first + index, reason, EXPECTED)
                first += lines
                numbers = pa.array(range(read, read + len(items)), pa.int64())
                writer.write_batch(pa.record_batch([pa.array(items, pa.string()), pa.array(categories, pa.string()),
                                                    numbers], schema=SCHEMA))
                read += len(items)
                bar.advance(len(items))


Parsed = tuple[list[str], list[str | None], list[tuple[int, str]], int]


def _parsed(blocks: Iterator[bytes], pool: Executor | None, processes: int, most: int) -> Iterator[Parsed]:
    """`parse_block` of every block, in their order; at most two a process are under way."""
    if pool is None:
        yield from (parse_block(block, most) for block in blocks)
        return
    waiting: deque[Future] = deque()
    for block in blocks:
        waiting.append(pool.submit(parse_block, block, most))
        if len(waiting) > 2 * processes:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _blocks(file: Path) -> Iterator[bytes]:
    """The text of the file in pieces that end with a line."""
    rest = b""
    try:
        with open_binary(file) as text:
            while part := text.read(BLOCK_BYTES):
                end = part.rfind(b"\n") + 1
                if end:
                    yield rest + part[:end]
                    rest = part[end:]
                else:
                    rest += part
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise PrepareError(file, found=f"a compressed file that is cut off or damaged ({error})", expected=EXPECTED,
                           do="copy the file again; rename it if it is not compressed") from None
    if rest:
        yield rest


def parse_block(block: bytes, most: int = 1) -> Parsed:
    """Items, their categories (of each up to `most`), lines that cannot be read (index and reason), and the number of
    lines."""
    items, categories, errors = [], [], []
    lines = block.splitlines()
    for index, line in enumerate(lines):
        if not line.strip():
            continue
        try:
            item, category = parse_product(line, most)
        except ValueError as error:
            errors.append((index, str(error)))
        else:
            items.append(item)
            categories.append(category)
    return items, categories, errors, len(lines)


def parse_product(line: bytes, most: int = 1) -> tuple[str, str | None]:
    """Item and category of a line, or up to `most` with SEPARATOR between them; raises ValueError."""
    if b'"' not in line and b"\\" not in line and line.count(b"'asin'") == line.count(b"'categories'") == 1:
        item, paths = _PLAIN.search(line), _PLAIN_PATHS.search(line)
        if item and paths and line.startswith(b"{") and line.rstrip().endswith(b"}"):
            with contextlib.suppress(UnicodeDecodeError):
                parts = paths[1].decode().split("'")  # texts and, in turns, what is between them
                return item[1].decode(), _joined((text for text, behind in zip(parts[1::2], parts[2::2], strict=True)
                                                  if behind.startswith("]")), most)
    product = _literal(line)
    if not isinstance(product, dict):
        raise ValueError(f"a {type(product).__name__}")
    item = product.get("asin")
    if not isinstance(item, str) or not item:
        raise ValueError(f"asin: {item!r}")
    return item, _joined(_categories(product), most)


def _literal(line: bytes) -> object:
    try:
        text = line.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ValueError("a line that is no UTF-8") from None
    for read in (json.loads, ast.literal_eval) if text.startswith('{"') else (ast.literal_eval, json.loads):
        with contextlib.suppress(ValueError, SyntaxError, MemoryError, RecursionError, TypeError):
            return read(text.strip())
    raise ValueError(f"{text[:40]!r}, which is neither a Python literal nor JSON")


def _categories(product: dict) -> Iterator[str]:
    """The last element of every path. Newer files have one path, under `category`."""
    paths = product.get("categories")
    for path in paths if isinstance(paths, list) and paths else [product.get("category")]:
        if isinstance(path, list):
            path = path[-1] if path else ""
        elif not isinstance(path, str):
            path = ""
        yield str(path)


def _joined(categories: Iterable[str], most: int) -> str | None:
    """The first different ones, of the first path alone where one is asked for; None where there is none."""
    if most == 1:
        return next(iter(categories), None) or None
    found = dict.fromkeys(categories)
    return SEPARATOR.join([category.replace(SEPARATOR, " ") for category in found if category][:most]) or None
