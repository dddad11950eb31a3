"""The champion, out of a real registry, as a checkpoint that can be measured again."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tpo.demo.model import build_model, build_tokenizer, save_checkpoint
from tpo.demo.world import plan_events, write_video
from tpo.errors import UserError
from tpo.models.identity import model_id
from tpo.models.load import load_model
from tpo.params import ModelParams
from tpo.registry.champion import CHAMPION, fetch_champion, standing
from tpo.registry.evidence import Standing
from tpo.registry.package import register
from tpo.registry.tracking import log_stage

MEASURED_WITH = {"num_frames": 4, "max_new_tokens": 5, "model": {"dtype": "float32"}, "prompts": "question"}


@pytest.fixture(scope="module")
def project(tracking_folder: Path) -> Path:
    """A base model, a full model and an adapter on the base, registered as versions 1 and 2 of `fetched`."""
    from peft import LoraConfig, get_peft_model

    tokenizer = build_tokenizer()
    for seed, name in enumerate(("base", "full")):
        save_checkpoint(build_model(tokenizer, seed), tokenizer, tracking_folder / name)
    base = load_model(of("base"))
    config = LoraConfig(r=2, target_modules=base.family.lora_targets, base_model_name_or_path="base")
    get_peft_model(base.model, config).save_pretrained(tracking_folder / "adapter")
    write_video(tracking_folder / "clip.mp4", plan_events(np.random.default_rng(0), 4), 0.0)
    for name in ("full", "adapter"):
        register(
            Path(name),
            base="base",
            base_revision=None,
            name="fetched",
            measured_with=MEASURED_WITH,
            tags={"candidate_id": model_id(of(name))},
            metrics={},
            run_id=log_stage("train", "tpo", params={}, metrics={}),
            example={"video": "clip.mp4", "question": "Which color is the star?"},
        )
    return tracking_folder


def of(name: str | Path) -> ModelParams:
    return ModelParams(base=str(name), dtype="float32", device="cpu")


def crown(name: str, version: str) -> None:
    import mlflow

    mlflow.MlflowClient().set_registered_model_alias(name, CHAMPION, version)


def test_where_nothing_was_promoted_there_is_no_champion(project: Path, tmp_path: Path) -> None:
    assert fetch_champion("fetched", tmp_path) is None
    assert fetch_champion("of-another-name", tmp_path) is None
    assert standing("fetched") is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("version", "name"), [("1", "full"), ("2", "adapter")])
def test_the_champion_is_the_model_that_was_registered(project: Path, tmp_path: Path, version: str, name: str) -> None:
    crown("fetched", version)
    champion = fetch_champion("fetched", tmp_path)
    assert champion is not None
    assert (champion.version, champion.candidate_id) == (version, model_id(of(name)))
    assert champion.measured_with == MEASURED_WITH
    assert standing("fetched") == Standing(version=version, candidate_id=champion.candidate_id)
    fetched, original = load_model(of(champion.checkpoint)), load_model(of(name))
    weights = original.model.state_dict()
    assert all(bool((value == weights[key]).all()) for key, value in fetched.model.state_dict().items())


def test_a_version_is_fetched_once_and_again_if_its_files_are_others_by_now(project: Path, tmp_path: Path) -> None:
    crown("fetched", "1")
    champion = fetch_champion("fetched", tmp_path)
    assert champion is not None
    weights = champion.checkpoint / "model.safetensors"
    fetched_at = weights.stat().st_mtime_ns
    fetch_champion("fetched", tmp_path)
    assert weights.stat().st_mtime_ns == fetched_at, "it was fetched already"
    weights.write_bytes(b"cut short")
    fetch_champion("fetched", tmp_path)
    assert weights.read_bytes() == (project / "full/model.safetensors").read_bytes()
    crown("fetched", "2")
    assert fetch_champion("fetched", tmp_path) is not None
    assert [folder.name.rsplit("-", 1)[0] for folder in tmp_path.iterdir()] == ["fetched-2"], "no other is kept"


def test_a_champion_whose_files_in_the_registry_are_others_is_not_measured(project: Path, tmp_path: Path) -> None:
    """It would be easy to beat if its weights were worse than those that were promoted."""
    import mlflow

    crown("fetched", "1")
    digest = mlflow.MlflowClient().get_model_version("fetched", "1").tags["package_digest"]
    try:
        mlflow.MlflowClient().set_model_version_tag("fetched", "1", "package_digest", "of something else")
        with pytest.raises(UserError, match="are not those that were registered"):
            fetch_champion("fetched", tmp_path)
    finally:
        mlflow.MlflowClient().set_model_version_tag("fetched", "1", "package_digest", digest)


def test_an_adapter_on_another_base_is_refused(project: Path, tmp_path: Path) -> None:
    crown("fetched", "2")
    kept = tmp_path / "kept"
    shutil.copytree("base", kept)
    try:
        save_checkpoint(build_model(build_tokenizer(), 7), build_tokenizer(), Path("base"))
        with pytest.raises(UserError, match=r"not the one this adapter was trained on"):
            fetch_champion("fetched", tmp_path / "champions")
    finally:
        shutil.rmtree("base")
        shutil.copytree(kept, "base")


def test_version_1_of_a_registry_that_was_begun_anew_is_another_model(project: Path, tmp_path: Path) -> None:
    import mlflow

    found = []
    for checkpoint in ("base", "full"):
        register(
            Path(checkpoint),
            base="base",
            base_revision=None,
            name="anew",
            measured_with=MEASURED_WITH,
            tags={"candidate_id": model_id(of(checkpoint))},
            metrics={},
            run_id=log_stage("train", "tpo", params={}, metrics={}),
            example={"video": "clip.mp4", "question": "Which color is the star?"},
        )
        crown("anew", "1")
        champion = fetch_champion("anew", tmp_path)
        assert champion is not None
        found.append((champion.version, champion.candidate_id, model_id(of(champion.checkpoint))))
        mlflow.MlflowClient().delete_registered_model("anew")
    ids = [model_id(of(name)) for name in ("base", "full")]
    assert found == [("1", ids[0], ids[0]), ("1", ids[1], ids[1])]


def test_a_registry_that_does_not_answer_is_named_with_what_to_do(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://user:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(UserError, match=r"set evaluate\.champion to false") as raised:
        fetch_champion("fetched", tmp_path)
    assert "secret" not in str(raised.value)
