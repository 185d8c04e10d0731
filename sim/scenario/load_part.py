"""Parts of the catalog that are used outside a whole cluster, as the hardware's own types."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel

from exactmap.sim.scenario.cluster_build import build_cable, build_switch
from exactmap.sim.scenario.document import Problems, take_facts, validate
from exactmap.sim.scenario.parts import part_document
from exactmap.sim.scenario.schema import CableSection, SwitchSection
from exactmap.sim.scenario.strict_yaml import raise_together
from exactmap.topology.fabric.spec import Cable, Switch

__all__ = ["load_cable", "load_switch"]

_Section = TypeVar("_Section", bound=BaseModel)


def load_switch(name: str) -> Switch:
    """A switch of the catalog by name.

    Raises
    ------
    InvalidInputError
        If there is no such switch; the nearest names are the hint.

    Examples
    --------
    >>> load_switch("SN5600").radix(25 * 10**9)
    256
    """
    return build_switch(_section("switches", name, SwitchSection))


def load_cable(name: str) -> Cable:
    """A cable of the catalog by name.

    Raises
    ------
    InvalidInputError
        If there is no such cable; the nearest names are the hint.

    Examples
    --------
    >>> load_cable("optics-800G").power_w
    34
    """
    return build_cable(_section("cables", name, CableSection))


def _section(kind: str, name: str, schema: type[_Section]) -> _Section:
    problems = Problems()
    plain, _ = take_facts(part_document(kind, name), problems)
    section = validate(plain, schema, problems)
    if section is None or problems.found:
        raise_together(problems.found, f"problems in part {name}")
    return section
