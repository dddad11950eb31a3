import os
from pathlib import Path

import numpy as np
import pytest
from made_fingerprints import pictures

from tpo.demo.world import plan_events, write_video
from tpo.errors import UserError
from tpo.params import CopyParams, FilterParams, Limits
from tpo.records import Reason, Rejection, Video
from tpo.video.catalog import drop_same_bytes, find_files, find_near_duplicates, find_videos
from tpo.video.filters import filter_videos
from tpo.video.probe import Prober

EXTENSIONS = (".mp4", ".MKV")
COPIES = CopyParams(min_overlap_s=10, min_share=0.5)


def video(number: int, path: str, **measured: object) -> Video:
    fields: dict[str, object] = {
        "id": f"{number:064x}", "path": path, "size_bytes": 900, "duration_s": 20.0, "fps": 2.0, "num_frames": 40,
        "width": 64, "height": 64, "rotation_deg": 0, "codec": "h264", "is_vfr": False, "has_audio": False,
        "last_frame_s": 19.5, "longest_frame_s": 0.5, "num_restarts": 1, "brightness": 90.0, "change": 3.0,
    }  # fmt: skip
    return Video.model_validate(fields | measured)


def limits(**given: Limits) -> FilterParams:
    names = FilterParams.model_fields
    return FilterParams.model_validate({name: given.get(name, Limits()) for name in names})


