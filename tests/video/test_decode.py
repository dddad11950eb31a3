"""Every picture carries its number, so a wrong frame is seen, whatever the codec does with groups of pictures."""

import os
from pathlib import Path

import av
import numpy as np
import psutil
import pytest
from numbered_video import (
    H264,
    HEVC,
    HEVC_SHORT,
    OPEN_GOP,
    cut_without_encoding,
    every,
    number_on,
    picture,
    played,
    write_numbered,
)

from tpo.records import Video, View, ViewKind
from tpo.video.decode import DecodeError, Frames, decode
from tpo.video.measure import file_sha256
from tpo.video.probe import Prober
from tpo.video.sample import dense

STEADY_S = every(0.1, 200)
UNSTEADY_S = (np.cumsum(np.random.default_rng(0).integers(20, 400, 200)) / 1000).tolist()
THIRDS_S = [n / 30 for n in range(200)]  # 3.3333… s has no exact number of milliseconds

FILES = {
    "closed groups.mp4": ("libx264", H264, STEADY_S),
    "open groups.mp4": ("libx264", OPEN_GOP, STEADY_S),
    "open groups.mkv": ("libx264", OPEN_GOP, STEADY_S),
    "hevc.mp4": ("libx265", HEVC, STEADY_S),
    "hevc, short groups.mp4": ("libx265", HEVC_SHORT, STEADY_S),
    "vp9.webm": ("libvpx-vp9", {"deadline": "realtime", "cpu-used": "8"}, STEADY_S),
    "av1.mp4": ("libsvtav1", {"preset": "10", "crf": "20", "svtav1-params": "lp=1"}, STEADY_S),
    "variable rate.mp4": ("libx264", H264, UNSTEADY_S),
    "variable rate.mkv": ("libx264", OPEN_GOP, UNSTEADY_S),
    "broadcast.ts": ("libx264", OPEN_GOP, STEADY_S),
    "thirds.mkv": ("libx264", OPEN_GOP, THIRDS_S),
    "starts late.mkv": ("libx264", H264, [5 + time_s for time_s in STEADY_S]),
    "an hour in.mp4": ("libx264", H264, [*STEADY_S[:100], *(3600 + time_s for time_s in THIRDS_S[:100])]),
}


def shown(path: Path, *times_s: float) -> Frames:
    """The frames of a file at these moments; its index is put beside it."""
    view = View(video_id=file_sha256(path), kind=ViewKind.DENSE, timestamps_s=times_s)
    return decode(path, view, path.parent)


def wrong_frames(path: Path, times_s: list[float], numbers: list[int], views: int) -> list[tuple[float, int, int]]:
    """(moment, number wanted, number shown) of each wrong frame in random views, boundaries of frames included."""
    rng = np.random.default_rng(1)
    starts_s = np.asarray(times_s) - times_s[0]
    wrong = []
    for _ in range(views):
        asked = rng.integers(0, len(starts_s), 8)
        ends_s = np.append(starts_s, starts_s[-1] + 0.02)[asked + 1]
        share = rng.choice([0.0, 0.3, 0.8], 8)  # from a frame's first moment until shortly before its last
        moments_s = [round(float(t), 3) for t in starts_s[asked] + share * (ends_s - starts_s[asked])]
        frames = shown(path, *moments_s)
        assert frames.pixels.shape == (8, 64, 64, 3)
        np.testing.assert_allclose(frames.timestamps_s, starts_s[asked], atol=2e-3)
        wrong += [
            (moment_s, numbers[index], number_on(pixels))
            for moment_s, index, pixels in zip(moments_s, asked, frames.pixels, strict=True)
            if number_on(pixels) != numbers[index]
        ]
    return wrong


@pytest.mark.parametrize("name", FILES)
def test_the_frame_on_display_is_returned_whatever_the_codec(name: str, tmp_path: Path) -> None:
    codec, options, times_s = FILES[name]
    write_numbered(tmp_path / name, times_s, codec, options)
    numbers = played(tmp_path / name)[1]
    # x265 mangles a block of such small pictures now and then; the others show what they were given.
    assert codec == "libx265" or numbers == list(range(200))
    assert wrong_frames(tmp_path / name, times_s, numbers, views=40) == []


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
@pytest.mark.parametrize("skip_s", [0.0, 0.5])
def test_a_file_cut_without_encoding_shows_what_a_player_shows(
    codec: str, suffix: str, skip_s: float, tmp_path: Path
) -> None:
    write_numbered(tmp_path / "whole.mp4", STEADY_S, codec, OPEN_GOP if codec == "libx264" else HEVC_SHORT)
    path = tmp_path / f"cut{suffix}"
    cut_without_encoding(tmp_path / "whole.mp4", path, keyframe=3, skip_s=skip_s)
    times_s, numbers = played(path)
    assert len(numbers) == (147 if skip_s and suffix == ".mp4" else 152)  # an MKV has no edit list
    assert wrong_frames(path, times_s, numbers, views=10) == []
    with Prober(tmp_path) as prober:
        video = prober.probe(tmp_path, path)
    assert isinstance(video, Video)
    assert (video.num_frames, video.is_vfr) == (len(numbers), False)
    ends = decode(path, dense(video, 2), tmp_path)
    assert [number_on(pixels) for pixels in ends.pixels] == [numbers[0], numbers[-1]]


