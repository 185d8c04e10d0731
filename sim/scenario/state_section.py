"""Resolve the state that a scenario asks for, and write it out again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from exactmap.errors import InvalidInputError
from exactmap.sim.scenario.document import (
    Problems,
    apply_override,
    as_mapping,
    expand_shorthand,
    take_facts,
    validate,
)
from exactmap.sim.scenario.state_schema import StateSection, StragglerSection
from exactmap.sim.scenario.strict_yaml import Marked, raise_together, read_yaml_file
from exactmap.sim.scenario.units import show_ns
from exactmap.topology import state as state_package
from exactmap.topology.hardware import Cluster, Fact
from exactmap.topology.state.cluster_state import build_state
from exactmap.topology.state.components import ComponentKind
from exactmap.topology.state.leaves import leaves_of
from exactmap.topology.state.spec import HOMOGENEOUS, SlowUplink, StateSpec, Straggler

__all__ = ["default_state", "effective_state", "resolve_state", "state_of_overrides"]

_VERSION_KEY = "exactmap-state"
_WHERE = {
    ("gpu", "spread"): "gpu_spread",
    ("gpu", "step_jitter"): "gpu_step_jitter",
    ("gpu", "jitter"): "gpu_jitter",
    ("slow_hosts", "share"): "slow_host_share",
    ("slow_hosts", "rate"): "slow_host_rate",
    ("interface", "spread"): "interface_spread",
    ("interface", "jitter"): "interface_jitter",
    ("hiccups", "per_gpu_hour"): "hiccups_per_gpu_hour",
    ("hiccups", "duration"): "hiccup_ns",
}
"""Field of the section -> field of `StateSpec`."""
_UPLINK = "uplink"
_NUMBERS = {"leaf": ("uplink_rate", "lost_uplinks"), _UPLINK: ("rate", "lost")}
"""Kind of component -> what may be said of it; of all others their rate."""


def default_state() -> tuple[StateSpec, dict[str, Fact]]:
    """The state that a cluster has where nobody says otherwise, and where each number comes from.

    Examples
    --------
    >>> spec, facts = default_state()
    >>> spec.slow_host_rate, facts["slow_hosts.rate"].confidence
    (0.9, 'recalled')
    """
    path = Path(state_package.__file__).with_name("defaults.yaml")
    problems = Problems()
    document, facts = take_facts(read_yaml_file(path), problems)
    content = dict(as_mapping(document.value) or {})
    version = content.pop(_VERSION_KEY, None)
    section = validate(Marked(content, document.places), StateSection, problems)
    if problems.found or section is None or version != 1:
        raise_together(problems.found, f"problems in {path}")
    return _spec(section, HOMOGENEOUS), facts


def resolve_state(section: StateSection, cluster: Cluster, document: Marked, problems: Problems) -> StateSpec:
    """The state that a scenario's section asks for.

    Parameters
    ----------
    section
        The section.
    cluster
        Whose components are named.
    document
        The scenario, for places.
    problems
        Takes what is wrong.
    """
    base = HOMOGENEOUS if section.use == "none" else default_state()[0]
    stragglers: list[Straggler | SlowUplink] = []
    leaves = None
    for number, entry in enumerate(section.stragglers):
        path = ("state", "stragglers", number)
        try:
            straggler = _straggler(entry)
            leaves = leaves or leaves_of(cluster)
            # Whoever draws the state checks the numbers too: the same words here, with their place.
            build_state(cluster, StateSpec(stragglers=(straggler,)), leaves)
        except InvalidInputError as error:
            problems.add(error, document.place(path))
        else:
            stragglers.append(straggler)
    return replace(_spec(section, base), stragglers=tuple(stragglers))


def state_of_overrides(overrides: Sequence[str], cluster: Cluster) -> StateSpec:
    """The state of a cluster that no scenario speaks of: the defaults, changed by ``state.`` overrides.

    Raises
    ------
    InvalidInputError
        If an override is about anything else, or wrong.
    """
    problems = Problems()
    document = Marked({"state": {}}, {})
    for text in overrides:
        name = text.partition("=")[0].strip()
        if name != "state" and not name.startswith("state."):
            raise InvalidInputError(
                "a plan has no such field to set", where=f"--set {text}", expected="state or a field of state"
            )
        try:
            document = expand_shorthand(apply_override(document, text), "state", "use")
        except InvalidInputError as error:
            problems.add(error)
    root = as_mapping(document.value) or {}
    places = {path[1:]: place for path, place in document.places.items() if path[:1] == ("state",)}
    section = validate(Marked(root["state"], places, prefix=("state",)), StateSection, problems)
    spec = HOMOGENEOUS if section is None else resolve_state(section, cluster, document, problems)
    if problems.found:
        raise_together(problems.found, "problems in the state")
    return spec


def effective_state(spec: StateSpec) -> dict[str, object]:
    """A state as a section that reads back to it."""
    document: dict[str, object] = {"use": "none", "seed": spec.seed}
    for (group, key), name in _WHERE.items():
        value: object = getattr(spec, name)
        part = document.setdefault(group, {})
        assert isinstance(part, dict)
        part[key] = show_ns(spec.hiccup_ns) if name == "hiccup_ns" else value
    document["stragglers"] = [_shown(straggler) for straggler in spec.stragglers]
    return document


def _shown(straggler: Straggler | SlowUplink) -> dict[str, object]:
    if isinstance(straggler, SlowUplink):
        slow = {"rate": straggler.rate} if straggler.rate else {"lost": True}
        return {"uplink": list(straggler.names), **slow}
    return {
        straggler.kind.value: [f"{first}..{last}" for first, last in straggler.ids],
        "uplink_rate" if straggler.kind is ComponentKind.LEAF else "rate": straggler.rate,
        **({"lost_uplinks": straggler.lost_uplinks} if straggler.lost_uplinks else {}),
    }


def _spec(section: StateSection, base: StateSpec) -> StateSpec:
    given: dict[str, float] = {}
    for (group, key), name in _WHERE.items():
        value: float | None = getattr(getattr(section, group), key)
        if value is not None:
            given[name] = value
    return replace(base, seed=section.seed, **given)  # type: ignore[arg-type]  # names and types are those of _WHERE


def _straggler(entry: StragglerSection) -> Straggler | SlowUplink:
    kinds = [*(kind.value for kind in ComponentKind), _UPLINK]
    named = [kind for kind in kinds if getattr(entry, kind) is not None]
    if len(named) != 1:
        raise InvalidInputError(
            "a straggler is one kind of component",
            got=" and ".join(named) or "none",
            expected=" or ".join(kinds),
        )
    allowed = _NUMBERS.get(named[0], ("rate",))
    said = [key for key in ("rate", "uplink_rate", "lost_uplinks", "lost") if getattr(entry, key) is not None]
    if not said or not set(said) <= set(allowed):
        what = f"{'an' if named[0][0] in 'iu' else 'a'} {named[0]}"
        raise InvalidInputError(
            "it is not said how slow the component is" if not said else f"{what} has no such number",
            got=", ".join(said) or None,
            expected=" or ".join(allowed),
        )
    if entry.uplink is not None:
        if entry.lost and entry.rate is not None:
            raise InvalidInputError("an uplink is slow or lost", got="rate, lost", expected="rate or lost")
        return SlowUplink(entry.uplink, 0.0 if entry.rate is None else entry.rate)
    rate = entry.uplink_rate if entry.leaf is not None else entry.rate
    kind = ComponentKind(named[0])
    return Straggler(kind, getattr(entry, kind.value), 1.0 if rate is None else rate, entry.lost_uplinks or 0)
