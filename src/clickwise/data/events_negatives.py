"""Events that did not happen: items drawn by hash, so that a draw depends on seed, epoch, row and place alone."""

from __future__ import annotations

import numpy as np

from clickwise.data.events import Samples

ROUNDS = 8  # fresh draws for a user's own item, before the neighbours of the last draw are looked through
MOST_ROUNDS = 1000
BITS_PER_EVENT = 32

_GOLDEN = 0x9E3779B97F4A7C15
_ATTEMPT = np.uint64(_GOLDEN * (1 << 20) % 2**64)


class Negatives:
    """Draws from the events of `samples` as its `histories.negatives` says; see `events.Histories`.

    All rules but `compat` draw among what had happened by the user's last sample of this mapping (nothing of a later
    mapping is seen), and leave out what the user had by then. Whether an item is the user's own is looked up in a bit
    set of at least 32 bits an event, by the item's id modulo its size. Where it is as large as the catalogue that is
    exact; else it also leaves out some 3 % of the items at random, different ones for every user. A user who had
    everything gets some item all the same.
    """

    def __init__(self, samples: Samples, items: list[np.ndarray], seed: int) -> None:
        rule = samples.histories.negatives
        self.seed, self.redraw = seed, samples.histories.redraw and rule != "compat"
        reach = samples.log.counts() if rule == "compat" else samples.horizon
        user = np.repeat(np.arange(len(reach)), samples.log.counts())
        happened = np.arange(len(samples.log)) - samples.log.offsets[user] < reach[user]
        happened &= np.asarray(items[0]) != 0
        if rule == "uniform":
            among = np.flatnonzero(happened)
            frame = among[np.unique(items[0][among], return_index=True)[1]]
        else:
            frame = np.flatnonzero(happened)
        self.frame = [np.ascontiguousarray(values[frame]) for values in items]
        self.own = None if rule == "compat" else OwnItems(user[happened], np.asarray(items[0])[happened], reach)

    def draw(self, epoch: int, user_B: np.ndarray, row_B: np.ndarray, place_L: np.ndarray) -> list[np.ndarray]:
        """An item for every row and place, as one array [B, L] per feature."""
        key = _mixed_number(self.seed, epoch if self.redraw else 0)
        key_B = _mixed((row_B.astype(np.uint64) ^ key) * np.uint64(_GOLDEN))
        key_BL = key_B[:, None] + (place_L.astype(np.uint64) + np.uint64(1)) * np.uint64(_GOLDEN)
        index_BL = self._index(_mixed(key_BL))
        item_BL = self.frame[0].take(index_BL)
        if self.own is not None:
            self._leave_out_own(user_B, key_BL, index_BL, item_BL)
        return [item_BL, *(values.take(index_BL) for values in self.frame[1:])]

    def _leave_out_own(self, user_B, key_BL, index_BL, item_BL) -> None:
        """Draws again, in place, what is the user's own."""
        again = np.flatnonzero(self.own.has(user_B[:, None], item_BL))
        flat_index, flat_item = index_BL.reshape(-1), item_BL.reshape(-1)
        user, key = user_B[again // item_BL.shape[1]], key_BL.reshape(-1)[again]
        for attempt in range(MOST_ROUNDS):
            if not len(again):
                return
            if attempt < ROUNDS:
                key = key + _ATTEMPT
                index = self._index(_mixed(key))
            else:
                index = (flat_index[again] + 1) % len(self.frame[0])
            flat_index[again], flat_item[again] = index, self.frame[0].take(index)
            still = self.own.has(user, flat_item[again])
            again, user, key = again[still], user[still], key[still]

    def _index(self, bits: np.ndarray) -> np.ndarray:
        """Places in the frame, from the upper 32 of 64 random bits."""
        bits >>= np.uint64(32)
        bits *= np.uint64(len(self.frame[0]))
        bits >>= np.uint64(32)
        return bits.view(np.int64)


class OwnItems:
    """A bit set for every user: `has(user, item)` is true for all pairs it was made of, and for few others."""

    def __init__(self, user: np.ndarray, item: np.ndarray, counts: np.ndarray) -> None:
        bits = np.left_shift(1, np.maximum(9, np.frexp(np.maximum(counts, 1) * BITS_PER_EVENT - 1)[1])).astype(np.int64)
        self.byte_mask = (bits >> 3) - 1
        self.start = np.cumsum(bits >> 3) - (bits >> 3)
        self.bytes = np.zeros(int((bits >> 3).sum()), np.uint8)
        bit = np.left_shift(1, item & 7).astype(np.uint8)
        np.bitwise_or.at(self.bytes, self._byte(user, item), bit)

    def _byte(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        return self.start[user] + ((item >> 3) & self.byte_mask[user])

    def has(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        return (self.bytes.take(self._byte(user, item)) >> (item & 7).astype(np.uint8)) & 1 != 0


def _mixed(x: np.ndarray) -> np.ndarray:
    """64 well-mixed bits per element (the finaliser of splitmix64; Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def _mixed_number(*numbers: int) -> np.uint64:
    mixed = np.zeros(1, np.uint64)
    for number in numbers:
        mixed = _mixed(mixed + np.uint64((number + 1) * _GOLDEN % 2**64))
    return mixed[0]
