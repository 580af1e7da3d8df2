"""Where the tests run Triton kernels: compiled on a GPU, or interpreted on the CPU where there is none.

Triton decides at its import whether it interprets, so this stands above every other import that may load it. Where
Triton is not installed, the module that imports this is skipped.
"""

import os

import numpy as np
import pytest
import torch

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1" or not torch.cuda.is_available()
DEVICE = torch.device("cpu" if INTERPRETED else "cuda")
if INTERPRETED:
    os.environ["TRITON_INTERPRET"] = "1"

triton = pytest.importorskip("triton")


def _with_right_bfloat16(builder, bf16) -> None:
    """The interpreter of Triton 3.6 and 3.7 truncates to bfloat16, and multiplies bits of bfloat16 as integers."""
    cast_impl, create_dot = builder.cast_impl, builder.create_dot

    def rounding(self, src, dst_type):
        if dst_type.scalar != bf16 or src.dtype.scalar == bf16:
            return cast_impl(self, src, dst_type)
        values = torch.from_numpy(np.array(src.data, dtype=np.float32, ndmin=1)).bfloat16().view(torch.int16).numpy()
        return type(src)(values.view(np.uint16).reshape(src.data.shape), bf16)

    def multiplying(self, a, b, *more):
        wide = [cast_impl(self, x, triton.language.float32) if x.dtype.scalar == bf16 else x for x in (a, b)]
        return create_dot(self, *wide, *more)

    builder.cast_impl, builder.create_dot = rounding, multiplying


def _with_bounds_of_loops(interpreter) -> None:
    """Triton's interpreter (3.6, 3.7) makes integers of arrays with one element in a way that NumPy 2.4 refuses."""
    patch_tensor = interpreter._patch_lang_tensor

    def patch(tensor, scope):
        patch_tensor(tensor, scope)
        scope.set_attr(tensor, "__index__", lambda self: int(self.handle.data.item()))

    interpreter._patch_lang_tensor = patch


def _without_repetition(interpreter) -> None:
    """The interpreter patches the language anew for every call of a device function, and copies arguments to the CPU
    and back even where they are there."""

    patched = set()

    def call(self, *args, **kwargs):
        names = self.fn.__globals__
        if not any(value is triton.language for value in names.values()) and names["__name__"] not in patched:
            interpreter._patch_lang(self.fn)  # of Triton's own functions, which know the language by another name
            patched.add(names["__name__"])
        return self.rewrite()(*args, **kwargs)

    interpreter.InterpretedFunction.__call__ = call
    interpreter.GridExecutor._init_args_hst = lambda self, args, kwargs: (args, kwargs)
    interpreter.GridExecutor._restore_args_dev = lambda self, *args: None


if INTERPRETED:
    from triton.runtime import interpreter

    _with_right_bfloat16(interpreter.InterpreterBuilder, triton.language.bfloat16)
    _with_bounds_of_loops(interpreter)
    if DEVICE.type == "cpu":
        _without_repetition(interpreter)


def poisoned(*shape, dtype=torch.float32, margin=64):
    """A tensor of NaN amid NaN, for outputs: what a kernel leaves out or writes beside it shows in `assert_clean`."""
    size = 1
    for length in shape:
        size *= length
    whole = torch.full((size + 2 * margin,), float("nan"), dtype=dtype, device=DEVICE)
    return whole[margin:margin + size].view(shape)


def assert_clean(tensor, margin=64):
    """Nothing in `tensor`, from `poisoned`, is NaN any more, and everything around it still is."""
    assert not tensor.isnan().any(), "not everything was written"
    start = tensor.storage_offset()
    whole = torch.empty(0, dtype=tensor.dtype, device=tensor.device).set_(tensor.untyped_storage())
    assert whole[:start].isnan().all() and whole[start + tensor.numel():].isnan().all(), "something beside was written"


def walled(tensor, margin=64):
    """The same values amid NaN, for inputs: what a kernel reads beside them shows in its results."""
    if not tensor.is_floating_point():
        return tensor.to(DEVICE)
    inside = poisoned(*tensor.shape, dtype=tensor.dtype, margin=margin)
    return inside.copy_(tensor)


@pytest.fixture
def nan_in_new_memory(monkeypatch):
    """Every `torch.empty` of floats is full of NaN."""
    empty = torch.empty

    def full_of_nan(*shape, **settings):
        tensor = empty(*shape, **settings)
        return tensor.fill_(float("nan")) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch, "empty", full_of_nan)
