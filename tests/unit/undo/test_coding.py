"""Codes of sparse numbers: exact, small, and safe to read."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchkit.errors import FormatError
from patchkit.undo.coding import decode, encode

TYPES = [np.uint16, np.uint32]


@pytest.mark.parametrize("dtype", TYPES)
@given(
    numbers=st.lists(
        st.one_of(st.just(0), st.integers(1, 3), st.integers(1, 600), st.integers(0, 2**16 - 1)),
        max_size=60,
    ),
    gap=st.integers(0, 1200),
    seed=st.integers(0, 1000),
)
def test_numbers_come_back(dtype: type, numbers: list[int], gap: int, seed: int) -> None:
    spread = np.zeros(len(numbers) * (gap + 1) + seed % 300, dtype)
    spread[: len(numbers) * (gap + 1) : gap + 1] = numbers
    found = decode(encode(spread), len(spread), dtype)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, spread)


def test_the_largest_numbers_come_back() -> None:
    numbers = np.array([2**32 - 1, 0, 255, 256, 257, 2**32 - 2], np.uint32)
    np.testing.assert_array_equal(decode(encode(numbers), 6, np.uint32), numbers)


@pytest.mark.parametrize("share", [0.003, 0.03, 0.1, 0.3])
def test_a_code_is_near_its_entropy(share: float) -> None:
    generator = np.random.default_rng(0)
    numbers = generator.choice(
        np.arange(4, dtype=np.uint16),
        200_000,
        p=[1 - share, 0.45 * share, 0.45 * share, share / 10],
    )
    found = np.bincount(numbers) / len(numbers)
    entropy = -sum(p * math.log2(p) for p in found)
    assert 8 * len(encode(numbers)) / len(numbers) < 1.08 * entropy + 0.002


def test_nothing_takes_next_to_nothing() -> None:
    assert len(encode(np.zeros(1 << 20, np.uint16))) < 32
    np.testing.assert_array_equal(decode(encode(np.zeros(0, np.uint16)), 0, np.uint16), [])


@given(seed=st.integers(0, 2**32 - 1))
def test_damage_never_escapes(seed: int) -> None:
    """A damaged code is refused or gives as many numbers as it should, never anything else."""
    generator = np.random.default_rng(seed)
    numbers = generator.choice(np.array([0, 0, 0, 1, 2, 700], np.uint16), 500)
    data = bytearray(encode(numbers))
    data[generator.integers(len(data))] ^= int(generator.integers(1, 256))
    with contextlib.suppress(FormatError):
        assert decode(bytes(data), 500, np.uint16).shape == (500,)


@pytest.mark.parametrize("cut", [0, 5, 15, 20])
def test_a_code_that_is_cut_short_is_refused(cut: int) -> None:
    data = encode(np.arange(100, dtype=np.uint16))
    with pytest.raises(FormatError):
        decode(data[:cut], 100, np.uint16)


def test_a_code_cannot_ask_for_more_than_its_block() -> None:
    data = encode(np.ones(1000, np.uint16))
    with pytest.raises(FormatError):
        decode(data, 999, np.uint16)
    with pytest.raises(FormatError, match="beyond"):
        decode(encode(np.array([70_000], np.uint32)), 1, np.uint16)
