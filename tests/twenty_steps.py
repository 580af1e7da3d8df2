"""Steps of every model, by one process or by several together, and what they leave: losses, dense part, tables."""

import itertools
import sys
from pathlib import Path
from unittest import mock

import torch

from clickwise import processes
from clickwise.embedding.sharded import ShardedEmbeddings
from clickwise.run.session import build_session
from clickwise.train.loop import with_following
from clickwise.training_recipe import load_recipe
from clickwise.wiring import engines_of

OPTIMIZERS = {"sgd": "{name: sgd, lr: 0.1}", "rowwise_adagrad": "{name: rowwise_adagrad, lr: 0.02}",
              "adam": "{name: adam, lr: 0.01, eps: 1.0e-3}"}
DENSE = {"sgd": "{name: sgd, lr: 0.1}", "rowwise_adagrad": "{name: sgd, lr: 0.1}",
         "adam": "{name: adam, lr: 0.005, eps: 1.0e-4}"}
MODELS = {"dlrm": [], "dcnv2": [], "wide_deep": ["model.dropout=0"], "din": ["model.activation=dice"],
          "dien": ["model.auxiliary_loss_weight=1"],
          "sim": ["model.search_loss_weight=0.5", "model.auxiliary_loss_weight=1"]}
STEPS = 20


def twenty_steps(model, optimizer, *overrides):
    """Losses of the whole batches, and every value of the model, with whole tables."""
    rows = {"train": 1000, "validation": 100, "test": 100}
    words = [f"data.synthetic.rows={rows}".replace("'", ""), "train.batch_size=100", "train.threads=1", *MODELS[model],
             f"optimizer={DENSE[optimizer]}", f"embedding.optimizer={OPTIMIZERS[optimizer]}", *overrides]
    if model == "wide_deep":
        words.append("parts={}")
    session = build_session(load_recipe(f"tiny/{model}", words))
    loader, losses = session.train_loader(), []
    batches = itertools.chain.from_iterable(loader.epoch(epoch) for epoch in itertools.count())
    session.model.train()
    with mock.patch.object(ShardedEmbeddings, "_request", autospec=True,
                           side_effect=ShardedEmbeddings._request) as requests:
        for batch, following in with_following(itertools.islice(batches, STEPS)):
            losses.append(processes.sum_over_all(torch.stack([*session.step(batch, following).values()])))
    values = {name: value for name, value in session.model.state_dict().items() if ".tables." not in name}
    for number, engine in enumerate(engines_of(session.model)):
        values |= {f"{number}.{table.name}": whole(engine, table) for table in engine.tables}
    groups = sum(len(engine._groups) for engine in engines_of(session.model))
    return {"requests": requests.call_count / groups, "losses": torch.stack(losses),
            "values": {name: value.clone() for name, value in values.items()}}


def whole(engine, table):
    rows = torch.empty(table.rows, table.dim)
    for held, part in processes.from_each((engine.held_rows(table.name), engine.rows_of(table.name))):
        rows[held.start:held.stop:held.step] = part
    return rows


def all_of_them(optimizers, *overrides):
    return {(model, optimizer): twenty_steps(model, optimizer, *overrides)
            for model in MODELS for optimizer in optimizers}


if __name__ == "__main__":
    path, optimizers, *overrides = sys.argv[1:]
    with processes.together(timeout_s=600):
        found = all_of_them(optimizers.split(","), *overrides)
        if processes.is_first():
            torch.save(found, Path(path))
