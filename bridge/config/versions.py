"""Versions and aliases of a function, as the file has them."""

from __future__ import annotations

import re
from pathlib import Path

from bridge.config.options_functions import FunctionOptions
from bridge.config.reader import Section, shown
from bridge.function import LATEST, Alias
from bridge.nearest import did_you_mean


def versions(options: FunctionOptions, section: Section, folder: Path) -> dict[str, Path]:
    """Number -> where its code should be, absolute; what is wrong with them has been reported."""
    for number, version in options.versions.items():
        if not re.fullmatch("[1-9][0-9]{0,17}", number):
            section.problem(f"versions.{number}", f"{shown(number)} is no version; expected a number such as 1")
        elif version.CodeUri is None:
            section.problem(f"versions.{number}", "CodeUri is missing, for example ./examples/handlers")
    given = {number: folder / version.CodeUri for number, version in options.versions.items() if version.CodeUri}
    return dict(sorted(given.items(), key=lambda item: item[0].zfill(18)))


def aliases(options: FunctionOptions, section: Section) -> dict[str, Alias]:
    """Name -> what it stands for; what is wrong with them has been reported."""
    made: dict[str, Alias] = {}
    for name, alias in options.aliases.items():
        key = f"aliases.{name}"
        if not re.fullmatch(r"(?!\d+$)[a-zA-Z0-9_-]{1,128}", name):
            expected = "expected up to 128 letters, digits, - and _, and not digits alone"
            section.problem(key, f"{shown(name)} is no name of an alias; {expected}")
        if alias.FunctionVersion is None:
            section.problem(key, "FunctionVersion is missing, for example $LATEST")
            continue
        weights = alias.RoutingConfig.AdditionalVersionWeights
        if _is_version(alias.FunctionVersion, f"{key}.FunctionVersion", options, section):
            _check_weights(alias.FunctionVersion, weights, f"{key}.RoutingConfig", options, section)
        made[name] = Alias(version=alias.FunctionVersion, weights=weights, description=alias.Description or "")
    return made


def _is_version(version: str, key: str, options: FunctionOptions, section: Section) -> bool:
    known = (LATEST, *options.versions)
    if version in known:
        return True
    section.problem(
        key, f"there is no version {shown(version)}{did_you_mean(version, known)}; known are: {', '.join(known)}"
    )
    return False


def _check_weights(
    version: str, weights: dict[str, float], key: str, options: FunctionOptions, section: Section
) -> None:
    """As AWS: one other version, and neither may be $LATEST, which is none."""
    if len(weights) > 1:
        section.problem(f"{key}.AdditionalVersionWeights", f"{len(weights)} versions; an alias has one beside its own")
        return
    for other in weights:
        where = f"{key}.AdditionalVersionWeights.{other}"
        if not _is_version(other, where, options, section):
            continue
        if other == version:
            section.problem(where, f"{other} is the alias's own FunctionVersion; name another version, or none")
        elif LATEST in (other, version):
            section.problem(where, f"{LATEST} is no version: an alias with weights names two of `versions`")
