from triton_device import DEVICE, INTERPRETED, assert_clean, poisoned, walled  # isort: skip

import mmap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from clickwise.kernels.embedding_bag import FeatureLookup, reference
from clickwise.kernels.embedding_bag import triton as fast

MAP_NORESERVE = 0x4000  # of Linux: addresses without memory, until it is written to
ID_TYPES = (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64)


def on_device(column):
    return tuple(part.to(DEVICE) for part in column) if isinstance(column, tuple) else column.to(DEVICE)


def bags(lists, dtype=torch.int32, offsets=torch.int64, behind=0):
    """Bags as values and offsets; `behind` ids that belong to no bag."""
    ends = torch.tensor([0, *map(len, lists)]).cumsum(0)
    return torch.tensor(sum(lists, []) + [9999 % 100] * behind, dtype=dtype), ends.to(offsets)


@st.composite
def look_ups(draw):
    """(shapes of tables, lookups, columns): widths alike or not, every kind of column, every type of ids."""
    dims = draw(st.lists(st.sampled_from((1, 3, 4, 20, 128, 300)), min_size=1, max_size=3))
    shapes = [(draw(st.integers(1, 9)), dim) for dim in dims]
    samples, lookups, columns = draw(st.integers(0, 20)), [], []
    for _ in range(draw(st.integers(1, 4))):
        lookup = FeatureLookup(draw(st.integers(0, len(shapes) - 1)), mean=draw(st.booleans()),
                               modulo=draw(st.booleans()))
        rows, dtype = 101 if lookup.modulo else shapes[lookup.table][0], draw(st.sampled_from(ID_TYPES))
        ids = st.integers(0, rows - 1)
        lookups.append(lookup)
        kind = draw(st.sampled_from(("one", "bags", "window")))
        if kind == "bags":
            lists = draw(st.lists(st.lists(ids, max_size=4), min_size=samples, max_size=samples))
            columns.append(bags(lists, dtype, draw(st.sampled_from((torch.int32, torch.int64))),
                                draw(st.integers(0, 3))))
        else:
            length = draw(st.integers(0, 3)) if kind == "window" else 1
            ids = ids | st.just(-1) if kind == "window" and dtype != torch.uint8 else ids
            values = draw(st.lists(ids, min_size=samples * length, max_size=samples * length))
            column = torch.tensor(values, dtype=dtype)
            columns.append(column.view(samples, length) if kind == "window" else column)
    return shapes, lookups, columns


@settings(max_examples=40, deadline=None)
@given(look_up=look_ups(), types=st.sampled_from([(torch.float32, torch.float32), (torch.float32, torch.bfloat16),
                                                  (torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)]))
def test_equals_reference(look_up, types):
    shapes, lookups, columns = look_up
    generator = torch.Generator().manual_seed(len(columns))
    tables = [walled(torch.randn(shape, generator=generator).to(types[0])) for shape in shapes]
    columns = [on_device(column) for column in columns]
    expected = reference.embedding_bag(tables, lookups, columns, types[1])
    out = poisoned(*expected.shape, dtype=types[1])
    found = fast.embedding_bag(tables, lookups, columns, types[1], out)
    torch.testing.assert_close(found, expected)
    assert_clean(out)
    torch.testing.assert_close(fast.embedding_bag(tables, lookups, columns, types[1]), expected)


