"""What the policy model is shown for each answer, and that it really answers: a tiny model on real H.264 files."""

from pathlib import Path

import numpy as np
import pytest

from tpo.curation.answers import answer_video, views_of
from tpo.demo.world import plan_events, write_video
from tpo.models import VideoLMM, load_model
from tpo.params import ModelParams, load_params
from tpo.records import Answer, Branch, Granularity, Query, QuestionType, Reason, Segment, Video, ViewKind
from tpo.video.decode import VideoFolder
from tpo.video.frame_cache import FrameCache
from tpo.video.probe import Prober
from tpo.video.sample import dense

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"full_frames": 12, "segment_frames": 4, "sparse_keep": 0.25, "max_new_tokens": 6, "batch_size": 2}
PARAMS = load_params(ROOT / "params.yaml").answer.model_copy(update=SMALL)
BOTH = [Branch.PREFERRED, Branch.DISPREFERRED]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    write_video(root / "walk.mp4", plan_events(np.random.default_rng(0), 6), phase=0.0)
    return root


@pytest.fixture(scope="module")
def video(root: Path) -> Video:
    with Prober(root / ".frames") as prober:
        video = prober.probe(root, root / "walk.mp4")
    assert isinstance(video, Video)
    return video


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> VideoLMM:
    return load_model(ModelParams(base=str(tiny_checkpoint), dtype="float32", device="cpu"))


def a_query(video: Video, segment_s: tuple[float, float] | None, question: str = "What comes first?") -> Query:
    segment = Segment(video_id=video.id, start_s=segment_s[0], end_s=segment_s[1]) if segment_s else None
    return Query(
        id=f"{question} {segment_s}",
        video_id=video.id,
        granularity=Granularity.LOCALIZED if segment else Granularity.COMPREHENSIVE,
        question_type=QuestionType.TEMPORAL_REASONING,
        segment=segment,
        question=question,
        reference_answer="a red star",
        asker="rule",
    )


def pairs_of(answers: list[Answer]) -> dict[str, list[Answer]]:
    groups: dict[str, list[Answer]] = {}
    for answer in answers:
        groups.setdefault(answer.query_id, []).append(answer)
    return groups


@pytest.mark.parametrize("segment_s", [(0.0, 10.0), (12.5, 31.0), (25.0, 1000.0)])
def test_a_localized_query_zooms_into_its_segment_and_then_never_sees_it(
    video: Video, segment_s: tuple[float, float]
) -> None:
    views = views_of(a_query(video, segment_s), video, PARAMS, seed=0)
    start_s, end_s = segment_s
    assert views[Branch.PREFERRED].kind is ViewKind.SEGMENT
    assert len(views[Branch.PREFERRED].timestamps_s) == PARAMS.segment_frames
    assert all(start_s <= t < min(end_s, video.duration_s) for t in views[Branch.PREFERRED].timestamps_s)
    assert views[Branch.DISPREFERRED].kind is ViewKind.WITHOUT_SEGMENT
    assert len(views[Branch.DISPREFERRED].timestamps_s) == PARAMS.full_frames
    assert not [t for t in views[Branch.DISPREFERRED].timestamps_s if start_s <= t < end_s]


def test_a_comprehensive_query_sees_the_full_view_and_then_a_sparse_part_of_it(video: Video) -> None:
    views = views_of(a_query(video, None), video, PARAMS, seed=0)
    full, part = views[Branch.PREFERRED], views[Branch.DISPREFERRED]
    assert full == dense(video, PARAMS.full_frames)
    assert (part.kind, len(part.timestamps_s)) == (ViewKind.SPARSE, 3)
    assert set(part.timestamps_s) < set(full.timestamps_s)
    assert list(part.timestamps_s) == sorted(part.timestamps_s)
    assert views_of(a_query(video, None), video, PARAMS, seed=0) == views
    assert views_of(a_query(video, None), video, PARAMS, seed=1)[Branch.DISPREFERRED] != part


def test_every_query_is_answered_twice_by_the_model_that_is_named(root: Path, video: Video, model: VideoLMM) -> None:
    queries = [
        a_query(video, None),
        a_query(video, (12.5, 31.0)),
        a_query(video, (0.0, 10.0), "What color is the ring?"),
    ]
    answers, rejections = answer_video(model, video, VideoFolder(root, root / ".frames"), queries, PARAMS, seed=0)
    assert rejections == []
    groups = pairs_of(answers)
    assert set(groups) == {query.id for query in queries}
    for query in queries:
        assert [answer.branch for answer in groups[query.id]] == BOTH
        for answer in groups[query.id]:
            assert answer.view == views_of(query, video, PARAMS, seed=0)[answer.branch]
            assert answer.model_id == model.id
            assert len(answer.text.split()) <= PARAMS.max_new_tokens
    assert len({answer.id for answer in answers}) == len(answers)


def test_all_questions_about_a_video_cost_one_pass_over_it_and_get_the_same_answers(
    root: Path, video: Video, model: VideoLMM, tmp_path: Path
) -> None:
    queries = [a_query(video, None), *(a_query(video, (float(start), start + 7.0)) for start in range(0, 30, 3))]
    cached = VideoFolder(root, root / ".frames", FrameCache(tmp_path, 10**9))
    params = PARAMS.model_copy(update={"batch_size": 2})
    found = answer_video(model, video, cached, queries, params, seed=0)
    assert found == answer_video(model, video, VideoFolder(root, root / ".frames"), queries, params, seed=0)
    assert len(list(tmp_path.glob("*/*.frames"))) == 1


def test_an_answer_does_not_depend_on_what_else_is_asked(root: Path, video: Video, model: VideoLMM) -> None:
    queries = [a_query(video, (0.0, 10.0)), a_query(video, None), a_query(video, None, "What comes last?")]
    together, _ = answer_video(model, video, VideoFolder(root, root / ".frames"), queries, PARAMS, seed=0)
    for query in queries:
        assert (
            answer_video(model, video, VideoFolder(root, root / ".frames"), [query], PARAMS, seed=0)[0]
            == pairs_of(together)[query.id]
        )


@pytest.mark.parametrize("damage", ["gone", "a web page", "cut short"])
def test_without_frames_every_query_of_the_video_is_set_aside(
    root: Path, video: Video, model: VideoLMM, tmp_path: Path, damage: str
) -> None:
    sound = (root / video.path).read_bytes()
    if damage != "gone":
        (tmp_path / video.path).write_bytes(b"<html>" * 99 if damage == "a web page" else sound[: len(sound) // 3])
    queries = [a_query(video, None), a_query(video, (0.0, 10.0))]
    answers, rejections = answer_video(model, video, VideoFolder(tmp_path, root / ".frames"), queries, PARAMS, seed=0)
    assert answers == []
    assert {rejection.item for rejection in rejections} == {query.id for query in queries}
    assert {(rejection.stage, rejection.reason) for rejection in rejections} == {("answer", Reason.DECODE_FAILED)}
    assert all(video.path in rejection.detail and str(tmp_path) not in rejection.detail for rejection in rejections)


def test_a_segment_that_is_the_whole_video_is_set_aside_alone(root: Path, video: Video, model: VideoLMM) -> None:
    queries = [a_query(video, (0.0, video.duration_s)), a_query(video, (0.0, 10.0))]
    answers, (rejection,) = answer_video(model, video, VideoFolder(root, root / ".frames"), queries, PARAMS, seed=0)
    assert set(pairs_of(answers)) == {queries[1].id}
    assert rejection.item == queries[0].id
    assert "nothing is left" in rejection.detail
