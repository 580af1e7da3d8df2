import re

import pytest
import torch

from clickwise.batch import Batch
from clickwise.data.synthetic import synthetic_spec
from clickwise.embedding import Table, TableOptimizer, backward, build_embeddings, lookup, tables
from clickwise.errors import EngineError
from clickwise.recipe import Invalid
from clickwise.training_recipe import load_recipe
from clickwise.wiring import build_model

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
    {"rows": 0}, {"dim": True}, {"name": ""}, {"pooling": "max"}, {"init": "ones"},
])
def test_a_table_that_cannot_be(settings):
    with pytest.raises(EngineError, match="table"):
        Table(**{"name": "t", "rows": 3, "dim": 2, "features": ("f",), **settings})


@pytest.mark.parametrize("settings", [
    {"name": "ftlr"}, {"lr": -1.0}, {"lr": float("nan")}, {"beta1": 1.0}, {"eps": -1},
    {"name": "sgd", "lazy": False}, {"name": "adagrad", "eps_hat": True}, {"name": "adam", "lazy": False, "eps": 0.0},
    {"name": "adam", "decoupled_weight_decay": True},
    *({"name": name, "weight_decay": 0.1, "decoupled_weight_decay": True} for name in ("sgd", "ftrl")),
])
def test_an_optimizer_that_cannot_be(settings):
    with pytest.raises(Invalid):
        TableOptimizer(**settings)


@pytest.mark.parametrize("part", [1, 7, 10, 299, 300])
def test_first_values_are_the_same_bits_however_many_are_drawn_at_a_time(part, monkeypatch):
    large = Table(name="large", rows=100, dim=3, features=("f",))
    whole_RD, parts_RD = torch.empty(100, 3), torch.empty(100, 3)
    tables.fill_first_values(whole_RD, large, seed=5)
    monkeypatch.setattr(tables, "DRAWN_AT_ONCE", part)
    tables.fill_first_values(parts_RD, large, seed=5)
    assert torch.equal(parts_RD, whole_RD)
    tables.fill_first_values(torch.empty(100, 3, device="meta"), large, seed=5)


class NoEngine:
    """torch's engine of autograd without the method that is needed."""


class DeafEngine:
    """Takes what shall be called at the end and forgets it."""

    def queue_callback(self, call):
        pass


class HastyEngine:
    """Calls at once what shall be called at the end."""

    def queue_callback(self, call):
        call()


@pytest.fixture
def asked_anew():
    backward.hears_of_backward.cache_clear()
    yield
    backward.hears_of_backward.cache_clear()


@pytest.mark.parametrize("broken", ["no number", "always -1", "always 0", NoEngine, DeafEngine, HastyEngine], ids=str)
def test_without_a_signal_at_the_end_of_backward_no_engine_is_built(broken, monkeypatch, asked_anew):
    if broken == "no number":
        monkeypatch.delattr(torch._C, "_current_graph_task_id")
    elif isinstance(broken, str):
        monkeypatch.setattr(torch._C, "_current_graph_task_id", lambda: int(broken.split()[1]))
    else:
        monkeypatch.setattr(torch.autograd.Variable, "_execution_engine", broken())
    with pytest.raises(EngineError, match=rf"(?s)torch {re.escape(torch.__version__)}.*an optimizer step of its own.*"
                       r"pip install 'torch==2\.13"):
        build_embeddings("reference", [TABLE], ("f",), TableOptimizer(lr=1.0))


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_an_engine_can_be_built_in_every_mode_of_autograd(mode, asked_anew):
    with mode():
        build_embeddings("reference", [TABLE], ("f",), TableOptimizer(lr=1.0))


def test_an_engine_can_be_built_within_a_backward(asked_anew):
    built, x = [], torch.ones((), requires_grad=True)
    x.register_hook(lambda grad: built.append(build_embeddings("reference", [TABLE], ("f",), TableOptimizer())))
    (x * 2).backward()
    assert len(built) == 1


def test_two_look_ups_of_one_backward_take_one_step():
    embeddings = build_embeddings("reference", [TABLE], ("f",), TableOptimizer(lr=1.0))
    before = embeddings.rows_of("t")
    ids = torch.tensor([0, 2, 2])
    (embeddings((ids,)).sum() + embeddings((ids,)).sum()).backward()
    assert embeddings.step == 1
    torch.testing.assert_close(embeddings.rows_of("t"), before - torch.tensor([[2.0], [0.0], [4.0]]))


def test_a_failed_backward_keeps_no_memory_after_the_next_forward():
    embeddings = build_embeddings("reference", [TABLE], ("f",), TableOptimizer())
    first = torch.ones(2, 1, requires_grad=True) * 2  # made first: its backward comes after the tables'
    first.register_hook(lambda grad: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        (first * embeddings((torch.tensor([0, 2]),))).sum().backward()
    assert len(embeddings._received) == 1
    embeddings((torch.tensor([0, 2]),))
    assert embeddings._received == {}


def test_constants_of_a_look_up_are_made_once():
    embeddings = build_embeddings("reference", [TABLE], ("f",), TableOptimizer())
    with torch.inference_mode():
        embeddings((torch.tensor([0, 2]),))
    made = lookup._constant.cache_info().misses
    embeddings((torch.tensor([1]),)).sum().backward()
    assert lookup._constant.cache_info().misses == made


def test_a_recipe_can_ask_for_a_look_at_every_id():
    recipe = load_recipe("tiny/dlrm", ["embedding.check_ids=true", "data.synthetic.rows={train: 100, test: 10}"])
    spec = synthetic_spec(recipe.data.synthetic)
    model = build_model(recipe, spec, torch.device("cpu"))
    ids = [torch.tensor([0, feature.cardinality]) for feature in spec.channel("categorical")]
    with pytest.raises(EngineError, match=r"(?s)sample 1 of the batch.*the id 40.*0 … 39"):
        model(Batch(numerical=torch.zeros(2, 4), categorical=tuple(ids)))
