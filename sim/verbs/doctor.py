"""What this machine offers exactmap: versions, cores, memory, the C engine and how it was built."""

from __future__ import annotations

import os
import platform
import subprocess
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from shutil import which

from exactmap import __version__
from exactmap.errors import ExactmapError

__all__ = ["DoctorReport", "Finding", "doctor"]

LIBRARIES = (
    "numpy",
    "simpy",
    "networkx",
    "matplotlib",
    "pydantic",
    "PyYAML",
    "typer",
    "rich",
    "scipy-openblas32",
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at; `problem` says what is wrong and how to mend it (empty: fine)."""

    name: str
    value: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class DoctorReport:
    """All findings; `ok` when none has a problem."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that exactmap needs is there."""
        return not any(finding.problem for finding in self.findings)

    def to_dict(self) -> dict[str, object]:
        """The report as a JSON-ready document."""
        rows = [
            {"name": found.name, "value": found.value, "problem": found.problem} for found in self.findings
        ]
        return {"schema_version": 1, "kind": "doctor", "ok": self.ok, "findings": rows}


NO_GPU = Finding("GPU", "none found (plans run in CPU mode)")


def doctor() -> DoctorReport:
    """Look at the machine and at the installation; changes nothing.

    Returns
    -------
    DoctorReport
        Versions, usable cores, memory in bytes, the C engine and the matrix library it was built with.
    """
    findings = [
        Finding("exactmap", __version__),
        Finding("python", platform.python_version()),
        Finding("cores", str(num_usable_cores())),
        Finding("processor", _processor()),
        _memory(),
    ]
    findings.extend(_library(name) for name in LIBRARIES)
    findings.extend(_engine())
    findings.append(_gpu())
    return DoctorReport(tuple(findings))


def num_usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0))


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    found = [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags]
    return f"{name or platform.machine()} ({', '.join(found) or 'no vector extension known here'})"


def _memory() -> Finding:
    page, pages = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
    return Finding("memory", f"{page * pages / 2**30:.1f} GiB")


def _library(name: str) -> Finding:
    try:
        return Finding(name, version(name))
    except PackageNotFoundError:
        return Finding(name, "missing", f"pip install {name}")


def _engine() -> list[Finding]:
    from exactmap.backend_c.locate import runner_path

    try:
        path = runner_path()
        answer = subprocess.run(
            [str(path), "--version"], capture_output=True, text=True, timeout=20, check=False
        )
    except (ExactmapError, OSError, subprocess.TimeoutExpired) as error:
        return [Finding("C engine", "missing", str(error).replace("\n", "; "))]
    problem = "" if answer.returncode == 0 else f"exits with {answer.returncode}: {answer.stderr.strip()}"
    return [
        Finding("C engine", " ".join(answer.stdout.split()), problem),
        Finding("engine program", str(path)),
    ]


def _gpu() -> Finding:
    program = which("nvidia-smi")
    if program is None:
        return NO_GPU
    try:
        answer = subprocess.run(
            [program, "--query-gpu=name,memory.total", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=20,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return NO_GPU
    names = "; ".join(answer.stdout.strip().splitlines())
    return Finding("GPU", names) if answer.returncode == 0 and names else NO_GPU
