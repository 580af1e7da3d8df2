"""Which cases of the contracts are long tests."""

import os

import pytest


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Interpreted kernels are slow: there, table optimizers with further settings are for the long tests."""
    for item in items:
        values = item.callspec.params if hasattr(item, "callspec") else {}
        optimizer, settings = values.get("optimizer"), ("weight_decay", "minibatch_l2", "eps_hat", "l1")
        if values.get("engine") == "fused" and os.environ.get("TRITON_INTERPRET") == "1" and \
                any(getattr(optimizer, name, None) for name in settings):
            item.add_marker(pytest.mark.slow)
