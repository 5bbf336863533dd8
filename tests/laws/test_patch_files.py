"""A patch file has one content and one serialisation, and shows any change."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchkit.errors import FormatError
from patchkit.factors.action import Factor
from patchkit.patch.drafts import Storage, TensorDraft
from patchkit.patch.metadata import BaseMeta
from patchkit.patch.parts import factor_parts
from patchkit.patch.patch import Patch, build_patch
from patchkit.patch.reader import read_info
from patchkit.verify import verify_patch
from tests.laws.strategies import D_IN, D_OUT, factor_lists
from tests.unit.patch.samples import ZERO, sample

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=("Cc", "Cf", "Cs", "Zl", "Zp"))),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text("abcß€", max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(
    factors=st.dictionaries(st.sampled_from(["a.weight", "b-2", "z_1"]), factor_lists()),
    recipe=st.dictionaries(st.text("abc", min_size=1), JSON, max_size=3),
    storage=st.sampled_from(["float32", "bfloat16"]),
    facts=st.none() | st.binary(min_size=1, max_size=50).filter(bytes.strip),
)
def test_reading_what_was_written_is_the_identity(
    factors: dict[str, list[Factor]], recipe: dict[str, object], storage: Storage, facts: bytes
) -> None:
    drafts = {
        name: TensorDraft((D_OUT, D_IN), "BF16", "linear", ZERO, ordered)
        for name, ordered in factors.items()
    }
    patch = build_patch(BaseMeta(), drafts, facts, recipe, "law", {}, storage=storage)
    data = patch.to_bytes()
    again = Patch.read(data)
    assert again.to_bytes() == data
    assert again.metadata == patch.metadata
    assert again.facts_jsonl == facts
    for name, ordered in patch.factors.items():
        for one, two in zip(ordered, again.factors[name], strict=True):
            assert one.kind == two.kind
            pairs = zip(factor_parts(one).values(), factor_parts(two).values(), strict=True)
            assert all(torch.equal(a, b) for a, b in pairs)


def test_digest_is_the_same_in_every_process(root: Path) -> None:
    code = "from tests.unit.patch.samples import sample; print(sample().digest)"
    found = subprocess.run(
        [sys.executable, "-c", code],
        cwd=root,
        env={**os.environ, "PYTHONHASHSEED": "7", "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.strip() == sample().digest


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
def test_any_changed_byte_is_found_when_reading(storage: Storage) -> None:
    data = sample(storage).to_bytes()
    generator = random.Random(0)
    for position in range(len(data)):
        changed = bytearray(data)
        changed[position] ^= generator.randrange(1, 256)
        with pytest.raises(FormatError):
            read_info(bytes(changed))


HONEST = sample(additive=False).to_bytes()


def test_an_honest_file_passes() -> None:
    assert verify_patch(HONEST).ok


@settings(max_examples=300)
@given(position=st.integers(0, len(HONEST) - 1), flip=st.integers(1, 255))
def test_any_changed_byte_gives_a_negative_verdict(position: int, flip: int) -> None:
    data = bytearray(HONEST)
    data[position] ^= flip
    report = verify_patch(bytes(data))
    assert not report.ok
    assert [check.name for check in report.checks] == [
        "format", "digest", "finite", "orthogonality", "base-match", "norm", "condition",
        "rounding", "displacement", "leakage", "facts",
    ]  # fmt: skip
