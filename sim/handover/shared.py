"""What every framework, and every launcher, does its own way, whatever the plan says."""

from __future__ import annotations

from exactmap.sim.handover.verdict import Ledger

__all__ = ["leave_to_framework", "leave_to_program", "say_seats"]


def leave_to_framework(ledger: Ledger) -> None:
    """Enter memory, messages, notes and the map, which no training framework takes from outside."""
    ledger.own("its allocator takes memory as a step goes", "arenas", "regions", "pools", "budget")
    ledger.own(
        "its communication library posts and buffers messages", "channels", "serial", "limit", "couple"
    )
    ledger.own("it makes communicators of its mesh", "groups")
    ledger.own("for information", "made", "cost", "pred", "extras", "minor")
    ledger.own("the launcher seats ranks: hand over to slurm or mpi, too", "map.*")


def leave_to_program(ledger: Ledger) -> None:
    """Enter all that a launcher has no say in: what the program does that it starts."""
    ledger.own(
        "the program's that is started",
        "model.*",
        "train.*",
        "precision.*",
        "stages.*",
        "place",
        "passes.*",
        "buckets*",
        "ties",
        "clock",
        "maps",
    )
    ledger.own(
        "the program's that is started", "arenas", "regions", "pools", "budget", "channels", "serial", "limit"
    )
    ledger.own("the program's that is started", "couple", "groups")
    ledger.own("for information", "made", "cost", "pred", "extras", "minor")


def say_seats(ledger: Ledger, hosts: str, places: str) -> None:
    """Enter what a launcher says: a host and a GPU for each rank, and so everything that the map promises."""
    ledger.exact(
        "the number of ranks is their product", "mesh.tp", "mesh.cp", "mesh.ep", "mesh.pp", "mesh.dp"
    )
    ledger.exact(f"rank by rank in {hosts}", "mesh.order", "map.gpus")
    ledger.exact(f"GPU by GPU in {places}: what has no rank stays free", "map.spares", "map.exclude")
    ledger.exact("kept by the map: nothing to say", "map.require")
