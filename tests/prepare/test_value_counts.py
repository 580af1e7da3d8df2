from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pytest

from clickwise.prepare.value_counts import count_values


@pytest.mark.parametrize("limit", [0, 1, 3])
@pytest.mark.parametrize("most", [1, 7, 10**6])
@pytest.mark.parametrize("high", [1, 50, 2**32 - 1])
def test_counts_are_those_of_a_counter(limit, most, high):
    rng = np.random.default_rng(0)
    values = (high * rng.random(3000) ** 3).round().astype(np.uint32)
    values[:60] = np.repeat(values[:20], 3)
    is_missing, passes = rng.random(3000) < 0.2, []

    def blocks():
        passes.append(True)
        return (pa.array(values[first:first + 500], mask=is_missing[first:first + 500])
                for first in range(0, 3000, 500))

    found = count_values(blocks, limit, most := 40 if high > 50 and most < 40 else most)
    expected = Counter(values[~is_missing].tolist())
    assert list(zip(*(each.tolist() for each in found), strict=True)) == sorted(
        ((value, count) for value, count in expected.items() if count >= limit), key=lambda pair: (-pair[1], pair[0]))
    assert found.value.dtype == np.uint32 and (len(passes) > 1) == (len(expected) > most)


def test_nothing_to_count():
    for blocks in ([], [pa.array([], pa.uint32())], [pa.nulls(3, pa.uint32())]):
        assert len(count_values(lambda blocks=blocks: blocks, 0, 5).value) == 0
