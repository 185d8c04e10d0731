"""Where a physical GPU sits: its rack, its host, its place in the host, its rail; all by division.

GPUs are numbered rack after rack and host after host, spares included. A *rack* here is a scale-up domain:
the 72 GPUs of an NVL72 rack, the 8 of an HGX host. GPU i of its host is on rail i mod r.
"""

from __future__ import annotations

from dataclasses import dataclass

from exactmap.topology.links import Ints

__all__ = ["Machine"]


@dataclass(frozen=True, slots=True)
class Machine:
    """Counts of a cluster that a map needs.

    Parameters
    ----------
    num_gpus
        GPUs installed.
    domain_size
        GPUs in a scale-up domain.
    gpus_per_host
        GPUs in a host.
    used_per_domain
        GPUs of a domain that may take ranks.
    rails
        Leaves that a host's GPUs are spread over.

    Examples
    --------
    >>> machine = Machine(220_000, 72, 4, 64, 4)
    >>> machine.num_racks, machine.num_hosts, machine.size_of_rack(3055)
    (3056, 55000, 40)
    """

    num_gpus: int
    domain_size: int
    gpus_per_host: int
    used_per_domain: int
    rails: int = 1

    @property
    def num_racks(self) -> int:
        """Racks, a last one that is not full included."""
        return -(-self.num_gpus // self.domain_size)

    @property
    def num_hosts(self) -> int:
        """Hosts, a last one that is not full included."""
        return -(-self.num_gpus // self.gpus_per_host)

    @property
    def num_rails(self) -> int:
        """Rails that GPUs are on: no more than a host has GPUs."""
        return min(self.rails, self.gpus_per_host)

    @property
    def rack_word(self) -> str:
        """What people call a scale-up domain of this machine."""
        return "host" if self.domain_size == self.gpus_per_host else "rack"

    def size_of_rack(self, rack: int) -> int:
        """GPUs installed in a rack."""
        return min(self.domain_size, self.num_gpus - rack * self.domain_size)

    def rack(self, gpus: Ints) -> Ints:
        """Rack of each GPU."""
        return gpus // self.domain_size

    def host(self, gpus: Ints) -> Ints:
        """Host of each GPU, counted over the whole cluster."""
        return gpus // self.gpus_per_host

    def place(self, gpus: Ints) -> Ints:
        """Place of each GPU in its host."""
        return gpus % self.gpus_per_host

    def rail(self, gpus: Ints) -> Ints:
        """Rail of each GPU."""
        return gpus % self.gpus_per_host % self.num_rails
