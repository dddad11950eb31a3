"""Real benchmark files, real videos and two small models: what is asked, what is kept, and what comes of it."""

import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
from tiny import load, save_tiny

from tpo.errors import UserError
from tpo.evaluation.asking import Job, plan
from tpo.evaluation.preflight import check_video, video_path, without_video
from tpo.evaluation.run import Examinee, examine
from tpo.models.video_lmm import VideoLMM
from tpo.params import ControlsParams, EvaluateParams
from tpo.records import Condition, Item, Method, Prediction, PredictionStatus, Rejection, Video
from tpo.replies import ReplyCache
from tpo.video.decode import VideoFolder
from tpo.video.probe import Prober

PARAMS = EvaluateParams(num_frames=6, prompts="official", confidence=0.95, bootstrap_samples=100)
EVERYTHING = PARAMS.model_copy(update={"max_new_tokens": 4, "controls": ControlsParams()})


@pytest.fixture
def examinee(model: VideoLMM, tmp_path: Path) -> Examinee:
    return Examinee("base", model, ReplyCache(tmp_path / "said.sqlite"), "code")


def jobs(groups: list[list[Item]], videos: list[Video], params: EvaluateParams = PARAMS) -> list[Job]:
    ids = {item.id for group in groups for item in group}
    return [
        Job(video_path(g), video_path(g), v, plan(g, v, {}, params, ids, seed=0))
        for g, v in zip(groups, videos, strict=True)
    ]


def ask(examinee: Examinee, root: Path, asked: list[Job], params: EvaluateParams = PARAMS) -> list[Prediction]:
    found = examine(examinee, VideoFolder(root, root / ".frames"), asked, params)
    return [prediction for _, predictions in found for prediction in predictions]


