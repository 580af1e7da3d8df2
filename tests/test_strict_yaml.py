import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickwise.strict_yaml import dump_line, dump_yaml, parse_yaml

TEXTS = st.text(min_size=1) | st.from_regex(r"[-+.0-9eE_]{1,6}", fullmatch=True)


@given(st.dictionaries(TEXTS, st.lists(TEXTS | st.floats(allow_nan=False) | st.integers() | st.booleans())))
def test_what_is_written_is_read_back(value):
    assert parse_yaml(dump_yaml(value), "here") == value


@pytest.mark.parametrize("word", ["0e0", "1e5", ".5", "1E-3", "1_0e2", "12", "0x1f", "no", "null", "2013-01-01"])
def test_a_text_that_looks_like_another_thing_stays_a_text(word):
    for dump in (dump_yaml, dump_line):
        assert parse_yaml(dump([word]), "here") == [word] and parse_yaml(dump(word), "here") == word


def test_a_number_without_a_point_is_a_number():
    assert parse_yaml("lr: 1e-4", "here") == {"lr": 1e-4}
