"""The rival of `end_to_end.py`: Criteo's raw logs through Polars to a DLRM in TorchRec, and its test AUC.

Needs polars, torch, torchrec with fbgemm, and scikit-learn, but nothing else of this folder.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl

NUMBERS, VALUES = [f"i{i}" for i in range(13)], [f"c{i}" for i in range(26)]
DIM, BOTTOM, TOP = 16, (128, 16), (128, 64, 1)


def prepared(raw: Path, limit: int) -> tuple[dict[str, tuple], list[int]]:
    """Mapping → (numbers float32 [R, 13], ids int64 [R, 26], label float32 [R]); and the cardinalities."""
    schema = {"label": pl.Int8, **dict.fromkeys(NUMBERS, pl.Float32), **dict.fromkeys(VALUES, pl.String)}
    files = sorted(map(str, raw.iterdir()))

    def read(files: list[str]) -> pl.DataFrame:
        lines = pl.scan_csv(files, separator="\t", has_header=False, schema=schema, quote_char=None)
        return lines.with_columns(pl.col(VALUES).str.to_integer(base=16, dtype=pl.UInt32)).collect(engine="streaming")

    train, last = read(files[:-1]), read(files[-1:])
    train = train.sample(fraction=1.0, shuffle=True, seed=0)
    vocabularies = [train.lazy().select(value=name).drop_nulls().group_by("value").len()
                    .filter(pl.col("len") >= limit).sort(["len", "value"], descending=[True, False])
                    .select("value", id=pl.int_range(1, pl.len() + 1, dtype=pl.Int32)).collect(engine="streaming")
                    for name in VALUES]

    def encoded(table: pl.DataFrame) -> tuple:
        logs = table.lazy().select(pl.when(pl.col(name) > -3).then((pl.col(name).cast(pl.Float64) + 3).log())
                                   .otherwise(0.0).cast(pl.Float32).alias(name) for name in NUMBERS)
        ids = np.empty((len(table), len(VALUES)), np.int32)
        for index, (name, vocabulary) in enumerate(zip(VALUES, vocabularies, strict=True)):
            joined = table.lazy().select(value=name).join(vocabulary.lazy(), on="value", how="left",
                                                          maintain_order="left")
            ids[:, index] = joined.select(pl.col("id").fill_null(0)).collect(engine="streaming")["id"].to_numpy()
        return logs.collect(engine="streaming").to_numpy(), ids, table["label"].cast(pl.Float32).to_numpy()

    return ({"train": encoded(train), "test": encoded(last[:len(last) // 2])},
            [len(vocabulary) + 1 for vocabulary in vocabularies])


def main(raw: str, folder: str, limit: str, lr: str, table_lr: str, batch: str) -> None:
    mappings, sizes = prepared(Path(raw), int(limit))
    prepare_cpu_s = time.process_time()
    import torch
    import torch.distributed as dist
    import torchrec
    from sklearn.metrics import roc_auc_score
    from torch import nn
    from torchrec.distributed import DistributedModelParallel
    from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
    from torchrec.distributed.sharding_plan import construct_module_sharding_plan, table_wise
    from torchrec.distributed.types import ShardingEnv, ShardingPlan
    from torchrec.models.dlrm import DLRM
    from torchrec.optim.apply_optimizer_in_backward import apply_optimizer_in_backward

    torch.set_num_threads(1)
    torch.manual_seed(0)
    dist.init_process_group("gloo", init_method=f"file://{folder}/group", rank=0, world_size=1)
    bags = torchrec.EmbeddingBagCollection(device=torch.device("meta"), tables=[
        torchrec.EmbeddingBagConfig(name=name, num_embeddings=size, embedding_dim=DIM, feature_names=[name])
        for name, size in zip(VALUES, sizes, strict=True)])
    apply_optimizer_in_backward(torchrec.optim.RowWiseAdagrad, bags.parameters(), {"lr": float(table_lr)})
    dlrm = DLRM(bags, dense_in_features=len(NUMBERS), dense_arch_layer_sizes=list(BOTTOM),
                over_arch_layer_sizes=list(TOP))
    plan = construct_module_sharding_plan(
        bags, per_param_sharding={name: table_wise(rank=0, compute_kernel="fused") for name in VALUES},
        local_size=1, world_size=1, device_type="cpu")
    path = "sparse_arch.embedding_bag_collection"
    model = DistributedModelParallel(dlrm, env=ShardingEnv.from_process_group(dist.group.WORLD),
                                     plan=ShardingPlan(plan={path: plan}), sharders=[EmbeddingBagCollectionSharder()],
                                     device=torch.device("cpu"), init_data_parallel=False)
    dense = [parameter for name, parameter in model.named_parameters() if "embedding_bag" not in name]
    optimizer, loss_of = torch.optim.Adam(dense, lr=float(lr)), nn.BCEWithLogitsLoss()

    def logits(numbers: np.ndarray, ids: np.ndarray) -> torch.Tensor:
        values = torch.from_numpy(ids).t().contiguous().view(-1).long()
        keyed = torchrec.KeyedJaggedTensor(VALUES, values, lengths=torch.ones(len(values), dtype=torch.int32))
        return model(torch.from_numpy(numbers), keyed).squeeze(1)

    numbers, ids, label = mappings["train"]
    for first in range(0, len(label), int(batch)):
        part = slice(first, first + int(batch))
        loss = loss_of(logits(np.ascontiguousarray(numbers[part]), ids[part]), torch.from_numpy(label[part].copy()))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    numbers, ids, label = mappings["test"]
    with torch.no_grad():
        scores = torch.cat([logits(np.ascontiguousarray(numbers[first:first + 16_384]), ids[first:first + 16_384])
                            for first in range(0, len(label), 16_384)])
    print(json.dumps({"prepare_cpu_s": prepare_cpu_s, "auc": roc_auc_score(label, scores.numpy())}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
