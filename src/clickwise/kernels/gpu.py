"""Which operations run as Triton kernels on a GPU, how they are tested, and how exactly they multiply matrices."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterable, Sequence
from types import ModuleType

import torch

from clickwise.kernels.autocast import compute_type

log = logging.getLogger(__name__)

FLOATS = (torch.float32, torch.bfloat16, torch.float16)  # the types that kernels read and write


@functools.cache
def triton_is_there() -> bool:
    """Whether Triton is installed (on Linux torch for GPUs brings it along); it is not loaded for the answer."""
    return importlib.util.find_spec("triton") is not None


def is_interpreted() -> bool:
    """Whether Triton kernels run in its interpreter: on any device, very slowly, for tests on machines without GPU."""
    if not triton_is_there():
        return False
    import triton

    return bool(triton.knobs.runtime.interpret)


def runs_on(device: torch.device) -> bool:
    """Whether kernels are taken for what lies on `device`. A rehearsal on a machine without a GPU replaces this by a
    yes: then they run interpreted."""
    return device.type == "cuda"


def kernels_for(x: torch.Tensor, operation: str) -> ModuleType | None:
    """The module `clickwise.kernels.<operation>.triton` where its kernels can take `x` here and now, else None."""
    if not runs_on(x.device) or not triton_is_there():
        return None
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return None
    return _tested(operation, x.device)


@functools.cache
def _tested(operation: str, device: torch.device) -> ModuleType | None:
    """The module after its `self_test` on the device: a small example, checked against the reference.

    Asked once per process. Where a driver, a new GPU or another Triton breaks a kernel, plain torch takes its place
    and the log says so.
    """
    try:
        module = importlib.import_module(f"clickwise.kernels.{operation}.triton")
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False), \
                torch.random.fork_rng([device] if device.type == "cuda" else []), \
                torch.cuda.device_of(torch.empty(0, device=device)):
            module.self_test(device)
        return module
    except Exception as error:  # whatever a compiler or a driver raises: there is another way
        log.warning("%s: the Triton kernels of %s do not work here (%s: %s); plain torch takes their place", device,
                    operation, type(error).__name__, str(error).strip().partition("\n")[0])
        return None


def require_close(found: Iterable[torch.Tensor], expected: Iterable[torch.Tensor], tolerance: float) -> None:
    """RuntimeError where a tensor is farther from the expected one than this share of its length; NaN always is."""
    for a, b in zip(found, expected, strict=True):
        difference = (a.float() - b.float()).norm()
        if not difference <= tolerance * b.float().norm():
            raise RuntimeError(f"off by {difference:.3g} in {a.dtype}")


def require_same_gradients(run: Callable[..., torch.Tensor], reference: Callable[..., torch.Tensor],
                           tensors: Sequence[torch.Tensor]) -> None:
    """RuntimeError where the value of `run(*tensors)`, or a gradient of its squares, is not that of the reference."""
    for dtype, tolerance in ((torch.float32, 1e-2), (torch.bfloat16, 1e-1)):
        results = []
        for function in (run, reference):
            leaves = [tensor.to(dtype).requires_grad_() for tensor in tensors]
            out = function(*leaves)
            results.append((out, *torch.autograd.grad(out.float().square().sum(), leaves)))
        require_close(*results, tolerance)


def is_matrix(x: torch.Tensor) -> bool:
    """Whether kernels can take `x` as the matrix [samples, columns] that it has to be."""
    return x.dim() == 2 and x.numel() > 0 and compute_type(x) in FLOATS


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the matrix units of a GPU take bfloat16 (and TF32): from Ampere on; the interpreter does."""
    return device.type != "cuda" or bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)


def dot_precision(device: torch.device) -> str:
    """How `tl.dot` multiplies float32: as torch is set. Three TF32 products are nearly as exact as float32."""
    if device.type != "cuda" or torch.version.hip or not multiplies_bfloat16(device):
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"
