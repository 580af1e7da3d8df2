from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from clickwise.metrics.bins import FINEST, bin_of, edges, shift_to

FLOATS = st.floats(width=32, allow_nan=False)


@given(st.lists(FLOATS, min_size=2, max_size=50))
def test_bins_keep_the_order_of_logits(values):
    logit_B = torch.tensor(sorted(values), dtype=torch.float32)
    bin_B = bin_of(logit_B)
    assert (bin_B.diff() >= 0).all()
    assert 0 <= bin_B.min() and bin_B.max() < FINEST


def test_neighbouring_floats_keep_their_order_everywhere():
    bits = torch.arange(0, 0x7F800000, 9973, dtype=torch.int32)  # a float of every size, with its successor
    pairs = torch.stack([bits, bits + 1]).view(torch.float32)
    for sign in (1, -1):
        low, high = bin_of(sign * pairs[0]), bin_of(sign * pairs[1])
        assert ((high - low) * sign >= 0).all()
        assert ((low[1:] - low[:-1]) * sign >= 0).all()


@pytest.mark.parametrize("bins", [2, 1024, FINEST])
def test_edges_enclose_their_bins(bins):
    logit_B = torch.from_numpy(np.random.default_rng(0).normal(-3, 6, 5_000).astype(np.float32))
    low, high = edges(bins)[bin_of(logit_B, bins)], edges(bins)[bin_of(logit_B, bins) + 1]
    slack = 1e-5 * (1 + logit_B.abs())  # edges are exact, the bins' own steps are float32
    assert (low - slack <= logit_B).all() and (logit_B <= high + slack).all()
    assert edges(bins)[0] == -math.inf and edges(bins)[-1] == math.inf


@given(st.lists(FLOATS, max_size=20), st.sampled_from([2, 64, 1024]))
def test_coarse_bins_are_shifted_fine_bins(values, bins):
    logit_B = torch.tensor(values, dtype=torch.float32)
    assert torch.equal(bin_of(logit_B, bins), bin_of(logit_B) >> shift_to(bins))


def test_width_does_not_matter():
    """Vector lanes and scalar remainders of a loop give the same bins."""
    logit_B = torch.randn(1003, generator=torch.Generator().manual_seed(0)) * 10
    assert torch.equal(bin_of(logit_B), torch.cat([bin_of(logit[None]) for logit in logit_B]))


def test_nan_gets_some_bin():
    assert 0 <= bin_of(torch.tensor([math.nan])).item() < FINEST


@pytest.mark.parametrize("bins", [0, 3, 1000, 2 * FINEST])
def test_only_powers_of_two(bins):
    with pytest.raises(ValueError, match="power of two"):
        shift_to(bins)
