"""DIN, DIEN and SIM in their own presets: padding, lengths, losses, bad input."""

import dataclasses
import math

import pytest
import torch
from model_inputs import batch_of, history_spec, model_of, spec_of

from clickwise import wiring
from clickwise.embedding import TableOptimizer
from clickwise.errors import RecipeError, SpecError
from clickwise.layers import search
from clickwise.models import histories
from clickwise.models.dien import DIEN, DIENConfig
from clickwise.models.din import DIN, DINConfig
from clickwise.models.histories import longest_first
from clickwise.models.sim import SIM, SIMConfig
from clickwise.recipe import parse, to_dict

SMALL = {
    "din": (DIN, dict(embedding_dim=4, unit_mlp=(6,), top_mlp=(8,), activation="dice")),
    "dien": (DIEN, dict(embedding_dim=4, gru_size=6, auxiliary_mlp=(6,), auxiliary_loss_weight=1.0, top_mlp=(8,))),
    "sim": (SIM, dict(embedding_dim=4, short_length=3, k=2, heads=2, gru_size=6, search_mlp=(6,), auxiliary_mlp=(6,),
                      top_mlp=(8,), search_loss_weight=1.0, auxiliary_loss_weight=1.0)),
    **{f"sim, {search}": (SIM, dict(search=search, embedding_dim=4, short_length=3, k=2, gru_size=6, top_mlp=(8,),
                                    auxiliary_loss_weight=1.0))
       for search in ("hard", "simhash", "sdim")},
}
every_model = pytest.mark.parametrize("name", SMALL)
SPEC = history_spec([9], [30, 5], [30, 5], gaps=[6], length=8)


def make(name, spec=SPEC, **more):
    model_class, settings = SMALL[name]
    model = model_of(model_class, spec, **{**settings, **more})
    for engine in wiring.engines_of(model):
        for table in engine.tables:
            engine.set_rows(table.name, engine.rows_of(table.name).mul_(5))
    return model


def widened(batch, by):
    pad = torch.zeros(len(batch), by, dtype=torch.int32)
    return dataclasses.replace(batch, **{channel: tuple(torch.cat([pad, ids], 1) for ids in getattr(batch, channel))
                                         for channel in ("history", "negative_history")})


def tables_after_a_step(model, batch):
    losses = model.losses(batch)
    sum(losses.values()).backward()
    rows = {table.name: model.embeddings.rows_of(table.name) for table in model.embeddings.tables}
    return {name: loss.detach() for name, loss in losses.items()}, rows, [p.grad for p in model.parameters()]


