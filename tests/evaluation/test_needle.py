"""The needle test on real files of the demo world, from the folder on disk to what a model is shown."""

import json
import shutil
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from pydantic import ValidationError

from tpo.demo.needles import write_needles
from tpo.demo.world import Event, render_frame
from tpo.errors import UserError
from tpo.evaluation.needle import Control, Needle, NeedleCase, Scene, load_needles, plan_needles, show
from tpo.params import NeedleParams
from tpo.records import Reason, Video, View, ViewKind
from tpo.video.decode import Frames, decode
from tpo.video.probe import Prober

PARAMS = NeedleParams(
    modes=("after_sampling", "in_video"),
    num_frames=(16, 32),
    minutes=(0.5, 1.0),
    depths=(0.0, 0.5, 1.0),
    needle_frames=6,
    per_cell=4,
)
SAMPLED = 32


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("benchmarks")
    write_needles(root, num_needles=5, num_haystacks=3, num_events=9, seed=1)
    return root


@pytest.fixture(scope="module")
def prober(root: Path) -> Iterator[Prober]:
    with Prober(root / ".frames") as prober:
        yield prober


@pytest.fixture(scope="module")
def loaded(root: Path, prober: Prober) -> tuple[list[Needle], list[Video]]:
    needles, haystacks, rejections = load_needles(root / "needle", prober)
    assert rejections == []
    return needles, haystacks


@pytest.fixture(scope="module")
def cases(loaded: tuple[list[Needle], list[Video]]) -> list[NeedleCase]:
    cases, too_short = plan_needles(PARAMS, SAMPLED, *loaded, seed=0)
    assert too_short == []
    return cases


def cell(cases: list[NeedleCase], mode: str, length: float, depth: float | None) -> list[NeedleCase]:
    found = [case for case in cases if (case.mode, case.length, case.depth) == (mode, length, depth)]
    assert found
    return found


# ---- the folder -------------------------------------------------------------------------------------------------


def rows_with(root: Path, folder: Path, *more: dict[str, Any]) -> Path:
    """A copy of the folder whose first needle is followed by others."""
    shutil.copytree(root / "needle", folder)
    rows = json.loads((folder / "needles.json").read_text())
    (folder / "needles.json").write_text(json.dumps([rows[0], *({**rows[0], "id": "bad", **row} for row in more)]))
    return folder


def test_rows_that_cannot_be_asked_are_set_aside_with_their_reasons(root: Path, prober: Prober, tmp_path: Path) -> None:
    bad: list[tuple[dict[str, Any], str]] = [
        ({"clip": "../../secret.mp4"}, "the video's path leaves the benchmark's folder: 'clips/../../secret.mp4'"),
        ({"gold": 4}, "the gold answer is option 4, but there are 4 options"),
        ({"gold": None}, "gold: Input should be a valid integer"),
        ({"options": ["a", "a", "b"], "gold": 0}, "the right option is there twice"),
        ({"question": " "}, "the question is empty"),
        ({"question": "What is <video>?"}, "the text '<video>' would be read as a model's control token"),
        ({"id": "synthetic-000"}, "an earlier row has the id needle/synthetic-000 too"),
    ]
    folder = rows_with(root, tmp_path / "needle", *(row for row, _ in bad))
    needles, _, rejections = load_needles(folder, prober)
    assert [needle.item.id for needle in needles] == ["needle/synthetic-000"]
    assert {rejection.reason for rejection in rejections} == {Reason.BAD_ITEM}
    assert [(rejection.item, rejection.detail.split(". Download")[0]) for rejection in rejections] == [
        (f"needle/needles.json:{number}", detail) for number, (_, detail) in enumerate(bad, start=1)
    ]


