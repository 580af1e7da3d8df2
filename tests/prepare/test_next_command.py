"""The command that `clickwise prepare` prints last works as it is printed, whatever was prepared."""

from __future__ import annotations

import shlex

import pytest

from clickwise.training_recipe import load_recipe


def printed(result) -> list[str]:
    assert result.code == 0, result.err
    (line,) = [line for line in result.err.splitlines() if line.startswith("  next ")]
    return shlex.split(line)[1:]


def starts(words: list[str]) -> str:
    """Whatever may refuse a training is asked, and one step is taken; the recipe."""
    from clickwise.run.session import build_session

    assert words[:2] == ["clickwise", "train"], words
    session = build_session(load_recipe(words[2], words[3:]))
    session.check_data()
    session.check_warmup()
    session.step(next(iter(session.train_loader().epoch(0))))
    for mapping in {session.recipe.data.validation, session.recipe.data.test} - {None}:
        next(iter(session.evaluation_loader(mapping).epoch(0)))
    return words[2]


@pytest.fixture(scope="module")
def outbrain(tmp_path_factory):
    from clickwise.data.synthetic import synthesize_raw_outbrain

    folder = tmp_path_factory.mktemp("outbrain") / "raw"
    synthesize_raw_outbrain(folder, rows=1500, test_rows=300, seed=0)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize(("prepare", "settings", "recipe"), [
    ("prepare", [], "wide_deep"), ("prepare", ["dataset.feature_set=v1_spark"], "wide_deep"),
    ("prepare", ["dataset.feature_set=v1_nvtabular"], "wide_deep"),
    ("prepare_multihot", [], "wide_deep_multihot"), ("prepare_profiles", [], "wide_deep_profiles")])
def test_outbrain(clickwise, outbrain, prepare, settings, recipe):
    """The published batch of 131,072 is more than this sample has."""
    result = clickwise("prepare", f"outbrain/{prepare}", f"dataset.folder={outbrain}", *settings)
    assert starts(printed(result)) == f"outbrain/{recipe}"


@pytest.mark.parametrize("features", ["clickwise", "v1_spark", "v1_nvtabular", "multihot", "profiles"])
def test_the_features_decide_on_the_recipe_and_the_rows_on_its_batch(features, tmp_path):
    from clickwise.prepare import _next_command
    from clickwise.prepare.outbrain import Outbrain
    from clickwise.prepare.outbrain.config import OutbrainConfig

    preparation = Outbrain(OutbrainConfig(folder="outbrain", feature_set=features), "outbrain", "a recipe")
    for rows, batch in ((20_355, 636), (131_072, 131_072)):
        words = shlex.split(_next_command(tmp_path, preparation, {"train": rows, "test": 9}))
        recipe = load_recipe(words[2], words[3:])
        assert recipe.train.batch_size == batch and recipe.data.path == str(tmp_path)


def test_criteo(clickwise):
    """A part of the log is over before the published warm-up is."""
    assert clickwise("synth", "criteo_raw", "--rows", 3000, "--out", "criteo").code == 0
    assert starts(printed(clickwise("prepare", "criteo/prepare"))) == "criteo/dlrm_small"


def test_amazon_books(clickwise):
    assert clickwise("synth", "amazon_raw", "--users", 60, "--out", "data/amazon_raw").code == 0
    result = clickwise("prepare", "amazon_books/prepare", "dataset.validation=false")
    assert starts(printed(result)) == "amazon_books/sim"


@pytest.mark.parametrize("settings", [[], ["dataset.validation_share=0"], ["dataset.test_share=0"],
                                      ["dataset.validation_share=0", "dataset.test_share=0"]])
def test_a_table_and_further_rows_of_it(clickwise, tmp_path, settings):
    (tmp_path / "shop.csv").write_text("price,town,bought\n" + "".join(
        f"{number % 17}.5,town {number % 5},{number % 3 == 0:d}\n" for number in range(400)))
    assert clickwise("spec", "infer", "shop.csv", "--label", "bought", "--out", "shop").code == 0
    result = clickwise("prepare", "table/prepare", "dataset.spec=shop", *settings)
    assert starts(printed(result)) == "table/dcnv2"
    if not settings:
        command = shlex.split(printed_command := shlex.join(printed(result)))
        assert clickwise(*command[1:], "baselines=[]").code == 0, printed_command
        more = clickwise("prepare", "table/prepare", "--with", "runs/table-dcnv2", "dataset.input=[shop.csv]",
                         "out=more")
        scored = clickwise(*printed(more)[1:])
        assert scored.code == 0 and scored.out.startswith("400 rows"), scored.err


@pytest.mark.slow
@pytest.mark.parametrize(("prepare", "recipe"), [("prepare", "dlrm"), ("prepare_history", "sim")])
def test_kuairand(clickwise, prepare, recipe):
    assert starts(printed(clickwise("prepare", f"kuairand/{prepare}"))) == f"kuairand/{recipe}"
