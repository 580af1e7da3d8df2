"""Predictions in a process of its own, in which the engines of preparation cannot be imported."""

import json
import subprocess
import sys

CODE = """
import json, sys
sys.modules["duckdb"] = sys.modules["ibis"] = None
from pathlib import Path
from clickwise.verbs.predict import predict
words, asked = json.loads(sys.argv[1])
for options in asked:
    predict(overrides=words, **{name: Path(path) for name, path in options.items()})
"""


def predict_without_engines(place, asked, words=()):
    """`predict` for each of `asked`, its arguments that are paths, from the folder `place`; `words` are overrides."""
    asked = [{name: str(path) for name, path in options.items()} for options in asked]
    done = subprocess.run([sys.executable, "-c", CODE, json.dumps([list(words), asked])], cwd=place,
                          capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