def test_videos_that_cannot_be_used_are_set_aside_with_their_reasons(
    root: Path, prober: Prober, tmp_path: Path
) -> None:
    folder = rows_with(
        root, tmp_path / "needle",
        {"id": "gone", "clip": "gone.mp4"},
        {"id": "picture", "clip": "picture.mp4"},
        {"id": "broken", "clip": "broken.mp4"},
    )  # fmt: skip
    _write_still(folder / "clips/picture.mp4")
    (folder / "clips/broken.mp4").write_text("<html>")
    shutil.copy(folder / "haystacks/synthetic-000.mp4", folder / "haystacks/twice.mp4")
    (folder / "haystacks/notes.txt").write_text("not a video")
    _, haystacks, rejections = load_needles(folder, prober)
    assert len(haystacks) == 3
    assert {rejection.item: rejection.reason for rejection in rejections} == {
        "needle/clips/gone.mp4": Reason.VIDEO_MISSING,
        "needle/clips/picture.mp4": Reason.STATIC,
        "needle/clips/broken.mp4": Reason.UNREADABLE,
        "needle/haystacks/twice.mp4": Reason.DUPLICATE,
        "needle/haystacks/notes.txt": Reason.UNREADABLE,
    }


def _write_still(path: Path) -> None:
    """Four seconds of one picture."""
    picture = render_frame(Event(0, 4, "red", "star"), 0.0, 0.0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=2)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for _ in range(8):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def test_a_folder_without_needles_or_haystacks_says_what_is_expected(
    root: Path, prober: Prober, tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"no needles.json. Expected: needle/.* set evaluate.needle to null"):
        load_needles(tmp_path, prober)
    folder = rows_with(root, tmp_path / "needle")
    shutil.rmtree(folder / "haystacks")
    with pytest.raises(UserError, match="No usable haystack"):
        load_needles(folder, prober)


# ---- the plan ---------------------------------------------------------------------------------------------------


def test_every_depth_of_every_length_has_the_same_questions_in_the_same_haystacks(cases: list[NeedleCase]) -> None:
    asked = defaultdict(list)
    for case in cases:
        if case.control is None:
            assert case.haystack
            asked[case.mode, case.length, case.depth].append((case.needle.item.id, case.haystack.id))
    assert len(asked) == 2 * 2 * 3
    assert len({tuple(pairs) for pairs in asked.values()}) == 1
    pairs = next(iter(asked.values()))
    assert len(set(pairs)) == PARAMS.per_cell
    assert len({haystack for _, haystack in pairs}) == 3, "several haystacks"
    assert len({needle for needle, _ in pairs}) == 4


def test_each_question_is_also_asked_without_its_needle_and_about_the_needle_alone(cases: list[NeedleCase]) -> None:
    controls = Counter((case.mode, case.length, case.control) for case in cases if case.control)
    assert controls == {
        **{("after_sampling", length, Control.ABSENT): 4 for length in (16, 32)},
        **{("in_video", length, Control.ABSENT): 4 for length in (0.5, 1.0)},
        **{(mode, None, Control.ALONE): 4 for mode in PARAMS.modes},
    }


def test_items_say_where_they_belong(cases: list[NeedleCase]) -> None:
    assert len({case.item.id for case in cases}) == len(cases)
    assert {case.item.benchmark for case in cases} == {"needle"}
    one = cell(cases, "in_video", 0.5, 1.0)[0]
    assert one.haystack
    assert (one.item.video, one.item.category, one.item.duration_group) == (one.haystack.path, "in_video", "0.5 min")
    assert one.item.id == f"needle/in_video/0.5/1/{one.haystack.id[:12]}/{one.needle.item.id.split('/')[1]}"
    assert one.item.options == one.needle.item.options
    assert {case.item.category for case in cases if case.control} == {
        f"{mode} {control}" for mode in PARAMS.modes for control in Control
    }


def test_the_plan_depends_on_what_there_is_and_the_seed_not_on_the_order(
    loaded: tuple[list[Needle], list[Video]], cases: list[NeedleCase]
) -> None:
    needles, haystacks = loaded
    assert plan_needles(PARAMS, SAMPLED, needles[::-1], haystacks[::-1], seed=0)[0] == cases
    others = {tuple(c.item.id for c in plan_needles(PARAMS, SAMPLED, *loaded, seed=seed)[0]) for seed in range(5)}
    assert len(others) > 1