def test_frames_come_in_the_order_asked_and_as_often_as_asked(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", STEADY_S)
    frames = shown(tmp_path / "a.mp4", 19.9, 0.0, 7.05, 0.0, 7.0)
    assert [number_on(pixels) for pixels in frames.pixels] == [199, 0, 70, 0, 70]
    np.testing.assert_allclose(frames.timestamps_s, [19.9, 0, 7, 0, 7], atol=1e-5)
    assert frames.timestamps_s.dtype == np.float64


def test_moments_before_the_first_and_after_the_last_frame_show_those(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", STEADY_S)
    assert [number_on(pixels) for pixels in shown(tmp_path / "a.mp4", -1, 19.999, 500).pixels] == [0, 199, 199]


def test_a_single_frame_is_shown_at_every_moment(tmp_path: Path) -> None:
    write_numbered(tmp_path / "one.mp4", [0.0])
    frames = shown(tmp_path / "one.mp4", 0, 0.05, 9)
    assert frames.pixels.shape == (3, 64, 64, 3)
    assert (np.abs(frames.pixels.astype(int) - picture(0)) < 12).all()


def test_the_decoder_and_its_version_are_named(tmp_path: Path) -> None:
    write_numbered(tmp_path / "a.mp4", STEADY_S[:3])
    frames = shown(tmp_path / "a.mp4", 0)
    assert frames.decoder == "pyav"
    assert frames.decoder_version[0].isdigit()


@pytest.mark.parametrize("damage", ["truncated", "hole in the data", "zero bytes", "text", "missing", "a folder"])
def test_a_damaged_file_is_a_decode_error_that_names_it_and_no_folder(damage: str, tmp_path: Path) -> None:
    write_numbered(tmp_path / "whole.mp4", STEADY_S)
    whole = (tmp_path / "whole.mp4").read_bytes()
    path = tmp_path / "clip.mp4"
    if damage == "a folder":
        path.mkdir()
    elif damage != "missing":
        middle = len(whole) // 3
        path.write_bytes(
            {
                "truncated": whole[: len(whole) // 2],
                "hole in the data": whole[:middle] + bytes(200) + whole[middle + 200 :],
                "zero bytes": b"",
                "text": b"this is not a video\n" * 50,
            }[damage]
        )
    video_id = file_sha256(path) if path.is_file() else "0" * 64
    view = View(video_id=video_id, kind=ViewKind.DENSE, timestamps_s=(0, 5, 19))
    for _ in range(2):
        with pytest.raises(DecodeError, match=r"^clip\.mp4: .+") as caught:
            decode(path, view, tmp_path)
        assert str(tmp_path) not in str(caught.value)


def test_a_file_that_was_replaced_since_it_was_measured_is_refused_and_one_that_was_only_touched_is_not(
    tmp_path: Path,
) -> None:
    path = tmp_path / "a.mp4"
    write_numbered(path, STEADY_S)
    view = View(video_id=file_sha256(path), kind=ViewKind.DENSE, timestamps_s=(7.0,))
    assert number_on(decode(path, view, tmp_path).pixels[0]) == 70
    os.utime(path, (0, 0))
    assert number_on(decode(path, view, tmp_path).pixels[0]) == 70
    write_numbered(path, STEADY_S[:100])
    with pytest.raises(DecodeError, match=r"a\.mp4: is not the video that was measured"):
        decode(path, view, tmp_path)


def test_opening_files_again_and_again_leaks_neither_memory_nor_file_handles(tmp_path: Path) -> None:
    # 10,000 opens grew by 5 MiB, most of it in the first ones; one frame kept by each would be 12 MiB a thousand.
    path = tmp_path / "a.mp4"
    write_numbered(path, STEADY_S[:30])
    view = View(video_id=file_sha256(path), kind=ViewKind.DENSE, timestamps_s=(0.0, 1.0, 2.5))
    process = psutil.Process()
    for _ in range(200):
        decode(path, view, tmp_path)
    before, files = process.memory_info().rss, process.num_fds()
    for _ in range(1500):
        decode(path, view, tmp_path)
    assert process.memory_info().rss - before < 10 << 20
    assert process.num_fds() == files


def test_the_stream_with_the_most_pixels_is_the_video(tmp_path: Path) -> None:
    path = tmp_path / "two.mkv"
    with av.open(str(path), "w") as container:
        small, large = (container.add_stream("libx264", rate=10) for _ in range(2))
        for stream, side_px in ((small, 32), (large, 64)):
            stream.width = stream.height = side_px
            stream.pix_fmt = "yuv420p"
        for number in range(50):
            for stream, pixels in ((small, np.zeros((32, 32, 3), np.uint8)), (large, picture(number))):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        for stream in (small, large):
            container.mux(stream.encode())
    assert [number_on(pixels) for pixels in shown(path, 0.0, 1.7, 4.9).pixels] == [0, 17, 49]


@pytest.mark.parametrize(("matrix", "colorspace"), [("ITU601", 6), ("ITU709", 1)])
@pytest.mark.parametrize(
    ("range_", "color_range", "pix_fmt"), [("MPEG", 1, "yuv420p"), ("JPEG", 2, "yuv420p"), ("MPEG", 1, "yuv420p10le")]
)
def test_colours_are_as_the_file_says_that_they_are_coded(
    matrix: str, colorspace: int, range_: str, color_range: int, pix_fmt: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.mp4"
    colours = np.array([[200, 40, 40], [40, 180, 60], [30, 60, 220], [250, 250, 250], [3, 3, 3], [128, 128, 128]])
    pixels = np.tile(colours.astype(np.uint8).repeat(16, axis=0), (64, 1, 1))  # columns of 16 px
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 96, 64, pix_fmt
        stream.codec_context.colorspace, stream.codec_context.color_range = colorspace, color_range
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        coded = frame.reformat(format=pix_fmt, dst_colorspace=matrix, dst_color_range=range_)
        container.mux([*stream.encode(coded), *stream.encode()])
    (found,) = shown(path, 0.0).pixels
    inner = found.reshape(64, 6, 16, 3)[8:-8, :, 4:12].mean(axis=(0, 2))
    np.testing.assert_allclose(inner, colours, atol=4)
