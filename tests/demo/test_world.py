import itertools
from pathlib import Path

import av
import numpy as np
import pytest

from tpo.demo.world import (
    BACKGROUND,
    COLORS,
    FPS,
    SHAPES,
    SIZE_PX,
    Event,
    frames,
    plan_events,
    render_frame,
    write_video,
)


def decoded(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24").astype(int) for frame in container.decode(video=0)]


def test_events_follow_each_other_without_gaps_for_6_to_14_s_in_whole_frames() -> None:
    for seed in range(50):
        events = plan_events(np.random.default_rng(seed), 12)
        assert len(events) == 12
        assert events[0].start_s == 0
        assert all(one.end_s == other.start_s for one, other in itertools.pairwise(events))
        assert all(6 <= event.end_s - event.start_s <= 14 for event in events)
        assert all(float(event.end_s * FPS).is_integer() for event in events)


def test_no_shape_occurs_twice_so_every_question_about_order_has_one_answer() -> None:
    for seed in range(50):
        assert len({event.shape for event in plan_events(np.random.default_rng(seed), len(SHAPES))}) == len(SHAPES)


def test_the_same_draw_gives_the_same_events_and_another_draw_others() -> None:
    assert plan_events(np.random.default_rng(3), 10) == plan_events(np.random.default_rng(3), 10)
    assert plan_events(np.random.default_rng(3), 10) != plan_events(np.random.default_rng(4), 10)


def test_events_last_10_s_on_average_and_use_every_shape_and_color() -> None:
    events = [event for seed in range(60) for event in plan_events(np.random.default_rng(seed), 12)]
    assert np.mean([event.end_s - event.start_s for event in events]) == pytest.approx(10, abs=0.4)
    assert {event.shape for event in events} == set(SHAPES)
    assert {event.color for event in events} == set(COLORS)


def test_a_caption_says_what_is_shown_with_the_right_article() -> None:
    assert Event(0, 6, "red", "star").caption == "a red star"
    assert Event(0, 6, "orange", "moon").caption == "an orange moon"


@pytest.mark.parametrize("color", COLORS)
def test_a_shape_is_drawn_in_its_color_on_the_background(color: str) -> None:
    picture = render_frame(Event(0, 9, color, "square"), 1.0, 0.0)
    assert picture.shape == (SIZE_PX, SIZE_PX, 3)
    assert picture.dtype == np.uint8
    for wanted in (COLORS[color], BACKGROUND):
        assert (np.abs(picture.astype(int) - wanted) <= 1).all(axis=-1).mean() > 0.2


def test_no_two_shapes_look_alike_and_none_is_cut_off() -> None:
    masks = {}
    for shape in SHAPES:
        for time_s in np.arange(0, 7, 0.5):
            picture = render_frame(Event(0, 9, "white", shape), float(time_s), 0.3)
            lit = (picture > 130).all(axis=-1)
            assert not lit[[0, -1]].any()
            assert not lit[:, [0, -1]].any()
            if time_s == 0:
                masks[shape] = lit
    for shape, mask in masks.items():
        for other, other_mask in masks.items():
            if shape != other:
                overlap = (mask & other_mask).sum() / (mask | other_mask).sum()
                assert overlap < 0.85, (shape, other)


def test_a_shape_moves_and_the_phase_sets_where_it_is() -> None:
    event = Event(0, 9, "blue", "ring")
    assert (render_frame(event, 0, 0) != render_frame(event, 2, 0)).any()
    assert (render_frame(event, 0, 0) != render_frame(event, 0, 2)).any()
    assert (render_frame(event, 3, 1) == render_frame(event, 3, 1)).all()


def test_a_written_video_shows_every_event_from_its_first_to_its_last_frame(tmp_path: Path) -> None:
    events = plan_events(np.random.default_rng(5), 4)
    write_video(tmp_path / "a.mp4", events, phase=0.7)
    pictures = decoded(tmp_path / "a.mp4")
    drawn = list(frames(events, 0.7))
    assert len(pictures) == len(drawn) == round(events[-1].end_s * FPS)
    for number, (picture, original) in enumerate(zip(pictures, drawn, strict=True)):
        errors = [np.abs(picture - other).mean() for other in (original, *drawn[:: FPS * 3])]
        assert errors[0] < 6, number
        assert errors[0] <= min(errors) + 1e-9, "another moment looks more like it"


def test_the_same_events_give_the_same_bytes(tmp_path: Path) -> None:
    events = plan_events(np.random.default_rng(5), 3)
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, events, phase=0.7)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
