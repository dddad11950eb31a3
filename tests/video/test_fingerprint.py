"""Small real videos, encoded again in many ways: the same one is known again, and no other one is taken for it."""

import functools
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path

import av
import imagehash
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from tpo.params import CopyParams
from tpo.video.copies import Copy, find_copies, is_recognisable
from tpo.video.fingerprint import SAMPLE_STEP_S, Fingerprint, hash_picture

HEIGHT_PX, WIDTH_PX, FPS = 72, 128, 12
Pictures = Callable[[np.ndarray], np.ndarray]


@functools.cache
def surface(seed: int) -> np.ndarray:
    """uint8 [144, 256], coarse and fine structure; twice the size of a picture."""
    rng = np.random.default_rng(seed)
    layers = [gaussian_filter(rng.standard_normal((2 * HEIGHT_PX, 2 * WIDTH_PX)), size) for size in (12, 4)]
    grey = sum(layer / layer.std() * weight for layer, weight in zip(layers, (45, 20), strict=True))
    return np.clip(128 + grey, 0, 255).astype(np.uint8)


def film(seed: int, seconds: float) -> Iterator[np.ndarray]:
    """Another surface every 3 s, over which the camera moves."""
    for number in range(round(seconds * FPS)):
        shot, step = divmod(number, 3 * FPS)
        yield surface(1000 * seed + shot)[step : step + HEIGHT_PX, 2 * step : 2 * step + WIDTH_PX]


def still(seconds: float) -> Iterator[np.ndarray]:
    """The same view all the time, with a camera's grain."""
    rng = np.random.default_rng(0)
    for _ in range(round(seconds * FPS)):
        noise = rng.normal(0, 4, (HEIGHT_PX, WIDTH_PX))
        yield np.clip(surface(7)[:HEIGHT_PX, :WIDTH_PX] + noise, 0, 255).astype(np.uint8)


