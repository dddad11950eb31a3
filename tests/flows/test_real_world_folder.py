"""A folder as people have them: every way in which a video can be odd or broken, by itself, through the real flow."""

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import pytest
from odd_videos import FPS, pictures, write
from processes import ROOT, edit_params, finish, killed_when, must_work
from real_world import NOT_UTF_8, ODD, RECOGNISABLE, REJECTED, TWICE, USUAL, VIDEOS, write_benchmarks, write_videos

from tpo.records import Checked, Reason, Rejection, Video, View, ViewKind
from tpo.store import count_reasons, read_manifest, read_records
from tpo.video.decode import decode
from tpo.video.decontaminate import VideoReport

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CATALOG_FILES = ("videos.jsonl", "rejected.jsonl", "flagged.jsonl", "decontamination.json")


def set_up(folder: Path) -> None:
    """Settings that find `data/videos`, and limits that only score, so that odd videos are seen as well."""
    shutil.copy(ROOT / "params.yaml", folder)

    def edit(settings: dict[str, Any]) -> None:
        settings["data"] |= {"videos": "data/videos", "benchmarks": "data/benchmarks"}
        settings["runtime"]["items_per_task"] = 4
        for limits in settings["ingest"]["filters"].values():
            limits["score_only"] = True

    edit_params(folder, edit)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, without_server: dict[str, str]) -> Path:
    """The folder, ingested once; `first/` is its catalog. Nobody changes its videos."""
    folder = tmp_path_factory.mktemp("real world")
    set_up(folder)
    write_videos(folder / "data/videos")
    write_benchmarks(folder / "data/benchmarks", folder / "data/videos")
    must_work("ingest", folder, without_server)
    shutil.copytree(folder / "data/catalog", folder / "first")
    return folder


def catalog(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in CATALOG_FILES}


def videos_in(folder: Path) -> dict[str, Video]:
    return {video.path: video for video in read_records(folder / "videos.jsonl", Video)}


def rejections_in(folder: Path, name: str = "rejected.jsonl") -> list[Rejection]:
    return read_records(folder / name, Rejection)


def still_working_in(folder: Path) -> list[list[str]]:
    """Every process, of whatever group or session, whose working directory is the folder, after a while to end."""
    ends_at, found = time.monotonic() + 30, [[""]]
    while found and time.monotonic() < ends_at:
        found = []
        for process in psutil.process_iter(["status", "cwd", "cmdline"]):
            if process.info["cwd"] == str(folder) and process.info["status"] != psutil.STATUS_ZOMBIE:
                found.append(process.info["cmdline"])
        time.sleep(0.05)
    return found


def played(path: Path, width: int) -> list[av.VideoFrame]:
    """What a player shows of the stream that is so wide, by decoding it in order."""
    with av.open(str(path)) as container:
        stream = next(s for s in container.streams.video if s.codec_context and width in (s.width, s.height))
        return list(container.decode(stream))


@pytest.mark.parametrize("name", VIDEOS)
def test_an_odd_file_is_a_video_with_the_right_facts(project: Path, name: str) -> None:
    video = videos_in(project / "first").get(name)
    assert video, [rejection for rejection in rejections_in(project / "first") if rejection.item == name]
    facts = USUAL | VIDEOS[name][1]
    frames = played(project / "data/videos" / name, facts["width"])
    if facts["num_frames"] is None:  # how many are left depends on where the cut falls
        facts["num_frames"] = len(frames)
        facts["duration_s"] = round(float(frames[-1].time - frames[0].time), 3) + 1 / FPS
        assert 10 < len(frames) < 70
    facts["duration_s"] = pytest.approx(facts["duration_s"], abs=2e-3)
    found = video.model_dump(include=set(facts))
    assert found | {"rotation_deg": video.rotation_deg % 360} == facts
    assert len(frames) == video.num_frames
    assert video.fps == pytest.approx(video.num_frames / video.duration_s, rel=1e-3)
    assert video.size_bytes == (project / "data/videos" / name).stat().st_size


