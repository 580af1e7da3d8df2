"""A trainer and its tables are freed when the last reference to them goes, not when Python next looks for cycles."""

import gc
import os
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from clickwise.run.session import build_session
from clickwise.training_recipe import load_recipe
from clickwise.wiring import engines_of

SMALL = ["data.synthetic.rows={train: 300, validation: 100, test: 250}", "train.batch_size=100"]


def still_there(name: str) -> list[str]:
    """What of a trainer is in memory after it took steps, predicted and was deleted."""
    gc.disable()
    try:
        trainer = build_session(load_recipe(name, SMALL))
        for batch in trainer.train_loader().epoch(0):
            trainer.step(batch)
        trainer.evaluate("test")
        watched = {"trainer": trainer, "model": trainer.model, "step": trainer.step}
        for number, engine in enumerate(engines_of(trainer.model)):
            watched |= {f"{number}.{buffer}": tensor.untyped_storage() for buffer, tensor in engine.named_buffers()}
        assert any(".weight" in key for key in watched)
        watched = {key: weakref.ref(value) for key, value in watched.items()}
        assert all(ref() is not None for ref in watched.values())
        del trainer, engine
        return [key for key, ref in watched.items() if ref() is not None]
    finally:
        gc.enable()


@pytest.mark.parametrize("name", ["tiny/dlrm", "tiny/wide_deep", "tiny/sim"])
def test_a_trainer_is_freed_when_it_is_deleted(name):
    assert still_there(name) == []


def test_so_is_the_first_one_of_a_process():
    """Whose optimizer is the first: it imports half of torch."""
    words = "import sys, test_wiring as t; assert 'torch._dynamo' not in sys.modules; print(t.still_there('tiny/dlrm'))"
    done = subprocess.run([sys.executable, "-c", words], capture_output=True, text=True, cwd=Path(__file__).parent,
                          env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))})
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
