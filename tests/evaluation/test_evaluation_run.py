from pathlib import Path

import numpy as np
import pytest

from tpo.demo.benchmarks import write_benchmarks
from tpo.demo.model import build_model, build_tokenizer, save_checkpoint
from tpo.evaluation.benchmarks import load_benchmarks
from tpo.evaluation.prompts import candidates, render
from tpo.evaluation.run import check_video, evaluate_video, group_by_video
from tpo.evaluation.statistics import compare, metrics
from tpo.models import VideoLMM, load_model
from tpo.params import ModelParams
from tpo.records import Item, PredictionStatus, Reason, Rejection, Video
from tpo.video.decode import VideoFolder
from tpo.video.probe import Prober
from tpo.video.sample import dense

NUM_FRAMES = 12


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("benchmarks")
    write_benchmarks(root, 3, 3, 4, 5, seed=0)
    return root


def frames_of(root: Path) -> Path:
    return root / ".frames"


@pytest.fixture(scope="module")
def groups(root: Path) -> list[list[Item]]:
    return group_by_video(load_benchmarks(root)[0])


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, VideoLMM]:
    models = {}
    for seed, role in enumerate(("base", "tuned")):
        folder = tmp_path_factory.mktemp(role)
        tokenizer = build_tokenizer()
        save_checkpoint(build_model(tokenizer, seed), tokenizer, folder)
        models[role] = load_model(ModelParams(base=str(folder), dtype="float32", device="cpu"))
    return models


def test_items_are_grouped_by_video(groups: list[list[Item]]) -> None:
    assert [(group[0].benchmark, len(group)) for group in groups] == [
        ("longvideobench", 3),
        ("mlvu", 3),
        ("videomme", 3),
    ]
    assert all(len({item.video for item in group}) == 1 for group in groups)


def test_two_models_are_compared_from_files_to_metrics(
    root: Path, groups: list[list[Item]], models: dict[str, VideoLMM]
) -> None:
    predictions: dict[str, list] = {"base": [], "tuned": []}
    with Prober(frames_of(root)) as prober:
        for group in groups:
            video = check_video(root, group, prober)
            for role, model in models.items():
                predictions[role] += evaluate_video(
                    model, role, VideoFolder(root, frames_of(root)), group, video, NUM_FRAMES, "question"
                )
    assert [p.item_id for p in predictions["base"]] == [item.id for group in groups for item in group]
    assert {p.status for p in predictions["tuned"]} == {PredictionStatus.OK}
    assert all(len(p.option_logprobs) == 4 and max(p.option_logprobs) < 0 for p in predictions["base"])
    comparisons = compare(predictions["base"], predictions["tuned"], confidence=0.95, samples=100, seed=0)
    result = metrics(comparisons, predictions["base"] + predictions["tuned"])
    assert result["all"]["num_items"] == 9
    assert result["status"]["tuned"]["ok"] == 9


def test_a_question_scores_the_same_alone_as_with_the_others(
    root: Path, groups: list[list[Item]], models: dict[str, VideoLMM]
) -> None:
    with Prober(frames_of(root)) as prober:
        video = check_video(root, groups[0], prober)
    assert isinstance(video, Video)
    folder = VideoFolder(root, frames_of(root))
    together = evaluate_video(models["base"], "base", folder, groups[0], video, NUM_FRAMES, "question")
    frames = folder.frames(f"{groups[0][0].benchmark}/{groups[0][0].video}", dense(video, NUM_FRAMES))
    for item, prediction in zip(groups[0], together, strict=True):
        alone = models["base"].option_logprobs(frames, [render(item, "question")], [candidates(item, "question")])
        np.testing.assert_allclose(prediction.option_logprobs, alone[0], rtol=1e-5)


def test_a_missing_video_is_told_from_a_broken_one_and_both_count_as_wrong(
    tmp_path: Path, groups: list[list[Item]], models: dict[str, VideoLMM]
) -> None:
    missing, broken = groups[0], groups[1]
    path = tmp_path / broken[0].benchmark / broken[0].video
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a video" * 100)
    with Prober(tmp_path) as prober:
        found = [check_video(tmp_path, group, prober) for group in (missing, broken)]
    assert isinstance(found[0], Rejection)
    assert found[0].reason is Reason.VIDEO_MISSING
    for group, video, status in zip(
        (missing, broken), found, (PredictionStatus.VIDEO_MISSING, PredictionStatus.VIDEO_BROKEN), strict=True
    ):
        folder = VideoFolder(tmp_path, tmp_path)
        predictions = evaluate_video(models["base"], "base", folder, group, video, NUM_FRAMES, "question")
        assert [p.item_id for p in predictions] == [item.id for item in group]
        assert {(p.status, p.correct) for p in predictions} == {(status, False)}
        assert all(p.detail for p in predictions)


def test_a_video_that_breaks_after_it_was_checked_is_broken(
    root: Path, groups: list[list[Item]], models: dict[str, VideoLMM], tmp_path: Path
) -> None:
    with Prober(frames_of(root)) as prober:
        video = check_video(root, groups[0], prober)
    path = tmp_path / groups[0][0].benchmark / groups[0][0].video
    path.parent.mkdir(parents=True)
    path.write_bytes((root / groups[0][0].benchmark / groups[0][0].video).read_bytes()[:2000])
    folder = VideoFolder(tmp_path, frames_of(root))
    predictions = evaluate_video(models["base"], "base", folder, groups[0], video, NUM_FRAMES, "question")
    assert {p.status for p in predictions} == {PredictionStatus.VIDEO_BROKEN}
