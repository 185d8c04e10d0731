"""What sharing links has cost a step, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from exactmap.sim.cli.console import facts, table

if TYPE_CHECKING:
    from rich.console import RenderableType

    from exactmap.sim.engine.link_use import LinkUse

__all__ = ["link_tables"]

MAX_ROWS = 6
_TIERS = ("interfaces and leaves", "leaves and spines", "spines and cores", "cores and top")


def link_tables(use: LinkUse) -> list[RenderableType]:
    """Step time with and without, use by tier, hot links, who was delayed."""
    from exactmap.sim.report.quantity import show_share, show_time

    added = use.step_time_ns - use.unshared_step_time_ns
    slower = added / use.unshared_step_time_ns if use.unshared_step_time_ns else 0.0
    spread = {"spray": "all, packet by packet", "ecmp": f"by hash, seed {use.seed}"}[use.spread]
    if use.paths > 1:
        spread += f", {use.paths} per flow"
    rows = [
        ("if nothing were shared", show_time(use.unshared_step_time_ns)),
        ("what sharing adds", f"{show_time(added)} ({100 * slower:.2f} %)"),
        ("flows between domains", f"{use.num_flows:,} over {use.num_links:,} links"),
        ("paths", spread),
    ]
    out: list[RenderableType] = [facts("shared links", rows)]
    if use.tiers:
        tiers = [
            (
                _TIERS[row.tier] if row.tier < len(_TIERS) else f"tier {row.tier}",
                f"{row.num_links:,}",
                show_share(row.mean_use),
                show_share(row.max_use),
                show_time(row.full_ns),
            )
            for row in use.tiers
        ]
        out.append(table("use of links", ("between", "links", "mean", "most", "full for"), tiers))
    if use.hot:
        hot = [
            (row.name, f"{row.num_links:,}", show_share(row.use), show_time(row.full_ns))
            for row in use.hot[:MAX_ROWS]
        ]
        out.append(table("links that held transfers back", ("such as", "alike", "use", "full for"), hot))
    delayed = sorted((row for row in use.delays if row.delay_ns), key=lambda row: (-row.delay_ns, row.name))
    if delayed:
        queues = [
            (
                f"{row.kind} {row.name}",
                f"{row.num_transfers:,}",
                show_time(row.nominal_ns),
                show_time(row.delay_ns),
                "yes" if row.uneven else "no",
            )
            for row in delayed[:MAX_ROWS]
        ]
        out.append(table("who was delayed", ("queue", "transfers", "alone", "more", "uneven"), queues))
        if len(delayed) > MAX_ROWS:
            out.append(f"(and {len(delayed) - MAX_ROWS} more queues; --json has all)")
    if use.uneven:
        out.append("uneven: some replicas could have gone faster; all waited for the slowest")
    return out
