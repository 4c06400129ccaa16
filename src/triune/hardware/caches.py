"""The CPU's caches, as Linux and macOS report them."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SYSFS: Final = Path("/sys/devices/system/cpu/cpu0/cache")
"""The folder in which Linux describes the caches of the first core."""

_KINDS: Final = {"data": "data", "instruction": "instruction", "unified": "unified"}
_UNITS: Final = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache of the fastest cores.

    Attributes:
        level: 1 is nearest to the core.
        kind: "data", "instruction" or "unified".
        size_bytes: the size of one such cache, which cores may share.
    """

    level: int
    kind: str
    size_bytes: int


def read_caches(folder: Path = SYSFS) -> str:
    """Read Linux's description of the caches as lines such as "index0/level: 1"; "" if there is none."""
    lines: list[str] = []
    for path in sorted(folder.glob("index*/*")):
        if path.name in ("level", "type", "size"):
            try:
                lines.append(f"{path.parent.name}/{path.name}: {path.read_text().strip()}\n")
            except OSError:
                # Leave out a cache whose files cannot be read, as if the kernel did not list it.
                continue
    return "".join(lines)


def parse_caches(text: str) -> tuple[Cache, ...]:
    """Read the text of `read_caches`. Incomplete entries are left out."""
    facts = dict(re.findall(r"^(index\d+/\w+): (.*)$", text, re.MULTILINE))
    return tuple(_caches(facts))


def parse_perflevel_caches(text: str) -> tuple[Cache, ...]:
    """Parse the caches of the fastest cores from the output of macOS's `sysctl hw`.

    `hw.l1dcachesize` and similar keys describe the slowest cores (seen on M1), or all cores if there is only one kind.
    """
    facts = dict(re.findall(r"^hw\.((?:perflevel0\.)?l[123][di]?cachesize): (\d{1,15})$", text, re.MULTILINE))
    prefix = "perflevel0." if any(key.startswith("perflevel0.") for key in facts) else ""
    names = (("l1icachesize", 1, "instruction"), ("l1dcachesize", 1, "data"), ("l2cachesize", 2, "unified"))
    return tuple(
        Cache(level, kind, int(facts[prefix + name]))
        for name, level, kind in (*names, ("l3cachesize", 3, "unified"))
        if int(facts.get(prefix + name, 0))
    )


def _caches(facts: dict[str, str]) -> Iterator[Cache]:
    for index in sorted({key.split("/")[0] for key in facts}):
        level, kind, size = (facts.get(f"{index}/{name}", "") for name in ("level", "type", "size"))
        found = re.fullmatch(r"(\d{1,12})([KMG]?)", size)
        if re.fullmatch(r"[1-9]", level) and kind.lower() in _KINDS and found:
            yield Cache(int(level), _KINDS[kind.lower()], int(found[1]) * _UNITS[found[2]])
