import importlib.metadata

import pytest

from flows.stage import answering_code


@pytest.mark.parametrize("library", ["av", "numpy", "pillow", "tokenizers", "torch", "transformers"])
def test_what_was_said_with_another_release_of_a_library_does_not_count(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, version = answering_code(), importlib.metadata.version
    assert answering_code() == before
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.1" if name == library else version(name))
    assert answering_code() != before
