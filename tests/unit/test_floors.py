"""The rooms stand on floors: a module imports only from floors below its own, and import-linter says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONFIGURATION = ROOT / "pyproject.toml"


def lint_imports(configuration: Path, source: Path) -> subprocess.CompletedProcess[str]:
    """Run import-linter with the contracts of `configuration` on the package below `source`."""
    program = (
        f"import sys; sys.path.insert(0, {str(source)!r}); "
        "from importlinter.cli import lint_imports_command; lint_imports_command()"
    )
    return subprocess.run(
        [sys.executable, "-c", program, "--no-logo", "--no-cache", "--config", str(configuration)],
        cwd=source,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_import_leads_downwards() -> None:
    """The contracts of pyproject.toml hold for the code as it is."""
    pytest.importorskip("importlinter")
    result = lint_imports(CONFIGURATION, ROOT / "src")

    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("module", "imported", "contract"),
    [
        ("topology/breach.py", "sim.plan", "A floor imports only from floors below it"),
        ("sim/plan/breach.py", "sim.workload", "A floor imports only from floors below it"),
        ("sim/engine/breach.py", "sim.cli", "A floor imports only from floors below it"),
        ("sim/plan/breach.py", "topology", "The plan knows of the machine only its mesh types"),
        ("backend_c/breach.py", "sim", "The C engine's door knows nothing of sim"),
        ("sim/engine/breach.py", "backend_c", "Predictions never look at the C engine"),
    ],
)
def test_an_import_that_leads_upwards_is_found(
    tmp_path: Path, module: str, imported: str, contract: str
) -> None:
    """One module with one wrong import breaks the contract that forbids it."""
    pytest.importorskip("importlinter")
    # The rooms alone, under another name: what they hold is the business of the test above.
    package = tmp_path / "rooms"
    face = [module.name for module in (ROOT / "src/exactmap").glob("*.py")]
    rooms = [init for room in ("sim", "topology", "backend_c") for init in (ROOT / room).rglob("__init__.py")]
    for relative in [*face, *(str(init.relative_to(ROOT)) for init in rooms)]:
        copy = package / relative
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text("", encoding="utf-8")
    configuration = tmp_path / "pyproject.toml"
    contracts = CONFIGURATION.read_text(encoding="utf-8").partition("[tool.importlinter]")
    configuration.write_text("".join(contracts[1:]).replace("exactmap", "rooms"), encoding="utf-8")
    (package / module).write_text(f"import rooms.{imported}\n", encoding="utf-8")
    result = lint_imports(configuration, tmp_path)
    broken = {line for line in result.stdout.splitlines() if line.endswith("BROKEN")}

    assert result.returncode == 1
    assert broken == {f"{contract} BROKEN"}


def test_the_kernel_of_the_c_engine_depends_on_nothing() -> None:
    """``common`` sees no other room, ``comm`` never ``nn``, and ``nn`` kernels only through the table."""
    forbidden = {
        "common": ("plan/", "runtime/", "comm/", "nn/", "cpu/", "io/"),
        "comm": ("nn/", "cpu/"),
        "nn": ("cpu/", "comm/", "runtime/", "io/"),
        "plan": ("runtime/", "comm/", "nn/", "cpu/", "io/"),
    }
    sources = ROOT / "backend_c" / "src"
    breaches = [
        f"{path.relative_to(ROOT)}:{number}: {line}"
        for room, others in forbidden.items()
        for path in sorted((sources / room).rglob("*.[ch]"))
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if line.startswith("#include")
        for other in others
        if f'"{other}' in line or f"/{other}" in line
    ]

    assert breaches == []
