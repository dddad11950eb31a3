"""What tests of several rooms share."""

import os
from pathlib import Path

import pytest

os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA-OneVision checkpoint folder with random weights; nobody writes to it."""
    from tpo.demo.model import build_model, build_tokenizer, save_checkpoint

    folder = tmp_path_factory.mktemp("tiny") / "checkpoint"
    tokenizer = build_tokenizer()
    save_checkpoint(build_model(tokenizer, 0), tokenizer, folder)
    return folder
