"""How tests hold a fast kernel to its reference."""

import torch


def near(found, expected, share):
    """Whether they are apart by at most this share of the length of the whole; NaN is never near."""
    found, expected = found.double(), expected.double()
    return bool((found - expected).norm() <= share * expected.norm() + 1e-12)


def assert_same_gradients(found, leaves, expected, exact, upstream, *, share=None, rtol=1e-4, atol=1e-4):
    """Backward gives the leaves of `found` what it gives those of `expected`: near by `share`, or element by element;
    the same bits when it is taken again. The upstream gradient stays as it was."""
    kept = upstream.clone()
    once = torch.autograd.grad(found, leaves, upstream, retain_graph=True)
    again = torch.autograd.grad(found, leaves, upstream)
    assert torch.equal(upstream, kept), "the upstream gradient belongs to others"
    wanted = torch.autograd.grad(expected, exact, upstream.to(expected.dtype))
    for leaf, one, same, other in zip(leaves, once, again, wanted, strict=True):
        assert one.dtype == leaf.dtype and one.is_contiguous() and torch.equal(one, same)
        if share is None:
            torch.testing.assert_close(one, other, rtol=rtol, atol=atol)
        else:
            assert near(one, other, share)