def test_needles_and_haystacks_come_up_equally_often(loaded: tuple[list[Needle], list[Video]]) -> None:
    params = PARAMS.model_copy(update={"per_cell": 15, "modes": ("after_sampling",), "num_frames": (32,)})
    found = cell(plan_needles(params, SAMPLED, *loaded, seed=0)[0], "after_sampling", 32, 0.5)
    assert {(case.needle.item.id, case.item.video) for case in found} == {
        (needle.item.id, haystack.path) for needle in loaded[0] for haystack in loaded[1]
    }
    more = params.model_copy(update={"per_cell": 100})
    assert len(cell(plan_needles(more, SAMPLED, *loaded, seed=0)[0], "after_sampling", 32, 0.5)) == 15


def test_a_needle_is_never_put_into_the_video_that_it_was_cut_from(loaded: tuple[list[Needle], list[Video]]) -> None:
    needles = [needle.model_copy(update={"source": loaded[1][0].id}) for needle in loaded[0]]
    cases, _ = plan_needles(PARAMS, SAMPLED, needles, loaded[1], seed=0)
    assert {case.haystack.id for case in cases if case.haystack} == {video.id for video in loaded[1][1:]}
    with pytest.raises(UserError, match="Every needle was cut from every haystack"):
        plan_needles(PARAMS, SAMPLED, needles, loaded[1][:1], seed=0)


def test_a_haystack_that_is_too_short_is_said_and_serves_shorter_lengths(
    loaded: tuple[list[Needle], list[Video]],
) -> None:
    needles, haystacks = loaded
    short = haystacks[0].model_copy(update={"duration_s": 31.0, "num_frames": 20})
    cases, too_short = plan_needles(PARAMS, SAMPLED, needles, [short, *haystacks[1:]], seed=0)
    assert [(one.item, one.reason, one.detail) for one in too_short] == [
        (
            f"needle/{short.path}",
            Reason.TOO_SHORT,
            "it has 20 frames, too few for 32 frames; it serves shorter lengths",
        ),
        (f"needle/{short.path}", Reason.TOO_SHORT, "it has 0.52 min, too few for 1 min; it serves shorter lengths"),
    ]
    assert {case.length for case in cases if case.haystack == short} == {16, 0.5}
    with pytest.raises(UserError, match=r"No haystack is long enough for 1 min: .* has 20 frames, 0\.52 min"):
        plan_needles(PARAMS.model_copy(update={"modes": ("in_video",)}), SAMPLED, needles, [short], seed=0)


def test_settings_without_lengths_or_with_a_needle_of_one_frame_are_refused() -> None:
    fields = PARAMS.model_dump()
    for change, match in (
        ({"num_frames": ()}, "after_sampling needs at least one length"),
        ({"minutes": ()}, "in_video needs at least one length"),
        ({"needle_frames": 1}, "greater than or equal to 2"),
        ({"needle_frames": 16}, "16 leaves no room beside needle_frames"),
        ({"depths": (1.5,)}, "less than or equal to 1"),
    ):
        with pytest.raises(ValidationError, match=match):
            NeedleParams.model_validate({**fields, **change})
    NeedleParams.model_validate({**fields, "modes": ("in_video",), "num_frames": ()})


# ---- what a model is shown --------------------------------------------------------------------------------------


def shown(case: NeedleCase, root: Path, prober: Prober) -> tuple[Scene, Frames]:
    scene = show(case, root / "needle", root / "spliced", prober)
    assert scene.shown.item_id == case.item.id
    assert len(scene.shown.view.timestamps_s) == case.num_frames
    return scene, decode(scene.path, scene.shown.view, prober.index_dir, None, scene.others)


def of_clip(case: NeedleCase, moments_s: tuple[float, ...], root: Path, prober: Prober) -> np.ndarray:
    view = View(video_id=case.needle.clip.id, kind=ViewKind.DENSE, timestamps_s=moments_s)
    return decode(root / "needle" / case.needle.clip.path, view, prober.index_dir).pixels


