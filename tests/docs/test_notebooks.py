"""The notebooks of examples/: their code runs, their results are good enough, and what is stored in them is clean."""

from __future__ import annotations

import ast
import contextlib
import io
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ABSOLUTE = re.compile(r"(?<![\w.:])/(?:tmp|work|home|root|Users|var|opt|mnt|usr)/\w|[A-Z]:\\\\+Users")


def code_cells(name: str) -> list[dict]:
    cells = json.loads((ROOT / "examples" / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def run(code: str, names: dict) -> str:
    """What the cell shows: what it prints, and the value of its last expression."""
    lines, last = ast.parse(code), None
    if isinstance(lines.body[-1], ast.Expr):
        last = ast.Expression(lines.body.pop().value)
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile(lines, "cell", "exec"), names)
        value = eval(compile(last, "cell", "eval"), names) if last else None
    return printed.getvalue() + ("" if value is None else repr(value))


def adult(names: dict) -> None:
    # Logistic regression of one-hot columns has an AUC of 0.904 on these rows, our model without the two amounts 0.889;
    # ours and boosting had 0.921 to 0.927 on three splits.
    table = names["table"]
    assert (table["AUC"] > 0.92).all() and (table["log loss"] < 0.30).all()
    assert abs(names["gap"]) < 0.01  # "The two are close"
    assert names["low"] < names["gap"] < names["high"]
    assert (names["folds"]["mean"] > 0.87).all()  # 0.89 to 0.91 so far
    known, unseen, missing = names["model"].predict_proba(names["people"])
    # One id, one probability, but for last bits: a matrix product may sum the last rows of a batch in another order.
    assert unseen == pytest.approx(missing, abs=1e-6) and abs(known - unseen) > 1e-3
    assert "no column 'occupation'" in str(names["failure"]) and names["same"].all()


def kuairand(names: dict) -> None:
    # Without user_id the AUC is 0.694, by popularity 0.651; one above 0.8 would mean an outcome among the inputs (the
    # best of our models with histories has 0.748).
    table = names["table"]
    assert 0.70 < table["auc"]["clickwise"] < 0.80
    assert (table.loc["clickwise"] > table.loc["popularity"]).all()  # as the text says
    assert (table.loc["popularity"] > table.loc["random order"]).all()
    lead = table.loc["clickwise"] - table.loc["popularity"]
    assert lead["auc"] > lead["gauc"]  # as the text says
    assert names["measured"]["auc"] == pytest.approx(table["auc"]["clickwise"], abs=1e-5)
    channels = {name: column["channel"] for name, column in names["model"].columns.items()}
    assert channels["time_ms"] == channels["date"] == "left_out"
    assert {channels[name] for name in [*names["ids"], *names["codes"], "tag"]} == {"categorical"}
    assert not {"is_like", "play_time_ms", "long_view"} & channels.keys()
    top = names["top"]
    assert len(top) == 5 and top["probability"].is_monotonic_decreasing and not top.index.isin(names["seen"]).any()


@pytest.mark.slow
@pytest.mark.parametrize("check", [adult, kuairand], ids=lambda check: check.__name__)
def test_the_notebook(check, tmp_path, monkeypatch):
    (tmp_path / "data").symlink_to(ROOT / "data")
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for number, cell in enumerate(code_cells(check.__name__), 1):
        shown = run("".join(cell["source"]), names)
        assert bool(shown) == bool(cell["outputs"]), f"cell {number}: run the notebook again and save it"
        assert cell["execution_count"] == number
    check(names)


@pytest.mark.parametrize("name", ["adult", "kuairand"])
def test_what_is_stored(name):
    outputs = [output for cell in code_cells(name) for output in cell["outputs"]]
    assert outputs and not ABSOLUTE.search(json.dumps(outputs))
    assert {output["output_type"] for output in outputs} <= {"stream", "execute_result"}  # no error, no bar
    assert {output["name"] for output in outputs if output["output_type"] == "stream"} <= {"stdout"}  # no warning
