"""At length: damaged inputs of every kind, kills all over prepare and train, disks of many sizes, and the memory that
prepare takes. `python benchmarks/faults.py --save` writes what came out."""

from __future__ import annotations

from collections import Counter

import pytest

from faults import campaign, full_disk, killed, memory
from faults.kinds import MESSAGE, SAME

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", campaign.KINDS)
def test_damaged_inputs(name, tmp_path):
    outcomes = list(campaign.run_kind(name, range(campaign.MANY), tmp_path))
    assert [outcome for outcome in outcomes if outcome.what not in (SAME, MESSAGE)] == []
    counts = Counter(outcome.what for outcome in outcomes)
    assert counts[MESSAGE] >= 3 and (counts[SAME] >= 3 or campaign.is_written_by_clickwise(name))


def test_there_are_a_thousand():
    assert campaign.MANY * len(campaign.KINDS) >= 1000


@pytest.mark.parametrize("case", killed.CASES)
def test_kills(case, tmp_path):
    ended = list(killed.killed_and_again(killed.kills(case, tmp_path, killed.MANY[case])))
    assert [(kill, wrong) for kill, _, wrong in ended if wrong] == []
    assert sum(hit for _, hit, _ in ended) >= 0.8 * len(ended)


def test_there_are_sixty_of_each():
    assert killed.MANY["train"] >= 90  # of which two thirds are hit for sure
    assert sum(count for case, count in killed.MANY.items() if case.startswith("prepare")) >= 70


@pytest.mark.parametrize("case", full_disk.WORK)
def test_disks_without_room(case, tmp_path):
    full_disk.make(case, tmp_path)
    ended = list(full_disk.hindered(full_disk.limits(case, tmp_path, 8)))
    assert [(limit, wrong) for limit, _, wrong in ended if wrong] == []
    assert sum(hit for _, hit, _ in ended) >= len(ended) // 3


@pytest.mark.parametrize("name", memory.LARGE)
def test_prepare_stays_under_its_limit(name, tmp_path):
    found = memory.peak(name, tmp_path)
    assert found.bytes <= found.limit, found