def forwards(model: VideoLMM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many questions each call of the model was about."""
    calls: list[int] = []
    real = VideoLMM.examine

    def counted(
        self: VideoLMM, frames: object, questions: list, options: list, written: list, *rest: object, **more: object
    ):
        calls.append(len(questions) + len(written))
        return real(self, frames, questions, options, written, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(VideoLMM, "examine", counted)
    return calls


def test_all_conditions_and_both_methods_are_in_the_plan(groups: list[list[Item]], videos: list[Video]) -> None:
    asks = jobs(groups, videos, EVERYTHING)[0].asks
    item = groups[0][0]
    own = [(ask.condition, ask.method, ask.rotation) for ask in asks if ask.item == item]
    assert own == [
        (Condition.FULL, Method.LOGPROB, 0),
        (Condition.FULL, Method.GENERATION, 0),
        (Condition.TEXT_ONLY, Method.LOGPROB, 0),
        (Condition.SINGLE_FRAME, Method.LOGPROB, 0),
        (Condition.SHUFFLED, Method.LOGPROB, 0),
        (Condition.REVERSED, Method.LOGPROB, 0),
        *((Condition.CIRCULAR, Method.LOGPROB, by) for by in range(4)),
    ]


def test_bare_questions_have_no_options_to_rotate(groups: list[list[Item]], videos: list[Video]) -> None:
    bare = EVERYTHING.model_copy(update={"prompts": "question"})
    asks = jobs(groups, videos, bare)[0].asks
    assert Condition.CIRCULAR not in {ask.condition for ask in asks}
    assert Condition.TEXT_ONLY in {ask.condition for ask in asks}


def test_predictions_under_every_condition_are_about_the_item_as_it_stands_in_its_file(
    examinee: Examinee, root: Path, groups: list[list[Item]], videos: list[Video]
) -> None:
    predictions = ask(examinee, root, jobs(groups, videos, EVERYTHING)[:1], EVERYTHING)
    by_condition = {(p.item_id, p.condition, p.rotation): p for p in predictions if p.method is Method.LOGPROB}
    for item in groups[0]:
        full = by_condition[item.id, Condition.FULL, 0]
        unmoved = by_condition[item.id, Condition.CIRCULAR, 0]
        assert unmoved.option_logprobs == full.option_logprobs
        assert {p.gold for p in predictions if p.item_id == item.id} == {item.gold}
        for rotation in range(1, 4):
            moved = by_condition[item.id, Condition.CIRCULAR, rotation]
            assert len(set(moved.option_logprobs)) == 4
            assert moved.option_logprobs != full.option_logprobs
        blind, alone, shuffled = (
            by_condition[item.id, condition, 0].option_logprobs
            for condition in (Condition.TEXT_ONLY, Condition.SINGLE_FRAME, Condition.SHUFFLED)
        )
        assert len({full.option_logprobs, blind, alone, shuffled}) == 4
    written = [p for p in predictions if p.method is Method.GENERATION]
    assert len(written) == len(groups[0])
    assert all(p.option_logprobs == () for p in written)


def test_options_that_were_not_moved_on_are_not_asked_about_twice(
    examinee: Examinee, root: Path, groups: list[list[Item]], videos: list[Video], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = forwards(examinee.model, monkeypatch)
    circular = PARAMS.model_copy(update={"controls": ControlsParams(conditions=(Condition.CIRCULAR,))})
    found = ask(examinee, root, jobs(groups, videos, circular)[:1], circular)
    assert calls == [3 * 4], "as the file has them, and moved on by one, two and three places"
    assert len(found) == 3 * 5


def test_predictions_name_the_file_that_was_shown(
    examinee: Examinee, root: Path, groups: list[list[Item]], videos: list[Video]
) -> None:
    long = groups[0][0].model_copy(update={"question": "why " * 5000})
    asked = jobs([[long], *groups[1:]], videos)
    found = ask(examinee, root, asked)
    assert {one.status for one in found} == {PredictionStatus.TOO_LONG, PredictionStatus.OK}
    shown = {item.id: video.id for group, video in zip(groups, videos, strict=True) for item in group}
    assert {one.item_id: one.video_id for one in found} == {one.item_id: shown[one.item_id] for one in found}


def test_a_question_scores_the_same_alone_as_with_the_others(
    examinee: Examinee, model: VideoLMM, root: Path, groups: list[list[Item]], videos: list[Video], tmp_path: Path
) -> None:
    together = ask(examinee, root, jobs(groups, videos)[:1])
    for item, prediction in zip(groups[0], together, strict=True):
        fresh = Examinee("base", model, ReplyCache(tmp_path / f"{item.id.replace('/', '-')}.sqlite"), "code")
        (alone,) = ask(fresh, root, jobs([[item]], videos[:1]))
        assert alone.option_logprobs == pytest.approx(prediction.option_logprobs, rel=1e-5)


def test_neither_order_nor_sharding_changes_any_answer(
    model: VideoLMM, root: Path, groups: list[list[Item]], videos: list[Video], tmp_path: Path
) -> None:
    first = Examinee("base", model, ReplyCache(tmp_path / "first.sqlite"), "code")
    second = Examinee("base", model, ReplyCache(tmp_path / "second.sqlite"), "code")
    whole = ask(first, root, jobs(groups, videos))
    backwards = jobs([group[::-1] for group in groups[::-1]], videos[::-1])
    shards = [prediction for job in backwards for prediction in ask(second, root, [job])]
    assert sorted(whole, key=lambda p: p.item_id) == sorted(shards, key=lambda p: p.item_id)


def test_what_was_answered_before_is_not_asked_again_and_its_video_not_decoded(
    examinee: Examinee,
    root: Path,
    groups: list[list[Item]],
    videos: list[Video],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    calls = forwards(examinee.model, monkeypatch)
    before = ask(examinee, root, jobs(groups, videos))
    assert calls == [3, 3, 3], "once for all questions of a video"
    nowhere = VideoFolder(tmp_path / "nowhere", tmp_path)
    again = [p for _, found in examine(examinee, nowhere, jobs(groups, videos), PARAMS) for p in found]
    assert again == before
    assert calls == [3, 3, 3]


@pytest.mark.parametrize("change", ["model", "code", "frames", "prompts"])
def test_whatever_an_answer_depends_on_makes_it_another(
    change: str,
    examinee: Examinee,
    groups: list[list[Item]],
    videos: list[Video],
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    ask_one = jobs(groups, videos)[0].asks[0]
    other, changed = examinee, ask_one
    if change == "model":
        folder = tmp_path_factory.mktemp("other") / "model"
        other = Examinee("base", load(save_tiny("qwen2_5_vl", folder, seed=1)), examinee.said, "code")
    elif change == "code":
        other = Examinee("base", examinee.model, examinee.said, "other code")
    else:
        update = {"num_frames": 5} if change == "frames" else {"prompts": "question"}
        changed = jobs(groups, videos, PARAMS.model_copy(update=update))[0].asks[0]
    assert other.key(changed, PARAMS) != examinee.key(ask_one, PARAMS)
    tuned = Examinee("tuned", examinee.model, examinee.said, "code")
    assert tuned.key(ask_one, PARAMS) == examinee.key(ask_one, PARAMS), "the same weights are asked once"


def test_a_prompt_too_long_for_the_decoder_is_counted_and_the_others_are_asked(
    examinee: Examinee, root: Path, groups: list[list[Item]], videos: list[Video]
) -> None:
    long = groups[0][0].model_copy(update={"question": "why " * 5000})
    predictions = ask(examinee, root, jobs([[long, *groups[0][1:]]], videos[:1]))
    statuses = {p.item_id: p.status for p in predictions}
    assert statuses.pop(long.id) is PredictionStatus.TOO_LONG
    assert set(statuses.values()) == {PredictionStatus.OK}
    assert "was made for 4096" in next(p.detail for p in predictions if p.item_id == long.id)


def test_memory_that_runs_out_is_named_with_what_to_do_and_what_was_said_is_kept(
    examinee: Examinee,
    root: Path,
    groups: list[list[Item]],
    videos: list[Video],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = ask(examinee, root, jobs(groups[:1], videos[:1]))

    def full(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 GiB.\nMore.")

    monkeypatch.setattr(VideoLMM, "examine", full)
    with pytest.raises(UserError, match=r"6 frames and 16 answers at a time: .* 20 GiB\. Lower evaluate\.batch_size"):
        ask(examinee, root, jobs(groups, videos))
    assert ask(examinee, root, jobs(groups[:1], videos[:1])) == first


def test_a_video_that_breaks_after_it_was_looked_at_is_broken_and_the_others_go_on(
    examinee: Examinee, root: Path, groups: list[list[Item]], videos: list[Video], tmp_path: Path
) -> None:
    for group in groups:
        file = tmp_path / video_path(group)
        file.parent.mkdir(parents=True)
        whole = (root / video_path(group)).read_bytes()
        file.write_bytes(whole[:2000] if group == groups[0] else whole)
    found = examine(examinee, VideoFolder(tmp_path, root / ".frames"), jobs(groups, videos), PARAMS)
    statuses = [{p.status for p in predictions} for _, predictions in found]
    assert statuses == [{PredictionStatus.VIDEO_BROKEN}, {PredictionStatus.OK}, {PredictionStatus.OK}]


def test_a_missing_video_is_told_from_a_broken_one_and_both_count_as_wrong(
    tmp_path: Path, groups: list[list[Item]]
) -> None:
    missing, broken = groups[0], groups[1]
    path = tmp_path / video_path(broken)
    path.parent.mkdir(parents=True)
    path.write_bytes(b"not a video" * 100)
    with Prober(tmp_path / ".frames") as prober:
        found = [check_video(tmp_path, group, prober) for group in (missing, broken)]
    for group, rejection, status in zip(
        (missing, broken), found, (PredictionStatus.VIDEO_MISSING, PredictionStatus.VIDEO_BROKEN), strict=True
    ):
        assert isinstance(rejection, Rejection)
        predictions = without_video(group, "base", rejection, EVERYTHING)
        assert [(p.item_id, p.method) for p in predictions] == [
            (item.id, method) for item in group for method in (Method.LOGPROB, Method.GENERATION)
        ]
        assert {(p.status, p.correct, p.score) for p in predictions} == {(status, False, 0)}
        assert all(p.detail for p in predictions)


def test_killed_in_the_middle_it_goes_on_and_asks_nothing_twice(
    model: VideoLMM,
    root: Path,
    groups: list[list[Item]],
    videos: list[Video],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The child is killed with -9 when the first video's answers are on disk."""
    said, checkpoint = str(tmp_path / "said.sqlite"), str(model.folder)
    code = textwrap.dedent(f"""
        import os, signal, sys
        sys.path[:0] = {[str(Path(__file__).parents[1]), str(Path(__file__).parent)]!r}
        from pathlib import Path
        import test_evaluation_run as here
        from tpo.evaluation.benchmarks import load_benchmarks
        from tpo.evaluation.preflight import group_by_video
        root = Path({str(root)!r})
        groups = group_by_video(load_benchmarks(root)[0])
        with here.Prober(root / ".frames") as prober:
            videos = [here.check_video(root, group, prober) for group in groups]
        examinee = here.Examinee("base", here.load({checkpoint!r}), here.ReplyCache(Path({said!r})), "code")
        folder = here.VideoFolder(root, root / ".frames")
        for _ in here.examine(examinee, folder, here.jobs(groups, videos), here.PARAMS):
            os.kill(os.getpid(), signal.SIGKILL)
    """)
    killed = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}, check=False
    )
    assert killed.returncode == -signal.SIGKILL
    calls = forwards(model, monkeypatch)
    going_on = Examinee("base", model, ReplyCache(tmp_path / "said.sqlite"), "code")
    after = ask(going_on, root, jobs(groups, videos))
    assert calls == [3, 3], "the first video's answers were on disk"
    fresh = Examinee("base", model, ReplyCache(tmp_path / "fresh.sqlite"), "code")
    assert [p.predicted for p in after] == [p.predicted for p in ask(fresh, root, jobs(groups, videos))]
