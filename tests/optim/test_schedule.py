import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickwise.errors import RecipeError
from clickwise.optim.schedule import Schedule
from clickwise.recipe import parse

LATER = Schedule(warmup_steps=8000, decay_start_step=48000, decay_steps=24000, decay_power=2)
EARLIER = Schedule(warmup_steps=6400, decay_start_step=64000, decay_steps=80000, decay_power=2)


@pytest.mark.parametrize("schedule, base, step, lr", [
    (LATER, 24, 1, 0.003), (LATER, 24, 201, 0.603), (LATER, 24, 8000, 24), (LATER, 24, 48000, 24),
    (LATER, 24, 48001, 23.998), (LATER, 24, 60000, 6.0), (LATER, 24, 64014, 2.65734), (LATER, 24, 72000, 0),
    (LATER, 24, 72001, 0), (LATER, 24, 120000, 0),
    (EARLIER, 28, 201, 0.879375), (EARLIER, 28, 401, 1.754375), (EARLIER, 28, 128028, 1.11608),
])
def test_published_vectors(schedule, base, step, lr):
    assert base * schedule.factor(step) == pytest.approx(lr, rel=1e-5, abs=1e-12)


def test_no_decay_where_none_is_asked():
    assert Schedule(decay_start_step=None, decay_steps=10).factor(10**9) == 1
    assert Schedule(decay_start_step=5, decay_steps=0).factor(10**9) == 1
    assert Schedule().factor(1) == 1


STEPPED = Schedule(warmup_epochs=6, levels=((13, 0.25), (20, 0.125)))


@pytest.mark.parametrize("step, lr", [(1, 4.376368e-8), (457, 2e-5), (2741, 1.199562e-4), (2742, 3e-5), (5941, 3e-5),
                                      (5942, 1.5e-5), (9140, 1.5e-5), (20_000, 1.5e-5)])
def test_published_vectors_of_epochs_of_457_steps(step, lr):
    assert 1.2e-4 * STEPPED.factor(step, 457) == pytest.approx(lr, rel=1e-6)


BASE = 1.2e-4


@pytest.mark.parametrize("compat, first", [("tf2_wide_deep", [BASE, BASE / 2742, 2 * BASE / 2742]),
                                           ("tf2_wide_deep_2021", [BASE / 2742, BASE / 2742, 2 * BASE / 2742])])
def test_published_vectors_one_step_late(compat, first):
    schedule = dataclasses.replace(STEPPED, compat=compat)
    assert [BASE * schedule.factor(step, 457) for step in (1, 2, 3)] == pytest.approx(first, rel=1e-9)
    for done, lr in ((1, 4.376368e-8), (457, 2e-5), (2741, 1.199562e-4), (2742, 3e-5), (5941, 3e-5), (5942, 1.5e-5)):
        assert BASE * schedule.factor(done + 1, 457) == pytest.approx(lr, rel=1e-6)


def test_a_first_step_at_no_rate():
    schedule = Schedule(warmup_steps=100, decay_start_step=48000, decay_steps=24000, compat="tf2_dlrm")
    counted_from_0 = [0, 1, 99, 100, 48000, 60000, 64012, 72000, 80000]
    assert [schedule.factor(t + 1) for t in counted_from_0] == pytest.approx(
        [0, 0.01, 0.99, 1, 1, 0.25, (7988 / 24000) ** 2, 0, 0], abs=1e-12)
    assert Schedule(compat="tf2_dlrm").factor(1) == 1  # without a warm-up


@given(step=st.integers(2, 200), warmup=st.integers(0, 60), decay=st.integers(1, 60),
       compat=st.sampled_from(["tf2_dlrm", "tf2_wide_deep", "tf2_wide_deep_2021"]))
def test_late_is_one_step_behind(step, warmup, decay, compat):
    on_time = Schedule(warmup_steps=warmup, decay_start_step=warmup + 10, decay_steps=decay, end_factor=0.1)
    assert dataclasses.replace(on_time, compat=compat).factor(step) == on_time.factor(step - 1)


def test_a_reference_that_is_not_known():
    with pytest.raises(RecipeError, match=r"tf2_dlrm \| tf2_wide_deep"):
        parse(Schedule, {"compat": "tf2"}, "recipe.schedule")


@given(warmup=st.integers(0, 5), plateau=st.integers(0, 5), decay=st.integers(0, 5), length=st.integers(1, 20))
def test_epochs_are_so_many_steps(warmup, plateau, decay, length):
    in_epochs = Schedule(warmup_epochs=warmup, decay_start_epoch=warmup + plateau, decay_epochs=decay)
    in_steps = Schedule(warmup_steps=warmup * length, decay_start_step=(warmup + plateau) * length,
                        decay_steps=decay * length)
    assert not in_steps.counts_epochs
    for step in range(1, 16 * length):
        assert in_epochs.factor(step, length) == in_steps.factor(step)


@pytest.mark.parametrize("wrong, words", [
    ({"warmup_steps": 5, "warmup_epochs": 1}, "warmup_steps or warmup_epochs"),
    ({"decay_steps": 5, "decay_epochs": 1}, "not both"), ({"levels": [[1, 2, 3]]}, "pairs"),
    ({"levels": [[2, 0.5], [1, 0.1]]}, "grow"), ({"levels": [[0, 0.5]]}, "grow"), ({"levels": [[1, -0.5]]}, "pairs"),
    ({"levels": [[1, 0.5]], "decay_start_epoch": 0, "decay_epochs": 1}, "levels or a decay"),
    ({"warmup_epochs": 2, "decay_start_epoch": 1}, "end of the warm-up"),
])
def test_refuses_epochs_that_make_no_schedule(wrong, words):
    with pytest.raises(RecipeError, match=words):
        parse(Schedule, wrong, "recipe.schedule")


@given(warmup=st.integers(0, 50), plateau=st.integers(0, 50), decay=st.integers(1, 50), power=st.floats(0.5, 3),
       end=st.floats(0, 1), factor=st.integers(0, 3))
def test_rises_stays_falls_and_never_rises_again(warmup, plateau, decay, power, end, factor):
    schedule = Schedule(warmup_steps=warmup, warmup_factor=factor, decay_start_step=warmup + plateau,
                        decay_steps=decay, decay_power=power, end_factor=end)
    factors = [schedule.factor(step) for step in range(1, warmup + plateau + 2 * decay + 2)]
    top = max(warmup - 1, 0)
    assert all(a <= b for a, b in zip(factors[:top], factors[1:top + 1], strict=True))
    assert all(a >= b for a, b in zip(factors[top:], factors[top + 1:], strict=False))
    assert factors[-1] == end and all(0 <= value <= 1 for value in factors)


@pytest.mark.parametrize("wrong", [{"warmup_steps": -1}, {"warmup_steps": 10, "decay_start_step": 9},
                                  {"decay_power": 0}, {"end_factor": 2}])
def test_refuses_what_makes_no_schedule(wrong):
    with pytest.raises(RecipeError, match=next(reversed(wrong))):
        parse(Schedule, wrong, "recipe.schedule")
