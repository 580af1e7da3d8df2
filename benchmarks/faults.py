"""Damaged inputs, kills and full disks: how many were tried, and what came of them. Target: no traceback, no hang, no
crash, nothing silently wrong; the same bits after every kill; memory under its limit.

    python benchmarks/faults.py --save
    python benchmarks/faults.py --kind csv --number 17      # one damaged input: what was done to it, what came of it
"""

import itertools
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from measure import arguments, finish

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from faults import campaign, full_disk, killed, memory
from faults.kinds import MESSAGE, SAME


def damaged(count: int) -> Iterator[dict]:
    for name in campaign.KINDS:
        with tempfile.TemporaryDirectory() as folder:
            outcomes = list(campaign.run_kind(name, range(count), Path(folder)))
        counts = Counter(outcome.what for outcome in outcomes)
        wrong = [f"{outcome.number} {outcome.how}: {outcome.what}" for outcome in outcomes
                 if outcome.what not in (SAME, MESSAGE)]
        yield row(f"damaged: {name}", len(outcomes), counts[SAME], counts[MESSAGE], wrong)


def kills() -> Iterator[dict]:
    for case, count in killed.MANY.items():
        with tempfile.TemporaryDirectory() as folder:
            ended = list(killed.killed_and_again(killed.kills(case, Path(folder), count)))
        wrong = [f"operation {kill.operation}, {kill.seconds:.3f} s: {told[:200]}" for kill, _, told in ended if told]
        yield row(f"killed: {case}", sum(hit for _, hit, _ in ended), len(ended) - len(wrong), 0, wrong)


def disks(count: int) -> Iterator[dict]:
    for case in full_disk.WORK:
        with tempfile.TemporaryDirectory() as folder:
            full_disk.make(case, Path(folder))
            ended = list(full_disk.hindered(full_disk.limits(case, Path(folder), count)))
        wrong = [f"{limit}: {told[:200]}" for limit, _, told in ended if told]
        yield row(f"no room: {case}", len(ended), len(ended) - len(wrong), sum(hit for _, hit, _ in ended), wrong)


def row(what: str, tried: int, same: int, told: int, wrong: list[str]) -> dict:
    return {"what": what, "tried": tried, "the same": same, "told": told, "wrong": len(wrong),
            "which": "; ".join(wrong)}


def peaks() -> Iterator[dict]:
    for name in memory.LARGE:
        with tempfile.TemporaryDirectory() as folder:
            found = memory.peak(name, Path(folder))
        yield {"what": f"memory: {name}", "tried": 1, "the same": int(found.code == 0), "told": int(found.code == 1),
               "wrong": int(found.bytes > found.limit), "which": f"{found.bytes / 1e6:.0f} MB"}


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--kind", choices=[*campaign.KINDS], help="one kind of damaged input alone")
    parser.add_argument("--number", type=int, default=0, help="which of them")
    options = parser.parse_args()
    if options.kind:
        with tempfile.TemporaryDirectory() as folder:
            (outcome,) = campaign.run_kind(options.kind, [options.number], Path(folder))
        print(f"{outcome.how}: {outcome.what}\n{outcome.told}")
        return
    rows = []
    for found in itertools.chain(damaged(campaign.MANY), kills(), disks(8), peaks()):
        print(found, file=sys.stderr, flush=True)
        rows.append(found)
    finish("faults", rows, options)


if __name__ == "__main__":
    main()
