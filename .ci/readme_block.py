"""Print one shell block of the README's Quick start: `python .ci/readme_block.py 1`."""

import re
import sys
from pathlib import Path

README = Path(__file__).resolve().parent.parent / "README.md"


def blocks(text: str) -> list[str]:
    """The fenced blocks under the heading "Quick start", without their fences."""
    section = re.split(r"^## ", text.split("\n## Quick start\n", 1)[1], maxsplit=1, flags=re.M)[0]
    return re.findall(r"^```sh\n(.*?)^```$", section, flags=re.M | re.S)


if __name__ == "__main__":
    sys.stdout.write(blocks(README.read_text(encoding="utf-8"))[int(sys.argv[1]) - 1])
