"""What the rules `negatives` of an `events` chunk draw as events that did not happen: items, by hash, so that a draw
depends on seed, epoch, row and position alone. Whoever reads a log draws the same."""

from __future__ import annotations

import numpy as np

ROUNDS = 8  # fresh draws for a user's own item, before the neighbours of the last draw are looked through
MOST_ROUNDS = 1000
BITS_PER_EVENT = 32
LEAST_SHUFFLED = 1 << 16
PURPOSES = {"target": 0, "history": 1, "unknown target": 2}  # what is drawn for a row, each by numbers of its own

_GOLDEN = 0x9E3779B97F4A7C15


class Draws:
    """Draws from a log of events by a rule (docs/feature_spec.md).

    offsets   int64 [users + 1]: user u has the events offsets[u] … offsets[u + 1] − 1
    items     ids by event, an array [events] for every feature that is drawn; the first tells which items are known
    reach     of every user how many events had happened, int64 [users]
    redraw    anew in every epoch
    most      draws at a time

    What can be drawn is shuffled once. A row has an offset of its own into the shuffled items, another in every epoch,
    and takes the items before it: one hash and one copy for a row, where a draw for each position would cost many times
    as much. Where there are few items, they are shuffled many times, one order after another.

    All rules but `compat` draw among what had happened by the user's last sample of this mapping (nothing of a later
    mapping is seen), and leave out what the user had by then. Whether an item is the user's own is looked up in a bit
    set of at least 32 bits an event, by the item's id modulo its size. Where it is as large as the catalogue that is
    exact; else it also leaves out some 3 % of the items at random, different ones for every user. A user who had
    everything gets some item all the same.

    With the shuffled items 7, 3, 9, 4 and `most` 2 the array is 9, 4, 7, 3, 9, 4 (the last two stand in front as well).
    A row whose offset is 4 takes what lies before it: 3 if it needs one item, 7 and 3 if it needs two. If 3 is the
    user's own, that one is drawn again, with an offset of its own.

    Nothing that is drawn has the id 0 but a target beside an event whose item has it, one that the vocabulary does not
    know: among targets of label 0 such items are then as frequent as among those of label 1. Were they never drawn, the
    id 0 alone would tell the label.
    """

    def __init__(self, offsets: np.ndarray, items: list[np.ndarray], reach: np.ndarray, *, rule: str, seed: int,
                 most: int, redraw: bool = True) -> None:
        self.seed, self.redraw, self.most = seed, redraw and rule != "compat", most
        self.offsets, self.items = offsets, items
        counts = np.diff(offsets)
        reach = counts if rule == "compat" else reach
        user = np.repeat(np.arange(len(reach)), counts)
        happened = np.arange(len(user)) - offsets[user] < reach[user]
        self.unknown = np.flatnonzero(happened & (np.asarray(items[0]) == 0))
        happened &= np.asarray(items[0]) != 0
        events = np.flatnonzero(happened)
        if rule == "uniform":
            events = events[np.unique(items[0][events], return_index=True)[1]]
        shuffles = np.random.default_rng((seed, len(events)))
        times = -(-max(LEAST_SHUFFLED, most) // len(events))
        order = np.concatenate([shuffles.permutation(events) for _ in range(times)])
        self.size = len(order)
        order = np.concatenate([order[-most:], order])  # so that `most` items lie before every offset
        self.shuffled_items = [np.ascontiguousarray(values[order]) for values in items]
        self.own = None if rule == "compat" else OwnItems(user[happened], np.asarray(items[0])[happened], reach)

    def draw(self, epoch: int, user_B: np.ndarray, row_B: np.ndarray, purpose: str, count: int) -> list[np.ndarray]:
        """`count` items for every row, as one array [B, count] per feature. The last ones stay the same when more are
        drawn."""
        key_B = self._key(epoch, row_B, purpose)
        offset_B = self._offset(key_B)
        drawn = [window(values, offset_B, count) for values in self.shuffled_items]
        if self.own is not None:
            self._leave_out_own(user_B, key_B, offset_B, drawn)
        return drawn

    def draw_targets(self, epoch: int, user_B: np.ndarray, position_B: np.ndarray,
                     row_B: np.ndarray) -> list[np.ndarray]:
        """A target for every row, as one array [B] per feature: of known items, or where the event at the row's
        position is of an unknown one, of unknown ones."""
        drawn = [values_B1[:, 0] for values_B1 in self.draw(epoch, user_B, row_B, "target", 1)]
        if len(self.unknown):
            event_B = self.offsets[user_B] + position_B
            comes_B = event_B < self.offsets[user_B + 1]
            rows = np.flatnonzero(comes_B & (self.items[0][np.where(comes_B, event_B, 0)] == 0))
            events = self._unknown_events(self._key(epoch, row_B[rows], "unknown target"), user_B[rows])
            for values, out in zip(self.items, drawn, strict=True):
                out[rows] = values[events]
        return drawn

    def _unknown_events(self, key_B: np.ndarray, user_B: np.ndarray) -> np.ndarray:
        """Events of unknown items, each alike but for the user's own, which stand together."""
        first_B, end_B = (np.searchsorted(self.unknown, self.offsets[user_B + later]) for later in (0, 1))
        own_B = np.where((end_B - first_B < len(self.unknown)) & (self.own is not None), end_B - first_B, 0)
        others_B = (len(self.unknown) - own_B).astype(np.uint64)
        place_B = ((key_B >> np.uint64(32)) * others_B >> np.uint64(32)).view(np.int64)
        return self.unknown[place_B + np.where(place_B >= first_B, own_B, 0)]

    def _key(self, epoch: int, row_B: np.ndarray, purpose: str) -> np.ndarray:
        """64 random bits for every row."""
        key = _mixed_number(self.seed, epoch if self.redraw else 0, PURPOSES[purpose])
        return _mixed((row_B.astype(np.uint64) ^ key) * np.uint64(_GOLDEN))

    def _leave_out_own(self, user_B, key_B, offset_B, drawn: list[np.ndarray]) -> None:
        """Draws again, in the same arrays, what is the user's own."""
        count = drawn[0].shape[1]
        again = np.flatnonzero(self.own.has(user_B[:, None], drawn[0]))
        row, age = again // count, count - again % count
        user, key = user_B[row], key_B[row] + age.astype(np.uint64) * np.uint64(_GOLDEN)
        index = offset_B[row] - age
        for attempt in range(MOST_ROUNDS):
            if not len(again):
                return
            if attempt < ROUNDS:
                key = _mixed(key + np.uint64(_GOLDEN))
                index = self._offset(key)
            else:
                index = np.where(index + 1 < len(self.shuffled_items[0]), index + 1, 0)
            item = self.shuffled_items[0].take(index)
            still = self.own.has(user, item)
            done = ~still if attempt < MOST_ROUNDS - 1 else slice(None)
            for values, out in zip(self.shuffled_items, drawn, strict=True):
                out.reshape(-1)[again[done]] = values.take(index[done])
            again, user, key, index = again[still], user[still], key[still], index[still]

    def _offset(self, bits: np.ndarray) -> np.ndarray:
        """Offsets into the shuffled items with `most` before them, from the upper 32 of 64 random bits."""
        return ((bits >> np.uint64(32)) * np.uint64(self.size) >> np.uint64(32)).view(np.int64) + self.most


def window(values: np.ndarray, end_B: np.ndarray, length: int) -> np.ndarray:
    """The `length` values before each of the positions `end_B`, [B, length]; what would lie before the first value is
    anything."""
    if len(values) < length:
        end_B = end_B + (length - len(values))
        values = np.concatenate([np.zeros(length - len(values), values.dtype), values])
    start_B = end_B - length
    view = np.lib.stride_tricks.sliding_window_view(values, length)
    window_BL = view[np.maximum(start_B, 0)]  # one copy of `length` values for each row
    early = np.flatnonzero(start_B < 0)
    if len(early):
        window_BL[early] = values[np.maximum(start_B[early, None] + np.arange(length), 0)]
    return window_BL


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
