"""Time of communication between GPUs: point to point and collectives, inside a domain and across domains.

`operations` says what there is, `model` what it takes inside a domain, `across` and `exchange` what it
takes over several, `blend` joins model and measurement, `constants` and `fit` have the model's constants,
`group` prices all ways of a collective on a group. Where numbers come from and how good they are:
docs/concepts/collectives.md.
"""

from __future__ import annotations

from exactmap.topology.collectives.constants import Confidence
from exactmap.topology.collectives.operations import Algorithm, Collective, bus_factor
from exactmap.topology.collectives.price import collective_time, explain_collective, hop_time
from exactmap.topology.collectives.times import CandidateTime, CollectiveTime, HopTime

__all__ = [
    "Algorithm",
    "CandidateTime",
    "Collective",
    "CollectiveTime",
    "Confidence",
    "HopTime",
    "bus_factor",
    "collective_time",
    "explain_collective",
    "hop_time",
]
