"""What is damaged, killed or has no room, in short; `test_long.py` does the same at length."""

from __future__ import annotations

import os
import random

import pytest

from faults import campaign, full_disk, killed, mutate
from faults.kinds import MESSAGE, SAME, Kind, Refused, same

SHORT = {"csv": 5, "parquet": 6, "recipe": 6, "json": 1}


@pytest.mark.parametrize("name", SHORT)
def test_a_damaged_input_is_read_as_a_plain_reader_reads_it_or_told(name, tmp_path):
    outcomes = list(campaign.run_kind(name, range(SHORT[name]), tmp_path))
    assert [outcome for outcome in outcomes if outcome.what not in (SAME, MESSAGE)] == []
    assert len(outcomes) == SHORT[name]


@pytest.mark.parametrize("case", ["prepare a table over another", "train"])
def test_what_is_killed_and_run_again_ends_in_the_same_bits(case, tmp_path):
    ended = list(killed.killed_and_again(killed.kills(case, tmp_path, 2)))
    assert [(kill, wrong) for kill, _, wrong in ended if wrong] == []
    assert any(hit for _, hit, _ in ended)


@pytest.mark.parametrize("case", ["prepare a table over another", "predict .parquet"])
def test_fault_disk_full(case, tmp_path):
    full_disk.make(case, tmp_path)
    operations, largest, used = full_disk.took(tmp_path)
    limits = [full_disk.Limit(case, tmp_path, at=operations // 2, number=full_disk.NUMBERS[0]),
              full_disk.Limit(case, tmp_path, file_size=largest // 2)]
    if full_disk.can_mount(tmp_path / "disk"):
        limits += [full_disk.Limit(case, tmp_path, size=used // 2 // 4096 * 4096)]
    ended = list(full_disk.hindered(limits))
    assert [(limit, wrong) for limit, _, wrong in ended if wrong] == []
    assert any(hit for _, hit, _ in ended)


# ---- the harness itself


def test_each_mutator_gives_bytes_and_the_same_again():
    content = "a,b\n1,x\n2,é\n".encode()
    for mutator in {*mutate.TEXT, *mutate.BYTES, *mutate.STRUCTURE}:
        for data in (content, b"", b"\n", b"x"):
            found = [mutator(random.Random(7), data) for _ in range(2)]
            assert found[0] == found[1] and isinstance(found[0], bytes)
        assert len({mutator(random.Random(seed), content) for seed in range(9)} | {content}) > 1, mutator


def _raise(error):
    raise error


@pytest.mark.parametrize("read, plain, what", [
    (lambda folder: {"a": 1}, lambda folder, good: [{"a": 1}], SAME),
    (lambda folder: {"a": 1}, lambda folder, good: [{"a": 2}], "silently wrong"),
    (lambda folder: {"a": 1}, lambda folder, good: _raise(Refused("no")), "silently wrong"),
    (lambda folder: _raise(KeyError("a")), lambda folder, good: [], "a traceback")])
def test_what_is_found_is_judged(tmp_path, read, plain, what):
    from faults.kinds import judge

    (tmp_path / "good").mkdir()
    (tmp_path / "good/file").write_bytes(b"content")
    kind = Kind("x", None, lambda folder: [folder / "file"], [mutate.flip_bit], read, plain)
    assert judge(kind, 1, tmp_path / "good", tmp_path / "damaged", None).what == what
    assert (tmp_path / "damaged/file").read_bytes() != b"content" == (tmp_path / "good/file").read_bytes()


def test_a_difference_of_a_bit_is_seen():
    import numpy as np

    one, other = {"a": np.float32([0.1])}, {"a": np.nextafter(np.float32([0.1]), np.float32(1))}
    assert killed.difference(one, one) == "" and killed.difference(one, other)
    assert same(one, one) and not same(one, other)


def test_processes_that_die_or_raise_are_told():
    from faults.children import Died, Said, in_children

    found = list(in_children(_item, ["fine", "dies", "raises", "fine"]))
    assert found[0] == found[3] == "fine" and found[1] == Died(-9) and "ValueError" in found[2].broken
    assert isinstance(found[2], Said)


def _item(item):
    if item == "dies":
        os.kill(os.getpid(), 9)
    if item == "raises":
        raise ValueError(item)
    return item
