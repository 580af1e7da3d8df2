"""The page on private functions: it lists what the source uses, and each passes its example in what is installed."""

from __future__ import annotations

import ast
import operator
import platform
import re
from pathlib import Path

import pytest
import torch

from clickwise.embedding import Table, TableOptimizer, backward, build_embeddings
from clickwise.export import pt2_file
from clickwise.kernels import cpu_products, prepacked
from clickwise.kernels.sparse_update import cpu as sparse_update
from clickwise.machine import NEWEST_TORCH, OLDEST_TORCH
from clickwise.optim import dense
from clickwise.train import step

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
CPU = torch.device("cpu")
OF_PYTHON = {"_exit"}  # of a process that was forked: documented, in spite of its name
PRIVATE = re.compile(r"_[a-z]\w*", re.IGNORECASE)


def relu_in_product() -> bool:
    pytest.importorskip("triton")
    from clickwise.kernels.mlp import triton

    return triton._relu_is_part_of_product(CPU, torch.float32)


def tables_are_saved() -> bool:
    made = [build_embeddings("reference", [Table(name="t", rows=3, dim=2, features=("f",))], ("f",), TableOptimizer(),
                             seed=seed) for seed in range(2)]
    saved = torch.nn.ModuleList(made[:1]).state_dict()
    torch.nn.ModuleList(made[1:]).load_state_dict(saved)
    return list(saved) == ["0.tables.t.weight"] and torch.equal(*(engine.rows_of("t") for engine in made))


def writing_is_counted() -> bool:
    tensor = torch.zeros(2)
    before = tensor._version
    with torch.inference_mode():
        tensor.add_(1)
    return tensor._version > before


def memtables_are_known() -> bool:
    ibis = pytest.importorskip("ibis")
    from clickwise.prepare.duckdb_engine import DuckDBEngine

    engine = DuckDBEngine(memory_limit="100MB", threads=1)
    try:
        return engine.rows(ibis.memtable({"x": [3]})) == [{"x": 3}]
    finally:
        engine.close()


SELF_TESTS = {
    "torch._C._current_graph_task_id": backward.hears_of_backward,
    "torch.autograd.Variable._execution_engine": backward.hears_of_backward,
    "torch._fused_adam_": sparse_update._adam_goes_at_once,
    "torch._amp_foreach_non_finite_check_and_unscale_": lambda: step._multiplies_all_at_once(CPU),
    "_step_supports_amp_scaling": lambda: all(dense._skips_where_told(kind, CPU)
                                              for kind in (torch.optim.SGD, torch.optim.AdamW)),
    "torch.ops.mkldnn._linear_pointwise": lambda: cpu_products._is_there(torch.float32),
    "torch.ops.mkldnn._reorder_linear_weight": lambda: prepacked.packing_works(torch.float32),
    "torch.Tensor._version": writing_is_counted,
    "torch.ops.mkldnn._is_mkldnn_bf16_supported": lambda: cpu_products._is_there(torch.bfloat16),
    "torch._addmm_activation": relu_in_product,
    "torch._inductor.aoti_compile_and_package": lambda: callable(pt2_file.compiler_of_graphs()),
    "_save_to_state_dict": tables_are_saved,
    "_load_from_state_dict": tables_are_saved,
    "_run_pre_execute_hooks": memtables_are_known,
}


@pytest.mark.parametrize("name", SELF_TESTS)
def test_each_is_there_and_passes_its_example(name):
    if "mkldnn" in name and platform.machine().lower() not in ("x86_64", "amd64"):
        pytest.skip("oneDNN's products are taken on x86 only")
    if name.startswith("torch."):
        operator.attrgetter(name.removeprefix("torch."))(torch)
    assert SELF_TESTS[name]()


def on_the_page() -> dict[str, set[str]]:
    """The modules of a row, by each private part of the function's name."""
    rows = re.findall(r"^\| [\w-]+ \| `([\w.]+)`[^|]*\| ([^|]*) \|", PAGE, re.MULTILINE)
    assert {name for name, _ in rows} == SELF_TESTS.keys()
    return {part: set(re.findall(r"`([\w/]+\.py)`", used)) for name, used in rows
            for part in name.split(".") if PRIVATE.fullmatch(part)}


def in_the_source() -> dict[str, set[str]]:
    """The modules that use a private name which clickwise does not define, or override a private method of torch's, by
    the name."""
    used, defined = {}, set()
    of_torch = set(dir(torch.nn.Module)) | set(dir(torch.optim.Optimizer))
    for file in (ROOT / "src" / "clickwise").rglob("*.py"):
        module = file.relative_to(ROOT / "src" / "clickwise").as_posix()
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = []
            match node:
                case ast.FunctionDef(name=name) if name in of_torch:
                    names = [name]
                case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name) | \
                        ast.arg(arg=name) | ast.Name(id=name, ctx=ast.Store()) | \
                        ast.Attribute(attr=name, ctx=ast.Store()):
                    defined.add(name)
                case ast.Attribute(attr=name):
                    names = [name]
                case ast.Call(func=ast.Name(id="getattr" | "hasattr"), args=[_, ast.Constant(value=str(name)), *_]):
                    names = [name]
                case ast.alias(name=name):
                    names = name.split(".")
                case ast.ImportFrom(module=str(name)):
                    names = name.split(".")
            for name in filter(PRIVATE.fullmatch, names):
                used.setdefault(name, set()).add(module)
    return {name: modules for name, modules in used.items() if name not in defined | OF_PYTHON}


def test_the_page_lists_what_the_source_uses_and_where():
    assert on_the_page() == in_the_source()


def test_the_page_names_what_is_asked_of_torchs_build_and_operators():
    text = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "src" / "clickwise").rglob("*.py"))
    named = set(re.findall(r"`([\w.]+)`", PAGE[PAGE.index("Public, but"):]))
    asked = set(re.findall(r"torch\.backends\.([\w.]+\w)", text)) | set(re.findall(r"\baten\.([a-z]\w+)", text))
    assert asked == named


def test_the_page_names_the_tested_versions():
    assert f"torch {OLDEST_TORCH} to {NEWEST_TORCH};" in PAGE
