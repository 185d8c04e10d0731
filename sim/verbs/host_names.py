"""Names of a cluster's hosts as a user gives them: a pattern, or a file with one a line."""

from __future__ import annotations

from codecs import BOM_UTF8
from collections import Counter
from pathlib import Path

from exactmap.errors import InvalidInputError, Place
from exactmap.files import read_bytes
from exactmap.topology.exact_map.host_list import expand_hosts
from exactmap.topology.exact_map.map_reader import MAX_MAP_BYTES

__all__ = ["host_names", "utf8_text"]


def host_names(text: str, num_hosts: int) -> list[str]:
    """Names from a pattern, or from a file with one (or a pattern) a line."""
    where = Place(field="--hosts")
    if Path(text).is_file():
        lines = utf8_text(read_bytes(text, MAX_MAP_BYTES, "list of hosts"), text).splitlines()
        names = [
            name
            for at, line in enumerate(lines, 1)
            if line.partition("#")[0].strip()
            for name in expand_hosts(line.partition("#")[0], Place(text, at))
        ]
        where = Place(text)
    else:
        names = expand_hosts(text, where)
    if len(names) != num_hosts:
        raise InvalidInputError(
            "not a name for each host of the cluster",
            where=where,
            got=f"{len(names):,} names" if len(names) != 1 else repr(names[0]),
            expected=f"{num_hosts:,}",
            hint="there is no file of this name" if len(names) == 1 and not Path(text).is_file() else None,
        )
    if len(set(names)) != num_hosts:
        again, _ = Counter(names).most_common(1)[0]
        raise InvalidInputError("a host stands twice", where=where, got=again)
    return names


def utf8_text(data: bytes, path: str | Path) -> str:
    """Text of a file that an editor may have begun with a byte order mark."""
    try:
        return data.removeprefix(BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        at = data[: error.start].count(b"\n") + 1
        raise InvalidInputError(
            "the file is not UTF-8", where=Place(path, at), got=f"byte {data[error.start]:#04x}"
        ) from None
