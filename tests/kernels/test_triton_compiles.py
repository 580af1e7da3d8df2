"""The kernels become machine code for two GPUs, at the sizes that matter, with or without a GPU at hand.

A process of its own, where Triton is not interpreted: the launches go as far as a compiled kernel, which is kept.
"""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton")

LAUNCH = '''
import json, os, re, subprocess, sys
import torch, triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

class NoGPU:
    get_current_device = staticmethod(lambda: 0)
    get_current_stream = staticmethod(lambda device=0: 0)
    get_current_target = staticmethod(lambda: GPUTarget("cuda", int(sys.argv[1]), 32))

triton.runtime.driver.set_active(NoGPU())
run, seen, case = JITFunction.run, [], [""]

def compile_only(self, *args, grid, warmup, **settings):
    kernel = run(self, *args, grid=grid, warmup=True, **settings)
    with open("kernel.cubin", "wb") as file:
        file.write(kernel.asm["cubin"])
    tool = os.path.join(os.path.dirname(triton.__file__), "backends/nvidia/bin/cuobjdump")
    usage = subprocess.run([tool, "--dump-resource-usage", "kernel.cubin"], capture_output=True, text=True).stdout
    stack = int(re.search(r"STACK:(\\d+)", usage[usage.index(self.fn.__name__):])[1])
    seen.append([case[0], self.fn.__name__, kernel.metadata.shared, stack])

JITFunction.run = compile_only
torch.Tensor.pin_memory = lambda self: self

from clickwise.embedding import TableOptimizer
from clickwise.kernels.cross import triton as cross
from clickwise.kernels.dot_interaction import triton as interaction
from clickwise.kernels.embedding_bag import FeatureLookup, triton as bag
from clickwise.kernels.mlp import triton as mlp
from clickwise.kernels.sparse_update import triton as update

for features, dim, dtype, precision in ((26, 128, torch.bfloat16, "tf32x3"), (26, 128, torch.float32, "tf32x3"),
                                        (127, 256, torch.float16, "tf32x3"), (64, 256, torch.float32, "tf32x3"),
                                        (128, 256, torch.bfloat16, "tf32"), (128, 256, torch.float32, "tf32")):
    case[0] = f"interaction {features} {dim} {dtype} {precision}"
    interaction.dot_precision = lambda device: precision
    z0, rows = (torch.zeros(*shape, dtype=dtype, requires_grad=True) for shape in ((2, dim), (2, features, dim)))
    interaction.dot_interaction(z0, rows).sum().backward()

case[0] = "cross"
leaves = [torch.zeros(shape, dtype=torch.bfloat16, requires_grad=True) for shape in
          ((256, 3456), (512, 3456), (3456, 512), (3456,))]
cross.cross(leaves[0], [tuple(leaves[1:])] * 2).sum().backward()

for width, dtype in ((1024, torch.bfloat16), (1024, torch.float32), (128, torch.float16), (7, torch.bfloat16)):
    case[0] = f"mlp {width} {dtype}"
    leaves = [torch.zeros(*shape, dtype=dtype, requires_grad=True) for shape in ((300, 16), (width, 16), (width,))]
    for dropout in (0.0, 0.1):
        mlp.mlp(leaves[0], leaves[1:2], leaves[2:], dropout=dropout).sum().backward()

for dims, ragged in (((128, 128), False), ((128, 128), True), ((64, 16), False), ((7, 30), True),
                     ((1024, 1024), False)):
    case[0] = f"gather {dims} {ragged}"
    ids = torch.zeros(64, dtype=torch.int16)
    lookups = [FeatureLookup(0, mean=ragged), FeatureLookup(1, modulo=True)]
    plan = bag.Gather([torch.zeros(99, dim) for dim in dims], lookups, groups=[[0, 1]], first_row=[0, 99])
    columns = [(ids, torch.arange(65))] * 2 if ragged else [ids] * 2
    for first in (0, 13, 128):
        plan(columns, torch.bfloat16, first=first, touched=True)
    plan.first_bad(columns)

constants = dict(name="sgd"), dict(name="adam"), dict(name="adam", lazy=False), dict(name="rmsprop"), \\
    dict(name="ftrl"), dict(name="rowwise_adagrad"), dict(name="adagrad"), dict(name="adam", minibatch_l2=0.1), \\
    dict(name="rowwise_adagrad", minibatch_l2=0.1), \\
    dict(name="adam", lazy=False, weight_decay=0.1, decoupled_weight_decay=True)
for settings in constants:
    for dim, dtype, rows_dtype in ((128, torch.bfloat16, torch.float32), (16, torch.float32, torch.bfloat16),
                                   (1024, torch.float16, torch.float16)):
        rule, weight = TableOptimizer(**settings), torch.zeros(999, dim, dtype=rows_dtype)
        case[0] = f"update {settings} {dim} {dtype}"
        keys, states = torch.zeros(200, dtype=torch.int32), {n: s.beside(weight) for n, s in rule.states().items()}
        update.update(weight, states, keys, torch.zeros(200, dim, dtype=dtype), rule, at_V=keys, unit=16,
                      skip=torch.zeros(1, dtype=torch.uint8), on_device=torch.zeros(6))
print(json.dumps(seen))
'''


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_every_kernel_compiles_and_fits(capability, tmp_path, monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    (tmp_path / "launch.py").write_text(LAUNCH)
    result = subprocess.run([sys.executable, "launch.py", str(capability)], cwd=tmp_path, capture_output=True,
                            text=True, env={**os.environ, "CUDA_VISIBLE_DEVICES": ""})
    assert result.returncode == 0, result.stderr
    seen = json.loads(result.stdout)
    assert {name for _, name, *_ in seen} == {"_forward", "_backward", "_relu_and_drop", "_mask_and_sum",
                                              "_gather", "_check", "_sum_and_step", "_step_untouched"}
    for case, name, shared, stack in seen:
        assert shared <= 99 * 1024, f"{case}, {name}: {shared} bytes of shared memory, which smaller GPUs lack"
        widest = " 1024 " in case  # of which some optimizers step whole rows in one program
        assert stack <= (600 if widest else 200), f"{case}, {name}: {stack} bytes of registers spilled per thread"
