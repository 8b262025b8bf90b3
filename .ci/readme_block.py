"""Prints the N-th fenced `sh` block of README.md, so that CI runs what a newcomer is told to run.

python3 .ci/readme_block.py N
"""

import re
import sys
from pathlib import Path


def main() -> None:
    readme = Path(__file__).parents[1] / "README.md"
    blocks = re.findall(r"^```sh\n(.*?)^```$", readme.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    number = int(sys.argv[1])
    if number > len(blocks):
        sys.exit(f"{readme.name} has {len(blocks)} fenced sh blocks: there is no block {number}")
    print(blocks[number - 1], end="")


if __name__ == "__main__":
    main()
