"""Writes TFRecords of tf.train.Example by the public description of both formats, one byte after the other."""

from __future__ import annotations

import struct


def crc32c(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked_sum(data: bytes) -> bytes:
    crc = crc32c(data)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def record(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    return length + masked_sum(length) + data + masked_sum(data)


def varint(value: int) -> bytes:
    value &= (1 << 64) - 1  # two's complement
    found = b""
    while value >= 128:
        found += bytes([value & 127 | 128])
        value >>= 7
    return found + bytes([value])


def message(number: int, content: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(content)) + content


def feature(values: list, packed: bool = True) -> bytes:
    if values and isinstance(values[0], bytes):
        return message(1, b"".join(message(1, value) for value in values))
    if values and isinstance(values[0], float):
        parts, number, wire = [struct.pack("<f", value) for value in values], 2, 5
    else:
        parts, number, wire = [varint(value) for value in values], 3, 0
    content = message(1, b"".join(parts)) if packed else b"".join(varint(1 << 3 | wire) + part for part in parts)
    return message(number, content)


def example(values: dict[str, list], packed: bool = True) -> bytes:
    entries = (message(1, name.encode()) + message(2, feature(found, packed)) for name, found in values.items())
    return message(1, b"".join(message(1, entry) for entry in entries))


def tfrecords(*examples: dict[str, list], packed: bool = True) -> bytes:
    return b"".join(record(example(values, packed)) for values in examples)
