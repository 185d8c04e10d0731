"""Broken scenarios: each is refused with the right message, at the right place, and never with a traceback.

`scenarios/NAME.yaml` is the broken file; each line of `scenarios/NAME.expected` must occur in the message. A
line that starts with a colon names the line of the file (``:7: training.batch: ...``).
"""

from __future__ import annotations

from pathlib import Path

import pytest

from exactmap.errors import InvalidInputError
from exactmap.sim.scenario.scenario import load_scenario

FOLDER = Path(__file__).parent / "scenarios"
BROKEN = sorted(FOLDER.glob("*.yaml"))


def test_there_are_at_least_forty() -> None:
    """The corpus is whole: a lost file would be a lost test."""
    assert len(BROKEN) >= 40
    assert {path.stem for path in BROKEN} == {path.stem for path in FOLDER.glob("*.expected")}


@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_broken_scenario_is_refused_with_its_message(path: Path) -> None:
    """The message names the place, what was found and what would be right; the exit code is 3."""
    expected = path.with_suffix(".expected").read_text(encoding="utf-8").splitlines()

    with pytest.raises(InvalidInputError) as caught:
        load_scenario(path)

    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert expected
    for line in expected:
        wanted = f"{path}{line}" if line.startswith(":") else line
        assert wanted in message


def test_a_file_that_is_too_large_is_refused_before_it_is_parsed(tmp_path: Path) -> None:
    """The limit of 4 MiB holds on bytes."""
    path = tmp_path / "large.yaml"
    path.write_bytes(b"# " + b"x" * (4 * 2**20) + b"\n")

    with pytest.raises(InvalidInputError, match="the file is too large"):
        load_scenario(path)


def test_a_missing_file_is_named() -> None:
    """No traceback for a file that is not there."""
    with pytest.raises(InvalidInputError, match=r"nowhere\.yaml: cannot read the file"):
        load_scenario("nowhere.yaml")
