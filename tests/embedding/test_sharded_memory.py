"""What a process of several holds of a table: its share, from the first moment on."""

import json
import sys

import pytest
import several_processes

ROWS, DIM = 6_000_000, 64  # 1.5 GB

CODE = f"""
import json, os, torch
from clickwise import processes
from clickwise.embedding import Table, TableOptimizer, build_embeddings
from clickwise.memory import peak_bytes
with processes.together(timeout_s=300):
    torch.set_num_threads(1)
    warm = build_embeddings("auto", [Table(name="w", rows=900_000, dim=1, features=("f",))], ("f",), TableOptimizer())
    before = peak_bytes()
    table = Table(name="t", rows={ROWS}, dim={DIM}, features=("f",))
    made = build_embeddings("auto", [table], ("f",), TableOptimizer(name="rowwise_adagrad"))
    grown = peak_bytes() - before
    held = sum(buffer.nbytes for buffer in made.buffers())
    print(json.dumps([held, grown]))
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process begins with what its parent held")
def test_no_process_ever_holds_more_than_its_share_and_a_tenth(tmp_path):
    for out in several_processes.run(2, ["-c", CODE], tmp_path):
        held, grown = json.loads(out)
        assert held == pytest.approx(ROWS * (DIM + 1) * 4 / 2, rel=1e-3)
        assert held * 0.9 < grown < held * 1.1
