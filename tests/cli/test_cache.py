"""`patchkit cache`."""

from pathlib import Path

import pytest

from tests.cli.helpers import Check, run


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """The cache folder of this test, holding two files."""
    folder = tmp_path / "cache" / "patchkit"
    (folder / "statistics").mkdir(parents=True, exist_ok=True)
    (folder / "statistics" / "a.safetensors").write_bytes(bytes(2500))
    (folder / "b.json").write_bytes(bytes(10))
    return folder


def test_ls(check: Check, cache: Path) -> None:
    ran = check(
        ["cache", "ls"],
        human=f"""
            FILE                        SIZE
            b.json                      10 B
            statistics/a.safetensors  2.5 KB
            2 files, 2.51 KB in {cache}
            """,
        json={"schema": "patchkit.cache-ls/1", "ok": True, "path": str(cache), "bytes": 2510},
        quiet=str(cache),
    )
    assert ran.data["files"][1] == {"path": "statistics/a.safetensors", "bytes": 2500}


def test_clear(check: Check, cache: Path) -> None:
    def fill() -> None:
        (cache / "statistics").mkdir(exist_ok=True)
        (cache / "statistics" / "a.safetensors").write_bytes(bytes(2500))
        (cache / "b.json").write_bytes(bytes(10))

    check(
        ["cache", "clear"],
        human=f"✓ deleted 2 files, 2.51 KB in {cache}",
        json={"schema": "patchkit.cache-clear/1", "dry_run": False, "files": 2, "bytes": 2510},
        quiet=str(cache),
        before=fill,
    )
    assert list(cache.iterdir()) == []


def test_clear_dry_run_deletes_nothing(cache: Path) -> None:
    ran = run("cache", "clear", "--dry-run")
    assert ran.stdout == f"Would delete 2 files, 2.51 KB in {cache}\n"
    assert len(list(cache.rglob("*.*"))) == 2


def test_what_a_link_points_to_stays(cache: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    (cache / "link").symlink_to(outside)
    assert run("cache", "clear").code == 0
    assert (outside / "kept").exists()
    assert list(cache.iterdir()) == []


def test_no_cache_yet() -> None:
    assert run("cache", "ls").stdout.startswith("0 files, 0 B in ")
    assert run("cache", "clear").code == 0
