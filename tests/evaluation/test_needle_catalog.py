"""Needles made of one's own videos: which questions become one, with which options, and what their clips show."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tpo.demo.world import plan_events, write_video
from tpo.evaluation.needle import load_needles, plan_needles
from tpo.evaluation.needle_catalog import choose_needles, cut_needles
from tpo.params import NeedleParams
from tpo.records import Granularity, Query, QuestionType, Reason, Segment, Video, View, ViewKind
from tpo.video.decode import decode
from tpo.video.probe import Prober
from tpo.video.sample import dense


@pytest.fixture(scope="module")
def prober(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prober]:
    with Prober(tmp_path_factory.mktemp("frames")) as prober:
        yield prober


def queries_about(video: Video, starts_s: list[float]) -> list[Query]:
    return [
        Query(
            id=f"{video.id[:6]}{number}", video_id=video.id, granularity=Granularity.LOCALIZED,
            question_type=QuestionType.TEMPORAL_REASONING,
            segment=Segment(video_id=video.id, start_s=start_s, end_s=start_s + 8),
            question=f"What comes after {video.path} {number}?", reference_answer=f"{video.path} {number} is it",
            asker="a person",
        )
        for number, start_s in enumerate(starts_s)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def own(prober: Prober, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Video], list[Query]]:
    folder = tmp_path_factory.mktemp("own")
    rng = np.random.default_rng(5)
    for name in ("a", "b", "c"):
        write_video(folder / f"{name}.mp4", plan_events(rng, 6), 0.0)
    videos = [prober.probe(folder, folder / f"{name}.mp4") for name in ("a", "b", "c")]
    measured = [video for video in videos if isinstance(video, Video)]
    assert len(measured) == 3
    return folder, measured, [query for video in measured for query in queries_about(video, [0.0, 10.25])]


def test_questions_about_segments_of_own_videos_become_needles_for_other_videos(
    own: tuple[Path, list[Video], list[Query]], prober: Prober, tmp_path: Path
) -> None:
    folder, videos, queries = own
    assert cut_needles(tmp_path / "needle", queries, videos, folder, prober.index_dir, num_haystacks=2) == []
    needles, haystacks, rejections = load_needles(tmp_path / "needle", prober)
    assert rejections == []
    assert (len(needles), len(haystacks)) == (6, 2)
    by_id = {f"needle/{query.id}": query for query in queries}
    for needle in needles:
        query = by_id[needle.item.id]
        assert needle.item.gold is not None
        assert needle.item.options[needle.item.gold] == query.reference_answer
        assert len(set(needle.item.options)) == 4
        assert needle.source == query.video_id
        assert needle.clip.duration_s == pytest.approx(8, abs=0.01)
        assert query.segment
        moments_s = dense(needle.clip, 6).timestamps_s
        clip = decode(tmp_path / "needle" / needle.clip.path, dense(needle.clip, 6), prober.index_dir)
        of_video = tuple(query.segment.start_s + moment_s for moment_s in moments_s)
        video = next(video for video in videos if video.id == query.video_id)
        view = View(video_id=video.id, kind=ViewKind.SEGMENT, timestamps_s=of_video)
        there = decode(folder / video.path, view, prober.index_dir).pixels
        assert np.abs(clip.pixels.astype(int) - there).mean(axis=(1, 2, 3)).max() < 4
    params = NeedleParams(modes=("in_video",), minutes=(0.5,), depths=(0.5,), needle_frames=2, per_cell=20)
    cases, _ = plan_needles(params, 32, needles, haystacks, seed=0)
    put_in = [case for case in cases if case.control is None]
    assert len(put_in) == 6 * 2 - 4, "four needles were cut from one of the two haystacks"
    assert all(case.haystack.id != case.needle.source for case in cases if case.haystack)


def test_questions_that_make_no_needle_are_left_out_or_said(
    own: tuple[Path, list[Video], list[Query]], prober: Prober, tmp_path: Path
) -> None:
    folder, videos, queries = own
    descriptive = queries[0].model_copy(update={"id": "d", "question_type": QuestionType.DESCRIPTIVE})
    whole = queries[0].model_copy(update={"id": "w", "granularity": Granularity.COMPREHENSIVE, "segment": None})
    needles, rejections = choose_needles([*queries, descriptive, whole])
    assert {needle.id for needle in needles} == {query.id for query in queries}
    assert rejections == []
    assert choose_needles(queries[::-1])[0] == needles[::-1]
    few, unusable = choose_needles(queries[:2])
    assert few == []
    assert [one.detail for one in unusable] == ["1 other answers to questions of its type, 3 needed as options"] * 2
    beyond = queries[1].model_copy(
        update={"id": "late", "question": "What?", "segment": Segment(video_id=videos[0].id, start_s=900, end_s=901)}
    )
    gone = cut_needles(tmp_path / "needle", [*queries, beyond], videos[:2], folder, prober.index_dir, num_haystacks=1)
    assert Counter(one.reason for one in gone) == {Reason.VIDEO_MISSING: 2, Reason.DECODE_FAILED: 1}
    assert len(json.loads((tmp_path / "needle/needles.json").read_text())) == 4


def test_gold_options_are_in_all_places() -> None:
    video = Video(
        id="a" * 64, path="a.mp4", size_bytes=1, duration_s=900, fps=10, num_frames=600, width=64, height=64,
        rotation_deg=0, codec="h264", is_vfr=False, has_audio=False, last_frame_s=899, longest_frame_s=0.1,
        num_restarts=1, brightness=90.0, change=3.0,
    )  # fmt: skip
    needles, _ = choose_needles(queries_about(video, [float(n) for n in range(200)]))
    places = Counter(needle.gold for needle in needles)
    assert set(places) == {0, 1, 2, 3}
    assert min(places.values()) > 30
