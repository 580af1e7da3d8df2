from __future__ import annotations

import html.parser
import json
import math
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch

from clickwise.errors import DataError, UsageError
from clickwise.metrics import MetricSet, ReportMaterial, build_metrics
from clickwise.report import compare, render, write_comparison, write_report
from clickwise.report.plot import linear_axis, probability_axis, short
from clickwise.report.run import read_run
from clickwise.run.facts import RunFacts

EVIL = "<script>alert('x')</script> & \"more\""
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(html.parser.HTMLParser):
    """Checks that tags nest, and gathers text and attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open, self.tags, self.attributes, self.words = [], [], [], []
        self.feed(text)
        self.close()
        assert not self.open, f"left open: {self.open}"

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append(tag)
        self.attributes += [(tag, name, value) for name, value in attributes]

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def broken_places(text: str) -> list[str]:
    """Coordinates of the plots that are no numbers."""
    places = re.findall(r' (?:x|y|x1|x2|y1|y2|cx|cy|points)="([^"]*)"', text)
    assert places
    return [place for place in places if "nan" in place or "inf" in place]


@pytest.fixture
def run(tmp_path):
    """A made-up run folder with everything in it."""
    return make_run(tmp_path / "runs" / "kuairand-dlrm" / "20260102-030405")


def make_run(folder, auc_offset: float = 0.0):
    folder.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    logit_B = torch.randn(2_000, generator=generator) - 2
    label_B = torch.rand(2_000, generator=generator) < logit_B.sigmoid()
    names = ["auc", "log_loss", "normalized_entropy", "calibration", "gauc", "map_at_12_pessimistic"]
    metrics = MetricSet(build_metrics(names))
    metrics.update(logit_B, label_B, torch.arange(2_000) % 50)
    material = ReportMaterial({"tab": range(3)})
    material.update(logit_B, label_B, {"tab": torch.arange(2_000) % 5})
    np.savez_compressed(folder / "scores.npz", **material.arrays("test", {"tab": {1: EVIL}}))
    lines = [{"step": step, "epoch": step / 50, "wall_s": step / 10, "kind": "train", "loss": 1 / step,
              "lr": 0.1 / step, "samples_per_s": 1000.0 + step} for step in range(1, 101)]
    lines += [{"step": step, "epoch": step / 50, "wall_s": step / 10, "kind": "eval", "mapping": "validation",
               "auc": 0.7 + step / 1000 + auc_offset, "log_loss": 0.4 - step / 1000} for step in (25, 50, 75, 100)]
    lines.sort(key=lambda line: line["step"])
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = "# see https://example.org\nmodel: {name: dlrm}\ntrain: {batch_size: 64, seed: 1}\n"
    recipe += f"metrics: [{', '.join(names)}]\n"
    (folder / "recipe.yaml").write_text(recipe)
    test = {**metrics.compute(), "auc": 0.71234567 + auc_offset}
    RunFacts(mappings={"validation": {"auc": 0.8, "log_loss": math.nan}, "test": test}, checkpoint="best",
             checkpoint_step=75, steps=100, ideal={name: metric.ideal for name, metric in build_metrics(names).items()},
             samples_per_s=123456.7, wall_s=83.2, peak_memory_bytes=2**31, date="2026-01-02T03:04:05+00:00",
             parameters={"dense": 1000, "tables": 2_000_000}, commit="abcdef",
             machine={"processor": "A <b>fast</b> one"}, versions={"torch": "9.9.9"}).save(folder)
    told = {"channel": "categorical", "why": EVIL, "check": "", "ids": 12_345, "without_an_id": {"test": 0.125}}
    (folder / "columns.json").write_text(json.dumps({
        "town": told, "age": {**told, "channel": "left_out", "check": EVIL, "ids": None, "without_an_id": {}}}))
    (folder / "baselines.json").write_text(json.dumps({
        "mapping": "test", "rows": 1_000, "of": 2_000, "train_rows": 5_000, "of_train": 5_000,
        "results": {"model": {"auc": 0.7, "log_loss": 0.4}, "constant": {"auc": None, "log_loss": 0.51234}},
        "not_measured": {"boosted_trees": f"not there {EVIL}"}, "warnings": [f"worse than a constant {EVIL}"]}))
    (folder / "DONE").touch()
    return folder


def test_the_page_holds_the_numbers(run):
    path = write_report(run)
    assert path == run / "report.html"
    page = Page(path.read_text(encoding="utf-8"))
    for words in ("kuairand-dlrm · 20260102-030405", "0.71235", "123 k", "1 min 23 s", "2.00 M", "2.00 GiB", "9.9.9",
                  "batch_size: 64", "0.712346", "tab", "all others", "MAP@12 (pessimistic)", "12,345", "12.5 %",
                  "left out", "Please check", "worse than a constant", "0.51234", "1,000 of 2,000 rows",
                  "all 5,000 rows", "boosted trees not measured: not there"):
        assert words in page.text, words
    titles = re.findall(r"<figcaption><b>([^<]*)", path.read_text(encoding="utf-8"))
    assert titles == ["Loss", "AUC", "Throughput", "Learning rate", "ROC", "Reliability", "Scores by label"]


def test_the_page_needs_nothing_from_elsewhere(run):
    text = write_report(run).read_text(encoding="utf-8")
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert not [found for found in page.attributes if found[1] in ("src", "href", "xlink:href", "srcset")]
    style = text[text.index("<style>") : text.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "http://" not in text and text.count("https://") == 1  # the recipe's comment, as text
    assert len(text) < 200_000


def test_what_people_named_is_escaped(run):
    text = write_report(run).read_text(encoding="utf-8")
    assert "<script" not in text and "<b>fast" not in text
    assert EVIL in " ".join(Page(text).words)


@pytest.mark.parametrize("missing", ["recipe.yaml", "log.jsonl", "metrics.json", "scores.npz", "columns.json",
                                     "baselines.json"])
def test_any_part_may_be_missing(run, missing):
    (run / missing).unlink()
    text = write_report(run).read_text(encoding="utf-8")
    Page(text)
    assert ("has not finished" in text) == (missing == "metrics.json")


@pytest.mark.parametrize("only", ["recipe.yaml", "log.jsonl", "metrics.json", "scores.npz"])
def test_any_part_may_stand_alone(run, only, tmp_path):
    (tmp_path / "alone").mkdir()
    shutil.copy(run / only, tmp_path / "alone" / only)
    Page(write_report(tmp_path / "alone").read_text(encoding="utf-8"))


def test_a_killed_run_speaks_from_its_log(run):
    (run / "metrics.json").unlink()
    log = run / "log.jsonl"
    log.write_text(log.read_text() + '{"step": 101, "kind": "tr')
    text = Page(write_report(run).read_text(encoding="utf-8")).text
    assert "0.80000" in text and "on validation" in text and "100 steps" in text


def test_a_run_that_never_evaluated(run):
    lines = [line for line in (run / "log.jsonl").read_text().splitlines() if '"train"' in line]
    (run / "log.jsonl").write_text("\n".join(lines))
    (run / "metrics.json").unlink()
    (run / "scores.npz").unlink()
    (run / "baselines.json").unlink()
    page = Page(write_report(run).read_text(encoding="utf-8"))
    assert "training loss" in page.text and "AUC" not in page.text


@pytest.mark.parametrize("clicked", [0, 1])
def test_scores_of_one_class(run, clicked):
    material = ReportMaterial({"tab": range(3)})
    material.update(torch.linspace(-2, 2, 50), torch.full((50,), clicked), {"tab": torch.zeros(50, dtype=torch.int8)})
    np.savez_compressed(run / "scores.npz", **material.arrays("test"))
    assert not broken_places(write_report(run).read_text(encoding="utf-8"))


def test_saturated_and_empty_scores(run):
    for logit_B in (torch.tensor([math.inf, -math.inf, 0.0, 90.0, -90.0] * 10), torch.empty(0)):
        material = ReportMaterial()
        material.update(logit_B, logit_B > 0)
        np.savez_compressed(run / "scores.npz", **material.arrays("test"))
        text = write_report(run).read_text(encoding="utf-8")
        Page(text)
        assert not broken_places(text)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(DataError, match="the folder of a run"):
        write_report(tmp_path)
    with pytest.raises(DataError, match="the folder of a run"):
        write_report(tmp_path / "absent")
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("name", ["metrics.json", "scores.npz", "columns.json", "baselines.json"])
def test_a_damaged_file_is_named(run, name):
    (run / name).write_bytes(b"{damaged")
    with pytest.raises(DataError, match=re.escape(name)):
        write_report(run)


@pytest.mark.parametrize(("name", "best"), [("auc", 0.72), ("log_loss", 0.3), ("calibration", 1.01), ("mrr", 0.9)])
def test_the_best_run_is_the_one_nearest_to_the_ideal(tmp_path, name, best):
    values = {"auc": (0.7, 0.72), "log_loss": (0.4, 0.3), "calibration": (0.9, 1.01), "mrr": (0.9, 0.1)}[name]
    runs = [tmp_path / str(value) for value in values]
    for folder, value in zip(runs, values, strict=True):
        folder.mkdir()
        (folder / "recipe.yaml").write_text(f"metrics: [{name}]")
        (folder / "metrics.json").write_text(json.dumps({
            "mappings": {"test": {name: value}}, "ideal": {name: build_metrics([name])[name].ideal}}))
    assert re.findall('<td class="best">([^<]*)</td>', compare(runs)) == [f"{best:.5f}"]


def test_comparison(run, tmp_path):
    other = make_run(tmp_path / "runs" / "kuairand-dlrm" / "other", auc_offset=0.01)
    (other / "recipe.yaml").write_text("model: {name: dlrm}\ntrain: {batch_size: 128, seed: 1}\n")
    path = write_comparison([run, other], tmp_path / "both.html")
    text = path.read_text(encoding="utf-8")
    page = Page(text)
    assert '<td class="best">0.72235</td>' in text and "0.71235" in page.text
    assert "train.batch_size" in page.text and "train.seed" not in page.text
    assert "Training loss" in page.text and "20260102-030405" in page.text and "other" in page.text


def test_settings_are_shown_as_a_recipe_says_them(run, tmp_path):
    other = make_run(tmp_path / "runs" / "kuairand-din" / "20260102-040506")
    recipe = "model: {name: din, mlp: [80, 40]}\ntrain: {batch_size: 64, seed: null, checksums: true}\nfreeze: []\n"
    (other / "recipe.yaml").write_text(recipe)
    (run / "recipe.yaml").write_text(recipe.replace("null", "[1, a]").replace("true", "false").replace(
        ", mlp: [80, 40]", ""))
    text = compare([run, other])
    cells = re.findall(r'<tr><td>([^<]*)</td><td class="value">([^<]*)</td><td class="value">([^<]*)</td></tr>', text)
    assert cells == [("train.seed", "[1, a]", "null"), ("train.checksums", "false", "true"),
                     ("model.mlp", "–", "[80, 40]")]
    assert text.index("train.checksums") < text.index("Settings that only some of them have") < text.index("model.mlp")


def test_roc_curves_of_several_runs_lie_over_each_other(run, tmp_path):
    runs = [run, *(make_run(tmp_path / "runs" / name) for name in ("wide", "deep"))]
    (runs[1] / "scores.npz").unlink()
    text = compare(runs)
    figure, = re.findall(r"<figure>(?:(?!</figure>).)*ROC curves of 2 runs.*?</figure>", text)
    assert set(re.findall(r'<polyline class="line s(\d)"', figure)) == {"0", "2"}
    assert re.findall(r'<span class="key s(\d)"><i></i>([^<]*)', figure) == [
        ("0", "kuairand-dlrm · 20260102-030405"), ("2", "deep")]  # a run with a name has that name
    assert not broken_places(text)


@pytest.mark.parametrize(("runs", "is_broad"), [(2, False), (7, True)])
def test_tables_have_few_columns(tmp_path, runs, is_broad):
    """Many metrics of few runs are rows, and the page is broader where there are many runs."""
    folders = [make_run(tmp_path / "runs" / "a-b" / f"20260102-03040{i}", auc_offset=i / 1000) for i in range(runs)]
    text = compare(folders)
    head = re.findall(r"<th>([^<]*)</th>", text.partition("</thead>")[0])
    assert head == ["", *(folder.name for folder in folders)]
    rows = dict(re.findall(r"<tr><td>([^<]*)</td>(.*?)</tr>", text.partition("</table>")[0]))
    assert re.findall(r">(0\.\d+)<", rows["AUC"]) == [f"{0.71234567 + i / 1000:.5f}" for i in range(runs)]
    assert rows["AUC"].endswith(f'<td class="best">{0.71234567 + (runs - 1) / 1000:.5f}</td>')
    assert ('<main class="broad">' in text) == is_broad


def test_comparison_with_an_unfinished_run(run, tmp_path):
    other = make_run(tmp_path / "runs" / "other-dataset" / "now", auc_offset=0.1)
    (other / "metrics.json").unlink()
    (other / "scores.npz").unlink()
    text = compare([run, other])
    assert "validation, unfinished" in Page(text).text and '<td class="best">' not in text
    assert Page(compare([other])).text
    with pytest.raises(UsageError):
        compare([])


def test_many_runs_have_colours(tmp_path):
    Page(compare([make_run(tmp_path / "runs" / "a-b" / str(i)) for i in range(10)]))


def test_the_page_is_light_on_a_long_log(run):
    line = {"epoch": 0.1, "wall_s": 1, "kind": "train", "loss": 0.5, "lr": 1.0}
    lines = [{"step": step, **line} for step in range(20_000)]
    (run / "log.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert len(render(read_run(run))) < 200_000


def test_reports_need_no_torch():
    code = "import sys, clickwise.report; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("values", [[0, 1], [0.6931, 0.71], [5, 5], [0, 0], [-3, 1e7], [1e-9, 3e-9], [], [math.nan, 1]])
def test_linear_ticks(values):
    axis = linear_axis("", values)
    assert axis.low < axis.high and 2 <= len(axis.ticks) <= 9
    texts = [text for _, text in axis.ticks]
    assert len(set(texts)) == len(texts)
    assert all(axis.low - 1e-9 <= place <= axis.high + 1e-9 for place, _ in axis.ticks)


def test_tick_texts():
    assert [short(value, 2000) for value in (0, 2000, 12000, 1_500_000)] == ["0", "2k", "12k", "1.5M"]
    assert [short(value, 0.0025) for value in (0.7, 0.7025)] == ["0.7000", "0.7025"]
    assert [text for _, text in probability_axis("", -7, -1).ticks] == ["0.1 %", "0.3 %", "1 %", "3 %", "10 %", "25 %"]
