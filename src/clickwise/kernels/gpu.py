"""Which operations run as Triton kernels on a GPU, and how exactly their matrix products are taken."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import logging
from types import ModuleType

import torch

log = logging.getLogger(__name__)


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
    """Whether kernels are taken for what lies on `device`. A rehearsal on a machine without a GPU puts a yes in its
    place: then they run interpreted."""
    return device.type == "cuda"


def kernels_for(x: torch.Tensor, operation: str) -> ModuleType | None:
    """The module `clickwise.kernels.<operation>.triton` where its kernels can take `x` here and now, else None."""
    if not runs_on(x.device) or not triton_is_there():
        return None
    if torch.compiler.is_compiling() or torch.jit.is_tracing():
        return None
    return _proven(operation, x.device)


@functools.cache
def _proven(operation: str, device: torch.device) -> ModuleType | None:
    """The module after its `proof` on the device: a small example, held against the reference.

    Asked once per process. Where a driver, a new GPU or another Triton breaks a kernel, plain torch takes its place
    and the log says so.
    """
    try:
        module = importlib.import_module(f"clickwise.kernels.{operation}.triton")
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(device.type, enabled=False), \
                torch.random.fork_rng([device] if device.type == "cuda" else []), \
                torch.cuda.device_of(torch.empty(0, device=device)):
            module.proof(device)
        return module
    except Exception as error:  # whatever a compiler or a driver raises: there is another way
        log.warning("%s: the Triton kernels of %s do not work here (%s: %s); plain torch takes their place", device,
                    operation, type(error).__name__, str(error).strip().partition("\n")[0])
        return None


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the matrix units of a GPU take bfloat16 (and TF32): from Ampere on; the interpreter does."""
    return device.type != "cuda" or bool(torch.version.hip) or torch.cuda.get_device_capability(device) >= (8, 0)


def dot_precision(device: torch.device) -> str:
    """How `tl.dot` multiplies float32: as torch is told to. Three TF32 products are nearly as exact as float32."""
    if device.type != "cuda" or torch.version.hip or not multiplies_bfloat16(device):
        return "ieee"
    return "tf32" if torch.backends.cuda.matmul.allow_tf32 else "tf32x3"
