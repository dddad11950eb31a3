"""Captions against the video that they belong to."""

import json
from pathlib import Path

from tpo.curation.captions import caption_video
from tpo.records import Caption, Reason, Video


def a_video(path: str = "trips/walk.mp4", duration_s: float = 20.0, fps: float = 25.0) -> Video:
    return Video(
        id="a" * 64, path=path, size_bytes=1, duration_s=duration_s, fps=fps, num_frames=500, width=64, height=64,
        last_frame_s=duration_s - 1 / fps, longest_frame_s=1 / fps,
        rotation_deg=0, codec="h264", is_vfr=False, has_audio=False, num_restarts=1, brightness=90.0, change=3.0,
    )  # fmt: skip


def write_captions(root: Path, *captions: tuple[float, float, str], beside: str = "trips/walk") -> None:
    path = root / f"{beside}.captions.json"
    path.parent.mkdir(exist_ok=True)
    cues = [{"start_s": start, "end_s": end, "text": text} for start, end, text in captions]
    path.write_text(json.dumps({"captions": cues}))


def times(captions: list[Caption]) -> list[tuple[float, float, str]]:
    return [(c.start_s, c.end_s, c.text) for c in captions]


def test_captions_come_in_time_order_with_their_source_and_ids_from_content(tmp_path: Path) -> None:
    write_captions(tmp_path, (8, 20, "a blue moon"), (0, 8, "a red star"))
    captions, rejections = caption_video(a_video(), tmp_path)
    assert times(captions) == [(0, 8, "a red star"), (8, 20, "a blue moon")]
    assert {c.source for c in captions} == {"walk.captions.json"}
    assert len({c.id for c in captions}) == 2
    assert rejections == []
    assert caption_video(a_video(), tmp_path)[0] == captions
    write_captions(tmp_path, (0, 8, "a red star"))
    assert caption_video(a_video(), tmp_path)[0] == captions[:1], "an id does not depend on the other captions"


def test_a_video_without_a_caption_file_is_set_aside_with_the_names_looked_for(tmp_path: Path) -> None:
    video = a_video()
    captions, (rejection,) = caption_video(video, tmp_path)
    assert captions == []
    assert (rejection.stage, rejection.item, rejection.reason) == ("caption", video.id, Reason.NO_CAPTIONS)
    assert "trips/walk.mp4" in rejection.detail
    assert "walk.srt" in rejection.detail


def test_a_broken_caption_file_sets_its_video_aside_with_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "trips").mkdir()
    (tmp_path / "trips" / "walk.vtt").write_text("WEBVTT\n\nno times here\n")
    video = a_video()
    captions, (rejection,) = caption_video(video, tmp_path)
    assert captions == []
    assert (rejection.item, rejection.reason) == (video.id, Reason.BAD_CAPTION_FILE)
    assert rejection.detail.startswith("trips/walk.vtt: line 3: expected times")


def test_captions_that_do_not_fit_the_video_are_set_aside_one_by_one(tmp_path: Path) -> None:
    write_captions(
        tmp_path,
        (0, 8, "a red star"),
        (-1, 5, "before the start"),
        (20, 20.5, "after the end"),
        (9, 9, "no length"),
        (12, 10, "backwards"),
        (15, 21.5, "far too long"),
        (9, 10, " "),
        (0, 8, "a red star"),
    )
    captions, rejections = caption_video(a_video(), tmp_path)
    assert times(captions) == [(0, 8, "a red star")]
    outside = Reason.CAPTION_OUTSIDE_VIDEO
    assert [(r.item, r.reason) for r in rejections] == [
        *((f"trips/walk.captions.json#{number}", outside) for number in (2, 3, 4, 5, 6)),
        ("trips/walk.captions.json#7", Reason.EMPTY_CAPTION),
        ("trips/walk.captions.json#8", Reason.DUPLICATE),
    ]
    assert rejections[0].detail == "-1.0 to 5.0 s in a video of 20.0 s: before the start"


def test_an_end_past_the_video_by_rounding_is_moved_to_its_end(tmp_path: Path) -> None:
    write_captions(tmp_path, (0, 19, "a red star"), (19, 21, "a blue moon"))
    captions, rejections = caption_video(a_video(duration_s=20.0), tmp_path)
    assert times(captions)[-1] == (19, 20, "a blue moon")
    assert rejections == []


def test_at_less_than_one_frame_a_second_rounding_is_a_whole_frame(tmp_path: Path) -> None:
    write_captions(tmp_path, (0, 24, "a red star"))
    captions, _ = caption_video(a_video(duration_s=20.0, fps=0.25), tmp_path)
    assert times(captions) == [(0, 20, "a red star")]


def test_a_video_whose_captions_are_all_set_aside_is_set_aside_too(tmp_path: Path) -> None:
    video = a_video()
    write_captions(tmp_path, (30, 31, "elsewhere"))
    captions, rejections = caption_video(video, tmp_path)
    assert captions == []
    assert [r.item for r in rejections] == ["trips/walk.captions.json#1", video.id]
    write_captions(tmp_path)
    _, (rejection,) = caption_video(video, tmp_path)
    assert (rejection.reason, rejection.detail) == (
        Reason.NO_CAPTIONS, "trips/walk.captions.json has 0 captions, none usable",
    )  # fmt: skip


def test_dots_and_notes_are_no_captions(tmp_path: Path) -> None:
    write_captions(tmp_path, (0, 8, "..."), (8, 12, "♪ ♪"), (12, 20, "2 p.m."))
    captions, rejections = caption_video(a_video(), tmp_path)
    assert times(captions) == [(12, 20, "2 p.m.")]
    assert {r.reason for r in rejections} == {Reason.EMPTY_CAPTION}
