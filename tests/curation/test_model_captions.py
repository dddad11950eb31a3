"""Captions by a model that sees: real frames of real videos, each stretch with the times it was written from."""

from pathlib import Path

import numpy as np
import pytest
from scripted import chat_that

from tpo.curation.model_captions import caption_videos, stretches_of
from tpo.demo.provider import see
from tpo.demo.world import Event, plan_events, write_video
from tpo.llm.chat import Chat, ChatRequest, Failed, Picture, Reply
from tpo.params import CaptionParams, LocalParams
from tpo.records import Caption, Reason, Rejection, Video
from tpo.replies import ReplyCache
from tpo.video.decode import VideoFolder
from tpo.video.probe import Prober

EVENTS = plan_events(np.random.default_rng(0), 5)


def params(segment_s: float = 4, frames_per_segment: int = 1) -> CaptionParams:
    source = LocalParams(checkpoint="m")
    return CaptionParams(source=source, segment_s=segment_s, frames_per_segment=frames_per_segment, max_side_px=48)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    write_video(root / "walk.mp4", EVENTS, phase=0.0)
    return root


@pytest.fixture(scope="module")
def video(root: Path) -> Video:
    with Prober(root / ".frames") as prober:
        video = prober.probe(root, root / "walk.mp4")
    assert isinstance(video, Video)
    return video


@pytest.fixture(scope="module")
def folder(root: Path) -> VideoFolder:
    return VideoFolder(root, root / ".frames")


class Seeing:
    """A backend that really looks at the pictures that it is sent."""

    id = "seeing"
    max_reply_tokens = 100
    usd_per_million = (0.0, 0.0)

    def replies(self, requests, keep):
        for number, request in requests:
            said = ", then ".join(dict.fromkeys(see(pixels_of(part)) for part in pictures_of(request)))
            reply = Reply(text=said, ended=True, input_tokens=1, output_tokens=1)
            keep(number, reply)
            yield number, reply


def pictures_of(request: ChatRequest) -> list[Picture]:
    return [part for part in request.parts if isinstance(part, Picture)]


def pixels_of(picture: Picture) -> np.ndarray:
    import io

    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(picture.jpeg)))


def at(time_s: float) -> Event:
    return next(event for event in EVENTS if event.start_s <= time_s < event.end_s)


@pytest.mark.parametrize("count", [1, 3])
def test_each_stretch_is_captioned_by_what_its_own_frames_show(
    video: Video, folder: VideoFolder, tmp_path: Path, count: int
) -> None:
    chat = Chat(Seeing(), ReplyCache(tmp_path / "replies.sqlite"))
    ((video_id, records),) = caption_videos(chat, [video], folder, params(frames_per_segment=count))
    captions = [record for record in records if isinstance(record, Caption)]
    assert video_id == video.id
    assert len(captions) == len(records) == round(video.duration_s / 4)
    assert (captions[0].start_s, captions[-1].end_s) == (0, pytest.approx(video.duration_s, abs=0.001))
    for caption, after in zip(captions, [*captions[1:], None], strict=True):
        assert after is None or caption.end_s == after.start_s
        assert len(caption.frames_s) == count
        assert all(caption.start_s <= time_s < caption.end_s for time_s in caption.frames_s)
        seen = dict.fromkeys(at(time_s).caption for time_s in caption.frames_s)
        assert caption.text == ", then ".join(seen)
        assert (caption.source, bool(caption.prompt_id)) == ("seeing", True)


def test_frames_are_shown_small_and_with_their_times(video: Video, folder: VideoFolder, tmp_path: Path) -> None:
    chat, model = chat_that(tmp_path, lambda *_: "a star")
    caption_videos(chat, [video], folder, params(frames_per_segment=2))
    request = model.asked[1]
    assert [pixels_of(picture).shape for picture in pictures_of(request)] == [(48, 48, 3)] * 2
    assert [part for part in request.parts if isinstance(part, str)][:2] == ["At 5.0 s:", "At 7.0 s:"]


@pytest.mark.parametrize("segment_s", [0.7, 3, 10, 1000])
def test_stretches_are_of_one_length_and_leave_nothing_out(video: Video, segment_s: float) -> None:
    parts = stretches_of(video, segment_s)
    assert (parts[0].start_s, parts[-1].end_s) == (0, pytest.approx(video.duration_s, abs=0.001))
    lengths = [part.end_s - part.start_s for part in parts]
    assert max(lengths) - min(lengths) < 0.01
    assert len(parts) == 1 or abs(lengths[0] - segment_s) < segment_s / 2


def test_a_stretch_without_a_caption_is_named_by_its_times_and_the_others_stay(
    video: Video, folder: VideoFolder, tmp_path: Path
) -> None:
    def say(_: str, text: str) -> str | Failed:
        if "At 2.0 s" in text:
            return "I'm sorry, I can't describe this."
        return "…" if "At 6.0 s" in text else Failed(Reason.REQUEST_FAILED, "500") if "At 10" in text else "a star"

    chat, _ = chat_that(tmp_path, say)
    ((_, records),) = caption_videos(chat, [video], folder, params())
    set_aside = {one.item: one.reason for one in records if isinstance(one, Rejection)}
    assert list(set_aside.values()) == [Reason.REFUSED, Reason.EMPTY_CAPTION, Reason.REQUEST_FAILED]
    assert next(iter(set_aside)).startswith("walk.mp4#0.0-4.")
    assert sum(isinstance(one, Caption) for one in records) == len(records) - 3


def test_a_video_without_any_caption_or_without_frames_is_set_aside_as_one(
    video: Video, folder: VideoFolder, tmp_path: Path
) -> None:
    chat, _ = chat_that(tmp_path / "a", lambda *_: "")
    ((_, records),) = caption_videos(chat, [video], folder, params())
    assert isinstance(records[-1], Rejection)
    assert (records[-1].item, records[-1].reason) == (video.id, Reason.NO_CAPTIONS)
    (tmp_path / video.path).write_bytes((folder.root / video.path).read_bytes()[:3000])
    broken = VideoFolder(tmp_path, folder.index_dir)
    other, _ = chat_that(tmp_path / "b", lambda *_: "a star")
    ((_, (rejection,)),) = caption_videos(other, [video], broken, params())
    assert isinstance(rejection, Rejection)
    assert (rejection.item, rejection.reason) == (video.id, Reason.DECODE_FAILED)
