import importlib.metadata
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings
from processes import ROOT, Edit, edit_params

from flows.answer import answer, policy
from flows.ask import ask
from flows.evaluate import examinee
from flows.ingest import ingest
from flows.replies import replies
from flows.stage import answering_code, run
from tpo.curation.answers import Policy
from tpo.evaluation.run import Examinee
from tpo.params import ModelParams
from tpo.store import Manifest, publish


def set_up(folder: Path, monkeypatch: pytest.MonkeyPatch, edit: Edit) -> None:
    shutil.copy(ROOT / "params.yaml", folder)
    edit_params(folder, edit)
    monkeypatch.chdir(folder)


@pytest.mark.parametrize("library", ["av", "numpy", "pillow", "tokenizers", "torch", "transformers"])
def test_what_was_said_with_another_release_of_a_library_does_not_count(
    library: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, version = answering_code(), importlib.metadata.version
    assert answering_code() == before
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.1" if name == library else version(name))
    assert answering_code() != before


@pytest.mark.parametrize("model", [policy, examinee])
def test_both_stages_that_ask_the_model_keep_answers_by_code_and_libraries(
    model: Callable[..., Policy | Examinee], tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    role = ("base",) if model is examinee else ()
    asked = model(*role, ModelParams(base=str(tiny_checkpoint), dtype="float32", device="cpu"), 4)
    model.cache_clear()
    replies.cache_clear()
    assert asked.code == answering_code()


def test_an_unknown_setting_is_named_with_those_that_exist(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(tmp_path, monkeypatch, lambda settings: settings["ask"].update(questions_per_video=3))
    message = r"^ask: (?s:.*)ask\.questions_per_video: unknown key\. Allowed here: asker, blind"
    with pytest.raises(SystemExit, match=message):
        run(ask)


def test_a_prefect_server_that_is_away_is_told_without_a_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(tmp_path, monkeypatch, lambda _: None)
    with (
        temporary_settings({PREFECT_API_URL: "http://127.0.0.1:9/api"}),
        pytest.raises(
            SystemExit, match=r"^ask: Prefect's server does not answer at http://127\.0\.0\.1:9/api\. `make up`"
        ),
    ):
        run(ask)


def test_a_folder_without_videos_is_a_failed_run_with_a_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_up(tmp_path, monkeypatch, lambda settings: settings["data"].update(videos="my/videos"))
    (tmp_path / "my/videos").mkdir(parents=True)
    state = ingest.fn()
    assert state.is_failed()
    assert state.message.startswith("No video in my/videos: no file ends in one of")


def test_a_missing_base_model_is_a_failed_run_with_a_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    set_up(tmp_path, monkeypatch, lambda settings: settings["model"].update(base="demo/nowhere"))
    nothing = Manifest(stage="ingest", item="files", items_in=0, items_out=0, set_aside={}, seconds=0)
    publish(Path("data/catalog"), {"videos.jsonl": []}, nothing)
    publish(Path("data/queries"), {"queries.jsonl": []}, nothing)
    state = answer.fn()
    assert state.is_failed()
    assert state.message.startswith("'demo/nowhere' is neither a checkpoint folder nor a reachable hub id")