def encode(
    path: Path, pictures: Iterator[np.ndarray], codec: str = "libx264", quality: int = 23, fps: float = FPS
) -> Path:
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    rate = Fraction(fps)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": f"{quality}", "preset": "ultrafast", **quiet})
        stream.pix_fmt = "yuv420p"
        for number, grey in enumerate(pictures):
            if number == 0:
                stream.height, stream.width = grey.shape
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(grey), format="gray")
            frame.pts, frame.time_base = number, 1 / rate
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def decoded(path: Path) -> Iterator[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            assert frame.time is not None
            yield frame.time, frame.to_ndarray(format="gray")


def fingerprint(path: Path) -> Fingerprint:
    times_s: list[float] = []
    hashed = []
    for time_s, grey in decoded(path):
        if time_s >= len(times_s) * SAMPLE_STEP_S:
            times_s.append(time_s)
            hashed.append(hash_picture(grey))
    hashes, informative = zip(*hashed, strict=True)
    return Fingerprint(np.array(times_s, np.float32), np.array(hashes, np.uint64), np.array(informative))


def encoded_again(path: Path, change: Pictures, **how: object) -> Path:
    return encode(path.with_name("again.mkv"), (change(grey) for _, grey in decoded(path)), **how)  # type: ignore[arg-type]


def half(grey: np.ndarray) -> np.ndarray:
    return grey.reshape(HEIGHT_PX // 2, 2, WIDTH_PX // 2, 2).mean(axis=(1, 3)).astype(np.uint8)


def with_bars(grey: np.ndarray) -> np.ndarray:
    return np.pad(grey, ((16, 16), (0, 0)))


def narrow_with_bars(grey: np.ndarray) -> np.ndarray:
    return np.pad(half(grey), ((0, 0), (20, 20)))


def darker(grey: np.ndarray) -> np.ndarray:
    return (grey * 0.75).astype(np.uint8)


def paler(grey: np.ndarray) -> np.ndarray:
    return (grey * 0.8 + 35).astype(np.uint8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("films")


@pytest.fixture(scope="module")
def films(folder: Path) -> dict[str, Path]:
    return {name: encode(folder / f"{name}.mkv", film(seed, 30)) for seed, name in enumerate(("a", "b", "c"))}


@pytest.fixture(scope="module")
def known(films: dict[str, Path]) -> dict[str, Fingerprint]:
    return {name: fingerprint(path) for name, path in films.items()}


@pytest.mark.parametrize("change", [half, with_bars, narrow_with_bars, darker, paler])
def test_a_video_is_known_again_scaled_with_black_bars_darker_or_paler(
    films: dict[str, Path], known: dict[str, Fingerprint], change: Pictures
) -> None:
    again = fingerprint(encoded_again(films["b"], change))
    (copy,) = find_copies({"again": again}, known)
    assert (copy.video, copy.of) == ("again", "b")
    assert copy.offset_s == pytest.approx(0, abs=0.1)
    assert copy.overlap_s == pytest.approx(30, abs=1)
    assert copy.similarity > 0.95


@pytest.mark.parametrize(("codec", "quality"), [("libx265", 40), ("libx264", 40)])
def test_a_video_is_known_again_after_hard_compression(
    films: dict[str, Path], known: dict[str, Fingerprint], codec: str, quality: int
) -> None:
    path = encoded_again(films["b"], lambda grey: grey, codec=codec, quality=quality)
    assert path.stat().st_size < films["b"].stat().st_size / 3
    assert [(copy.of, copy.overlap_s) for copy in find_copies({"again": fingerprint(path)}, known)] == [("b", 30)]


@pytest.mark.parametrize("fps", [5, 30])
def test_a_video_is_known_again_at_another_frame_rate(
    folder: Path, films: dict[str, Path], known: dict[str, Fingerprint], fps: int
) -> None:
    pictures = [grey for _, grey in decoded(films["c"])]
    path = encode(folder / "rate.mkv", (pictures[number * FPS // fps] for number in range(30 * fps)), fps=fps)
    (copy,) = find_copies({"again": fingerprint(path)}, known)
    assert (copy.of, copy.overlap_s) == ("c", pytest.approx(30, abs=1))


@pytest.mark.parametrize("first_frame", [0, 37, 101])
def test_a_cut_of_a_longer_video_is_found_with_its_offset(
    folder: Path, films: dict[str, Path], known: dict[str, Fingerprint], first_frame: int
) -> None:
    pictures = [half(grey) for _, grey in decoded(films["b"])][first_frame : first_frame + 16 * FPS]
    cut = fingerprint(encode(folder / "cut.mkv", iter(pictures), codec="libx265", quality=32))
    (copy,) = find_copies({"cut": cut}, known)
    assert copy.of == "b"
    assert copy.offset_s == pytest.approx(first_frame / FPS, abs=SAMPLE_STEP_S)
    assert copy.overlap_s == pytest.approx(16, abs=1)
    # Seen from the other side, the longer one begins before the cut.
    (copy,) = find_copies({"cut": cut, **known})
    assert (copy.video, copy.of) == ("b", "cut")
    assert copy.offset_s == pytest.approx(-first_frame / FPS, abs=SAMPLE_STEP_S)


def test_different_videos_are_no_copies_of_each_other(known: dict[str, Fingerprint]) -> None:
    assert find_copies(known) == []
    assert all(is_recognisable(fingerprint) for fingerprint in known.values())


def test_of_copies_the_first_is_the_original_and_references_are_not_compared_with_each_other(
    known: dict[str, Fingerprint],
) -> None:
    a, b = known["a"], known["b"]
    assert find_copies({"a": a, "b": b, "a2": a, "a3": a}) == [
        Copy("a2", "a", 0, 30, 1),
        Copy("a3", "a", 0, 30, 1),
        Copy("a3", "a2", 0, 30, 1),
    ]
    assert find_copies({"b": b, "a": a}, {"x": a, "y": a}) == [Copy("a", "x", 0, 30, 1), Copy("a", "y", 0, 30, 1)]
    assert find_copies({}) == find_copies({}, {"x": a}) == find_copies({"a": a}, {}) == []


def test_every_one_of_many_copies_is_named_with_the_first(known: dict[str, Fingerprint]) -> None:
    many = {"original": known["a"], **{f"{number}": known["a"] for number in range(60)}}
    assert {copy.video for copy in find_copies(many) if copy.of == "original"} == many.keys() - {"original"}


def joined(*parts: Fingerprint) -> Fingerprint:
    """One after the other."""
    hashes = np.concatenate([part.hashes for part in parts])
    times_s = np.arange(len(hashes), dtype=np.float32) * np.float32(SAMPLE_STEP_S)
    return Fingerprint(times_s, hashes, np.concatenate([part.informative for part in parts]))


def part(whole: Fingerprint, start_s: float, end_s: float) -> Fingerprint:
    inside = (whole.times_s >= start_s) & (whole.times_s < end_s)
    return Fingerprint(whole.times_s[inside] - np.float32(start_s), whole.hashes[inside], whole.informative[inside])


def test_a_shared_intro_makes_no_copy_and_a_shared_half_does(known: dict[str, Fingerprint]) -> None:
    a, b, c = known["a"], known["b"], known["c"]
    intro = part(a, 0, 5)
    assert find_copies({"b": joined(intro, part(b, 0, 12)), "c": joined(intro, part(c, 0, 12))}) == []
    scene = part(a, 0, 14)
    (copy,) = find_copies({"b": joined(part(b, 0, 12), scene), "c": joined(scene, part(c, 0, 12))})
    assert (copy.offset_s, copy.overlap_s) == (12, 14)
    apart = {"b": joined(b, scene), "c": joined(scene, c)}
    assert find_copies(apart) == []  # a third of each
    assert len(find_copies(apart, limits=CopyParams(min_share=0.3))) == 1
    assert find_copies(apart, limits=CopyParams(min_share=0.3, min_overlap_s=15)) == []


def test_short_stretches_with_something_else_or_black_between_them_do_not_add_up(known: dict[str, Fingerprint]) -> None:
    a = known["a"]
    black = Fingerprint(a.times_s, np.zeros(120, np.uint64), np.zeros(120, bool))
    for between in (part(known["b"], 0, 12), part(black, 0, 12)):
        assert find_copies({"a": a, "other": joined(part(a, 0, 6), between, part(a, 18, 24))}) == []
    assert len(find_copies({"a": a, "other": joined(part(a, 0, 11), part(known["b"], 0, 1), part(a, 12, 24))})) == 1


def test_a_view_that_never_changes_is_no_copy_even_after_a_shared_intro(
    folder: Path, known: dict[str, Fingerprint]
) -> None:
    view = fingerprint(encode(folder / "view.mkv", still(15)))
    assert view.informative.all()
    assert not is_recognisable(view)
    assert find_copies({"one": view, "other": view}) == []
    intro = part(known["a"], 0, 5)
    for rest in (view, part(view, 0, 9)):
        assert find_copies({"one": joined(intro, rest), "other": joined(intro, rest)}) == []


def test_black_and_flat_pictures_say_nothing_and_make_no_copies(known: dict[str, Fingerprint]) -> None:
    grey = surface(7)[:HEIGHT_PX, :WIDTH_PX]
    noise = np.random.default_rng(0).normal(0, 1.5, grey.shape)
    for flat in (np.zeros_like(grey), np.full_like(grey, 200), (120 + noise).astype(np.uint8)):
        assert hash_picture(flat) == (0, False)
    assert hash_picture(grey)[1]
    black = Fingerprint(known["a"].times_s, np.zeros(120, np.uint64), np.zeros(120, bool))
    assert find_copies({"one": black, "other": black}) == []
    faded = {"b": joined(black, part(known["b"], 0, 12)), "c": joined(black, part(known["c"], 0, 12))}
    assert find_copies(faded) == []


def test_darkness_on_one_side_of_a_picture_is_no_bar() -> None:
    grey = surface(7)[:HEIGHT_PX, :WIDTH_PX].copy()
    bits, _ = hash_picture(grey)
    with_bars_on_both_sides, _ = hash_picture(np.pad(grey, ((16, 16), (24, 24))))
    assert with_bars_on_both_sides == bits
    dark_below = np.pad(grey, ((0, 20), (0, 0)))
    as_it_is = np.packbits(imagehash.phash(Image.fromarray(dark_below)).hash).view(np.uint64)
    assert hash_picture(dark_below)[0] == as_it_is
