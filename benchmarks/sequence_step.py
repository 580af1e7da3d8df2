"""One training step of SIM on the CPU: clickwise against plain PyTorch, samples/s.

    python benchmarks/sequence_step.py

SIM at the reference dims: embedding 16, two features of an item, 90 long and 10 short positions, k = 50, GRU 96,
MLPs 200 | 200-80 | 100-50; tables as large as those of Amazon Books; Adam.
Plain: nn.GRU, a Python loop over nn.Linear for AUGRU, torch.gather for the search, padded int64 windows. It computes
what the preset compat computes (the same logits from the same weights: checked). dense: nn.Embedding and Adam as they
come, on all rows; sparse: nn.Embedding(sparse=True) and SparseAdam. Ours gets int32 and steps the rows touched; it has
the search's loss and the auxiliary one in both presets, as plain has.
Histories: full (100 events each), or books (lengths as in the Amazon Books task: prefixes of 20 events and more, 59 in
the mean, cut to the latest 100). Ids follow the power law P(id) ~ id^-1.05.

The rivals step in turns; `×` is how many times faster than the first rival: median of the turns' ratios by elapsed
time, with its least and greatest, and by processor time, which other work on the machine disturbs less.
"""

from __future__ import annotations

import statistics
import sys

from measure import arguments, finish, measure_alternating

USERS, ITEMS, CATEGORIES = 105_926, 1_209_082, 2_331
DIM, LONG, SHORT, K, WIDTH, LR, ALPHA = 16, 90, 10, 50, 96, 1e-3, 1.05
RIVALS = ("plain fp32 dense", "plain fp32 sparse", "ours fp32 compat", "ours fp32 default", "plain bf16 sparse",
          "ours bf16 default")


def batch_of(samples: int, histories: str, items: int):
    """user [B], target [2][B], history and negatives [2][B, 100], mask, label: all int64."""
    import torch

    length = LONG + SHORT
    lengths_B = torch.full((samples,), length)
    if histories == "books":
        events_B = 20 + torch.empty(samples).exponential_(1 / 39).long()
        lengths_B = (torch.rand(samples) * (events_B - 1)).long().add(1).clamp(max=length)
    mask_BL = torch.arange(length) >= length - lengths_B[:, None]
    rows = (items, CATEGORIES)
    target = [_ids(count, samples) for count in rows]
    history, negatives = ([_ids(count, samples, length) * mask_BL for count in rows] for _ in range(2))
    return torch.randint(1, USERS, (samples,)), target, history, negatives, torch.rand(samples) < 0.5


def _ids(count: int, *shape: int):
    """Ids 1 … count − 1, P(id) ~ id^-1.05."""
    import torch

    power = 1 - ALPHA  # the inverse of the law's distribution function
    u = torch.rand(shape, dtype=torch.float64)
    return ((u * (count**power - 1) + 1) ** (1 / power)).long().clamp_(1, count - 1)


