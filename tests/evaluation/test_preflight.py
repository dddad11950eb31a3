from pathlib import Path

import pytest

from tpo.errors import UserError
from tpo.evaluation.preflight import check_complete, check_video, describe_left_out, file_state, num_lost
from tpo.records import Item, Reason, Rejection
from tpo.video.probe import Prober


def items(benchmark: str, count: int) -> list[Item]:
    return [
        Item(
            id=f"{benchmark}/{n}", benchmark=benchmark, video=f"{n}.mp4", question="Why?", options=("a", "b"), gold=0,
            duration_group="short", category="why",
        )
        for n in range(count)
    ]  # fmt: skip


def missing(path: str) -> Rejection:
    return Rejection(stage="evaluate", item=path, reason=Reason.VIDEO_MISSING, detail="there is no such file")


BAD_ROW = Rejection(stage="evaluate", item="mlvu/1_plotQA.json:3", reason=Reason.BAD_ITEM, detail="no gold answer")


def test_a_whole_benchmark_is_nothing_to_speak_of() -> None:
    assert check_complete(items("mlvu", 4), {}, [], 0) == []


def test_what_is_lost_is_said_for_each_benchmark_with_its_reasons() -> None:
    unusable = {"mlvu/0.mp4": missing("mlvu/0.mp4")}
    lines = check_complete(items("mlvu", 4) + items("videomme", 2), unusable, [BAD_ROW], 0.5)
    assert lines == ["mlvu: 2 of 5 questions cannot be asked: 1 bad rows, 1 videos video_missing"]


def test_half_a_benchmark_may_be_missing_and_more_stops_the_run_with_what_to_look_at() -> None:
    unusable = {f"mlvu/{n}.mp4": missing(f"mlvu/{n}.mp4") for n in range(2)}
    assert check_complete(items("mlvu", 4), unusable, [], 0.5)
    with pytest.raises(
        UserError, match=r"mlvu: 3 of 5 .*0\.5\) allows\. The first: mlvu/1_plotQA\.json:3: no gold answer"
    ):
        check_complete(items("mlvu", 4), unusable, [BAD_ROW], 0.5)


def test_a_row_that_is_empty_in_the_published_file_is_not_lost() -> None:
    published = BAD_ROW.model_copy(update={"item": "mlvu/7_topic_reasoning.json:26"})
    assert num_lost([BAD_ROW, published]) == 1


def test_where_all_videos_are_broken_the_run_stops_and_names_the_first(tmp_path: Path) -> None:
    one = items("mlvu", 1)
    (tmp_path / "mlvu").mkdir()
    (tmp_path / "mlvu/0.mp4").write_bytes(b"not a video" * 100)
    with Prober(tmp_path / ".frames") as prober:
        broken = check_video(tmp_path, one, prober)
    assert isinstance(broken, Rejection)
    assert (broken.stage, broken.item) == ("evaluate", "mlvu/0.mp4")
    with pytest.raises(UserError, match=r"1 videos unreadable\. .* The first: mlvu/0\.mp4: "):
        check_complete(one, {"mlvu/0.mp4": broken}, [], 0.5)


def test_a_bad_row_of_a_benchmark_that_is_left_out_by_settings_does_not_stop_the_run() -> None:
    left_out = items("charades_sta", 40)
    row = BAD_ROW.model_copy(update={"item": "charades_sta/charades_sta_test.txt:1"})
    (line,) = check_complete([*items("mlvu", 4), *left_out], {}, [row], 0.5)
    assert line == "charades_sta: 1 of 41 questions cannot be asked: 1 bad rows"


def test_what_settings_leave_out_is_said_with_what_to_set() -> None:
    left_out = [
        Rejection(stage="evaluate", item=f"{name}/{n}", reason=Reason.NOT_ASKED, detail="set evaluate.max_new_tokens")
        for name, n in [("charades_sta", 0), ("charades_sta", 1), ("nextgqa", 0)]
    ]
    assert describe_left_out(left_out) == [
        "charades_sta: 2 questions are not asked: set evaluate.max_new_tokens",
        "nextgqa: 1 questions are not asked: set evaluate.max_new_tokens",
    ]


def test_a_video_that_was_downloaded_or_repaired_is_another_one_than_before(tmp_path: Path) -> None:
    one = items("mlvu", 1)
    states = [file_state(tmp_path, one)]
    (tmp_path / "mlvu").mkdir()
    for content in (b"half", b"all of it"):
        (tmp_path / "mlvu/0.mp4").write_bytes(content)
        states.append(file_state(tmp_path, one))
    assert len(set(states)) == 3
    assert file_state(tmp_path, one) == states[-1]
