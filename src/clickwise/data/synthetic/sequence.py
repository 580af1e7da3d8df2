"""Histories with a planted signal: what a user did before decides the label.

Items of a category are of two kinds, liked and disliked, by the parity of their index in it. Whatever the signal, the
target alone tells nothing.
"""

from __future__ import annotations

import numpy as np

from clickwise.data.columns import Columns
from clickwise.data.synthetic.signal import SignalConfig
from clickwise.feature_spec import Feature, FeatureSpec, narrowest_id_dtype


def sequence_features(items: int, categories: int,
                      length: int) -> tuple[dict[str, Feature], dict[str, tuple[str, ...]]]:
    """Features and channels of a target item, a history and what did not happen, each an item and its category."""
    features, channels = {}, {}
    for channel, ending in (("target_item", ""), ("history", "_history"), ("negative_history", "_negatives")):
        channels[channel] = (f"item{ending}", f"category{ending}")
        for name, size in zip(channels[channel], (items + 1, categories + 1), strict=True):
            features[name] = Feature(name, narrowest_id_dtype(size), size, dimensions=(length,) if ending else None)
    return features, channels


class SequenceSignal:
    """logit = bias ± strength, either sign in half of the rows, so that the best AUC is sigmoid(strength).

    category_in_history  + where the target's category occurs in the history. A model without a history: AUC 0.5
    order                one liked and one disliked item of the target's category occur; + where the liked one is later.
                         A model that sees the history as a set: AUC 0.5
    far_back             one item of the target's category occurs, before the `recent` latest events; + where it is
                         liked. A model that sees only those: AUC 0.5
    """

    def __init__(self, config: SignalConfig, spec: FeatureSpec) -> None:
        self.kind, self.recent = config.kind, config.recent
        self.bias, self.strength = np.float32(config.bias), np.float32(config.strength)
        item, category = spec.channel("target_item")
        self.items, self.categories = item.cardinality - 1, category.cardinality - 1
        self.length = spec.channel("history")[0].dimensions[0]
        self.features = {channel: spec.channel(channel) for channel in ("target_item", "history", "negative_history")}

    def draw(self, generator: np.random.Generator, rows: int) -> dict[str, np.ndarray]:
        """The columns of `rows` rows, by name."""
        least = {"category_in_history": 1, "order": 2, "far_back": self.recent + 1}[self.kind]
        length_B = generator.integers(least, self.length + 1, rows)
        target_B = generator.integers(0, self.categories, rows)
        # All events of other categories first; then some become the target's.
        steps_BL = generator.integers(1, self.categories, (rows, self.length))
        category_BL = (target_B[:, None] + steps_BL) % self.categories
        liked_BL = generator.integers(0, 2, category_BL.shape)
        every = np.arange(rows)
        if self.kind == "category_in_history":
            chosen = every[generator.random(rows) < 0.5]
            for _ in range(3):  # up to three events, at positions that may be the same
                category_BL[chosen, self._position(generator, length_B[chosen], 0)] = target_B[chosen]
                chosen = chosen[generator.random(len(chosen)) < 0.5]
        elif self.kind == "far_back":
            category_BL[every, self._position(generator, length_B, self.recent)] = target_B
        else:
            first = self._position(generator, length_B, 0)
            # Another position among the last `length`: the first is skipped by going round.
            age = self.length - first
            other = self.length - 1 - (age - 1 + generator.integers(1, length_B)) % length_B
            kind = generator.integers(0, 2, rows)
            for position, liked in ((first, kind), (other, 1 - kind)):
                category_BL[every, position], liked_BL[every, position] = target_B, liked
        known_BL = np.arange(self.length) >= self.length - length_B[:, None]
        other_BL = generator.integers(1, self.items + 1, category_BL.shape)
        columns = {"target_item": self._items(generator, target_B, generator.integers(0, 2, rows)),
                   "history": self._items(generator, category_BL, liked_BL),
                   "negative_history": (other_BL, (other_BL - 1) % self.categories + 1)}
        return {feature.name: (values if channel == "target_item" else values * known_BL).astype(feature.dtype)
                for channel, pair in columns.items()
                for feature, values in zip(self.features[channel], pair, strict=True)}

    def _items(self, generator: np.random.Generator, category: np.ndarray,
               liked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ids of items of these categories (0 …) and kinds, and ids of the categories."""
        pairs = self.items // (2 * self.categories)
        index = 2 * generator.integers(0, pairs, category.shape) + liked
        return 1 + category + self.categories * index, 1 + category

    def _position(self, generator: np.random.Generator, length_B: np.ndarray, recent: int) -> np.ndarray:
        """A position of the window of each row, among its last `length_B` events but for the `recent` latest."""
        return self.length - 1 - recent - generator.integers(0, length_B - recent)

    def logit(self, columns: Columns) -> np.ndarray:
        (_, category), (item_history, category_history) = self.features["target_item"], self.features["history"]
        same_BL = columns.arrays[category_history.name] == columns.arrays[category.name][:, None]
        if self.kind == "category_in_history":
            is_plus = same_BL.any(1)
        else:  # of the last event of the target's category
            last = self.length - 1 - same_BL[:, ::-1].argmax(1)
            item_B = columns.arrays[item_history.name][np.arange(len(last)), last].astype(np.int64)
            is_plus = (item_B - 1) // self.categories % 2 == 1
        return np.where(is_plus, self.bias + self.strength, self.bias - self.strength).astype(np.float32)
