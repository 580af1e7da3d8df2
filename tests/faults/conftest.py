import shutil
from pathlib import Path

import pytest

WORDS = ["tiny/dlrm", "data.synthetic.rows={train: 1500, validation: 300, test: 300}", "train.batch_size=500",
         "train.steps=4", "train.evaluate_every=2", "train.threads=1", "data.validation=validation", "baselines=[]"]


@pytest.fixture(scope="session")
def words():
    """Recipe and settings of `run`."""
    return WORDS


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    from clickwise.verbs.train import train  # loaded only where a test asks for it

    return train(WORDS[0], WORDS[1:], out=tmp_path_factory.mktemp("runs"))


@pytest.fixture
def run(trained, tmp_path):
    """A finished run, to do with what one wants."""
    return Path(shutil.copytree(trained, tmp_path / "run"))
