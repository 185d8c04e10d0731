"""Builds the corpus of plans: `valid/*.plan`, `invalid/*.plan` and `verdicts.tsv`.

    python tests/golden/plans/make.py            writes the files
    python tests/golden/plans/make.py --check    says which files differ (exit code 1)

Needs nothing of exactmap: plans and verdicts are written by hand in `sources.py` and `broken.py`, this
script fills in the body's hash and turns a verdict's line text into its number.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

from broken import BROKEN, Broken  # noqa: E402 - the folder is no package
from sources import VALID  # noqa: E402


def sealed(body: bytes) -> bytes:
    """The file for the bytes after its first two lines."""
    digest = hashlib.sha256(body).hexdigest()
    return f"exactmap-plan 1.0\nbody sha256={digest}\n".encode("ascii") + body


def sections(text: str) -> dict[str, tuple[int, str]]:
    """Name ("" for the header) -> start and text of the header and of each program without its first line."""
    found: dict[str, tuple[int, str]] = {}
    start = 0
    for part in text.split("program "):
        if not found:
            found[""] = (0, part)
        else:
            name, _, body = part.partition("\n")
            found[name] = (start + len(name) + 1, body)
        start += len(part) + len("program ")
    return found


def edited(text: str, where: str, old: str, new: str) -> str:
    """Replace one place: part of a header's text, or whole lines of a program (the first such)."""
    start, section = sections(text)[where]
    if not where:
        if section.count(old) != 1:
            raise SystemExit(f"{old!r} stands {section.count(old)} times in the header")
        return section.replace(old, new) + text[len(section) :]
    lines, wanted = section.splitlines(), old.split(";")
    places = [at for at in range(len(lines)) if lines[at : at + len(wanted)] == wanted]
    if not places:
        raise SystemExit(f"{old!r} is not in program {where}")
    at = places[0]
    lines[at : at + len(wanted)] = new.split(";")
    return text[:start] + "\n".join([*lines, ""]) + text[start + len(section) :]


def line_number(data: bytes, line: str | int) -> int:
    """Number of the line that a verdict names."""
    if isinstance(line, int):
        return line
    lines = data.decode("latin-1").removesuffix("\n").split("\n")
    if line == "last":
        return len(lines)
    program, colon, text = line.partition(": ")
    if not colon or f"program {program}" not in lines:
        return next(number for number, found in enumerate(lines, 1) if found.startswith(line))
    text, _, place = text.partition("#")
    start = lines.index(f"program {program}") + 1
    numbers = [number for number, found in enumerate(lines[start:], start + 1) if found == text]
    return numbers[int(place or 1) - 1]


def broken_bytes(case: Broken) -> bytes:
    """The file of a broken plan."""
    text = VALID[case.base]
    for where, old, new in case.edits:
        text = edited(text, where, old, new)
    data = sealed(text.encode("latin-1"))
    return case.raw(data) if case.raw is not None else data


def corpus() -> dict[str, bytes]:
    """All files by their path in this folder."""
    files: dict[str, bytes] = {}
    rows = ["file\tcode\tline\tfragment"]
    for name, body in VALID.items():
        files[f"valid/{name}.plan"] = sealed(body.encode("ascii"))
        rows.append(f"valid/{name}.plan\tok\t0\t")
    for case in BROKEN:
        family, kind = case.code.split(".")
        path = f"invalid/{family}-{kind}-{case.name.removeprefix(f'{kind}-')}.plan"
        if path in files:
            raise SystemExit(f"{path} is there twice")
        files[path] = broken_bytes(case)
        rows.append(f"{path}\t{case.code}\t{line_number(files[path], case.line)}\t{case.fragment}")
    files["verdicts.tsv"] = ("\n".join(rows) + "\n").encode("ascii")
    return files


def main() -> int:
    """Write or compare."""
    files = corpus()
    present = {
        str(path.relative_to(HERE)) for folder in ("valid", "invalid") for path in (HERE / folder).glob("*")
    }
    if "--check" in sys.argv[1:]:
        differing = sorted(
            {name for name, data in files.items() if not _holds(name, data)} | (present - set(files))
        )
        for name in differing:
            sys.stdout.write(name + "\n")
        return 1 if differing else 0
    for name in present - set(files):
        (HERE / name).unlink()
    for name, data in files.items():
        (HERE / name).parent.mkdir(exist_ok=True)
        (HERE / name).write_bytes(data)
    sys.stdout.write(f"{len(VALID)} valid and {len(BROKEN)} broken plans" + "\n")
    return 0


def _holds(name: str, data: bytes) -> bool:
    path = HERE / name
    return path.is_file() and path.read_bytes() == data


if __name__ == "__main__":
    sys.exit(main())