@settings(max_examples=20, deadline=None)
@given(look_up=look_ups())
def test_what_it_leaves_for_the_update_is_every_row_and_where_its_gradient_stands(look_up):
    shapes, lookups, columns = look_up
    tables = [walled(torch.randn(shape)) for shape in shapes]
    odd, even = list(range(1, len(shapes), 2)), list(range(0, len(shapes), 2))
    first_row = [10 * t for t in range(len(shapes))]
    rows, touched = fast.Gather(tables, lookups, groups=[even, odd], first_row=first_row)(
        [on_device(column) for column in columns], torch.float32, touched=True)
    expected, first_column = ([], []), 0
    for lookup, column in zip(lookups, columns, strict=True):
        dim = shapes[lookup.table][1]
        if isinstance(column, tuple):
            ends = column[1].tolist()
            lists = [[column[0][a:b].tolist()] for a, b in zip(ends, ends[1:], strict=False)]
        else:
            window = column if column.dim() == 2 else column[:, None]
            lists = [[[i] if i >= 0 else [] for i in ids] for ids in window.tolist()]
        for sample, of_sample in enumerate(lists):
            for position, bag in enumerate(of_sample):
                at = sample * rows.shape[1] + first_column + position * dim
                for i in bag:
                    row = first_row[lookup.table] + (i % shapes[lookup.table][0] if lookup.modulo else i)
                    expected[lookup.table % 2].append((row, at, 1 / len(bag) if lookup.mean else 1.0))
        first_column += dim * (1 if isinstance(column, tuple) or column.dim() == 1 else column.shape[1])
    for found, wanted in zip(touched, expected, strict=True):
        factors = torch.ones(len(found.key_V)) if found.factor_V is None else found.factor_V
        triples = zip(found.key_V.tolist(), found.at_V.tolist(), factors.tolist(), strict=True)
        real = sorted((key, at * found.unit, factor) for key, at, factor in triples if key >= 0)
        assert [triple[:2] for triple in real] == sorted(triple[:2] for triple in wanted)
        torch.testing.assert_close([triple[2] for triple in real], [triple[2] for triple in sorted(wanted)])


def test_writes_into_a_part_of_a_wider_buffer():
    tables = [walled(torch.randn(5, 4)), walled(torch.randn(3, 4))]
    columns = [on_device(torch.tensor([4, 0, 2])), on_device(bags([[1], [], [2, 2]]))]
    buffer = torch.full((3, 12), float("nan"), device=DEVICE)
    arguments = tables, [FeatureLookup(0), FeatureLookup(1)], columns, torch.float32
    out = fast.embedding_bag(*arguments, buffer[:, 4:])
    expected = reference.embedding_bag(*arguments)
    assert out.data_ptr() == buffer[:, 4:].data_ptr() and buffer[:, :4].isnan().all()
    torch.testing.assert_close(out, expected)
    mirrored = torch.full((8, 3), float("nan"), device=DEVICE).t()  # values of a column side by side
    torch.testing.assert_close(fast.embedding_bag(*arguments, mirrored), expected)


def test_the_widest_rows():
    tables = [walled(torch.randn(3, dim)) for dim in (1024, 1000, 1021)]
    lookups = [FeatureLookup(0), FeatureLookup(1, mean=True), FeatureLookup(2)]
    columns = [on_device(column) for column in (torch.tensor([2, 0]), bags([[1, 0], []]), torch.tensor([[1], [-1]]))]
    for chosen in ([0, 1, 2], [0, 2], [0]):
        arguments = tables, [lookups[place] for place in chosen], [columns[place] for place in chosen], torch.bfloat16
        expected = reference.embedding_bag(*arguments)
        out = poisoned(*expected.shape, dtype=torch.bfloat16)
        torch.testing.assert_close(fast.embedding_bag(*arguments, out), expected)
        assert_clean(out)


