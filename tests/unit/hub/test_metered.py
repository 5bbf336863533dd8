"""An upload says how far it is, and never more than there is."""

from __future__ import annotations

from pathlib import Path

import pytest

from patchkit.hub import push
from patchkit.hub.metered import Meter, MeteredAdd
from tests.testhub import TestHub
from tests.unit.hub.conftest import Login

pytestmark = pytest.mark.filterwarnings("ignore:Use .content:DeprecationWarning")


class Steps:
    """Progress that remembers the amounts of one phase."""

    def __init__(self, phase: str) -> None:
        self.phase, self.total, self.amounts = phase, 0, list[int]()

    def started(self, phase: str, total: int | None, unit: str) -> None:
        self.total = (total or 0) if phase == self.phase else self.total

    def advanced(self, phase: str, amount: int = 1) -> None:
        if phase == self.phase:
            self.amounts.append(amount)

    def finished(self, phase: str) -> None:
        pass


def test_an_upload_counts_what_is_read(hub: TestHub, login: Login, patch: Path) -> None:
    login()
    steps = Steps("uploading")
    push([patch], "ada/caps", endpoint=hub.endpoint, progress=steps)
    assert sum(steps.amounts) == steps.total > 0
    assert steps.amounts[0] == patch.stat().st_size
    assert len(steps.amounts) == 2


def test_an_upload_that_begins_again_is_not_counted_twice() -> None:
    seen: list[int] = []
    meter = Meter(10, seen.append)
    for amount in (4, 4, 4, 4):
        meter.count(amount)
    meter.finish()
    assert seen == [4, 4, 2]


@pytest.mark.parametrize("counts", [True, False])
def test_only_reads_of_an_upload_are_counted(tmp_path: Path, counts: bool) -> None:
    (tmp_path / "a").write_bytes(b"12345")
    seen: list[int] = []
    for content in (tmp_path / "a", b"12345"):
        operation = MeteredAdd("a", content)
        operation.meter = Meter(5, seen.append)
        with operation.as_file(with_tqdm=counts) as file:
            assert file.read(3) + file.read() == b"12345"
    assert seen == ([3, 2] if counts else [])
