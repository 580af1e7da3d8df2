"""CRC-32C (Castagnoli) of many pieces of a buffer at once, in numpy.

A CRC without its start and end values is linear: the state after some bytes and n zero bytes is a 32 × 32 matrix of
bits times the state. So every piece is cut into lanes of LANE bytes, all lanes advance side by side four bytes a step,
and each lane is then moved over the zero bytes that stand for the lanes behind it. Zeros before a piece change nothing:
they fill its first lane.

Example, with lanes of 4 bytes: the piece `abcdef` is the lanes `00ab` and `cdef`; its state is
advance(state(00ab), 4 bytes) ^ state(cdef). The start value, all ones, is XORed into a and the three bytes behind it.
"""

from __future__ import annotations

import functools

import numpy as np

POLYNOMIAL = 0x82F63B78  # reversed: the lowest bit is the first
ALL_ONES = np.uint32(0xFFFFFFFF)
LANE = 128  # bytes
AT_ONCE = 8192  # lanes that advance together: 1 MiB stays in a processor's cache


def masked(crc: np.ndarray) -> np.ndarray:
    """As TFRecords store it: rotated right by 15 bits, plus a constant."""
    return ((crc >> np.uint32(15)) | (crc << np.uint32(17))) + np.uint32(0xA282EAD8)


def crc32c_of_words(words: np.ndarray) -> np.ndarray:
    """Of columns [words, pieces] of little-endian uint32 that are each a whole piece."""
    state = np.full(words.shape[1], ALL_ONES)
    for row in words:
        state = _advance(state ^ row, 0)
    return state ^ ALL_ONES


def crc32c(buffer: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """uint32 for each piece `buffer[start:end]` of a buffer of uint8."""
    if not len(starts):
        return np.zeros(0, np.uint32)
    lengths = ends - starts
    lanes = np.maximum(1, -(-lengths // LANE))  # of each piece
    last = np.cumsum(lanes)
    filled = np.zeros(int(last[-1]) * LANE, np.uint8)
    for start, end, put_until in zip(starts.tolist(), ends.tolist(), (last * LANE).tolist(), strict=True):
        at = put_until - (end - start)
        filled[at:put_until] = buffer[start:end]
        filled[at : min(at + 4, put_until)] ^= 0xFF
    words = filled.view("<u4").reshape(-1, LANE // 4)
    state = np.concatenate([_states(words[first : first + AT_ONCE]) for first in range(0, len(words), AT_ONCE)])
    behind = np.repeat(last, lanes) - 1 - np.arange(len(state))  # lanes of the same piece
    for bit in range(int(behind.max()).bit_length()):
        moved = np.flatnonzero(behind >> bit & 1)
        state[moved] = _advance(state[moved], (LANE // 4).bit_length() - 1 + bit)
    found = np.bitwise_xor.reduceat(state, last - lanes)
    short = np.flatnonzero(lengths < 4)  # their start value reaches beyond them
    found[short] ^= ALL_ONES >> (8 * lengths[short]).astype(np.uint32)
    return found ^ ALL_ONES


def _states(words: np.ndarray) -> np.ndarray:
    state = np.zeros(len(words), np.uint32)
    for column in np.ascontiguousarray(words.T):
        state = _advance(state ^ column, 0)
    return state


def _advance(state: np.ndarray, doublings: int) -> np.ndarray:
    """The states after 4 · 2**doublings zero bytes."""
    low, high = _tables(doublings)
    return low[state & np.uint32(0xFFFF)] ^ high[state >> np.uint32(16)]


@functools.cache
def _tables(doublings: int) -> tuple[np.ndarray, np.ndarray]:
    """What becomes of the low and of the high 16 bits of a state."""
    columns = np.uint32(1) << np.arange(32, dtype=np.uint32)  # of the matrix: what becomes of each bit
    if doublings:
        columns = _advance(_advance(columns, doublings - 1), doublings - 1)
    else:
        for _ in range(32):
            columns = (columns >> np.uint32(1)) ^ np.where(columns & np.uint32(1), np.uint32(POLYNOMIAL), np.uint32(0))
    tables = np.zeros((2, 1 << 16), np.uint32)
    for table, of_bits in zip(tables, (columns[:16], columns[16:]), strict=True):
        for bit, column in enumerate(of_bits):
            table[1 << bit : 2 << bit] = table[: 1 << bit] ^ column
    return tables[0], tables[1]
