"""Garbage is looked for less often in a block, and as before behind it."""

import gc

import pytest

from clickwise.prepare.garbage import rare_collections


def test_as_before_behind_the_block():
    before = gc.get_threshold()
    with pytest.raises(ValueError), rare_collections():
        assert gc.get_threshold()[0] > before[0] and gc.isenabled()
        raise ValueError
    assert gc.get_threshold() == before
