"""One training step of DIN, DIEN or SIM on the CPU: clickwise against plain PyTorch, samples/s.

    python benchmarks/sequence_step.py --threads 1 --batches 64 256 1024

At the reference dims: embedding 16, two features of an item; tables as large as those of Amazon Books; Adam.
sim    90 long and 10 short positions, k = 50, GRU 96, MLPs 200 | 200-80 | 100-50
dien   the latest 20 positions, as in amazon_books/dien; GRU 96, MLPs 200-80 | 100-50
din    100 positions, the activation unit 80-40 with PReLU, MLP 200-80
Plain: nn.GRU, a Python loop over nn.Linear for AUGRU, torch.gather for the search, padded int64 windows. It computes
what the preset compat computes, of DIN what the default does (the same logits from the same weights: checked). dense:
nn.Embedding and Adam as they come, on all rows; sparse: nn.Embedding(sparse=True) and SparseAdam, which like ours steps
the rows touched. Ours gets int32; it has the search's loss and the auxiliary one in both presets, as plain has.
Histories: full (100 events each), or books (lengths as in the Amazon Books task: prefixes of 20 events and more, 59 in
the mean, cut to the latest 100). Ids follow the power law P(id) ~ id^-1.05.

The rivals step in turns; `×` is how many times faster than the first rival: median of the turns' ratios by processor
time, with its least and greatest, and of elapsed time, which other work on the machine disturbs more.
"""

from __future__ import annotations

import itertools
import statistics
import sys

from measure import arguments, finish, measure_alternating

USERS, ITEMS, CATEGORIES = 105_926, 1_209_082, 2_331
DIM, LENGTH, K, WIDTH, LR, ALPHA = 16, 100, 50, 96, 1e-3, 1.05
SHORT = {"sim": 10, "dien": 20, "din": 0}  # positions that the recurrences read
LOSSES = {"sim": {"search_loss_weight": 0.5, "auxiliary_loss_weight": 1.0},
          "dien": {"history_length": SHORT["dien"], "auxiliary_loss_weight": 1.0}, "din": {}}
RIVALS = ("plain fp32 dense", "plain fp32 sparse", "ours fp32 compat", "ours fp32 default", "plain bf16 sparse",
          "ours bf16 default")


def batch_of(samples: int, histories: str, items: int):
    """user [B], target [2][B], history and negatives [2][B, 100], mask, label: all int64."""
    import torch

    length = LENGTH
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


