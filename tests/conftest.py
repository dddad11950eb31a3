"""What tests of several rooms share."""

import os
from pathlib import Path

import pytest

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that need a GPU are skipped where there is none."""
    if on_gpu := [item for item in items if item.get_closest_marker("gpu")]:
        import torch

        if not torch.cuda.is_available():
            for item in on_gpu:
                item.add_marker(pytest.mark.skip(reason="no GPU here"))


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA-OneVision checkpoint folder with random weights; nobody writes to it."""
    from tpo.demo.model import build_model, build_tokenizer, save_checkpoint

    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    tokenizer = build_tokenizer()
    save_checkpoint(build_model(tokenizer, 0), tokenizer, folder)
    return folder
