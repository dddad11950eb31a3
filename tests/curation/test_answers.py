"""What the policy model is shown for each answer, and that it really answers: a tiny model on real H.264 files."""

from pathlib import Path

import numpy as np
import pytest

from tpo.curation.answers import Policy, answer_video, views_of
from tpo.demo.world import plan_events, write_video
from tpo.models.load import load_model
from tpo.models.video_lmm import VideoLMM
from tpo.params import AnswerParams, DispreferredView, ModelParams, load_params
from tpo.records import Answer, Branch, Granularity, Query, QuestionType, Reason, Rejection, Segment, Video, ViewKind
from tpo.replies import ReplyCache
from tpo.video.decode import VideoFolder
from tpo.video.frame_cache import FrameCache
from tpo.video.probe import Prober
from tpo.video.sample import dense

ROOT = Path(__file__).resolve().parents[2]
SMALL = {"full_frames": 12, "segment_frames": 4, "max_new_tokens": 6, "batch_size": 2}
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


@pytest.fixture
def said(tmp_path: Path) -> ReplyCache:
    return ReplyCache(tmp_path / "said" / "replies.sqlite")


@pytest.fixture
def policy(model: VideoLMM, said: ReplyCache) -> Policy:
    return Policy(model, said, "code")


def answered(
    policy: Policy, video: Video, folder: VideoFolder, queries: list[Query], params: AnswerParams = PARAMS
) -> tuple[list[Answer], list[Rejection]]:
    return answer_video(policy, video, [], folder, queries, params, seed=0)


def forgetful(model: VideoLMM, tmp_path: Path, name: str) -> Policy:
    """The model without what it said before."""
    return Policy(model, ReplyCache(tmp_path / name / "replies.sqlite"), "code")


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
    views = views_of(a_query(video, segment_s), video, [], PARAMS, seed=0)
    start_s, end_s = segment_s
    assert views[Branch.PREFERRED].kind is ViewKind.SEGMENT
    assert len(views[Branch.PREFERRED].timestamps_s) == PARAMS.segment_frames
    assert all(start_s <= t < min(end_s, video.duration_s) for t in views[Branch.PREFERRED].timestamps_s)
    assert views[Branch.DISPREFERRED].kind is ViewKind.WITHOUT_SEGMENT
    assert len(views[Branch.DISPREFERRED].timestamps_s) == PARAMS.full_frames
    assert not [t for t in views[Branch.DISPREFERRED].timestamps_s if start_s <= t < end_s]


def test_a_comprehensive_query_sees_the_full_view_and_then_a_sparse_part_of_it(video: Video) -> None:
    views = views_of(a_query(video, None), video, [], PARAMS, seed=0)
    full, part = views[Branch.PREFERRED], views[Branch.DISPREFERRED]
    assert full == dense(video, PARAMS.full_frames)
    assert (part.kind, len(part.timestamps_s)) == (ViewKind.SPARSE, 3)
    assert set(part.timestamps_s) < set(full.timestamps_s)
    assert list(part.timestamps_s) == sorted(part.timestamps_s)
    assert views_of(a_query(video, None), video, [], PARAMS, seed=0) == views
    assert views_of(a_query(video, None), video, [], PARAMS, seed=1)[Branch.DISPREFERRED] != part


def test_every_query_is_answered_twice_by_the_model_that_is_named(root: Path, video: Video, policy: Policy) -> None:
    queries = [
        a_query(video, None),
        a_query(video, (12.5, 31.0)),
        a_query(video, (0.0, 10.0), "What color is the ring?"),
    ]
    answers, rejections = answered(policy, video, VideoFolder(root, root / ".frames"), queries)
    assert rejections == []
    groups = pairs_of(answers)
    assert set(groups) == {query.id for query in queries}
    for query in queries:
        assert [answer.branch for answer in groups[query.id]] == BOTH
        for answer in groups[query.id]:
            assert answer.view == views_of(query, video, [], PARAMS, seed=0)[answer.branch]
            assert answer.model_id == policy.model.id
            assert 0 <= answer.num_tokens <= PARAMS.max_new_tokens
            assert answer.num_tokens == len(policy.model.answer_ids(answer.text)) - 1
            assert answer.ended or answer.num_tokens == PARAMS.max_new_tokens
    assert len({answer.id for answer in answers}) == len(answers)


def test_all_questions_about_a_video_cost_one_pass_over_it_and_get_the_same_answers(
    root: Path, video: Video, model: VideoLMM, tmp_path: Path
) -> None:
    queries = [a_query(video, None), *(a_query(video, (float(start), start + 7.0)) for start in range(0, 30, 3))]
    cached = VideoFolder(root, root / ".frames", FrameCache(tmp_path, 10**9))
    found = answered(forgetful(model, tmp_path, "a"), video, cached, queries)
    plain = VideoFolder(root, root / ".frames")
    assert found == answered(forgetful(model, tmp_path, "b"), video, plain, queries)
    assert len(list(tmp_path.glob("*/*.frames"))) == 1


def test_an_answer_does_not_depend_on_what_else_is_asked(
    root: Path, video: Video, model: VideoLMM, tmp_path: Path
) -> None:
    queries = [a_query(video, (0.0, 10.0)), a_query(video, None), a_query(video, None, "What comes last?")]
    folder = VideoFolder(root, root / ".frames")
    together, _ = answered(forgetful(model, tmp_path, "together"), video, folder, queries)
    for query in queries:
        alone, _ = answered(forgetful(model, tmp_path, query.question), video, folder, [query])
        assert alone == pairs_of(together)[query.id]


