"""The corpus of plans: every file gets the verdict that was written down for it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from exactmap.sim.plan import PlanError, check_plan, load_plan, read_plan, sha256_of, verdict, write_plan

CORPUS = Path(__file__).parents[1] / "golden" / "plans"
ROWS = [row.split("\t") for row in (CORPUS / "verdicts.tsv").read_text(encoding="ascii").splitlines()[1:]]
VALID = [row[0] for row in ROWS if row[1] == "ok"]
BROKEN = [row for row in ROWS if row[1] != "ok"]


@pytest.mark.parametrize("name", VALID)
def test_a_valid_plan_is_accepted_and_written_again(name: str) -> None:
    """It loads, with the hash of its bytes; its canonical form is accepted too and is stable."""
    plan, digest = load_plan(CORPUS / name)
    written = write_plan(plan)

    assert digest == sha256_of((CORPUS / name).read_bytes())
    assert verdict(written).accepted
    assert read_plan(written) == plan
    assert write_plan(read_plan(written)) == written


@pytest.mark.parametrize(("name", "code", "line", "fragment"), BROKEN, ids=[row[0] for row in BROKEN])
def test_a_broken_plan_gets_its_verdict(name: str, code: str, line: str, fragment: str) -> None:
    found = verdict((CORPUS / name).read_bytes(), name)

    assert (found.code, found.line) == (code, int(line))
    assert fragment in found.message
    assert found.message.startswith(f"{name}:{line}: {code}: ")


@pytest.mark.parametrize(
    "row", [row for row in BROKEN if not row[1].startswith("text.")], ids=lambda row: row[0]
)
def test_a_plan_in_memory_is_refused_for_the_same_reason(row: list[str]) -> None:
    """`check_plan` on a plan without lines gives the code of the file."""
    plan = read_plan((CORPUS / row[0]).read_bytes())
    with pytest.raises(PlanError) as caught:
        check_plan(plan)

    assert caught.value.code == row[1]
    assert caught.value.exit_code == 3


def test_every_code_of_the_page_has_a_broken_plan() -> None:
    """Each code of section 7 is in the corpus, but for the one that the page reserves."""
    page = (Path(__file__).parents[2] / "docs" / "reference" / "plan-format.md").read_text(encoding="utf-8")
    section = page.split("## 7.")[1].split("## 8.")[0]
    codes = {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")}

    assert {row[1] for row in BROKEN} == codes - {"prog.end"} | {"arena.budget"}


def test_the_corpus_is_what_its_script_makes() -> None:
    """Nobody edited a plan by hand: `python tests/golden/plans/make.py` refreshes them."""
    made = subprocess.run(
        [sys.executable, str(CORPUS / "make.py"), "--check"], capture_output=True, text=True, check=False
    )

    assert made.stdout == ""
    assert made.returncode == 0


def test_the_worked_example_is_canonical() -> None:
    """The example of the format's page is byte for byte what the writer writes."""
    data = (CORPUS / "valid" / "worked-example.plan").read_bytes()

    assert write_plan(read_plan(data)) == data