@pytest.mark.parametrize("name", VIDEOS)
def test_its_frames_are_those_that_a_player_shows(project: Path, name: str) -> None:
    video = videos_in(project / "first")[name]
    path = project / "data/videos" / name
    frames = played(path, (USUAL | VIDEOS[name][1])["width"])
    picked = np.random.default_rng(0).permutation(len(frames))[:12].tolist()
    starts_s = [float(frames[position].time - frames[0].time) for position in picked]
    view = View(video_id=video.id, kind=ViewKind.DENSE, timestamps_s=tuple(round(s, 3) for s in starts_s))
    shown = decode(path, view, project / ".tpo/frames")
    assert shown.pixels.shape == (len(picked), video.height, video.width, 3)
    np.testing.assert_allclose(shown.timestamps_s, starts_s, atol=1e-6)
    for position, pixels in zip(picked, shown.pixels, strict=True):
        upright = np.rot90(frames[position].to_ndarray(format="rgb24"), frames[position].rotation // 90)
        np.testing.assert_array_equal(pixels, upright)


@pytest.mark.parametrize("name", REJECTED)
def test_a_file_that_cannot_be_used_is_set_aside_for_its_reason(project: Path, name: str) -> None:
    _, reason, words = REJECTED[name]
    found = [rejection for rejection in rejections_in(project / "first") if rejection.item == name]
    assert [rejection.reason for rejection in found] == [reason], videos_in(project / "first").get(name)
    assert words in found[0].detail
    assert str(project) not in found[0].detail


def test_a_name_that_is_not_utf_8_is_set_aside_readably(project: Path) -> None:
    (found,) = [rejection for rejection in rejections_in(project / "first") if rejection.item.startswith("caf")]
    assert (found.item, found.reason) == ("caf\\xe9.mp4", Reason.UNREADABLE)
    assert "UTF-8" in found.detail


def test_every_file_is_accounted_for_once_and_the_counts_add_up(project: Path) -> None:
    videos, rejected = videos_in(project / "first"), rejections_in(project / "first")
    accounted = [*videos, *(rejection.item for rejection in rejected)]
    assert sorted(accounted) == sorted([*VIDEOS, *REJECTED, "caf\\xe9.mp4"])
    found = read_manifest(project / "first")
    assert (found.items_in, found.items_out) == (len(accounted), len(videos))
    assert found.set_aside == count_reasons(rejected)
    assert found.items_in == found.items_out + sum(found.set_aside.values())
    assert found.facts["hours"] == pytest.approx(sum(video.duration_s for video in videos.values()) / 3600, abs=1e-3)
    assert found.facts["benchmarks"] == "partly checked"
    assert found.resumed == 0


def test_what_limits_only_score_is_kept_and_listed(project: Path) -> None:
    flagged: dict[str, list[Reason]] = {}
    for rejection in rejections_in(project / "first", "flagged.jsonl"):
        flagged.setdefault(rejection.item, []).append(rejection.reason)
    assert flagged == ODD


def test_brightness_does_not_depend_on_the_range_that_pixels_are_stored_in(project: Path) -> None:
    videos = videos_in(project / "first")
    sampled = list(pictures(5, 4))
    for name in ("full range.mp4", "limited range.mp4"):
        assert videos[name].brightness == pytest.approx(np.mean(sampled), abs=3)


def test_the_report_on_benchmarks_says_what_was_checked_and_found(project: Path) -> None:
    report = VideoReport.model_validate_json((project / "first/decontamination.json").read_text())
    copies = {
        name for name, (_, reason, _) in REJECTED.items() if reason in (Reason.NEAR_DUPLICATE, Reason.CONTAMINATED)
    }
    compared = set(VIDEOS) | copies
    assert (report.status, report.videos) == (Checked.PARTLY, len(compared))
    assert set(report.not_comparable) == compared - RECOGNISABLE
    long, mme = report.benchmarks
    assert (long.name, long.status, long.videos) == ("longvideobench", Checked.CHECKED, 2)
    assert (long.unusable, long.not_comparable) == ([], [])
    assert (mme.name, mme.status, mme.videos, mme.not_comparable) == ("videomme", Checked.PARTLY, 2, [])
    assert {rejection.item: rejection.reason for rejection in mme.unusable} == {
        "data/broken.mp4": Reason.UNREADABLE, "data/missing.mp4": Reason.VIDEO_MISSING,
    }  # fmt: skip
    exam = ("videomme", "data/exam.mp4", ["videomme/exam-1", "videomme/exam-2"], False)
    assert {f.video: (f.benchmark, f.benchmark_video, f.items, f.same_bytes) for f in report.found} == {
        "exam.mp4": exam,
        "exam, again.webm": exam,
        "test.mp4": ("longvideobench", "videos/seen.mp4", ["longvideobench/seen_0"], True),
    }
    for found in report.found:
        assert found.overlap_s == pytest.approx(12 if found.same_bytes else 16, abs=0.5)
        assert found.offset_s == pytest.approx(0, abs=0.25)


def test_nothing_is_left_running_or_half_written(project: Path) -> None:
    assert still_working_in(project) == []
    assert not list(project.rglob(".partial-*"))
    assert not list((project / ".tpo/ingest").iterdir())
    assert {path.name for path in (project / "first").iterdir()} == {*CATALOG_FILES, "manifest.json"}


def test_running_again_gives_the_same_catalog_byte_for_byte(project: Path, environment: dict[str, str]) -> None:
    must_work("ingest", project, environment)
    assert catalog(project / "data/catalog") == catalog(project / "first")
    passing: Any = {"seconds": True, "facts": {"flow_run_id"}}
    again, first = (read_manifest(project / name).model_dump(exclude=passing) for name in ("data/catalog", "first"))
    assert again == first
    assert still_working_in(project) == []


def test_limits_as_shipped_set_aside_for_the_first_that_is_broken(
    project: Path, tmp_path: Path, environment: dict[str, str]
) -> None:
    shutil.copy(ROOT / "params.yaml", tmp_path)
    data = {name: str(project / "data" / name) for name in ("videos", "benchmarks")}
    edit_params(tmp_path, lambda settings: settings["data"].update(data))
    shutil.copytree(project / ".tpo/frames", tmp_path / ".tpo/frames")
    must_work("ingest", tmp_path, environment)
    kept, rejected = videos_in(tmp_path / "data/catalog"), rejections_in(tmp_path / "data/catalog")
    assert kept == {name: video for name, video in videos_in(project / "first").items() if name not in ODD}
    unfit = {name: reasons[0] for name, reasons in ODD.items()}
    before = {rejection.item: rejection.reason for rejection in rejections_in(project / "first")}
    assert {rejection.item: rejection.reason for rejection in rejected} == before | unfit
    assert rejections_in(tmp_path / "data/catalog", "flagged.jsonl") == []


def journaled(folder: Path) -> list[str]:
    """What is done, of a run that was killed: files by their names below the folder of videos or of benchmarks."""
    lines = [line for path in (folder / ".tpo/ingest").glob("*/journal.jsonl") for line in path.open("rb")]
    records = [json.loads(line)["records"] for line in lines if line.endswith(b"\n")]
    return [fields.get("path") or fields["item"] for ((_, fields),) in records]


def wipe(path: Path) -> None:
    """Zeros instead of content, and nothing else of the file changes: whoever reads it would find no video."""
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_a_run_that_was_killed_goes_on_and_ends_the_same_without_looking_again_at_what_was_done(
    project: Path, tmp_path: Path, without_server: dict[str, str]
) -> None:
    set_up(tmp_path)
    subprocess.run(["cp", "-a", str(project / "data"), str(tmp_path)], check=True)  # it can copy pipes and links
    shutil.rmtree(tmp_path / "data/catalog")
    with killed_when(lambda: len(journaled(tmp_path)) >= 20, "ingest", tmp_path, without_server):
        done = journaled(tmp_path)
        assert 20 <= len(done) < len(VIDEOS) + len(REJECTED), "the kill came too late to be in the middle"
        assert len(set(done)) == len(done)
        assert not (tmp_path / "data/catalog").exists(), "nothing half-written is to be seen"
        assert still_working_in(tmp_path) == []
        paths = [tmp_path / "data" / root / name for root in ("videos", "benchmarks") for name in done]
        regular = [path for path in paths if path.is_file() and path.name not in TWICE]
        assert len(regular) > 10
        for path in regular:
            wipe(path)
        said = must_work("ingest", tmp_path, without_server)
    assert f"ingest: going on, {len(done)} files were done already" in said
    assert catalog(tmp_path / "data/catalog") == catalog(project / "first")
    resumed, undisturbed = (read_manifest(folder) for folder in (tmp_path / "data/catalog", project / "first"))
    assert resumed.resumed == len(done)
    passing: Any = {"resumed": True, "seconds": True, "facts": {"flow_run_id"}}
    assert resumed.model_dump(exclude=passing) == undisturbed.model_dump(exclude=passing)
    assert not list((tmp_path / ".tpo/ingest").iterdir()), "a finished stage leaves no journal"
    assert still_working_in(tmp_path) == []


def test_a_folder_of_which_nothing_can_be_used_fails_with_a_plain_message(
    tmp_path: Path, without_server: dict[str, str]
) -> None:
    set_up(tmp_path)
    videos = tmp_path / "data/videos"
    videos.mkdir(parents=True)
    for name in ("text.mp4", "nothing in it.mp4", "pipe.mp4", "broken link.mp4", "sound alone.mp4"):
        REJECTED[name][0](videos / name)
    code, _, err = finish("ingest", tmp_path, without_server)
    assert code == 1
    message = "ingest: None of the 5 files in data/videos can be used; data/catalog/rejected.jsonl says why."
    assert err.strip().splitlines()[-1] == message
    assert "Traceback" not in err
    assert {rejection.item: rejection.reason for rejection in rejections_in(tmp_path / "data/catalog")} == {
        path.name: REJECTED[path.name][1] for path in videos.iterdir()
    }
    assert still_working_in(tmp_path) == []


def test_without_a_benchmark_the_report_says_that_nothing_was_checked(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    set_up(tmp_path)
    (tmp_path / "data/videos").mkdir(parents=True)
    (tmp_path / "data/benchmarks").mkdir()
    write(tmp_path / "data/videos/film.mp4", seconds=16)
    said = must_work("ingest", tmp_path, environment)
    assert "ingest: benchmark videos not checked (No benchmark below data/benchmarks." in said
    report = VideoReport.model_validate_json((tmp_path / "data/catalog/decontamination.json").read_text())
    assert (report.status, report.videos, report.benchmarks, report.found) == (Checked.NOT, 1, [], [])
    assert report.status == "not checked"
    assert report.note.startswith("No benchmark below data/benchmarks.")
    assert read_manifest(tmp_path / "data/catalog").facts["benchmarks"] == "not checked"


def test_two_names_that_are_written_down_alike_are_two_files(tmp_path: Path, environment: dict[str, str]) -> None:
    set_up(tmp_path)
    videos = tmp_path / "data/videos"
    videos.mkdir(parents=True)
    write(videos / "plain.mp4")
    (videos / "plain.mp4").rename(videos / os.fsdecode(NOT_UTF_8))
    write(videos / "caf\\xe9.mp4")  # a backslash, and all of it UTF-8
    must_work("ingest", tmp_path, environment)
    assert list(videos_in(tmp_path / "data/catalog")) == ["caf\\xe9.mp4"]
    assert [rejection.reason for rejection in rejections_in(tmp_path / "data/catalog")] == [Reason.UNREADABLE]
