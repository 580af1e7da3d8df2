import pytest

from clickwise.embedding import Table, TableOptimizer, build_embeddings
from clickwise.errors import EngineError
from clickwise.recipe import Invalid

TABLE = Table(name="t", rows=3, dim=2, features=("f",))


def test_unknown_engine_is_answered_with_the_list():
    with pytest.raises(EngineError, match=r"(?s)'refrence'.*auto, reference.*did you mean 'reference'"):
        build_embeddings("refrence", [TABLE], ("f",), TableOptimizer())


@pytest.mark.parametrize(("tables", "features", "message"), [
    ([TABLE], ("f", "fg"), "(?s)'fg'.*no table"),
    ([TABLE], ("f", "f"), "'f' twice"),
    ([TABLE], (), "(?s)table 't'.*the feature 'f'"),
    ([TABLE, Table(name="u", rows=3, dim=2, features=())], ("f",), "(?s)table 'u'.*no feature"),
    ([TABLE, Table(name="t", rows=3, dim=2, features=("g",))], ("f", "g"), "two tables named 't'"),
    ([TABLE, Table(name="u", rows=3, dim=2, features=("f",))], ("f",), "(?s)'f'.*'t' and 'u'"),
])
def test_tables_and_features_that_do_not_fit(tables, features, message):
    with pytest.raises(EngineError, match=message):
        build_embeddings("auto", tables, features, TableOptimizer())


@pytest.mark.parametrize("settings", [
    {"rows": 0}, {"dim": True}, {"name": "a.b"}, {"pooling": "max"}, {"init": "ones"},
])
def test_a_table_that_cannot_be(settings):
    with pytest.raises(EngineError, match="table"):
        Table(**{"name": "t", "rows": 3, "dim": 2, "features": ("f",), **settings})


@pytest.mark.parametrize("settings", [
    {"name": "ftrl"}, {"lr": -1.0}, {"lr": float("nan")}, {"beta1": 1.0}, {"eps": -1},
])
def test_an_optimizer_that_cannot_be(settings):
    with pytest.raises(Invalid):
        TableOptimizer(**settings)