def plain_model(items: int, sparse: bool = True):
    import torch
    from torch import nn

    def mlp(inputs, sizes, activation):
        layers = []
        for size in sizes:
            layers += [nn.Linear(inputs, size), activation(size)]
            inputs = size
        return nn.Sequential(*layers, nn.Linear(inputs, 1))

    def prelu(size):
        return nn.PReLU(size, init=0.1)

    def sigmoid(size):
        return nn.Sigmoid()

    def attend(target, sequence, mask):
        scores = (target[:, None] * sequence).sum(-1).float().masked_fill(~mask, torch.finfo(torch.float32).min)
        weights = scores.softmax(1)
        return (weights[..., None] * sequence).sum(1), weights

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            width = 2 * DIM
            self.tables = nn.ModuleList(nn.Embedding(rows, DIM, sparse=sparse) for rows in (USERS, items, CATEGORIES))
            self.search_top = mlp(2 * width + DIM, (200,), prelu)
            self.top = mlp(3 * width + WIDTH + DIM, (200, 80), prelu)
            self.auxiliary = mlp(WIDTH + width, (100, 50), sigmoid)
            self.gru = nn.GRU(width, WIDTH, batch_first=True)
            self.query = nn.Sequential(nn.Linear(width, WIDTH), prelu(WIDTH))
            self.unit = mlp(4 * WIDTH, (80, 40), sigmoid)
            self.gates, self.candidate = nn.Linear(2 * WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

        def rows(self, ids):
            return torch.cat([table(column) for table, column in zip(self.tables[1:], ids, strict=True)], -1)

        def evolve(self, target, short, mask):
            states, _ = self.gru(short)
            query = self.query(target)[:, None].expand_as(states)
            scores = self.unit(torch.cat([query, states, query - states, query * states], -1)).squeeze(-1).float()
            weights = scores.masked_fill(~mask, torch.finfo(torch.float32).min).softmax(1)
            h = torch.zeros_like(states[:, 0])
            for t in range(SHORT):
                x = states[:, t]
                r, u = torch.sigmoid(self.gates(torch.cat([x, h], 1))).chunk(2, 1)
                c = torch.tanh(self.candidate(torch.cat([x, r * h], 1)))
                u = (1 - weights[:, t, None]) * u
                h = u * h + (1 - u) * c
            return h, states

        def forward(self, user, target_ids, history, negatives):
            mask = history[0] != 0
            user, target = self.tables[0](user), self.rows(target_ids)
            items = self.rows(history) * mask[..., None]
            negative = self.rows([ids[:, LONG:] for ids in negatives]) * mask[:, LONG:, None]
            long, short = items[:, :LONG], items[:, LONG:]
            found, weights = attend(target, long, mask[:, :LONG])
            search_logit = self.search_top(torch.cat([target, found, user], 1)).squeeze(1)
            best, places = weights.topk(K, 1)
            chosen = long.gather(1, places[..., None].expand(-1, -1, long.shape[-1]))
            real = best > 0
            chosen = chosen * real[..., None]
            lasting, _ = attend(target, chosen, real)
            mean = chosen.sum(1) / (real.sum(1, keepdim=True) + 1)
            evolved, states = self.evolve(target, short, mask[:, LONG:])
            logit = self.top(torch.cat([lasting, mean, target, evolved, user], 1)).squeeze(1)
            came, did_not = (self.auxiliary(torch.cat([states[:, :-1], e[:, 1:]], -1)).squeeze(-1).float()
                             for e in (short, negative))
            auxiliary = ((-torch.log(came.sigmoid() + 1e-6) - torch.log(1 - did_not.sigmoid() - 1e-6).nan_to_num())
                         * mask[:, LONG + 1:]).mean()
            return logit.float(), search_logit.float(), auxiliary

    return Plain()


def plain(items: int, batches: list, bf16: bool, tables: str = "dense"):
    import torch

    model = plain_model(items, sparse=tables == "sparse")
    of_tables = list(model.tables.parameters()) if tables == "sparse" else []
    rest = [parameter for parameter in model.parameters() if not any(parameter is table for table in of_tables)]
    optimizers = [torch.optim.Adam(rest, lr=LR)]
    if of_tables:
        optimizers.append(torch.optim.SparseAdam(of_tables, lr=LR))
    bce = torch.nn.functional.binary_cross_entropy_with_logits

    def step(index):
        *given, label = batches[index]
        for optimizer in optimizers:
            optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            logit, search_logit, auxiliary = model(*given)
        (0.5 * (bce(logit, label.float()) + bce(search_logit, label.float())) + auxiliary).backward()
        for optimizer in optimizers:
            optimizer.step()

    return model, step


def ours(items: int, batches: list, bf16: bool, preset: str):
    import torch

    from clickwise.batch import Batch
    from clickwise.embedding import TableOptimizer, build_embeddings
    from clickwise.feature_spec import Feature
    from clickwise.optim.dense import DenseOptimizer
    from clickwise.training_recipe import find_model

    rows = {"user": (USERS,), "target_item": (items, CATEGORIES), "history": (items, CATEGORIES),
            "negative_history": (items, CATEGORIES)}

    class Spec:
        @staticmethod
        def channel(name):
            return tuple(Feature(f"{name}{place}", "int32", count) for place, count in enumerate(rows.get(name, ())))

    model_class = find_model("sim", "here")
    config = model_class.Config(preset=preset, search_loss_weight=0.5, auxiliary_loss_weight=1.0)
    tables = model_class.tables(Spec, config)
    features = tuple(feature for table in tables for feature in table.features)
    engine = build_embeddings("auto", tables, features, TableOptimizer(name="adam", lr=LR))
    model = model_class(Spec, engine, config)
    optimizer = DenseOptimizer(name="adam", lr=LR).build(model.parameters())
    batches = [Batch(user=(user,), target_item=tuple(target), history=tuple(history),
                     negative_history=tuple(negatives), label=label).map(lambda ids: ids.int())
               for user, target, history, negatives, label in batches]

    def step(index):
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            losses = model.losses(batches[index])
        sum(losses.values()).backward()
        optimizer.step()

    return model, step, batches


def check_same(items: int, batches: list) -> None:
    """Raises unless plain and ours in compat give the same logits from the same weights."""
    import torch

    theirs, (mine, _, given) = plain_model(items), ours(items, batches, False, "compat")
    gru, augru = mine.evolution.gru, mine.evolution.augru
    r, z, n = (slice(part * WIDTH, (part + 1) * WIDTH) for part in range(3))
    with torch.no_grad():
        for name, table in zip(("user0", "target_item0", "target_item1"), theirs.tables, strict=True):
            mine.embeddings.set_rows(name, table.weight)
        for scorer, layers in ((mine.search_top, theirs.search_top), (mine.top, theirs.top),
                               (mine.evolution.unit.scorer, theirs.unit), (mine.auxiliary.scorer, theirs.auxiliary)):
            for one, other in zip(scorer.layers, layers[::2], strict=True):
                one.load_state_dict(other.state_dict())
        mine.evolution.query.load_state_dict(theirs.query[0].state_dict())
        for one, other in ((gru.input_GE, theirs.gru.weight_ih_l0), (gru.recurrent_GH, theirs.gru.weight_hh_l0),
                           (gru.input_bias_G, theirs.gru.bias_ih_l0), (gru.recurrent_bias_G, theirs.gru.bias_hh_l0)):
            one.copy_(torch.cat([other[z], other[r], other[n]]))
        gates = theirs.gates.weight[torch.cat([torch.arange(WIDTH, 2 * WIDTH), torch.arange(WIDTH)])]
        weight = torch.cat([gates, theirs.candidate.weight])
        augru.input_GE.copy_(weight[:, :WIDTH])
        augru.recurrent_GH.copy_(weight[:, WIDTH:])
        augru.bias_G.copy_(torch.cat([theirs.gates.bias[WIDTH:], theirs.gates.bias[:WIDTH], theirs.candidate.bias]))
        torch.testing.assert_close(mine(given[0]), theirs(*batches[0][:-1])[0], rtol=1e-4, atol=1e-4)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--batches", type=int, nargs="+", default=[2048])
    parser.add_argument("--histories", nargs="+", default=["full", "books"], choices=["full", "books"])
    parser.add_argument("--items", type=int, default=ITEMS)
    parser.add_argument("--rivals", nargs="+", default=list(RIVALS), help="the first is what the others are held to")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()

    from clickwise.memory import keep_freed_memory

    keep_freed_memory()  # of this process: of plain, too
    import torch

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    check_same(10_000, [batch_of(64, "books", 10_000)])
    results = []
    for samples in options.batches:
        for histories in options.histories:
            batches = [batch_of(samples, histories, options.items) for _ in range(2)]
            steps = {}
            for rival in options.rivals:
                kind, precision, *form = rival.split()
                make = plain if kind == "plain" else ours
                steps[rival] = make(options.items, batches, precision == "bf16", *form)[1]
            turns = {rival: lambda step=step: (step(0), step(1)) for rival, step in steps.items()}
            timings = measure_alternating(turns, repeats=options.repeats)
            first = timings[options.rivals[0]]
            for rival, timing in timings.items():
                ratios = [one / other for one, other in zip(first.wall, timing.wall, strict=True)]
                results.append({"batch": samples, "histories": histories, "rival": rival,
                                "step_ms": 500 * timing.wall_s, "cpu_ms": 500 * timing.cpu_s,
                                "samples/s": 2 * samples / timing.wall_s, "× wall": statistics.median(ratios),
                                "low": min(ratios), "high": max(ratios), "× cpu": first.cpu_s / timing.cpu_s})
            print(f"measured: batch {samples:,}, {histories} histories", file=sys.stderr, flush=True)
    finish("sequence_step", results, options, threads=options.threads, items=options.items,
           target="ours ≥ 3 × plain in fp32")


if __name__ == "__main__":
    main()
