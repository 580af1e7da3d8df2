"""An id that is no row of its table is an error, whatever its type: never a row of the table beside it."""

import pytest
import torch

from clickwise.batch import Ragged
from clickwise.embedding.reference import ReferenceEmbeddings
from clickwise.embedding.table import Table, TableOptimizer
from clickwise.errors import EngineError

ROWS = {"a": 5, "b": 7, "c": 4}


def engine(dims=(2, 2, 2), modulo=False):
    tables = [Table(name=name, rows=rows, dim=dim, features=(name,), modulo=modulo)
              for (name, rows), dim in zip(ROWS.items(), dims, strict=True)]
    return ReferenceEmbeddings(tables, tuple(ROWS), TableOptimizer())


def column(kind, ids, dtype):
    ids = torch.tensor(ids, dtype=dtype)
    if kind == "bags":
        return Ragged(ids, torch.arange(len(ids) + 1))
    return ids[:, None].repeat(1, 2) if kind == "history" else ids


WRONG = [(torch.int8, 7), (torch.int8, -1), (torch.int32, 7), (torch.int32, -1), (torch.int64, 2**31 - 1),
         (torch.int64, 2**32), (torch.int64, 2**32 + 3), (torch.int64, -2**32 + 3), (torch.int64, 2**63 - 1),
         (torch.int64, -2**63)]


@pytest.mark.parametrize("dims", [(2, 2, 2), (2, 3, 2)])
@pytest.mark.parametrize("kind", ["ids", "bags", "history"])
@pytest.mark.parametrize(("dtype", "wrong"), WRONG)
def test_it_is_named(dims, kind, dtype, wrong):
    embeddings = engine(dims)
    columns = [column("ids", [0, 4, 2], torch.int32), column(kind, [0, 6, 3], dtype),
               column("ids", [3, 0, 1], torch.int64)]
    before = embeddings(columns)
    wrong_columns = [columns[0], column(kind, [0, wrong, 3], dtype), columns[2]]
    if kind == "history" and wrong < 0:  # padding: zeros
        rows = embeddings(wrong_columns)
        assert rows[1, 2:2 + 2 * dims[1]].eq(0).all() and torch.equal(rows[0], before[0])
        return
    with pytest.raises(EngineError, match=rf"'b', sample 1 of the batch\n.*the id {wrong}\n.*0 … 6"):
        embeddings(wrong_columns)
    with torch.no_grad():
        assert torch.equal(embeddings(columns), before)


@pytest.mark.parametrize("wrong", [7, 2**32 + 3, -1])
@pytest.mark.parametrize("length", [None, 3])
def test_of_blocks_of_features_too(wrong, length):
    embeddings = engine()
    ids = torch.tensor([[0, 6, 3], [1, wrong, 2]])
    block = {"b": ids[1] if length is None else ids[1].repeat(2, 1)}
    if length is not None and wrong < 0:
        assert embeddings.lookup_groups(block)[0][:, 1].eq(0).all()
        return
    with pytest.raises(EngineError, match=f"the id {wrong}\n"):
        embeddings.lookup_groups(block)


def test_hashed_ids_may_be_any():
    embeddings = engine(modulo=True)
    columns = [torch.tensor([2**40 + 1, -1, 5]), torch.tensor([-7, 2**31, 0]), torch.tensor([4, 5, -4])]
    rows = embeddings(columns)
    assert torch.equal(rows, embeddings([torch.tensor([(2**40 + 1) % 5, 4, 0]), torch.tensor([0, 2**31 % 7, 0]),
                                         torch.tensor([0, 1, 0])]))


def test_no_samples_have_no_wrong_ids():
    assert engine()([torch.zeros(0, dtype=torch.int32)] * 3).shape == (0, 6)