def test_what_the_model_said_before_is_neither_decoded_nor_asked_again(
    root: Path, video: Video, policy: Policy, tmp_path: Path
) -> None:
    """A question that is new, other decoding, and other code are asked; the rest comes from what was kept."""
    old, new = a_query(video, None), a_query(video, None, "What comes last?")
    first = answered(policy, video, VideoFolder(root, root / ".frames"), [old])
    nowhere = VideoFolder(tmp_path / "nowhere", root / ".frames")
    assert answered(policy, video, nowhere, [old]) == first
    for asked, params, who in (
        ([new], PARAMS, policy),
        ([old], PARAMS.model_copy(update={"max_new_tokens": 5}), policy),
        ([old], PARAMS, Policy(policy.model, policy.said, "other code")),
    ):
        answers, rejections = answered(who, video, nowhere, asked, params)
        assert answers == []
        assert [rejection.reason for rejection in rejections] == [Reason.DECODE_FAILED]


def test_several_answers_are_drawn_at_a_temperature_and_are_the_same_each_time(
    root: Path, video: Video, model: VideoLMM, tmp_path: Path
) -> None:
    params = PARAMS.model_copy(update={"samples": 4, "temperature": 2.0})
    queries = [a_query(video, None), a_query(video, (0.0, 10.0))]
    folder = VideoFolder(root, root / ".frames")
    answers, _ = answered(forgetful(model, tmp_path, "a"), video, folder, queries, params)
    assert [(one.query_id, one.branch, one.sample) for one in answers] == [
        (query.id, branch, sample) for query in queries for branch in Branch for sample in range(4)
    ]
    for query in queries:
        for branch in Branch:
            texts = {one.text for one in answers if (one.query_id, one.branch) == (query.id, branch)}
            assert len(texts) > 1, "at this temperature a random model hardly says the same four times"
    again = params.model_copy(update={"batch_size": 3})
    assert answered(forgetful(model, tmp_path, "b"), video, folder, queries, again)[0] == answers
    other, _ = answer_video(forgetful(model, tmp_path, "c"), video, [], folder, queries, params, seed=1)
    assert [one.text for one in other] != [one.text for one in answers]


def test_which_view_takes_the_evidence_away_is_drawn_for_each_query_from_those_that_are_named(video: Video) -> None:
    kinds = (ViewKind.SPARSE, ViewKind.SHUFFLED, ViewKind.REVERSED, ViewKind.MASKED)
    views = tuple(DispreferredView(view=kind, strength=0.5) for kind in kinds)
    params = PARAMS.model_copy(update={"dispreferred": PARAMS.dispreferred | {Granularity.COMPREHENSIVE: views}})
    asked = [a_query(video, None, f"What is number {number}?") for number in range(40)]
    drawn = [views_of(query, video, [], params, seed=0)[Branch.DISPREFERRED] for query in asked]
    assert {view.kind for view in drawn} == set(kinds)
    assert all(view.difficulty is not None for view in drawn)
    assert [views_of(query, video, [], params, seed=0)[Branch.DISPREFERRED] for query in asked] == drawn


def test_frames_of_another_video_are_really_shown_as_distractors(
    root: Path, video: Video, model: VideoLMM, tmp_path: Path
) -> None:
    write_video(root / "other.mp4", plan_events(np.random.default_rng(1), 6), phase=1.0)
    with Prober(root / ".frames") as prober:
        other = prober.probe(root, root / "other.mp4")
    assert isinstance(other, Video)
    views = (DispreferredView(view=ViewKind.DISTRACTORS_INSERTED, strength=0.5),)
    params = PARAMS.model_copy(update={"dispreferred": PARAMS.dispreferred | {Granularity.COMPREHENSIVE: views}})
    query = a_query(video, None)
    folder = VideoFolder(root, root / ".frames", paths={one.id: one.path for one in (video, other)})
    answers, _ = answer_video(forgetful(model, tmp_path, "a"), video, [video, other], folder, [query], params, seed=0)
    view = answers[1].view
    assert {one.video_id for one in view.distractors} == {other.id}
    assert len(view.timestamps_s) == len(answers[0].view.timestamps_s)
    none, (rejection,) = answer_video(forgetful(model, tmp_path, "b"), video, [], folder, [query], params, seed=0)
    assert (none, rejection.reason) == ([], Reason.NO_VIEW)


@pytest.mark.parametrize("damage", ["gone", "a web page", "cut short"])
def test_without_frames_every_query_of_the_video_is_set_aside(
    root: Path, video: Video, policy: Policy, tmp_path: Path, damage: str
) -> None:
    sound = (root / video.path).read_bytes()
    if damage != "gone":
        (tmp_path / video.path).write_bytes(b"<html>" * 99 if damage == "a web page" else sound[: len(sound) // 3])
    queries = [a_query(video, None), a_query(video, (0.0, 10.0))]
    answers, rejections = answered(policy, video, VideoFolder(tmp_path, root / ".frames"), queries)
    assert answers == []
    assert {rejection.item for rejection in rejections} == {query.id for query in queries}
    assert {(rejection.stage, rejection.reason) for rejection in rejections} == {("answer", Reason.DECODE_FAILED)}
    assert all(video.path in rejection.detail and str(tmp_path) not in rejection.detail for rejection in rejections)


def test_a_segment_that_is_the_whole_video_is_set_aside_alone(root: Path, video: Video, policy: Policy) -> None:
    queries = [a_query(video, (0.0, video.duration_s)), a_query(video, (0.0, 10.0))]
    answers, (rejection,) = answered(policy, video, VideoFolder(root, root / ".frames"), queries)
    assert set(pairs_of(answers)) == {queries[1].id}
    assert (rejection.item, rejection.reason) == (queries[0].id, Reason.NO_VIEW)
    assert "nothing is left" in rejection.detail