def test_files_are_found_at_any_depth_in_any_case_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("z.mp4", "a.MP4", "deep/er/b.mkv", "captions.json", "c.mp4.part", "no_extension", "mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "broken.mp4").symlink_to("nowhere")  # found, so that it is set aside with a reason and does not vanish
    (tmp_path / "more").symlink_to("deep")
    found = [path.relative_to(tmp_path).as_posix() for path in find_videos(tmp_path, EXTENSIONS)]
    assert found == ["a.MP4", "broken.mp4", "deep/er/b.mkv", "more", "z.mp4"]
    assert find_files(tmp_path / "nowhere", EXTENSIONS) == []


def test_a_folder_that_cannot_be_read_is_named_and_not_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.mp4").touch()
    locked = tmp_path / "locked"
    locked.mkdir()
    scan = os.scandir

    def refuse(path: str) -> object:  # tests may run as root, whom no folder refuses
        if str(path) == str(locked):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(UserError, match=r"locked cannot be read \(Permission denied\)"):
        find_files(tmp_path, EXTENSIONS)


def test_a_folder_that_is_missing_or_has_no_video_is_the_users_to_fix(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder\. Set it in params\.yaml"):
        find_videos(tmp_path / "nowhere", EXTENSIONS)
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"No video in .*: no file ends in one of \.mkv, \.mp4"):
        find_videos(tmp_path, EXTENSIONS)
    with pytest.raises(UserError, match="no such folder"):
        find_videos(tmp_path / "a.txt", EXTENSIONS)


@pytest.mark.parametrize(
    ("measured", "rule", "reason", "detail"),
    [
        ({"duration_s": 1.9}, {"duration_s": Limits(min=2)}, "too_short", "duration_s is 1.9, at least 2 wanted"),
        ({"duration_s": 90.0}, {"duration_s": Limits(max=60)}, "too_long", "duration_s is 90, at most 60 wanted"),
        ({"width": 200, "height": 31}, {"side_px": Limits(min=32)}, "too_small", "side_px is 31, at least 32 wanted"),
        ({"width": 31, "height": 200}, {"side_px": Limits(min=32)}, "too_small", "side_px is 31, at least 32 wanted"),
        ({"width": 99, "height": 90}, {"side_px": Limits(max=80)}, "too_large", "side_px is 90, at most 80 wanted"),
        ({"num_frames": 2}, {"num_frames": Limits(min=4)}, "too_few_frames", "num_frames is 2, at least 4 wanted"),
        ({"num_frames": 50}, {"num_frames": Limits(max=49)}, "too_many_frames", "num_frames is 50, at most 49 wanted"),
        ({"brightness": 1.5}, {"brightness": Limits(min=8)}, "too_dark", "brightness is 1.5, at least 8 wanted"),
        ({"brightness": 254.0}, {"brightness": Limits(max=250)}, "too_bright", "brightness is 254, at most 250 wanted"),
        ({"change": 0.01}, {"change": Limits(min=0.05)}, "static", "change is 0.01, at least 0.05 wanted"),
        ({"change": 90.0}, {"change": Limits(max=60)}, "too_restless", "change is 90, at most 60 wanted"),
    ],
)  # fmt: skip
def test_each_rule_sets_aside_for_its_reason_or_only_says_so(
    measured: dict[str, object], rule: dict[str, Limits], reason: str, detail: str
) -> None:
    bad, good = video(1, "bad.mp4", **measured), video(2, "good.mp4")
    expected = [Rejection(stage="ingest", item="bad.mp4", reason=Reason(reason), detail=detail)]
    assert filter_videos([bad, good], limits(**rule)) == ([good], expected, [])
    scored = {name: limit.model_copy(update={"score_only": True}) for name, limit in rule.items()}
    assert filter_videos([bad, good], limits(**scored)) == ([bad, good], [], expected)


def test_a_video_is_on_a_limit_and_kept() -> None:
    exact = video(1, "a.mp4", duration_s=2.0, change=0.05)
    assert filter_videos([exact], limits(duration_s=Limits(min=2, max=2), change=Limits(min=0.05))).kept == [exact]


def test_a_video_that_breaks_several_rules_is_set_aside_once() -> None:
    bad = video(1, "bad.mp4", duration_s=1.0, change=0.0, num_frames=1)
    kept, set_aside, flagged = filter_videos(
        [bad],
        limits(duration_s=Limits(min=2, score_only=True), num_frames=Limits(min=4), change=Limits(min=0.05)),
    )
    assert (kept, [r.reason for r in set_aside], flagged) == ([], [Reason.TOO_FEW_FRAMES], [])


def test_of_the_same_bytes_the_first_is_kept() -> None:
    videos = [video(1, "a.mp4"), video(2, "b.mp4"), video(1, "copy.mp4"), video(1, "d.mp4")]
    kept, rejections = drop_same_bytes(videos)
    assert kept == videos[:2]
    assert rejections == [
        Rejection(stage="ingest", item="copy.mp4", reason=Reason.DUPLICATE, detail="the same bytes as a.mp4"),
        Rejection(stage="ingest", item="d.mp4", reason=Reason.DUPLICATE, detail="the same bytes as a.mp4"),
    ]


def test_a_real_copy_under_another_name_is_a_duplicate(tmp_path: Path) -> None:
    events = plan_events(np.random.default_rng(0), 2)
    write_video(tmp_path / "a.mp4", events, phase=0.0)
    write_video(tmp_path / "other.mp4", events, phase=1.0)
    (tmp_path / "z.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    with Prober(tmp_path / "frames") as prober:
        found = [prober.probe(tmp_path, path) for path in find_files(tmp_path, EXTENSIONS)]
    kept, rejections = drop_same_bytes([v for v in found if isinstance(v, Video)])
    assert [v.path for v in kept] == ["a.mp4", "other.mp4"]
    assert [(r.item, r.reason) for r in rejections] == [("z.mp4", Reason.DUPLICATE)]


def test_the_longest_then_the_largest_then_the_least_compressed_of_like_videos_is_kept() -> None:
    videos = [
        video(1, "cut.mp4", duration_s=20.0, width=999),
        video(2, "small.mp4", duration_s=60.0),
        video(3, "hard.mp4", duration_s=60.2, width=128, size_bytes=100),
        video(4, "best.mp4", duration_s=60.0, width=128, size_bytes=200),
        video(5, "other.mp4", duration_s=60.0),
    ]
    shown = {
        videos[0].id: pictures(1, 20, 40), videos[1].id: pictures(1, 0, 60), videos[2].id: pictures(1, 0, 60),
        videos[3].id: pictures(1, 0, 60), videos[4].id: pictures(2, 0, 60),
    }  # fmt: skip
    assert {r.item: r.detail for r in find_near_duplicates(videos, shown, COPIES)} == {
        "cut.mp4": "shows 20 s of best.mp4, which is longer (60 s, not 20 s)",
        "small.mp4": "shows 60 s of best.mp4, which is larger (128x64, not 64x64)",
        "hard.mp4": "shows 60 s of best.mp4, which is less compressed (200 bytes, not 100)",
    }


def test_a_copy_of_something_set_aside_is_kept_if_it_shows_something_else_than_what_is_kept() -> None:
    # b is in a by half, c is in b by half and not in a at all: without b, nothing of a or c is there twice.
    videos = [video(1, "a", duration_s=60.0), video(2, "b", duration_s=40.0), video(3, "c", duration_s=38.0)]
    shown = dict(
        zip([v.id for v in videos], [pictures(1, 0, 60), pictures(1, 38, 78), pictures(1, 59, 97)], strict=True)
    )
    assert [r.item for r in find_near_duplicates(videos, shown, COPIES)] == ["b"]
