"""What `clickwise plan` prints: its figures as lines of text."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from clickwise.memory_limits import shown

SHOWN_TABLES = 30  # of more, the largest are shown one by one


def plan_lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The lines of a plan, as `verbs.plan.plan` gave it."""
    rows = sum(table["rows"] for table in found["tables"])
    kind = "GPU" if found["gpus"] else "process"
    plural = {"GPU": "GPUs", "process": "processes"}[kind] if found["processes"] > 1 else kind
    yield (f"{found['model']} on {found['processes']:,} {plural}, ids of {found['cardinalities']}: "
           f"{len(found['tables'])} tables of {rows:,} rows in {found['table_dtype']}; batch {found['batch_size']:,}, "
           f"{found['samples_per_process']:,} samples each")
    yield ""
    yield from _tables(found)
    yield ""
    yield from _memory(found)
    if found["exchange"]:
        yield ""
        yield from _exchange(found)
    if found["memory_bytes"] is not None:
        yield ""
        yield from _verdict(found)


def _tables(found: Mapping[str, Any]) -> Iterator[str]:
    tables = sorted(found["tables"], key=lambda table: -table["rows_bytes"] - table["optimizer_bytes"])
    own, rest = tables[:SHOWN_TABLES], tables[SHOWN_TABLES:]
    lines = [("table", "rows", "dim", "lies", "rows take", "optimizer", "at most in one")]
    lines += [(table["table"], f"{table['rows']:,}", str(table["dim"]),
               table["lies"] + (f" on {table['process']}" if table["process"] is not None else "")
               + ("" if table["trained"] else ", frozen"), shown(table["rows_bytes"]), shown(table["optimizer_bytes"]),
               shown(table["most_bytes_of_a_process"])) for table in own]
    if rest:
        lines.append((f"{len(rest)} smaller", f"{sum(table['rows'] for table in rest):,}", "", "",
                      *(shown(sum(table[key] for table in rest)) for key in (
                          "rows_bytes", "optimizer_bytes", "most_bytes_of_a_process"))))
    yield from _aligned(lines, left=(0, 3))
    for lies, why in dict.fromkeys((table["lies"], table["why"]) for table in tables):
        yield f"{lies}: {why}"


def _memory(found: Mapping[str, Any]) -> Iterator[str]:
    dense = found["dense"]
    lines = [("process", "rows", "optimizer", "dense part", "all")]
    for figures, each in itertools.groupby(found["per_process"], key=lambda each: tuple(
            shown(each[key]) for key in ("rows_bytes", "optimizer_bytes", "bytes"))):
        numbers = [one["process"] for one in each]
        name = f"{numbers[0]}" + (f"–{numbers[-1]}" if len(numbers) > 1 else "")
        lines.append((name, *figures[:2], shown(dense["total"]), figures[2]))
    yield from _aligned(lines, left=(0,))
    yield (f"dense part, on every process: parameters {shown(dense['parameters'])}, gradients "
           f"{shown(dense['gradients'])}, optimizer {shown(dense['optimizer'])}, what linear layers put out "
           f"{shown(dense['layers'])}")
    if found["balance"] is not None and found["processes"] > 1:
        yield f"the fullest process holds {found['balance']:.2f} times the mean of the tables"


def _exchange(found: Mapping[str, Any]) -> Iterator[str]:
    exchange = found["exchange"]
    lines = [("sent in a step by the process that sends most, if", *(each["assumption"] for each in exchange))]
    wire = found["sharding"]["wire"]
    rows = "bfloat16" if "bfloat16" in (wire, found["table_dtype"]) else "float32"
    for key, name in (("ids", "ids that it asks for"), ("rows", f"rows that it is asked for, {rows}"),
                      ("gradients", f"their gradients, {wire}"), ("copied", "gradients of copied tables"),
                      ("dense", "gradients of the dense part"), ("", "all")):
        lines.append((name, *(shown(each[f"{key}_bytes".lstrip("_")]) for each in exchange)))
    lines.append(("different rows that it looks up", *(f"{each['different']:,.0f}" for each in exchange)))
    if exchange[0]["seconds"] is not None:
        lines.append(("at the bandwidth given, at least", *(f"{1e3 * each['seconds']:.3g} ms" for each in exchange)))
    yield from _aligned(lines, left=(0,))


def _verdict(found: Mapping[str, Any]) -> Iterator[str]:
    of = f"{shown(found['largest_bytes'])} of {shown(found['memory_bytes'])} in the fullest process"
    if found["fits"]:
        yield f"fits: {of}; libraries, data and what a step needs beside that come on top"
        return
    yield f"does not fit: {of}"
    for heading, fits in (("each of these would", True), ("alone not enough", False)):
        lines = [("  " + help_["do"], shown(help_["bytes"])) for help_ in found["helps"] if help_["fits"] == fits]
        if lines:
            yield f"{heading}:"
            yield from _aligned(lines, left=(0,))


def _aligned(lines: Sequence[Sequence[str]], left: Sequence[int]) -> Iterator[str]:
    """Columns as wide as their widest cell, those in `left` to the left."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        yield "  ".join(cell.ljust(width) if index in left else cell.rjust(width)
                        for index, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
