"""Who carries a transfer of the event engine: its nominal time, or the links that it shares with others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    import simpy

__all__ = ["Carrier", "PlainCarrier", "call_at"]


def call_at(
    env: simpy.Environment, time_ns: int, callback: Callable[[simpy.Event], None], value: object = None
) -> None:
    """Call back at `time_ns`, which is not in the past."""
    timeout = env.timeout(time_ns - int(env.now), value)
    assert timeout.callbacks is not None
    timeout.callbacks.append(callback)


class Carrier(Protocol):
    """Carries the transfers of a channel or a group, one after another."""

    def carry(
        self,
        start_ns: int,
        work_ns: int,
        num_bytes: int,
        callback: Callable[[simpy.Event], None],
        value: object = None,
        *,
        after_ns: int = 0,
    ) -> None:
        """Call back with `value` when a transfer that starts at `start_ns` is over.

        Parameters
        ----------
        start_ns
            Not in the past.
        work_ns
            What it takes alone.
        num_bytes
            Its size.
        callback, value
            Whom to call, and what the event shall hold.
        after_ns
            How much later than the transfer's end.
        """


class PlainCarrier:
    """Nothing is shared: a transfer takes its nominal time."""

    def __init__(self, env: simpy.Environment) -> None:
        self.env = env

    def carry(
        self,
        start_ns: int,
        work_ns: int,
        num_bytes: int,
        callback: Callable[[simpy.Event], None],
        value: object = None,
        *,
        after_ns: int = 0,
    ) -> None:
        """Call back at `start_ns` + `work_ns` + `after_ns`."""
        del num_bytes
        call_at(self.env, start_ns + work_ns + after_ns, callback, value)
