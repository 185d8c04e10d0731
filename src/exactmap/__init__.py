"""exactmap: plan a giant training run, predict what it costs, run the plan unchanged, and compare.

The verbs of the command line are functions here, with the same names and arguments::

    import exactmap

    outcome = exactmap.plan("scenarios/cpu-host.yaml", out="cpu.plan")
    prediction = exactmap.simulate("cpu.plan", out="predicted")

and `simulate_whole` is ``simulate --scale full`` of the command line: every GPU with a state of its own.

Rooms: `exactmap.topology` (the machine), `exactmap.sim` (from scenario to plan and prediction), and
`exactmap.backend_c` (the C engine that executes a plan). Importing this package is cheap: verbs and rooms are
imported when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from exactmap.errors import ExactmapError

if TYPE_CHECKING:
    from exactmap.sim.verbs.calibrate import calibrate
    from exactmap.sim.verbs.catalog import catalog
    from exactmap.sim.verbs.check import check
    from exactmap.sim.verbs.cluster import cluster
    from exactmap.sim.verbs.collective import collective
    from exactmap.sim.verbs.compare import compare
    from exactmap.sim.verbs.data import data
    from exactmap.sim.verbs.doctor import doctor
    from exactmap.sim.verbs.explain import explain
    from exactmap.sim.verbs.export import export
    from exactmap.sim.verbs.map import map  # noqa: A004 - the verb's name
    from exactmap.sim.verbs.plan import plan
    from exactmap.sim.verbs.predict import predict
    from exactmap.sim.verbs.run import run
    from exactmap.sim.verbs.sample import sample
    from exactmap.sim.verbs.schedules import schedules
    from exactmap.sim.verbs.show import show
    from exactmap.sim.verbs.simulate import simulate
    from exactmap.sim.verbs.sweep import sweep
    from exactmap.sim.verbs.traffic import traffic
    from exactmap.sim.verbs.validate import validate
    from exactmap.sim.verbs.whole_cluster import simulate_whole

__all__ = [
    "ExactmapError",
    "__version__",
    "calibrate",
    "catalog",
    "check",
    "cluster",
    "collective",
    "compare",
    "data",
    "doctor",
    "explain",
    "export",
    "map",
    "plan",
    "predict",
    "run",
    "sample",
    "schedules",
    "show",
    "simulate",
    "simulate_whole",
    "sweep",
    "traffic",
    "validate",
]

__version__ = "0.1.0"

_VERBS = frozenset(__all__) - {"ExactmapError", "__version__"}
_FILES = {"simulate_whole": "whole_cluster"}
"""Verb -> its file, where that has another name."""


def __getattr__(name: str) -> object:
    """Import a verb when it is first asked for."""
    if name in _VERBS:
        verb: object = getattr(import_module(f"exactmap.sim.verbs.{_FILES.get(name, name)}"), name)
        globals()[name] = verb
        return verb
    raise AttributeError(f"module 'exactmap' has no attribute {name!r}")
