"""Which questions are drawn for a video, and from what."""

import numpy as np
import pytest

from tpo.curation.queries import ask_video
from tpo.demo.world import plan_events
from tpo.params import AskParams
from tpo.records import Caption, Granularity, Query, Reason, Video


def params(captions_per_segment: int = 3, localized: int = 10, comprehensive: int = 6) -> AskParams:
    return AskParams(
        asker="rule",
        captions_per_segment=captions_per_segment,
        localized_per_video=localized,
        comprehensive_per_video=comprehensive,
        contamination_words=13,
    )


def a_video(duration_s: float, name: str = "a") -> Video:
    return Video(
        id=name * 64, path=f"{name}.mp4", size_bytes=1, duration_s=duration_s, fps=2, num_frames=round(duration_s * 2),
        width=64, height=64, rotation_deg=0, codec="h264", is_vfr=False, has_audio=False,
        last_frame_s=duration_s - 0.5, longest_frame_s=0.5, num_restarts=1, brightness=90.0, change=3.0,
    )  # fmt: skip


def captions_of(video: Video, *cues: tuple[float, float, str]) -> list[Caption]:
    return [
        Caption(id=str(number), video_id=video.id, start_s=start, end_s=end, text=text, source="x.srt")
        for number, (start, end, text) in enumerate(cues)
    ]


def a_walk(num_events: int, seed: int = 0, name: str = "a") -> tuple[Video, list[Caption]]:
    events = plan_events(np.random.default_rng(seed), num_events)
    video = a_video(events[-1].end_s, name)
    return video, captions_of(video, *((event.start_s, event.end_s, event.caption) for event in events))


def of(queries: list[Query], granularity: Granularity) -> list[Query]:
    return [query for query in queries if query.granularity is granularity]


@pytest.mark.parametrize(("localized", "comprehensive"), [(10, 6), (3, 1), (0, 6), (10, 0)])
def test_no_more_of_a_granularity_than_asked_for(localized: int, comprehensive: int) -> None:
    video, captions = a_walk(12)
    queries, rejections = ask_video(video, captions, params(localized=localized, comprehensive=comprehensive), 0)
    assert rejections == []
    assert len(of(queries, Granularity.LOCALIZED)) == localized
    assert len(of(queries, Granularity.COMPREHENSIVE)) == comprehensive


def test_a_short_video_gives_what_it_has_and_no_question_twice() -> None:
    video, captions = a_walk(4)
    queries, _ = ask_video(video, captions, params(localized=1000, comprehensive=1000), 0)
    assert len(of(queries, Granularity.COMPREHENSIVE)) == 2 + 6
    # Four colours, three neighbours in both directions; what two segments share is asked once.
    assert len(of(queries, Granularity.LOCALIZED)) == 4 + 6
    assert len({query.question for query in queries}) == len(queries)
    assert len({query.id for query in queries}) == len(queries)


def test_localized_questions_are_spread_over_the_video() -> None:
    video, captions = a_walk(14)
    queries, _ = ask_video(video, captions, params(localized=12), 0)
    segments = {query.segment for query in of(queries, Granularity.LOCALIZED)}
    assert len(segments) >= 10, "each segment has its turn before any has a second"
    third_s = video.duration_s / 3
    middles = [(segment.start_s + segment.end_s) / 2 for segment in segments if segment]
    assert {int(middle // third_s) for middle in middles} == {0, 1, 2}


def test_comprehensive_questions_are_of_every_kind() -> None:
    video, captions = a_walk(14)
    queries, _ = ask_video(video, captions, params(comprehensive=4), 0)
    kinds = [query.question_type for query in of(queries, Granularity.COMPREHENSIVE)]
    assert sorted(kinds) == ["information_extraction"] * 2 + ["temporal_reasoning"] * 2


def test_the_draw_depends_on_the_seed_and_the_video_alone() -> None:
    video, captions = a_walk(12)
    queries, _ = ask_video(video, captions, params(), 0)
    assert ask_video(video, captions[::-1], params(), 0)[0] == queries, "captions may come in any order"
    assert ask_video(video, captions, params(), 1)[0] != queries
    other, other_captions = a_walk(12, name="b")
    others, _ = ask_video(other, other_captions, params(), 0)
    assert {query.id for query in others}.isdisjoint(query.id for query in queries)
    assert [query.question for query in others] != [query.question for query in queries]


@pytest.mark.parametrize("seed", range(5))
def test_segments_lie_inside_the_video_and_leave_something_of_it_out(seed: int) -> None:
    video, captions = a_walk(8, seed)
    queries, _ = ask_video(video, captions, params(captions_per_segment=7, localized=100), seed)
    assert of(queries, Granularity.LOCALIZED)
    for query in of(queries, Granularity.LOCALIZED):
        assert query.segment is not None
        assert 0 <= query.segment.start_s < query.segment.end_s <= video.duration_s
        assert query.segment.end_s - query.segment.start_s <= video.duration_s - 6, "an event lasts 6 s or more"
    assert all(query.segment is None for query in of(queries, Granularity.COMPREHENSIVE))


def test_a_caption_over_the_whole_video_makes_no_segment_of_it() -> None:
    video = a_video(30)
    captions = captions_of(video, (0, 30, "a film"), (0, 10, "a red star"), (10, 20, "a ring"), (20, 30, "a moon"))
    queries, _ = ask_video(video, captions, params(captions_per_segment=2), 0)
    segments = {query.segment for query in of(queries, Granularity.LOCALIZED) if query.segment}
    assert {(segment.start_s, segment.end_s) for segment in segments} == {(10, 30)}


def test_as_many_captions_as_a_segment_has_leave_only_the_whole_video_to_ask_about() -> None:
    video, captions = a_walk(4)
    queries, rejections = ask_video(video, captions, params(captions_per_segment=4), 0)
    assert {query.granularity for query in queries} == {Granularity.COMPREHENSIVE}
    assert rejections == []


@pytest.mark.parametrize("count", [0, 1])
def test_a_video_with_too_few_captions_is_set_aside(count: int) -> None:
    video, captions = a_walk(4)
    queries, (rejection,) = ask_video(video, captions[:count], params(), 0)
    assert queries == []
    assert (rejection.stage, rejection.item, rejection.reason) == ("ask", video.id, Reason.TOO_FEW_CAPTIONS)
    assert str(count) in rejection.detail


def test_a_video_whose_captions_are_all_alike_says_that_there_is_nothing_to_ask() -> None:
    video = a_video(30)
    captions = captions_of(video, *((second, second + 10, "(music)") for second in (0, 10, 20)))
    queries, (rejection,) = ask_video(video, captions, params(captions_per_segment=2, comprehensive=0), 0)
    assert queries == []
    assert rejection.reason is Reason.NOTHING_TO_ASK
