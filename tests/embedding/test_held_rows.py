"""An engine that deals rows to several processes: whole tables are loaded, and what all save is the whole again."""

import copy

import numpy as np
import pytest
import torch

from clickwise.embedding import Embeddings, Table, TableOptimizer, build_embeddings
from clickwise.errors import EngineError

TABLES = (Table(name="a", rows=7, dim=3, features=("a",)), Table(name="b", rows=2, dim=4, features=("b",)),
          Table(name="frozen", rows=5, dim=3, features=("c",), trainable=False))
FEATURES = ("a", "b", "c")
ADAM = TableOptimizer(name="rmsprop", lr=0.1, minibatch_l2=0.5)
COUNTS = {"a": np.array([3, 0, 2, 1, 9, 4, 5]), "b": np.array([8, 6])}


class Dealt(Embeddings):
    """Every row whose number leaves `rank` when divided by `processes`; only what holds state."""

    def __init__(self, rank, processes):
        super().__init__(TABLES, FEATURES, ADAM)
        self.rank, self.processes, self.kept = rank, processes, {}
        for table in self.tables:
            weight_HD = torch.full((len(self.held_rows(table.name)), table.dim), torch.nan)
            states = {name: state.beside(weight_HD) for name, state in ADAM.states().items()}
            self.kept[table.name] = {"weight": weight_HD, **states}

    def held_rows(self, table):
        return super().held_rows(table)[self.rank::self.processes]

    def _held(self, table, state="weight"):
        return self.kept[table][state]

    def forward(self, columns, *, before=None):
        raise NotImplementedError

    apply_updates = defer_updates = pending_gradients = pending_gradients_finite = forward


@pytest.mark.parametrize("processes", [1, 2, 3])
def test_what_each_process_saves_makes_up_the_whole_that_all_load(processes):
    trained = build_embeddings("reference", TABLES, FEATURES, ADAM)
    trained.set_counts(COUNTS)
    trained(tuple(torch.tensor([0, 1, 1]) for _ in FEATURES)).square().sum().backward()
    weights, state = copy.deepcopy(trained.state_dict()), copy.deepcopy(trained.optimizer_state_dict())
    whole = {"tables": {name: {} for name in state["tables"]}, "optimizer": "rmsprop", "step": 1}
    rows = {name: torch.full_like(value, torch.nan) for name, value in weights.items()}
    for rank in range(processes):
        part = Dealt(rank, processes)
        part.load_state_dict(weights)
        part.load_optimizer_state_dict(state)
        for table in TABLES:
            held = list(part.held_rows(table.name))
            assert torch.equal(part.rows_of(table.name), trained.rows_of(table.name)[held])
            rows[f"tables.{table.name}.weight"][held] = part.state_dict()[f"tables.{table.name}.weight"]
            for name, value in part.optimizer_state_dict()["tables"][table.name].items():
                like = torch.zeros_like(state["tables"][table.name][name])
                of_all = whole["tables"][table.name].setdefault(name, like)
                of_all[held] = value
        assert part.step == 1
    again = build_embeddings("reference", TABLES, FEATURES, ADAM, seed=1)
    again.load_state_dict(rows)
    again.load_optimizer_state_dict(whole)
    torch.testing.assert_close(again.state_dict(), weights, rtol=0, atol=0)
    torch.testing.assert_close(again.optimizer_state_dict()["tables"], state["tables"], rtol=0, atol=0)


def test_counts_are_those_of_the_rows_held_and_a_part_is_no_table():
    part = Dealt(1, 3)
    part.set_counts(COUNTS)
    assert part.optimizer_state_dict()["tables"]["a"]["count"].tolist() == [1, 9]  # rows 1 and 4; 1 where none
    with pytest.raises(RuntimeError, match=r"\(2, 3\), expected \(7, 3\)"):
        part.load_state_dict(part.state_dict())
    with pytest.raises(EngineError, match=r"(?s)table 'a'.*\(2, 3\).*\(7, 3\)"):
        part.load_optimizer_state_dict(part.optimizer_state_dict())
