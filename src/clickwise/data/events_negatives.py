"""Events that did not happen: items drawn by hash, so that a draw depends on seed, epoch, row and place alone."""

from __future__ import annotations

import numpy as np

from clickwise.data.events import Samples, window

ROUNDS = 8  # fresh draws for a user's own item, before the neighbours of the last draw are looked through
MOST_ROUNDS = 1000
BITS_PER_EVENT = 32
LEAST_DECK = 1 << 16
PARTS = {"target": 0, "history": 1}  # what is drawn for a row, each from a place of its own

_GOLDEN = 0x9E3779B97F4A7C15


class Negatives:
    """Draws from the events of `samples` as its `histories.negatives` says; see `events.Histories`.

    What can be drawn is shuffled once, as a deck of cards. A row cuts the deck at a place of its own, another in every
    epoch, and takes the cards before it: one hash and one copy for a row, where a draw for each place would cost many
    times as much. A deck of few cards is many shuffled ones.

    All rules but `compat` draw among what had happened by the user's last sample of this mapping (nothing of a later
    mapping is seen), and leave out what the user had by then. Whether an item is the user's own is looked up in a bit
    set of at least 32 bits an event, by the item's id modulo its size. Where it is as large as the catalogue that is
    exact; else it also leaves out some 3 % of the items at random, different ones for every user. A user who had
    everything gets some item all the same.
    """

    def __init__(self, samples: Samples, items: list[np.ndarray], seed: int, most: int) -> None:
        rule = samples.histories.negatives
        self.seed, self.redraw, self.most = seed, samples.histories.redraw and rule != "compat", most
        reach = samples.log.counts() if rule == "compat" else samples.horizon
        user = np.repeat(np.arange(len(reach)), samples.log.counts())
        happened = np.arange(len(samples.log)) - samples.log.offsets[user] < reach[user]
        happened &= np.asarray(items[0]) != 0
        cards = np.flatnonzero(happened)
        if rule == "uniform":
            cards = cards[np.unique(items[0][cards], return_index=True)[1]]
        shuffles = np.random.default_rng((seed, len(cards)))
        deck = np.concatenate([shuffles.permutation(cards) for _ in range(-(-max(LEAST_DECK, most) // len(cards)))])
        self.size = len(deck)
        deck = np.concatenate([deck[-most:], deck])  # so that `most` cards lie before every cut
        self.deck = [np.ascontiguousarray(values[deck]) for values in items]
        self.own = None if rule == "compat" else OwnItems(user[happened], np.asarray(items[0])[happened], reach)

    def draw(self, epoch: int, user_B: np.ndarray, row_B: np.ndarray, part: str, count: int) -> list[np.ndarray]:
        """`count` items for every row, as one array [B, count] per feature. The last ones stay the same when more are
        drawn."""
        key = _mixed_number(self.seed, epoch if self.redraw else 0, PARTS[part])
        key_B = _mixed((row_B.astype(np.uint64) ^ key) * np.uint64(_GOLDEN))
        cut_B = self._cut(key_B)
        drawn = [window(values, cut_B, count) for values in self.deck]
        if self.own is not None:
            self._leave_out_own(user_B, key_B, cut_B, drawn)
        return drawn

    def _leave_out_own(self, user_B, key_B, cut_B, drawn: list[np.ndarray]) -> None:
        """Draws again, in place, what is the user's own."""
        count = drawn[0].shape[1]
        again = np.flatnonzero(self.own.has(user_B[:, None], drawn[0]))
        row, age = again // count, count - again % count
        user, key = user_B[row], key_B[row] + age.astype(np.uint64) * np.uint64(_GOLDEN)
        place = cut_B[row] - age
        for attempt in range(MOST_ROUNDS):
            if not len(again):
                return
            if attempt < ROUNDS:
                key = _mixed(key + np.uint64(_GOLDEN))
                place = self._cut(key)
            else:
                place = np.where(place + 1 < len(self.deck[0]), place + 1, 0)
            item = self.deck[0].take(place)
            still = self.own.has(user, item)
            done = ~still if attempt < MOST_ROUNDS - 1 else slice(None)
            for values, out in zip(self.deck, drawn, strict=True):
                out.reshape(-1)[again[done]] = values.take(place[done])
            again, user, key, place = again[still], user[still], key[still], place[still]

    def _cut(self, bits: np.ndarray) -> np.ndarray:
        """Places of the deck with `most` cards before them, from the upper 32 of 64 random bits."""
        return ((bits >> np.uint64(32)) * np.uint64(self.size) >> np.uint64(32)).view(np.int64) + self.most


class OwnItems:
    """A bit set for every user: `has(user, item)` is true for all pairs it was made of, and for few others."""

    def __init__(self, user: np.ndarray, item: np.ndarray, counts: np.ndarray) -> None:
        bits = np.left_shift(1, np.maximum(9, np.frexp(np.maximum(counts, 1) * BITS_PER_EVENT - 1)[1])).astype(np.int64)
        self.byte_mask = ((bits >> 3) - 1).astype(np.int32)
        self.start = np.cumsum(bits >> 3) - (bits >> 3)
        self.bytes = np.zeros(int((bits >> 3).sum()), np.uint8)
        np.bitwise_or.at(self.bytes, self._byte(user, item), self._bit(item))

    def _byte(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        return self.start[user] + ((item >> 3) & self.byte_mask[user])

    @staticmethod
    def _bit(item: np.ndarray) -> np.ndarray:
        return np.uint8(1) << (item.astype(np.uint8) & np.uint8(7))

    def has(self, user: np.ndarray, item: np.ndarray) -> np.ndarray:
        return self.bytes.take(self._byte(user, item)) & self._bit(item) != 0


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
