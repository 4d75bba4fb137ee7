"""Texts of a batch as numbers: their lengths in characters, and a hash of each, by whole columns at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Array = np.ndarray[Any, Any]
_WORD = 8
_MASKS = np.array([(1 << (8 * n)) - 1 for n in range(_WORD)] + [2**64 - 1], dtype=np.uint64)
_ODD = np.uint64(0x9E3779B97F4A7C15)


def lengths(array: pa.Array) -> Array:
    """Characters of each text; 0 for a null."""
    offsets, data = _buffers(array)
    if data.size == 0 or data[offsets[0] : offsets[-1]].max(initial=0) < 0x80:
        return np.diff(offsets)
    return np.asarray(pc.fill_null(pc.utf8_length(array), 0).to_numpy(zero_copy_only=False))


def hashes(array: pa.Array) -> Array:
    """64 bits of each text: equal texts have equal ones. The converse is likely, and nobody may rely on it."""
    offsets, data = _buffers(array)
    starts, sizes = offsets[:-1].astype(np.int64), np.diff(offsets)
    padded = np.empty(data.size + _WORD, dtype=np.uint8)
    padded[: data.size] = data
    words: Array = np.ndarray(shape=(data.size + 1,), dtype="<u8", buffer=padded, strides=(1,))
    result = mixed(sizes.astype(np.uint64))
    shortest, longest = int(sizes.min(initial=2**31 - 1)), int(sizes.max(initial=0))
    for start in range(0, longest, _WORD):
        if shortest >= start + _WORD:
            result = mixed(result ^ words[starts + start])
        elif shortest == longest:
            result = mixed(result ^ (words[starts + start] & _MASKS[longest - start]))
        else:
            rows = np.flatnonzero(sizes > start)
            rest = np.minimum(sizes[rows] - start, _WORD)
            result[rows] = mixed(result[rows] ^ (words[starts[rows] + start] & _MASKS[rest]))
    return result


def mixed(numbers: Array) -> Array:
    """A one-to-one scattering of 64-bit numbers."""
    scattered = numbers * _ODD
    scattered ^= scattered >> np.uint64(29)
    scattered *= np.uint64(0xBF58476D1CE4E5B9)
    scattered ^= scattered >> np.uint64(32)
    return scattered


def _buffers(array: pa.Array) -> tuple[Array, Array]:
    _, offsets, data = array.buffers()
    places = np.frombuffer(offsets, dtype=np.int32)[array.offset : array.offset + len(array) + 1]
    return places, np.frombuffer(data, dtype=np.uint8) if data is not None else np.empty(0, dtype=np.uint8)
