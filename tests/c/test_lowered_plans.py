"""The C reader accepts whatever lowering makes."""

from __future__ import annotations

import pytest
from order_cases import CASES, lowered

from exactmap.backend_c import check as engine
from exactmap.sim.plan.writer import write_plan


@pytest.mark.parametrize("name", CASES)
def test_a_lowered_plan_is_accepted(name: str) -> None:
    said = engine.verdict(write_plan(lowered(CASES[name])))

    assert (said.code, said.message) == ("ok", "")
