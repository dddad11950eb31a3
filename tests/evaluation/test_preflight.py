import pytest

from tpo.errors import UserError
from tpo.evaluation.preflight import check_complete, num_lost
from tpo.records import Item, Reason, Rejection


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
