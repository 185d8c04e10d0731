"""docs/concepts/explain.md shows what `exactmap explain` prints; `pytest --update` writes it anew.

Without it the page's tables must have the lines that are printed, in any order and with any numbers: those
move with every constant.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.testing import CliRunner

from exactmap.sim.cli.main import app

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "explain.md"
_BLOCK = re.compile(r"(?ms)^<!-- (.+?) -->\n```\n(.*?)```\n")
_RUN = "dgxc_nemo_h100-0532"


def _printed() -> dict[str, list[str]]:
    """Lines of each table that the program prints, by the first word of its title."""
    done = CliRunner().invoke(app, ["explain", "published", "--id", _RUN], env={"COLUMNS": "100"})
    assert done.exit_code == 0
    out: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in map(str.rstrip, done.stdout.splitlines()):
        if line and not line.startswith((" ", "(")):
            lines = out[line.split(",")[0]] = []
        elif line.strip():
            lines.append(line)
    return out


def _labels(lines: list[str]) -> list[str]:
    return sorted(re.split(r"  +", line.strip())[0] for line in lines if "──" not in line)


def test_the_page_shows_what_is_printed(request: pytest.FixtureRequest) -> None:
    printed = _printed()
    page = PAGE.read_text(encoding="utf-8")
    if request.config.getoption("--update"):

        def anew(found: re.Match[str]) -> str:
            return f"<!-- {found[1]} -->\n```\n" + "\n".join([*printed[found[1]], "```\n"])

        page = _BLOCK.sub(anew, page)
        PAGE.write_text(page, encoding="utf-8")
    blocks = {title: _labels(text.splitlines()) for title, text in _BLOCK.findall(page)}

    assert len(blocks) == 8
    assert blocks == {title: _labels(printed[title]) for title in blocks}
