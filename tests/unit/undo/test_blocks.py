"""Blocks of weights come back bit for bit, also on a machine that predicts a little otherwise."""

from __future__ import annotations

import contextlib
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from patchkit.errors import FormatError
from patchkit.patch.parts import tensor_bytes
from patchkit.undo.blocks import HEAD, decode_block, encode_block, payload_size

TYPES = [torch.bfloat16, torch.float16, torch.float32]


def normal(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def decoded(block: bytes, predicted: Tensor, dtype: torch.dtype) -> bytes:
    head, payload = block[: HEAD.size], block[HEAD.size :]
    assert payload_size(head, predicted, dtype.itemsize) == len(payload)
    return decode_block(head, payload, predicted, dtype)


@pytest.mark.parametrize("dtype", TYPES)
@given(seed=st.integers(0, 2**32 - 1), off=st.sampled_from([0.0, 1e-9, 1e-3, 0.1, 1.0]))
def test_weights_come_back(dtype: torch.dtype, seed: int, off: float) -> None:
    wanted = normal(seed, 7, 9).to(dtype)
    predicted = wanted.double() + off * normal(seed + 1, 7, 9)
    block = encode_block(wanted, predicted.to(dtype), predicted)
    assert decoded(block, predicted, dtype) == tensor_bytes(wanted)


@pytest.mark.parametrize("dtype", TYPES)
def test_every_pattern_of_a_number_comes_back(dtype: torch.dtype) -> None:
    kind = torch.finfo(dtype)
    odd = [0.0, -0.0, kind.tiny, -kind.tiny, kind.smallest_normal / 4, kind.max, kind.min, math.inf]
    wanted = torch.tensor([odd], dtype=torch.float64).to(dtype)
    predicted = torch.zeros(1, len(odd), dtype=torch.float64)
    block = encode_block(wanted, torch.zeros_like(wanted), predicted)
    assert decoded(block, predicted, dtype) == tensor_bytes(wanted)


@pytest.mark.parametrize("dtype", TYPES)
@given(seed=st.integers(0, 2**32 - 1))
def test_another_order_of_sums_changes_nothing(dtype: torch.dtype, seed: int) -> None:
    """Predictions in the middle between two numbers, decoded with errors a machine may have."""
    wanted = normal(seed, 20, 30).to(dtype)
    above = torch.nextafter(wanted, torch.full_like(wanted, math.inf))
    middle = (wanted.double() + above.double()) / 2
    noise = 1e-15 * normal(seed + 1, 20, 30)
    block = encode_block(wanted, wanted, middle)
    assert decoded(block, middle + noise, dtype) == tensor_bytes(wanted)


def test_good_predictions_take_little() -> None:
    wanted = normal(0, 500, 500).bfloat16()
    block = encode_block(wanted, wanted, wanted.double())
    assert len(block) < 60


def test_a_useless_prediction_takes_no_more_than_the_weights() -> None:
    wanted = normal(0, 30, 30).bfloat16()
    wild = 1e30 * normal(1, 30, 30)
    block = encode_block(wanted, wanted, wild)
    assert len(block) <= HEAD.size + wanted.nbytes
    assert decoded(block, wild, torch.bfloat16) == tensor_bytes(wanted)


def test_double_precision_is_stored_as_it_is() -> None:
    wanted = normal(0, 3, 4)
    block = encode_block(wanted, wanted, wanted)
    assert len(block) == HEAD.size + wanted.nbytes
    assert decoded(block, wanted + 1, torch.float64) == tensor_bytes(wanted)


def test_a_block_of_another_size_is_refused() -> None:
    wanted = normal(0, 3, 4).bfloat16()
    block = encode_block(wanted, wanted, wanted.double())
    with pytest.raises(FormatError, match="12"):
        payload_size(block[: HEAD.size], torch.zeros(3, 5), 2)
    with pytest.raises(FormatError):
        payload_size(HEAD.pack(1, 12, 25), wanted, 2)
    with pytest.raises(FormatError, match="kind 7"):
        decode_block(HEAD.pack(7, 12, 0), b"", wanted.double(), torch.bfloat16)


@given(seed=st.integers(0, 2**32 - 1))
def test_damage_never_escapes(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    wanted = normal(seed, 20, 20).bfloat16()
    predicted = wanted.double() + 1e-2 * normal(seed + 1, 20, 20)
    block = bytearray(encode_block(wanted, wanted, predicted))
    place = int(torch.randint(HEAD.size, len(block), (), generator=generator))
    block[place] ^= 1 + int(torch.randint(255, (), generator=generator))
    with contextlib.suppress(FormatError):
        assert len(decoded(bytes(block), predicted, torch.bfloat16)) == wanted.nbytes