@every_model
def test_more_padding_changes_no_logit_no_loss_and_no_gradient(name):
    batch = batch_of(SPEC, 12)
    assert not batch.history[0].any(1).all(), "an empty history is among them"
    one, other = make(name), make(name)
    losses, rows, grads = tables_after_a_step(one, batch)
    wide_losses, wide_rows, wide_grads = tables_after_a_step(other, widened(batch, 5))
    for found, expected in ((wide_losses, losses), (wide_rows, rows)):
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value)
    for found, expected in zip(wide_grads, grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(other.eval()(widened(batch, 3)), one.eval()(batch), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["dien", "sim"])
def test_the_order_of_the_samples_is_nothing_to_the_losses(name):
    """They are put in an order by the lengths of their histories, labels and all."""
    batch, order = batch_of(SPEC, 12), torch.randperm(12, generator=torch.Generator().manual_seed(0))
    shuffled = batch.map(lambda column: column[order])
    losses, rows, grads = tables_after_a_step(make(name), batch)
    for found, expected in zip(tables_after_a_step(make(name), shuffled)[:2], (losses, rows), strict=True):
        for key, value in expected.items():
            torch.testing.assert_close(found[key], value, rtol=1e-4, atol=1e-5)
    sorted_batch = longest_first(batch, 3)
    lengths = (sorted_batch.history[0][:, -3:] != 0).sum(1)
    assert (lengths.diff() <= 0).all() and lengths.unique().numel() > 1
    pairs = {(*row.tolist(), label) for row, label in zip(batch.history[0], batch.label.tolist(), strict=True)}
    assert pairs == {(*row.tolist(), label) for row, label in zip(sorted_batch.history[0], sorted_batch.label.tolist(),
                                                                  strict=True)}


@every_model
def test_padding_never_learns(name):
    model, batch = make(name), batch_of(SPEC, 12)
    history = tuple(ids * 0 for ids in batch.history)
    empty = dataclasses.replace(batch, history=history, negative_history=history[:2],
                                target_item=tuple(ids.clamp(min=1) for ids in batch.target_item))
    before = model.embeddings.rows_of("target0")[0].clone()
    losses, rows, _ = tables_after_a_step(model, empty)
    assert all(loss.isfinite() for loss in losses.values())
    assert torch.equal(rows["target0"][0], before)


@every_model
@pytest.mark.parametrize("length", [0, 1, 2, 3, 4])
def test_windows_of_any_length(name, length):
    spec = history_spec([9], [30, 5], [30, 5], length=5)
    batch = batch_of(spec, 6)
    batch = dataclasses.replace(batch, **{channel: tuple(ids[:, 5 - length:] for ids in getattr(batch, channel))
                                          for channel in ("history", "negative_history")})
    model = make(name, spec)
    assert all(loss.isfinite() for loss in tables_after_a_step(model, batch)[0].values())
    assert model.eval()(batch).isfinite().all()


@every_model
def test_an_event_without_a_category_is_an_event(name):
    """Where only the category is 0, that is the row of missing values, and it learns."""
    batch = batch_of(SPEC, 12)
    missing = dataclasses.replace(batch, history=(batch.history[0], batch.history[1] * 0, batch.history[2]),
                                  target_item=(batch.target_item[0], batch.target_item[1].clamp(min=1)))
    model = make(name)
    before = model.embeddings.rows_of("target1")[0].clone()
    _, rows, _ = tables_after_a_step(model, missing)
    found_nothing = name == "sim, hard" and not missing.history[0][:, -3:].any()
    assert found_nothing or not torch.equal(rows["target1"][0], before)


@pytest.mark.parametrize("name", ["din", "dien"])
def test_only_the_latest_positions_where_asked(name):
    batch = batch_of(SPEC, 12)
    cut = dataclasses.replace(batch, **{channel: tuple(ids[:, -3:] for ids in getattr(batch, channel))
                                        for channel in ("history", "negative_history")})
    found, expected = make(name, history_length=3).losses(batch), make(name).losses(cut)
    assert found.keys() == expected.keys() and all(torch.equal(found[key], expected[key]) for key in found)


def test_ids_of_every_integer_type_and_a_target_of_several_values():
    batch, model = batch_of(SPEC, 6), make("sim").eval()
    expected = model(batch)
    for dtype in (torch.int8, torch.uint8, torch.int16, torch.int64):
        assert torch.equal(model(batch.map(lambda tensor, to=dtype: tensor.to(to))), expected)


def test_losses_have_names_and_weights():
    batch = batch_of(SPEC, 12)
    plain = make("sim").losses(batch)
    assert set(plain) == {"log_loss", "search_loss", "auxiliary_loss"}
    weighted = make("sim", loss_weight=2.0, search_loss_weight=0.5, auxiliary_loss_weight=3.0).losses(batch)
    for name, weight in (("log_loss", 2.0), ("search_loss", 0.5), ("auxiliary_loss", 3.0)):
        torch.testing.assert_close(weighted[name], weight * plain[name])
    assert set(make("sim", search_loss_weight=0.0, auxiliary_loss_weight=0.0).losses(batch)) == {"log_loss"}
    assert set(make("sim, hard").losses(batch)) == {"log_loss", "auxiliary_loss"}
    torch.testing.assert_close(make("dien").losses(batch)["log_loss"], torch.nn.functional.
                               binary_cross_entropy_with_logits(make("dien")(batch), batch.label.float()))


def with_lists(spec, places=(1, 2)):
    """The features at the second place are the further values of those at the first, in all channels."""
    features = dict(spec.features)
    for channel in ("target_item", "history", "negative_history"):
        first, further = (spec.channels[channel][place] for place in places)
        features[further] = dataclasses.replace(features[further], extra={"list_of": first})
    return dataclasses.replace(spec, features=features)


LISTS = with_lists(history_spec([9], [30, 5, 5], [30, 5, 5], gaps=[6], length=8))


@every_model
def test_values_of_a_list_are_added_up_in_any_order_and_none_adds_nothing(name):
    if name == "sim, hard":
        pytest.skip("its search takes the first category for the category")
    batch = batch_of(LISTS, 12).map(lambda ids: ids)
    some = {channel: [ids.clone() for ids in getattr(batch, channel)]
            for channel in ("target_item", "history", "negative_history")}
    for columns in some.values():
        columns[1] = columns[1].clamp(min=1)
    model = make(name, LISTS)
    assert {table.name for table in model.embeddings.tables} == {"user", "target0", "target1", "seen3"}
    swapped = {channel: (columns[0], columns[2].clamp(min=1), columns[1], *columns[3:])
               for channel, columns in some.items()}
    kept = {channel: (columns[0], columns[1], columns[2].clamp(min=1), *columns[3:])
            for channel, columns in some.items()}
    one, other = (tables_after_a_step(make(name, LISTS), dataclasses.replace(batch, **columns))
                  for columns in (kept, swapped))
    for mine, theirs in ((one[0], other[0]), (one[1], other[1])):
        for key, value in mine.items():
            torch.testing.assert_close(theirs[key], value, rtol=1e-4, atol=1e-5)
    alone = history_spec([9], [30, 5], [30, 5], gaps=[6], length=8)
    without = {channel: (*columns[:2], *columns[3:]) for channel, columns in some.items()}
    empty = {channel: (*columns[:2], columns[2] * 0, *columns[3:]) for channel, columns in some.items()}
    smaller = make(name, alone)
    renamed = {key.replace("seen2", "seen3"): value for key, value in smaller.state_dict().items()}
    model.load_state_dict(renamed)
    model.eval(), smaller.eval()
    torch.testing.assert_close(model(dataclasses.replace(batch, **empty)), smaller(dataclasses.replace(
        batch, **without)))


@pytest.mark.parametrize("change, words", [
    ({"seen2": {"list_of": "seen4"}}, "'seen4'"), ({"seen2": {"list_of": "seen0"}}, "30, as 'seen0' has"),
    ({"seen2": {}}, "the same lists in both"), ({"seen1": {"list_of": "seen2"}}, "before it")])
def test_lists_that_cannot_be(change, words):
    features = LISTS.features | {name: dataclasses.replace(LISTS.features[name], extra=extra)
                                 for name, extra in change.items()}
    with pytest.raises(SpecError, match=words):
        dataclasses.replace(LISTS, features=features)


def test_hard_search_goes_by_the_first_of_several_categories():
    assert make("sim, hard", LISTS).long.category == 1


def test_history_shares_tables_with_the_target_by_place_and_time_gaps_do_not():
    spec = history_spec([9], [30, 5, 7], [20, 5], gaps=[6], length=4)
    config = SIMConfig(auxiliary_loss_weight=1.0)
    tables = {table.name: (table.rows, table.features) for table in SIM.tables(spec, config)}
    assert tables == {"user": (9, ("user",)), "target2": (7, ("target2",)),
                      "target0": (30, ("target0", "seen0", "unseen0")),
                      "target1": (5, ("target1", "seen1", "unseen1")), "seen2": (6, ("seen2",))}
    without = {table.features for table in DIN.tables(spec, DINConfig())}
    assert ("target0", "seen0") in without
    model, batch = make("sim", spec), batch_of(spec, 5)
    assert all(loss.isfinite() for loss in tables_after_a_step(model, batch)[0].values())


@pytest.mark.parametrize("preset", ["default", "compat"])
@pytest.mark.parametrize("config", [DINConfig, DIENConfig, SIMConfig])
def test_a_resolved_recipe_says_what_the_preset_decided(config, preset):
    resolved = parse(config, {"preset": preset}, "recipe.model")
    assert parse(config, to_dict(resolved), "recipe.model") == resolved
    assert parse(config, {**to_dict(resolved), "preset": "default"}, "recipe.model") == \
        dataclasses.replace(resolved, preset="default")
    kept = [key for key, value in to_dict(resolved).items() if value is None]
    assert set(kept) <= {"history_length", "gru_size", "category", "hash_bits"}


@pytest.mark.parametrize("config, settings, weights", [
    (DIENConfig, {}, {"auxiliary": 0}), (DIENConfig, {"preset": "compat"}, {"auxiliary": 1}),
    (SIMConfig, {}, {"auxiliary": 0, "search": 0}), (SIMConfig, {"preset": "compat"}, {"auxiliary": 1, "search": 0.5}),
    (SIMConfig, {"search": "hard"}, {"auxiliary": 0, "search": 0}),
    (SIMConfig, {"preset": "compat", "search": "hard"}, {"auxiliary": 1, "search": 0}),
    (SIMConfig, {"preset": "compat", "auxiliary_loss_weight": 0.25}, {"auxiliary": 0.25, "search": 0.5})])
def test_further_losses_are_those_of_compat_unless_asked_for(config, settings, weights):
    resolved = parse(config, settings, "recipe.model")
    assert {name: getattr(resolved, f"{name}_loss_weight") for name in weights} == weights
    negatives = SPEC.channels["negative_history"] if weights["auxiliary"] else ()
    model_class = DIEN if config is DIENConfig else SIM
    assert model_class.reads(SPEC, resolved, training=True).get("negative_history", ()) == negatives


@pytest.mark.parametrize("config, wrong, words", [
    (DINConfig, {"preset": "compatible"}, "did you mean 'compat'"), (DINConfig, {"history_length": 0}, "above 0"),
    (DIENConfig, {"auxiliary_loss_weight": -1.0}, "0 or more"), (DIENConfig, {"augru": "papers"}, "'paper'"),
    (SIMConfig, {"search": "hard", "search_loss_weight": 1.0}, "no score to learn"),
    (SIMConfig, {"category": "genre"}, "search: hard"), (SIMConfig, {"k": 0}, "above 0"),
    (SIMConfig, {"search": "sdim", "hash_bits": 7}, "multiple of hash_group=3"),
])
def test_refuses_settings_that_cannot_be(config, wrong, words):
    with pytest.raises(RecipeError, match=words):
        parse(config, wrong, "recipe.model")


def test_hard_search_takes_the_category_named():
    with pytest.raises(RecipeError, match=r"(?s)recipe.model.category.*'target1'"):
        make("sim, hard", category="targett1")
    assert make("sim, hard").long.category == 1 and make("sim, hard", category="target0").long.category == 0


@pytest.mark.parametrize("name, spec, words", [
    ("din", spec_of(2, [5]), r"(?s)channel_spec.target_item.*dlrm"),
    ("sim", history_spec([9], [5], []), r"(?s)channel_spec.history.*at least one"),
    ("dien", history_spec([9], [5], [5], negatives=False), r"(?s)negative_history.*auxiliary_loss_weight=0"),
])
def test_a_spec_without_what_the_model_needs_is_refused(name, spec, words):
    with pytest.raises(SpecError, match=words):
        make(name, spec)


def test_without_negatives_dien_learns_without_them():
    spec = history_spec([], [5], [5], negatives=False)
    losses = make("dien", spec, auxiliary_loss_weight=0.0).losses(batch_of(spec, 4))
    assert set(losses) == {"log_loss"}


def test_under_autocast_the_search_ranks_in_float32(monkeypatch):
    """Among items that bf16 products cannot tell apart, the best is found."""
    model = make("sim", pooling="dot", k=1)
    target, items = torch.ones(1, 8), torch.ones(1, 5, 8).bfloat16()
    items[0, 3, 0] += 2**-7  # of a sum of 8: a 1024th, which bf16 rounds away
    seen, top_k = {}, search.top_k
    monkeypatch.setattr(search, "top_k", lambda *given: seen.setdefault("chosen", top_k(*given)))
    with torch.autocast("cpu", torch.bfloat16):
        model.long(None, target.bfloat16(), items, torch.ones(1, 5).bool())
    assert seen["chosen"].tolist() == [[False, False, False, True, False]]


@every_model
def test_learns_a_few_samples_by_heart(name):
    batch = batch_of(SPEC, 24)
    model = model_of(SMALL[name][0], SPEC, optimizer=TableOptimizer(name="adam", lr=0.03), **SMALL[name][1])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(60):
        optimizer.zero_grad()
        losses = model.losses(batch)
        sum(losses.values()).backward()
        optimizer.step()
    assert float(losses["log_loss"].detach()) < 0.3 * math.log(2)


@every_model
@pytest.mark.parametrize("instructions", [None, "AVX512-BF16", "AMX"])
def test_under_bf16_it_computes_in_float32_unless_the_processor_has_amx(name, instructions, monkeypatch, caplog):
    monkeypatch.setattr(histories, "bf16_instructions", lambda: instructions)
    histories._tell_of_float32.cache_clear()
    model, batch = make(name), batch_of(SPEC, 8)
    full = model.losses(batch)
    with torch.autocast("cpu", torch.bfloat16):
        for _ in range(2):
            half = model.losses(batch)
    same = all(torch.equal(half[key], full[key]) for key in full)
    told = [record.message for record in caplog.records if "computes in fp32" in record.message]
    assert (same, len(told)) == ((False, 0) if instructions == "AMX" else (True, 1))
