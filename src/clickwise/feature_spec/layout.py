"""Where the columns of a mapping lie, if nobody says otherwise."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from clickwise.feature_spec.feature import CHANNELS, ID_CHANNELS, Chunk, Feature
from clickwise.files import LONGEST_STEM


def split_binary_chunks(features: Mapping[str, Feature], channels: Mapping[str, Iterable[str]],
                        mapping: str) -> tuple[Chunk, ...]:
    """The chunks of a mapping in the default layout: `<mapping>/numerical.bin`, `label.bin`, then a file per feature
    (`<feature>.bin`; multi-hot `<feature>.values.bin` and `<feature>.offsets.bin`) in the order of the channels."""
    chunks, taken = [], set()

    def file(name: str) -> str:
        stem = re.sub(r"[^\w.\-]", "_", name.removesuffix(".bin")).lstrip(".") or "feature"
        stem = stem.encode()[:LONGEST_STEM].decode(errors="ignore")
        while stem.lower() in taken:  # two names that differ in a letter no file system keeps, or in case only
            stem += "_"
        taken.add(stem.lower())
        return f"{mapping}/{stem}"

    if numerical := tuple(channels.get("numerical", ())):
        chunks.append(Chunk("split_binary", numerical, (file("numerical") + ".bin",)))
    for name in channels.get("label", ()):
        chunks.append(Chunk("split_binary", (name,), (file("label") + ".bin",)))
    own = sorted(set(channels) - set(CHANNELS))
    rest = [channels.get(channel, ()) for channel in (*ID_CHANNELS, "display", *own)]
    for name in dict.fromkeys(name for names in rest for name in names):
        stem = file(name)
        endings = (".values.bin", ".offsets.bin") if features[name].is_multi_hot else (".bin",)
        chunks.append(Chunk("split_binary", (name,), tuple(stem + ending for ending in endings)))
    return tuple(chunks)
