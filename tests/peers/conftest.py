"""What the peers' tests share: a data set, and transformers' reading of a checkpoint."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from engine_case import make_data

if TYPE_CHECKING:
    import torch

# Nothing here may ask the network, and a peer says nothing on its own.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"
os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two token files of made-up text."""
    return make_data(tmp_path_factory.mktemp("peers")).folder


@pytest.fixture
def load_checkpoint() -> Callable[[Path, torch.dtype], Any]:
    """Load a folder as transformers' users do, and insist that every tensor found its place."""

    def load(folder: Path, dtype: torch.dtype) -> Any:
        import transformers

        model, report = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=dtype, local_files_only=True, output_loading_info=True
        )

        assert {name: sorted(found) for name, found in report.items() if found} == {}
        return model.eval()

    return load
