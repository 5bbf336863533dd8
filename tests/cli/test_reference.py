"""docs/cli.md is what the application says of itself."""

import importlib.util
from pathlib import Path


def test_the_reference_is_up_to_date(root: Path) -> None:
    script = root / "docs" / "make_cli_reference.py"
    spec = importlib.util.spec_from_file_location("make_cli_reference", script)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    written = (root / "docs" / "cli.md").read_text(encoding="utf-8")
    assert written == module.reference(), "run: python docs/make_cli_reference.py"