def plain_model(name: str, items: int, sparse: bool = True):
    import torch
    from torch import nn

    width, short = 2 * DIM, SHORT[name]

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

    def unit_scores(unit, query, keys):
        query = query[:, None].expand_as(keys)
        given = torch.cat([query, keys, query - keys, query * keys], -1)
        return unit(given.flatten(0, 1)).view(keys.shape[:2]).float()  # PReLU's units are the second dimension

    def softmax(scores, mask):
        return scores.masked_fill(~mask, torch.finfo(torch.float32).min).softmax(1)

    def attend(target, sequence, mask):
        weights = softmax((target[:, None] * sequence).sum(-1).float(), mask)
        return (weights[..., None] * sequence).sum(1), weights

    class Plain(nn.Module):
        def __init__(self):
            super().__init__()
            self.tables = nn.ModuleList(nn.Embedding(rows, DIM, sparse=sparse) for rows in (USERS, items, CATEGORIES))
            self.top = mlp({"sim": 3 * width + WIDTH, "dien": width + WIDTH, "din": 2 * width}[name] + DIM, (200, 80),
                           prelu)
            if name == "sim":
                self.search_top = mlp(2 * width + DIM, (200,), prelu)
            if name == "din":
                self.unit = mlp(4 * width, (80, 40), prelu)
                return
            self.auxiliary = mlp(WIDTH + width, (100, 50), sigmoid)
            self.gru = nn.GRU(width, WIDTH, batch_first=True)
            self.query = nn.Sequential(nn.Linear(width, WIDTH), prelu(WIDTH))
            self.unit = mlp(4 * WIDTH, (80, 40), sigmoid)
            self.gates, self.candidate = nn.Linear(2 * WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)

        def rows(self, ids):
            return torch.cat([table(column) for table, column in zip(self.tables[1:], ids, strict=True)], -1)

        def evolve(self, target, items, mask):
            states, _ = self.gru(items)
            weights = softmax(unit_scores(self.unit, self.query(target), states), mask)
            h = torch.zeros_like(states[:, 0])
            for t in range(short):
                x = states[:, t]
                r, u = torch.sigmoid(self.gates(torch.cat([x, h], 1))).chunk(2, 1)
                c = torch.tanh(self.candidate(torch.cat([x, r * h], 1)))
                u = (1 - weights[:, t, None]) * u
                h = u * h + (1 - u) * c
            return h, states

        def search(self, target, user, long, mask):
            found, weights = attend(target, long, mask)
            logit = self.search_top(torch.cat([target, found, user], 1)).squeeze(1).float()
            best, places = weights.topk(K, 1)
            chosen = long.gather(1, places[..., None].expand(-1, -1, long.shape[-1]))
            real = best > 0
            chosen = chosen * real[..., None]
            lasting, _ = attend(target, chosen, real)
            return logit, [lasting, chosen.sum(1) / (real.sum(1, keepdim=True) + 1)]

        def auxiliary_loss(self, states, came, did_not, mask):
            came, did_not = (self.auxiliary(torch.cat([states[:, :-1], e[:, 1:]], -1)).squeeze(-1).float()
                             for e in (came, did_not))
            return ((-torch.log(came.sigmoid() + 1e-6) - torch.log(1 - did_not.sigmoid() - 1e-6).nan_to_num())
                    * mask[:, 1:]).mean()

        def forward(self, user, target_ids, history, negatives):
            """Logits, those of the search or None, and the auxiliary loss or 0."""
            mask = history[0] != 0
            user, target = self.tables[0](user), self.rows(target_ids)
            if name == "din":
                items = self.rows(history) * mask[..., None]
                weights = unit_scores(self.unit, target, items) * mask
                interest = (weights[..., None] * items).sum(1)
                return self.top(torch.cat([target, interest, user], 1)).squeeze(1).float(), None, 0.0
            first = LENGTH - short
            search_logit, found = None, []
            if name == "sim":
                items = self.rows(history) * mask[..., None]
                search_logit, found = self.search(target, user, items[:, :first], mask[:, :first])
                items = items[:, first:]
            else:
                items = self.rows([ids[:, first:] for ids in history]) * mask[:, first:, None]
            latest = mask[:, first:]
            negative = self.rows([ids[:, first:] for ids in negatives]) * latest[..., None]
            evolved, states = self.evolve(target, items, latest)
            logit = self.top(torch.cat([*found, target, evolved, user], 1)).squeeze(1).float()
            return logit, search_logit, self.auxiliary_loss(states, items, negative, latest)

    return Plain()


def plain(name: str, items: int, batches: list, bf16: bool, tables: str = "dense"):
    import torch

    model = plain_model(name, items, sparse=tables == "sparse")
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
            logit, search_logit, loss = model(*given)
        share = 1.0 if search_logit is None else 0.5
        for each in (logit, search_logit):
            loss = loss + (0.0 if each is None else share * bce(each, label.float()))
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()

    return model, step


def ours(name: str, items: int, batches: list, bf16: bool, preset: str):
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
        def channel(channel):
            return tuple(Feature(f"{channel}{place}", "int32", count)
                         for place, count in enumerate(rows.get(channel, ())))

    model_class = find_model(name, "here")
    config = model_class.Config(preset=preset, **LOSSES[name])
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


