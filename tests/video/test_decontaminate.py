import numpy as np
from made_fingerprints import pictures

from tpo.params import CopyParams
from tpo.records import Checked, Item, Reason, Rejection, Video
from tpo.video.decontaminate import check_videos, group_by_benchmark, rejections
from tpo.video.fingerprint import SAMPLE_STEP_S, Fingerprint

LIMITS = CopyParams(min_overlap_s=10, min_share=0.5, enough_s=60)


def video(name: str, path: str, duration_s: float = 60.0) -> Video:
    return Video(
        id=name, path=path, size_bytes=1, duration_s=duration_s, last_frame_s=duration_s - 0.5,
        fps=2, num_frames=120, longest_frame_s=0.5, num_restarts=1, width=64,
        height=64, rotation_deg=0, codec="h264", is_vfr=False, has_audio=False, brightness=90, change=3,
    )  # fmt: skip


def item(name: str, path: str) -> Item:
    return Item(
        id=name, benchmark="mlvu", video=path, question="?", options=("a", "b"), gold=0,
        duration_group="short", category="order",
    )  # fmt: skip


def still() -> Fingerprint:
    return Fingerprint(np.arange(120) * np.float32(SAMPLE_STEP_S), np.full(120, 7, np.uint64), np.ones(120, bool))


def test_a_cut_of_a_benchmarks_video_is_found_with_the_questions_about_it() -> None:
    ours = [video("cut", "my/cut.mp4", 30.0), video("own", "own.mp4")]
    benchmarks = group_by_benchmark(
        [video("theirs", "mlvu/MLVU/video/a.mp4")],
        [item("mlvu/1", "MLVU/video/a.mp4"), item("mlvu/2", "MLVU/video/a.mp4")],
    )
    shown = {"cut": pictures(1, 20, 50), "own": pictures(2, 0, 60), "theirs": pictures(1, 0, 60)}
    report = check_videos(ours, benchmarks, shown, LIMITS)
    assert (report.status, report.videos, report.not_comparable) == (Checked.CHECKED, 2, [])
    (found,) = report.found
    assert (found.video, found.benchmark, found.benchmark_video) == ("my/cut.mp4", "mlvu", "MLVU/video/a.mp4")
    assert (found.items, found.same_bytes, found.overlap_s, found.offset_s) == (["mlvu/1", "mlvu/2"], False, 30, 20)
    assert rejections(report) == [
        Rejection(
            stage="ingest", item="my/cut.mp4", reason=Reason.CONTAMINATED,
            detail="shows 30 s of mlvu/MLVU/video/a.mp4 (asked about in mlvu/1, mlvu/2)",
        )
    ]  # fmt: skip


def test_the_same_bytes_are_found_even_of_a_picture_that_never_changes() -> None:
    benchmarks = group_by_benchmark([video("same", "mlvu/a.mp4")], [])
    report = check_videos([video("same", "mine.mp4")], benchmarks, {"same": still()}, LIMITS)
    assert [(found.video, found.same_bytes) for found in report.found] == [("mine.mp4", True)]
    assert [r.detail for r in rejections(report)] == ["has the bytes of mlvu/a.mp4"]


def test_a_long_scene_in_common_is_enough_whatever_its_share_and_a_shared_intro_is_not() -> None:
    shown = {"intro": pictures(1, 0, 320), "scene": pictures(1, 100, 400), "theirs": pictures(1, 300, 460)}
    benchmarks = group_by_benchmark([video("theirs", "mlvu/a.mp4", 160.0)], [])
    ours = [video("intro", "intro.mp4", 320.0), video("scene", "scene.mp4", 300.0)]
    report = check_videos(ours, benchmarks, shown, LIMITS.model_copy(update={"min_share": 0.9}))
    assert [(found.video, found.overlap_s) for found in report.found] == [("scene.mp4", 100)]


def test_no_benchmark_is_not_checked_and_never_clean() -> None:
    report = check_videos([video("a", "a.mp4")], [], {"a": pictures(1, 0, 60)}, LIMITS, "No benchmark below x")
    assert (report.status, report.benchmarks, report.note) == (Checked.NOT, [], "No benchmark below x")


def test_a_benchmark_whose_videos_are_missing_or_unreadable_says_so() -> None:
    broken = Rejection(stage="ingest", item="mlvu/b.mp4", reason=Reason.UNREADABLE, detail="?")
    shown = {"ours": pictures(1, 0, 60), "theirs": pictures(2, 0, 60)}
    some = group_by_benchmark([video("theirs", "mlvu/a.mp4"), broken], [item("1", "a.mp4"), item("2", "gone.mp4")])
    (check,) = check_videos([video("ours", "ours.mp4")], some, shown, LIMITS).benchmarks
    assert (check.status, check.videos) == (Checked.PARTLY, 1)
    assert [(r.item, r.reason) for r in check.unusable] == [
        ("b.mp4", Reason.UNREADABLE), ("gone.mp4", Reason.VIDEO_MISSING),
    ]  # fmt: skip
    none = group_by_benchmark([broken], [item("2", "gone.mp4")])
    report = check_videos([video("ours", "ours.mp4")], none, shown, LIMITS)
    assert (report.status, report.benchmarks[0].status) == (Checked.NOT, Checked.NOT)


def test_a_video_that_shows_too_little_to_be_known_again_is_named() -> None:
    shown = {"ours": still(), "theirs": pictures(2, 0, 60)}
    benchmarks = group_by_benchmark([video("theirs", "mlvu/a.mp4")], [])
    report = check_videos([video("ours", "ours.mp4")], benchmarks, shown, LIMITS)
    assert (report.status, report.not_comparable) == (Checked.PARTLY, ["ours.mp4"])


def test_a_rejection_stays_short_when_a_video_shows_many() -> None:
    theirs = [video(f"t{n}", f"mlvu/{n}.mp4") for n in range(5)]
    items = [item(f"mlvu/{n}", "0.mp4") for n in range(9)]
    shown = {"ours": pictures(1, 0, 60)} | {one.id: pictures(1, 0, 60) for one in theirs}
    report = check_videos([video("ours", "ours.mp4")], group_by_benchmark(theirs, items), shown, LIMITS)
    (rejection,) = rejections(report)
    assert rejection.detail == (
        "shows 60 s of mlvu/0.mp4 (asked about in mlvu/0, mlvu/1, mlvu/2 and 6 more); "
        "shows 60 s of mlvu/1.mp4; shows 60 s of mlvu/2.mp4 and 2 more"
    )
