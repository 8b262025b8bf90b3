"""Fails when a tracked file names a package registry's host or a path of this machine: its user chooses both."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HOSTS = [  # in two parts, so that this file names none of them
    ".".join(parts)
    for parts in (
        ("pypi", "org"),
        ("files.pythonhosted", "org"),
        ("registry.npmjs", "org"),
        ("registry.yarnpkg", "com"),
        ("deb.debian", "org"),
        ("snapshot.debian", "org"),
        ("proxy.golang", "org"),
        ("static.crates", "io"),
        ("registry-1.docker", "io"),
    )
]


def main() -> int:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True)  # noqa: S607 -- git is where PATH says
    places = [folder for folder in (ROOT, ROOT.parent, Path.home()) if folder != Path(folder.anchor)]
    words = [*HOSTS, *{f"{folder}/" for folder in places if folder != Path("/tmp")}]  # noqa: S108 -- a name, no file
    found = 0
    for name in filter(None, listing.stdout.split("\0")):
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8", errors="replace").splitlines(), 1):
            for word in words:
                if word in line:
                    print(f"{name}:{number}: names {word}")
                    found += 1
    print(f"{found or 'no'} places in tracked files name a registry or this machine")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