def check_same(name: str, items: int, batches: list) -> None:
    """Raises unless plain and ours (in compat, of DIN in the default) give the same logits from the same weights."""
    import torch

    theirs = plain_model(name, items)
    mine, _, given = ours(name, items, batches, False, "default" if name == "din" else "compat")
    with torch.no_grad():
        for table_name, table in zip(("user0", "target_item0", "target_item1"), theirs.tables, strict=True):
            mine.embeddings.set_rows(table_name, table.weight)
        scorers = [(mine.top, theirs.top)]
        if name == "din":
            scorers.append((mine.attention.unit.scorer, theirs.unit))
        else:
            scorers += [(mine.evolution.unit.scorer, theirs.unit), (mine.auxiliary.scorer, theirs.auxiliary)]
            _same_evolution(mine.evolution, theirs)
        if name == "sim":
            scorers.append((mine.search_top, theirs.search_top))
        for scorer, layers in scorers:
            for one, other in zip(scorer.layers, layers[::2], strict=True):
                one.load_state_dict(other.state_dict())
        torch.testing.assert_close(mine(given[0]), theirs(*batches[0][:-1])[0], rtol=1e-4, atol=1e-4)


def _same_evolution(mine, theirs) -> None:
    import torch

    gru, augru = mine.gru, mine.augru
    r, z, n = (slice(part * WIDTH, (part + 1) * WIDTH) for part in range(3))
    mine.query.load_state_dict(theirs.query[0].state_dict())
    for one, other in ((gru.input_GE, theirs.gru.weight_ih_l0), (gru.recurrent_GH, theirs.gru.weight_hh_l0),
                       (gru.input_bias_G, theirs.gru.bias_ih_l0), (gru.recurrent_bias_G, theirs.gru.bias_hh_l0)):
        one.copy_(torch.cat([other[z], other[r], other[n]]))
    gates = theirs.gates.weight[torch.cat([torch.arange(WIDTH, 2 * WIDTH), torch.arange(WIDTH)])]
    weight = torch.cat([gates, theirs.candidate.weight])
    augru.input_GE.copy_(weight[:, :WIDTH])
    augru.recurrent_GH.copy_(weight[:, WIDTH:])
    augru.bias_G.copy_(torch.cat([theirs.gates.bias[WIDTH:], theirs.gates.bias[:WIDTH], theirs.candidate.bias]))


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--models", nargs="+", default=list(SHORT), choices=list(SHORT))
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256])
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
    results = []
    for name in options.models:
        check_same(name, 10_000, [batch_of(64, "books", 10_000)])
        for samples, histories in itertools.product(options.batches, options.histories):
            batches = [batch_of(samples, histories, options.items) for _ in range(2)]
            steps = {}
            for rival in options.rivals:
                kind, precision, *form = rival.split()
                if name != "din" or form != ["compat"]:  # which plain DIN does not compute
                    make = plain if kind == "plain" else ours
                    steps[rival] = make(name, options.items, batches, precision == "bf16", *form)[1]
            turns = {rival: lambda step=step: (step(0), step(1)) for rival, step in steps.items()}
            timings = measure_alternating(turns, repeats=options.repeats, warmup=2)
            first = timings[options.rivals[0]]
            for rival, timing in timings.items():
                wall, cpu = ([one / other for one, other in zip(firsts, others, strict=True)]
                             for firsts, others in ((first.wall, timing.wall), (first.cpu, timing.cpu)))
                results.append({"model": name, "batch": samples, "histories": histories, "rival": rival,
                                "cpu_ms": 500 * timing.cpu_s, "cpu_min_ms": 500 * min(timing.cpu),
                                "cpu_max_ms": 500 * max(timing.cpu), "samples/cpu-s": 2 * samples / timing.cpu_s,
                                "× cpu": statistics.median(cpu), "low": min(cpu), "high": max(cpu),
                                "step_ms": 500 * timing.wall_s, "× wall": statistics.median(wall)})
            print(f"measured: {name}, batch {samples:,}, {histories} histories", file=sys.stderr, flush=True)
    finish("sequence_step", results, options, threads=options.threads, items=options.items,
           target="against sparse in fp32: dien, sim at 64 ≥ 1.5 ×, sim at 256 ≥ 2 ×; bf16 never slower than fp32")


if __name__ == "__main__":
    main()