@pytest.mark.parametrize("first", [3, 16])
def test_rows_behind_other_columns_and_where_their_gradients_stand(first):
    tables, columns = [walled(torch.randn(5, 16))], [on_device(torch.tensor([4, 0, 2]))] * 2
    out = poisoned(3, first + 32)
    gather = fast.Gather(tables, [FeatureLookup(0), FeatureLookup(0)], groups=[[0]], first_row=[0])
    found, (touched,) = gather(columns, torch.float32, out=out, first=first, touched=True)
    assert found is out and out[:, :first].isnan().all()
    torch.testing.assert_close(out[:, first:], tables[0][torch.stack(columns, 1)].flatten(1))
    out[:, :first] = 0
    assert_clean(out)
    places = {(at * touched.unit // (first + 32), at * touched.unit % (first + 32)) for at in touched.at_V.tolist()}
    assert places == {(sample, first + 16 * f) for sample in range(3) for f in range(2)}


def test_ids_in_any_memory_layout():
    tables, ids = [walled(torch.randn(50, 4))], torch.arange(48, dtype=torch.int16, device=DEVICE).view(6, 8)
    for columns in ([ids[:, 3]], [ids.t()], [ids[::2, 1::3]], [ids[1], ids[0]]):
        lookups = [FeatureLookup(0)] * len(columns)
        torch.testing.assert_close(fast.embedding_bag(tables, lookups, columns, torch.float32),
                                   reference.embedding_bag(tables, lookups, columns, torch.float32))


def test_columns_of_one_buffer_need_no_new_table_of_slots():
    gather = fast.Gather([walled(torch.randn(9, 4))], [FeatureLookup(0), FeatureLookup(0)])
    for seed in range(3):
        buffer = torch.randint(0, 9, (2, 30), dtype=torch.int8, generator=torch.Generator().manual_seed(seed))
        gather(list(buffer.to(DEVICE)), torch.float32)
    assert len(gather._layouts) == 1
    for length in range(fast.LAYOUTS + 5):
        gather([torch.zeros(length, dtype=torch.int8, device=DEVICE)] * 2, torch.float32)
    assert len(gather._layouts) == fast.LAYOUTS


@pytest.mark.parametrize("place", [0, 1, 2, 3])
def test_the_first_bad_id_is_found(place):
    good = [torch.tensor([1, 4, 0], dtype=torch.int8), bags([[1], [], [2, 2]]),
            torch.tensor([[-1, 4], [0, 0], [1, -1]]), torch.tensor([10**12, -5, 3])]
    bad = [torch.tensor([1, 4, 5], dtype=torch.int8), bags([[1], [], [2, -1]], behind=1),
           torch.tensor([[-1, 4], [0, 0], [5, -1]]), None]
    gather = fast.Gather([walled(torch.randn(5, 4))], [FeatureLookup(0)] * 3 + [FeatureLookup(0, modulo=True)])
    columns = [on_device(column) for column in good]
    assert gather.first_bad(columns) is None
    if bad[place] is not None:
        columns[place] = on_device(bad[place])
        assert gather.first_bad(columns) == (2, place)
        columns[0] = torch.tensor([1, -1, 5], dtype=torch.int8, device=DEVICE)
        assert gather.first_bad(columns) == (1, 0)


def test_rows_beyond_2_to_the_31_elements():
    rows, dim = 2**28 + 3, 8  # 8 GiB of float32, of which three rows are ever touched
    if INTERPRETED:
        memory = mmap.mmap(-1, 4 * rows * dim, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | MAP_NORESERVE)
        table = torch.frombuffer(memory, dtype=torch.float32).view(rows, dim)
    else:
        if torch.cuda.mem_get_info()[0] < 12 * 2**30:
            pytest.skip("needs 12 GiB of GPU memory")
        table = torch.empty(rows, dim, device=DEVICE)
    ids = torch.tensor([rows - 1, 0, 2**28], dtype=torch.int32, device=DEVICE)
    for number, i in enumerate(ids.tolist()):
        table[i] = torch.arange(8.0) + 8 * number
    expected = torch.arange(24.0, device=DEVICE).view(3, 8)
    second = table[2**28 - 1:]  # a table that begins beyond
    found = fast.embedding_bag([table, second], [FeatureLookup(0), FeatureLookup(1), FeatureLookup(1, modulo=True)],
                               [ids, ids.clamp(min=2**28) - 2**28 + 1, ids * 0 + 5], torch.float32)
    assert torch.equal(found[:, :8], expected) and torch.equal(found[:, 8:16], expected[[0, 2, 2]])
    assert torch.equal(found[:, 16:], expected[[2, 2, 2]])


def test_self_test():
    fast.self_test(DEVICE)