def far_apart(some: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Mean difference of each picture, in grey levels."""
    return np.abs(some.astype(int) - others.astype(int)).mean(axis=(1, 2, 3))


@pytest.mark.parametrize("depth", PARAMS.depths)
def test_after_sampling_exactly_the_needles_frames_are_the_needles(
    cases: list[NeedleCase], root: Path, prober: Prober, depth: float
) -> None:
    for case in cell(cases, "after_sampling", 16, depth)[:2]:
        scene, frames = shown(case, root, prober)
        positions = list(scene.shown.positions)
        assert positions == list(range(round(depth * 10), round(depth * 10) + 6))
        assert (frames.pixels[positions] == of_clip(case, scene.shown.needle_s, root, prober)).all()
        absent = next(c for c in cell(cases, "after_sampling", 16, None) if c.needle == case.needle)
        nothing, haystack = shown(absent, root, prober)
        assert nothing.shown.positions == ()
        others = [at for at in range(16) if at not in positions]
        assert (frames.pixels[others] == haystack.pixels[others]).all()
        assert far_apart(frames.pixels[positions], haystack.pixels[positions]).min() > 5


@pytest.mark.parametrize("depth", PARAMS.depths)
def test_in_the_video_the_needle_is_where_it_is_said_to_be(
    cases: list[NeedleCase], root: Path, prober: Prober, depth: float
) -> None:
    case = cell(cases, "in_video", 0.5, depth)[0]
    assert case.haystack
    clip_s = case.needle.clip.duration_s
    scene, frames = shown(case, root, prober)
    assert frames.duration_s == pytest.approx(30 + clip_s, abs=0.01)
    positions = list(scene.shown.positions)
    assert len(positions) == pytest.approx(SAMPLED * clip_s / (30 + clip_s), abs=2)
    assert positions == list(range(positions[0], positions[-1] + 1))
    needle_s = scene.shown.needle_s
    off = far_apart(frames.pixels[positions], of_clip(case, needle_s, root, prober))
    beside = of_clip(case, tuple(abs(time_s - 0.5) for time_s in needle_s), root, prober)
    assert (off < 0.7 * far_apart(frames.pixels[positions], beside)).all(), "not the clip's frame before it"
    assert off.max() < 4
    times_s = frames.timestamps_s
    others = [at for at in range(SAMPLED) if at not in positions]
    own_s = tuple(float(times_s[at]) - clip_s * (at > positions[0]) for at in others)
    view = View(video_id=case.haystack.id, kind=ViewKind.DENSE, timestamps_s=own_s)
    haystack = decode(root / "needle" / case.haystack.path, view, prober.index_dir)
    assert far_apart(frames.pixels[others], haystack.pixels).max() < 4
    assert all(time_s < 30 for time_s in own_s)


def test_a_sampler_that_sees_too_little_misses_the_needle_and_that_is_known(
    loaded: tuple[list[Needle], list[Video]], root: Path, prober: Prober
) -> None:
    cases, _ = plan_needles(PARAMS, 2, *loaded, seed=0)
    positions = {d: show_all(cell(cases, "in_video", 1.0, d), root, prober) for d in PARAMS.depths}
    assert positions == {0.0: [(0,)] * 4, 0.5: [()] * 4, 1.0: [(1,)] * 4}, "first and last frame alone are sampled"


def show_all(cases: list[NeedleCase], root: Path, prober: Prober) -> list[tuple[int, ...]]:
    return [show(case, root / "needle", root / "spliced", prober).shown.positions for case in cases]


def test_controls_show_the_haystack_alone_at_its_length_and_the_needle_alone(
    cases: list[NeedleCase], root: Path, prober: Prober
) -> None:
    absent = cell(cases, "in_video", 0.5, None)[0]
    scene, frames = shown(absent, root, prober)
    assert frames.duration_s == pytest.approx(30, abs=0.01)
    assert scene.shown.positions == ()
    for case in [case for case in cases if case.control is Control.ALONE][:: PARAMS.per_cell]:
        scene, frames = shown(case, root, prober)
        assert len(frames.pixels) == {"after_sampling": 6, "in_video": SAMPLED}[case.mode]
        assert frames.duration_s == pytest.approx(case.needle.clip.duration_s, abs=0.01)
        assert scene.shown.positions == tuple(range(len(frames.pixels)))
        assert scene.shown.needle_s == pytest.approx(frames.timestamps_s, abs=1e-3)
