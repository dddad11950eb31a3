from pathlib import Path

import numpy as np
import pytest

from tpo.demo.world import plan_events, write_video
from tpo.errors import UserError
from tpo.params import IngestParams
from tpo.records import Reason, Rejection, Video
from tpo.video.catalog import find_files, keep
from tpo.video.probe import Prober

PARAMS = IngestParams(extensions=(".mp4", ".MKV"), probe_timeout_s=60, min_duration_s=2)


def video(number: int, path: str, duration_s: float = 20.0) -> Video:
    fields: dict[str, object] = {
        "id": f"{number:064x}", "path": path, "size_bytes": 900, "duration_s": duration_s, "fps": 2.0, "num_frames": 40,
        "width": 64, "height": 64, "rotation_deg": 0, "codec": "h264", "is_vfr": False, "has_audio": False,
    }  # fmt: skip
    return Video.model_validate(fields)


def test_files_are_found_at_any_depth_in_any_case_in_a_fixed_order(tmp_path: Path) -> None:
    for name in ("z.mp4", "a.MP4", "deep/er/b.mkv", "captions.json", "c.mp4.part", "no_extension", "mp4"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "broken.mp4").symlink_to("nowhere")  # found, so that it is set aside with a reason and does not vanish
    found = [path.relative_to(tmp_path).as_posix() for path in find_files(tmp_path, PARAMS)]
    assert found == ["a.MP4", "broken.mp4", "deep/er/b.mkv", "z.mp4"]


def test_a_folder_that_is_missing_or_has_no_video_is_the_users_to_fix(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no such folder\. Set it in params\.yaml"):
        find_files(tmp_path / "nowhere", PARAMS)
    (tmp_path / "a.txt").touch()
    with pytest.raises(UserError, match=r"No video in .*: no file ends in one of \.mkv, \.mp4"):
        find_files(tmp_path, PARAMS)
    with pytest.raises(UserError, match="no such folder"):
        find_files(tmp_path / "a.txt", PARAMS)


def test_short_videos_and_copies_are_set_aside_and_everything_is_accounted_for() -> None:
    videos = [
        video(1, "a.mp4"),
        video(2, "b.mp4", 1.9),
        video(1, "copy.mp4"),
        video(3, "c.mp4", 2.0),
        video(1, "d.mp4"),
    ]
    kept, rejections = keep(videos, PARAMS)
    assert [v.path for v in kept] == ["a.mp4", "c.mp4"]
    assert rejections == [
        Rejection(stage="ingest", item="b.mp4", reason=Reason.TOO_SHORT, detail="1.9 s, at least 2.0 s wanted"),
        Rejection(stage="ingest", item="copy.mp4", reason=Reason.DUPLICATE, detail="the same bytes as a.mp4"),
        Rejection(stage="ingest", item="d.mp4", reason=Reason.DUPLICATE, detail="the same bytes as a.mp4"),
    ]


def test_a_real_copy_under_another_name_is_a_duplicate(tmp_path: Path) -> None:
    events = plan_events(np.random.default_rng(0), 2)
    write_video(tmp_path / "a.mp4", events, phase=0.0)
    write_video(tmp_path / "other.mp4", events, phase=1.0)
    (tmp_path / "z.mp4").write_bytes((tmp_path / "a.mp4").read_bytes())
    with Prober(60, tmp_path / "frames") as prober:
        found = [prober.probe(tmp_path, path) for path in find_files(tmp_path, PARAMS)]
    kept, rejections = keep([v for v in found if isinstance(v, Video)], PARAMS)
    assert [v.path for v in kept] == ["a.mp4", "other.mp4"]
    assert [(r.item, r.reason) for r in rejections] == [("z.mp4", Reason.DUPLICATE)]
