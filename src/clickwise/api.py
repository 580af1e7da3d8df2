"""clickwise from Python: fit a model on a table, load one, score raw rows.

    model = clickwise.fit(frame, label="click", time="ts", validation=0.1)
    model.predict_proba(new_frame)

Tables are pandas or polars frames, Arrow tables, dicts of columns, or the path of a file of CSV, Parquet or JSON lines.
Everything here is what the command line does, by the same functions.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shutil
import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from clickwise import prepare
from clickwise.baselines import BASELINES
from clickwise.data.dataset import Dataset
from clickwise.data.loader import Loader
from clickwise.encoding import Encoder
from clickwise.encoding.raw_file import RawFile
from clickwise.encoding.replay import Replay
from clickwise.errors import ClickwiseError, DataError, Interrupted, UsageError
from clickwise.feature_spec import FILE_NAME, FeatureSpec
from clickwise.files import check_new_folder, read_json, whole_folder
from clickwise.kernels.prepacked import PackedWeights
from clickwise.latest_run import latest_run
from clickwise.manifest import Manifest, of_run
from clickwise.models.ctr_model import CTRModel
from clickwise.progress import say
from clickwise.recipe import apply_override
from clickwise.recipe import load as load_recipe_file
from clickwise.report import write_report
from clickwise.run import folder as runs
from clickwise.run.baselines import FILE as BASELINES_FILE
from clickwise.run.baselines import measure_baselines
from clickwise.run.facts import RunFacts
from clickwise.run.scores import BLOCK_ROWS, scores
from clickwise.run.session import build_session
from clickwise.run.whole_model import COLUMNS, ENCODING, inputs, model_columns, own_encoding, own_spec
from clickwise.tables import as_table
from clickwise.train.evaluate import evaluate as measure
from clickwise.train.step import TrainStep
from clickwise.training_recipe import parse_recipe

ROWS = "rows.parquet"  # of a frame, in the folder of its fit
Data = Any  # a frame, an Arrow table, a dict of columns, or a path


class Model:
    """A trained model that takes raw rows. `folder` is its run folder, `metrics` those of its training, by mapping."""

    def __init__(self, folder: str | Path, *, allow_imports: Collection[str] = (), trust_paths: bool = False) -> None:
        self.folder = latest_run(Path(folder))
        if (spec := own_spec(self.folder)) is None or not (self.folder / ENCODING).exists():
            raise DataError(self.folder, found="no encoding of raw rows", do="prepare and train again",
                            expected="a run on data that clickwise prepared from raw rows with this version")
        self._session, self.checkpoint, self.step = runs.open_run(
            self.folder, allow_imports=allow_imports, spec=spec, trust_paths=trust_paths)
        self._spec, self._encoding = self._session.dataset.spec, own_encoding(self.folder)
        self._encoder = Encoder(self._encoding, inputs(self._session.reads))
        self._weights = PackedWeights()  # of a model that is trained no more
        self._replay: Replay | None = None
        self._temporary: tempfile.TemporaryDirectory | None = None

    @property
    def metrics(self) -> dict[str, dict[str, float | None]]:
        return RunFacts.load(self.folder).mappings if (self.folder / "metrics.json").exists() else {}

    @property
    def columns(self) -> dict[str, dict[str, Any]]:
        """Column → what it was taken for (`channel`), `why`, what to `check`, how many `ids` it has, by mapping the
        share of rows where it is `missing` and `without_an_id`; empty where the data were no table."""
        return self._stored(COLUMNS)

    @property
    def baselines(self) -> dict[str, dict[str, float | None]]:
        """`model`, `constant`, `logistic_regression` and, where scikit-learn is installed, `boosted_trees`: each with
        its `auc` and `log_loss` on the same rows, those of the recipe's `data.test`.

        `fit` leaves the last two until they are asked for here; that takes seconds and needs the columns of the
        training, which a model that was saved elsewhere lacks. The report then has them too.
        """
        found, data = self._stored(BASELINES_FILE), self._session.recipe.data
        if not {*BASELINES} <= {*found.get("results", ()), *found.get("not_measured", ())} and data.path is not None \
                and (Path(data.path) / FILE_NAME).exists():
            session = dataclasses.replace(self._session, dataset=Dataset(data))
            written = Manifest(self.folder)
            written.replace(BASELINES_FILE, None)
            measure_baselines(self.folder, session, BASELINES, self.metrics.get(data.test, {}))
            written.add([BASELINES_FILE])
            write_report(self.folder)
            found = self._stored(BASELINES_FILE)
        return found.get("results", {})

    @property
    def warnings(self) -> list[str]:
        """What is suspicious about the model: worse than a constant, a column that nearly equals the label."""
        return self._stored(BASELINES_FILE).get("warnings", [])

    def _stored(self, file: str) -> dict[str, Any]:
        path = of_run(self.folder).verified(file)
        return read_json(path) if path.exists() else {}

    def replay(self, log: Data) -> np.ndarray:
        """The probability of a click of every row of a log, float64, each as counts and histories stood before it; from
        then on they stand as after it, for `predict_proba` too. The log has labels and is in the order of time.

        Raises DataError where nothing goes on with events, and for a row that is out of order.
        """
        if self._replay is None:
            self._replay = Replay(self._encoding, inputs(self._session.reads))
        tables = [table for _, table in self._blocks(log, self._replay)]
        whole = pa.concat_tables(tables, promote_options="permissive")
        columns = model_columns(self._spec, self._replay.rows(whole).arrays, len(whole))
        self._encoder = self._replay.encoder
        logits = [scores(self._session, self._spec, columns.part(slice(first, first + BLOCK_ROWS)),
                         self._weights)["logit"]
                  for first in range(0, columns.rows, BLOCK_ROWS)]
        return 1 / (1 + np.exp(-np.concatenate(logits).astype(np.float64)))

    def predict_logit(self, data: Data, *, alone: bool = False) -> np.ndarray:
        """The logit of every row, float32. Where the model reads how many rows a display has, `data` are whole
        displays; rows may be `alone` with theirs."""
        logits, encoder = [np.zeros(0, np.float32)], self._encoder
        if encoder.group is not None:
            encoder = Encoder(self._encoding, encoder.names, encoder.going_on, alone=alone)
            encoder = encoder.in_parts(table for _, table in self._blocks(data, encoder))
        for first, table in self._blocks(data, encoder):
            columns = model_columns(self._spec, encoder.arrays(table, first), len(table))
            logits.append(scores(self._session, self._spec, columns, self._weights)["logit"])
        return np.concatenate(logits)

    def predict_proba(self, data: Data, *, alone: bool = False) -> np.ndarray:
        """The probability of a click of every row, float64: the sigmoid of `predict_logit`."""
        return 1 / (1 + np.exp(-self.predict_logit(data, alone=alone).astype(np.float64)))

    def _blocks(self, data: Data, encoder: Encoder | Replay):
        """(number of the first row, table) a block at a time, as `clickwise predict` takes them."""
        if isinstance(data, (str, Path)):
            file = RawFile.open(Path(data), encoder.required, self._encoding.layout)
            if isinstance(encoder, Encoder):
                encoder.check_carried(file.columns, data)
            tables = file.blocks(file.having(encoder.needs), BLOCK_ROWS)
        else:
            whole = as_table(data, only=encoder.needs, required=encoder.required)
            tables = (whole.slice(first, BLOCK_ROWS) for first in range(0, len(whole), BLOCK_ROWS))
        first = 0
        for table in tables:
            yield first, table
            first += len(table)

    def evaluate(self, data: Data) -> dict[str, float]:
        """Metrics of the recipe by name, on raw rows with their label; rows without one are left out."""
        spec, session = self._spec, self._session
        label, display = (spec.channels.get(channel, ()) for channel in ("label", "display"))
        encoder = Encoder(self._encoding, [*inputs(session.reads), *label, *display], self._encoder.going_on,
                          alone=True)
        encoder = encoder.in_parts(table for _, table in self._blocks(data, encoder))
        metrics, seen = session.metrics(), 0
        metrics.reset()
        for first, table in self._blocks(data, encoder):
            table = table.filter(pa.array(encoder.has_value(label[0], table, first=first)))
            columns = model_columns(spec, encoder.arrays(table, first), len(table))
            loader = Loader(session.dataset.as_evaluated(columns), spec, batch_size=session.evaluation_batch_size,
                            channels={*session.reads, "label", "display"})
            measure(session.model, loader.epoch(0), metrics, precision=session.recipe.train.precision,
                    device=session.device, weights=self._weights)
            seen += columns.rows
        if not seen:
            raise DataError("rows", found="no rows with a label", expected="at least one row")
        return metrics.compute()

    def save(self, folder: str | Path) -> Path:
        """Copies the run folder to `folder`, which `load` and the command line read."""
        folder = Path(folder)
        check_new_folder(folder, folder)
        with whole_folder(folder) as temporary:
            shutil.copytree(self.folder, temporary, dirs_exist_ok=True)
        return folder

    def export(self, folder: str | Path, **options: Any) -> Path:
        """Writes `folder`, a new one, which scores raw rows without torch, as `clickwise export` does: `name`,
        `version`, `format` (onnx, pt2), `rows` (fp32, bf16, int8), `encoding`."""
        from clickwise.export.folder import export

        export(self.folder, folder, **options)
        return Path(folder)

    def __repr__(self) -> str:
        shown = [f"{mapping} " + ", ".join(f"{name} {values[name]:.4f}" for name in ("auc", "log_loss")
                                           if values.get(name) is not None) for mapping, values in self.metrics.items()]
        return "<clickwise " + "; ".join([f"{self._session.recipe.model_name}, step {self.step:,}", *shown]) + ">"

    def _repr_html_(self) -> str:
        """The report, in a notebook."""
        path = self.folder / "report.html"
        if not path.exists():
            return f"<pre>{self!r}</pre>"
        from html import escape

        return (f'<iframe srcdoc="{escape(path.read_text(encoding="utf-8"))}" width="100%" height="700" '
                'style="border: 0"></iframe>')


def fit(data: Data, *, label: str, positive: Any = None, time: str | None = None, display: str | None = None,
        validation: float = 0.1, test: float = 0.0, model: str = "dcnv2", categorical: Sequence[str] = (),
        numerical: Sequence[str] = (), multi_hot: Mapping[str, str] | None = None,
        formats: Mapping[str, str] | None = None, ignore: Sequence[str] = (),
        settings: Mapping[str, Any] | None = None, prepare_settings: Mapping[str, Any] | None = None,
        out: str | Path | None = None, seed: int = 0) -> Model:
    """A model of the column `label`, trained until the validation rows gain no more.

    positive          the value of the label that counts, or a list of several, unless it is 0 and 1 or true and false
    time              a column in whose order the last rows validate and test; else they are drawn by `seed`
    display           the column that groups rows, for metrics within groups
    validation, test  shares of the rows; `test` rows are only measured on, in the end
    model             dcnv2, dlrm or wide_deep: of the shipped recipes `table/<model>`
    categorical, numerical, ignore, multi_hot, formats   corrections of what columns are taken for; multi_hot:
                      {"tags": "|"}, the text between the values of a list; formats: {"created": "%d/%m/%Y"}, how texts
                      write dates
    settings          overrides of the training recipe, {"train.epochs": 5}; prepare_settings: of the preparation,
                      {"frequency_limit": 2}
    out               a new folder that keeps spec, columns and run; else they go with the model

    A training that is interrupted leaves the model of its best checkpoint. Raises ClickwiseError for what a person can
    mend.
    """
    from clickwise.prepare.infer import infer
    from clickwise.verbs.train import train

    for key, names in (("categorical", categorical), ("numerical", numerical), ("ignore", ignore)):
        if isinstance(names, str):
            raise UsageError(key, found=repr(names), expected="a list of names", do=f"{key}=[{names!r}]")
    for key, value, expected, do in (
            ("multi_hot", multi_hot, "names with what lies between their values", '{"tags": "|"}'),
            ("formats", formats, "names with how their dates are written", '{"created": "%d/%m/%Y"}')):
        if value is not None and not isinstance(value, Mapping):
            raise UsageError(key, found=repr(value), expected=expected, do=f"{key}={do}")
    recipe = f"table/{model}"
    batch_size = load_recipe_file(recipe)["train"]["batch_size"]  # an unknown model speaks before any work
    temporary = tempfile.TemporaryDirectory(prefix="clickwise-") if out is None else None
    folder = Path(temporary.name if temporary else out)
    folder.mkdir(parents=True, exist_ok=True)
    dataset = {"name": "table", "spec": str(folder / "spec"), "test_share": test, "validation_share": validation,
               "seed": seed, **({"order_by": time} if time else {}), **(prepare_settings or {})}
    if positive is not None:
        values = [value.item() if isinstance(value, np.generic) else value
                  for value in (positive if isinstance(positive, (list, tuple, set)) else [positive])]
        dataset["label_is"] = values if len(values) != 1 else values[0]
    with _in_words_of_fit(folder):
        rows = _rows_file(data, folder, ignore)
        draft = infer(rows, label=label, display=display, categorical=categorical, numerical=numerical,
                      multi_hot=multi_hot, formats=formats, ignore=ignore if isinstance(data, (str, Path)) else ())
        draft.save(folder / "spec")
        for name, check in draft.checks.items():
            say(f"please check {name}: {check}")
        columns = prepare.run({"dataset": dataset, "out": str(folder / "columns")}, "fit")
    measured = "test" if test else "validation" if validation else "train"
    chosen = {"data.path": str(columns), "data.validation": "validation" if validation else None,
              "data.test": measured, "train.seed": seed, "baselines": [], **(settings or {})}
    few = prepare.small_batch_size(prepare.summary(columns)["rows"]["train"])
    if "train.batch_size" not in chosen and few < batch_size:
        chosen["train.batch_size"] = few
        say(f"train.batch_size: {few}, since there are few rows")
    try:
        run = train(recipe, _overrides(chosen), out=folder / "runs")
    except Interrupted:
        if (last := next((folder / "runs").glob("*/*/checkpoint/last.pt"), None)) is None:
            raise
        run = last.parents[1]
        say("interrupted: the model is that of the best checkpoint until then")
    found = Model(run)
    found._temporary = temporary
    return found


# What errors call the things that the command line knows by other names than `fit`.
_WORDS = {"--label": "label", "--display": "display", "--categorical": "categorical", "--numerical": "numerical",
          "--ignore": "ignore", "--multi-hot": "multi_hot", "--format": "formats",
          "column of the file": "column of the table", "fit.dataset.label_is": "positive",
          "dataset.label_is=VALUE": "positive=VALUE", "fit.dataset.order_by": "time", "fit.dataset.test_share": "test",
          "fit.dataset.validation_share": "validation", "test_share, validation_share": "test, validation",
          "dataset.label_above=NUMBER": 'prepare_settings={"label_above": NUMBER}',
          "fit.dataset": "the split"}


@contextlib.contextmanager
def _in_words_of_fit(folder: Path) -> Iterator[None]:
    """Errors of `spec infer` and `prepare` as the arguments of `fit` have them; a frame is "the table"."""
    words = {f"{folder}/spec/../{ROWS}": "the table", f"{folder}/{ROWS}": "the table",
             f"{folder}/spec/feature_spec.yaml": "the table", **_WORDS}
    try:
        yield
    except ClickwiseError as error:
        texts = [error.where, error.found, error.expected, error.do]
        for old, new in words.items():
            texts = [text.replace(old, new) for text in texts]
        where, found, expected, do = texts
        raise type(error)(where, found=found, expected=expected, do=do) from None


def _rows_file(data: Data, folder: Path, ignore: Sequence[str]) -> list[Path]:
    if isinstance(data, (str, Path)):
        return [Path(data)]
    table = as_table(data, ignore=ignore)
    path = folder / ROWS
    parquet.write_table(table, path)
    return [path]


def load(folder: str | Path, *, allow_imports: Collection[str] = (), trust_paths: bool = False) -> Model:
    """The model in a run folder or where `Model.save` put it. Of a folder that may be another's, nothing is imported
    but what is allowed, and no link is followed out of it unless `trust_paths` (docs/security.md)."""
    return Model(folder, allow_imports=allow_imports, trust_paths=trust_paths)


def fit_recipe(name: str, settings: Mapping[str, Any] | None = None, *, out: str | Path = "runs",
               trust_paths: bool = False) -> Path:
    """The run folder of a training recipe, a file or a shipped name, with `settings`: {"train.batch_size": 2048};
    `trust_paths` lets the Feature Spec of its data name files anywhere."""
    from clickwise.verbs.train import train

    return train(name, _overrides(settings), out=Path(out), trust_paths=trust_paths)


def prepare_recipe(name: str, settings: Mapping[str, Any] | None = None, *, overwrite: bool = False) -> Path:
    """The folder that a preparation recipe, a file or a shipped name, writes."""
    return prepare.run(load_recipe_file(name, _overrides(settings)), name, overwrite)


def build(model: str, spec: FeatureSpec, settings: Mapping[str, Any] | None = None) -> tuple[CTRModel, TrainStep]:
    """A model for a Feature Spec, in memory, and the step that trains it: `step(batch)` gives the losses. `settings`
    are overrides as in a recipe: {"model.embedding_dim": 16, "optimizer.lr": 0.01}."""
    sections: dict[str, Any] = {"data": {"path": str(spec.folder)}, "model": {"name": model}}
    for override in _overrides(settings):
        apply_override(sections, override)
    session = build_session(parse_recipe(sections, "build"), spec)
    return session.model, session.step


def _overrides(settings: Mapping[str, Any] | None) -> list[str]:
    """Settings as the command line has them: `section.key=value`, the value in JSON, which YAML reads."""
    return [f"{key}={json.dumps(value)}" for key, value in (settings or {}).items()]
