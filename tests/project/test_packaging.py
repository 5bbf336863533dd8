"""What a wheel and an editable install hold: both are built here, from a copy of the sources."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import patchkit

ROOT = Path(__file__).resolve().parents[2]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
pytestmark = pytest.mark.slow


def run(*command: str, cwd: Path) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def expected() -> set[str]:
    """Every file of the library and of the command line, by its path in a wheel."""
    files: set[str] = set()
    for folder, name in (("patchkit", "patchkit"), ("cli", "patchkit_cli")):
        for path in (ROOT / folder).rglob("*"):
            if path.is_file() and path.suffix != ".pyc":
                files.add(f"{name}/{path.relative_to(ROOT / folder).as_posix()}")
    return files


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a build reads: building in place would leave folders behind."""
    folder = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("patchkit", "cli"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir", str(out))
    run(*PIP, "wheel", *options, str(source), cwd=out)
    (path,) = out.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def editable(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as `pip install -e` leaves it in site-packages."""
    out = tmp_path_factory.mktemp("editable")
    code = "import sys; from setuptools import build_meta; build_meta.build_editable(sys.argv[1])"
    run(sys.executable, "-c", code, str(out), cwd=source)
    (path,) = out.glob("*.whl")
    return install(path, out / "site")


def install(wheel: Path, folder: Path) -> Path:
    options = ("--no-deps", "--no-index", "--target", str(folder))
    run(*PIP, "install", *options, str(wheel), cwd=wheel.parent)
    return folder


def test_a_wheel_holds_every_file_and_no_top_level_cli(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    dist_info = f"patchkit_lm-{patchkit.__version__}.dist-info"
    assert {name.split("/")[0] for name in names} == {"patchkit", "patchkit_cli", dist_info}
    assert {name for name in names if not name.startswith(dist_info)} == expected()
    assert f"{dist_info}/licenses/LICENSE" in names


def test_a_wheel_installs_the_command(wheel: Path, tmp_path: Path) -> None:
    site = install(wheel, tmp_path / "site")
    code = (
        "import sys; sys.path.insert(0, sys.argv.pop(1))\n"
        "import patchkit, patchkit_cli.main\n"
        "print(patchkit.__file__, patchkit_cli.__file__, flush=True)\n"
        "patchkit_cli.main.run()\n"
    )
    files, version = run(
        sys.executable, "-c", code, str(site), "--version", cwd=tmp_path
    ).splitlines()
    assert files == f"{site}/patchkit/__init__.py {site}/patchkit_cli/__init__.py"
    assert version == f"patchkit {patchkit.__version__}"
    assert (site / "bin" / "patchkit").is_file()


def test_an_editable_install_reads_both_packages_from_the_sources(
    editable: Path, source: Path, tmp_path: Path
) -> None:
    """Without the site packages of this environment, which may hold an editable install too."""
    code = (
        "import site, sys; site.addsitedir(sys.argv[1])\n"
        "import patchkit, patchkit_cli\n"
        "print(patchkit.__file__, patchkit_cli.__file__)\n"
    )
    found = run(sys.executable, "-I", "-S", "-c", code, str(editable), cwd=tmp_path)
    assert found.split() == [f"{source}/patchkit/__init__.py", f"{source}/cli/__init__.py"]
