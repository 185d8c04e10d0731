"""exactmap: plan a giant training run, predict what it costs, run the plan unchanged, and compare.

Rooms: `exactmap.topology` (the machine), `exactmap.sim` (from scenario to plan and prediction), and
`exactmap.backend_c` (the C engine that executes a plan). Importing this package is cheap: rooms are imported
by name, when needed.
"""

from __future__ import annotations

from exactmap.errors import ExactmapError

__all__ = ["ExactmapError", "__version__"]

__version__ = "0.1.0"
