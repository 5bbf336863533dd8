"""The reader printed in the format specification, run against files that the library writes."""

from __future__ import annotations

import re
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import numpy as np
import pytest
import torch

from patchkit.factors import Kind
from patchkit.factors.action import dense
from patchkit.patch.patch import Patch, Storage
from patchkit.patch.reader import read_info
from patchkit.tensors.digests import canonical_json, json_digest
from tests.unit.patch.samples import CONV, LINEAR, metadata_of, sample


@pytest.fixture(scope="module")
def page() -> str:
    root = Path(__file__).resolve().parents[3]
    return (root / "docs" / "format.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def independent(page: str) -> SimpleNamespace:
    (code,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.M | re.S)
    names: dict[str, object] = {}
    exec(compile(code, "format.md", "exec"), names)
    return SimpleNamespace(**names)


@pytest.mark.parametrize("storage", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [LINEAR, CONV])
def test_it_applies_a_patch_as_the_library_does(
    independent: SimpleNamespace, storage: Storage, name: str
) -> None:
    data = sample(storage).to_bytes()
    patch = Patch.read(data)
    meta = patch.metadata.tensors[name]
    weight = torch.randn(meta.shape, generator=torch.Generator().manual_seed(0))
    metadata, tensors = independent.read_patch(data)
    found = independent.apply_patch(metadata, tensors, name, weight.numpy())
    wanted = dense(weight, patch.factors[name], meta.layout).numpy()
    assert np.abs(found - wanted).max() < 1e-12


def test_every_key_of_the_metadata_is_on_the_page(page: str) -> None:
    fields = metadata_of(sample().to_bytes())
    listed = set(re.findall(r"^\| `([a-z_0-9.\[\]]+)`", page, flags=re.M))
    tensor = fields["tensors"][LINEAR]  # type: ignore[index]
    keys = {*fields, *tensor, *(f"base.{key}" for key in fields["base"])}  # type: ignore[union-attr]
    both = [*tensor["factors"], *fields["tensors"][CONV]["factors"]]  # type: ignore[index]
    keys |= {f"factors[].{key}" for factor in both for key in factor}
    keys |= {f"facts.{key}" for key in fields["facts"]}  # type: ignore[union-attr]
    assert keys <= listed
    assert {factor["kind"] for factor in both} == set(get_args(Kind))
    assert all(f"`{kind}`" in page for kind in get_args(Kind))


def test_the_seal_is_what_the_page_says() -> None:
    fields = metadata_of(sample().to_bytes())
    seal = fields.pop("seal")
    assert json_digest(fields) == seal
    assert canonical_json(1e-05) == b"1e-05"
    assert (
        canonical_json([1.0, 1e16, 0.0001, "Kyōto\n"]) == '[1.0,1e+16,0.0001,"Kyōto\\n"]'.encode()
    )


def test_tensors_lie_in_the_order_that_the_page_says() -> None:
    info = read_info(sample("bfloat16").to_bytes())
    names = sorted(info.header.tensors, key=lambda name: info.header.tensors[name].start)
    assert names[-1] == "patchkit.facts"
    assert names[:-1] == sorted(names[:-1])
