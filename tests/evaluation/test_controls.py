import pytest

from tpo.evaluation.controls import can_rotate, rotated, shown_under, stratified
from tpo.records import Condition, Item, Task, View, ViewKind

FULL = View(video_id="ab" * 32, kind=ViewKind.DENSE, timestamps_s=tuple(float(t) for t in range(12)))


def item(number: int, video: str = "a.mp4", group: str = "short", benchmark: str = "mlvu", **more: object) -> Item:
    settings = {"options": ("a dog", "a cat", "a cow"), "gold": 1} | more
    return Item(
        id=f"{benchmark}/{number}", benchmark=benchmark, video=video, question="What comes first?",
        duration_group=group, category="order", **settings,
    )  # fmt: skip


def test_every_group_gives_whole_videos_until_it_has_its_number() -> None:
    items = [item(n, f"{n // 3}.mp4", group) for n, group in enumerate(["short"] * 12 + ["long"] * 3)]
    chosen = stratified(items, 4)
    by_group = {
        group: [one for one in items if one.id in chosen and one.duration_group == group] for group in ("short", "long")
    }
    assert [len(by_group["short"]), len(by_group["long"])] == [6, 3]
    assert len({one.video for one in by_group["short"]}) == 2


def test_which_items_are_drawn_does_not_depend_on_their_order() -> None:
    items = [item(n, f"{n // 2}.mp4") for n in range(20)]
    assert stratified(items, 5) == stratified(items[::-1], 5)
    assert stratified(items, None) == {one.id for one in items}


def test_only_multiple_choice_has_controls() -> None:
    assert stratified([item(0, task=Task.OPEN, options=(), gold=None)], None) == set()


def test_each_condition_shows_what_it_says() -> None:
    shuffled = shown_under(Condition.SHUFFLED, FULL, 0)
    backwards = shown_under(Condition.REVERSED, FULL, 0)
    single = shown_under(Condition.SINGLE_FRAME, FULL, 0)
    assert shown_under(Condition.TEXT_ONLY, FULL, 0) is None
    assert single is not None
    assert len(single.timestamps_s) == 1
    assert backwards is not None
    assert backwards.timestamps_s == FULL.timestamps_s[::-1]
    assert shuffled is not None
    assert sorted(shuffled.timestamps_s) == list(FULL.timestamps_s) != list(shuffled.timestamps_s)
    assert shuffled == shown_under(Condition.SHUFFLED, FULL, 0), "drawn once for all models"
    assert shown_under(Condition.CIRCULAR, FULL, 0) == FULL


def test_a_view_of_one_frame_cannot_be_put_into_another_order() -> None:
    one = View(video_id="ab" * 32, kind=ViewKind.DENSE, timestamps_s=(1.0,))
    assert shown_under(Condition.SHUFFLED, one, 0) == one == shown_under(Condition.REVERSED, one, 0)


def test_rotating_moves_the_gold_option_along() -> None:
    moved = rotated(item(0), 1)
    assert moved.options == ("a cow", "a dog", "a cat")
    assert moved.options[moved.gold or 0] == "a cat"
    assert rotated(item(0), 3) == item(0)


@pytest.mark.parametrize(
    "option",
    ["All of the above", "None of these", "Both A and B", "neither of them", "A and C", "Both (a) and (c)", "Option A"],
)
def test_options_that_speak_of_others_are_not_moved(option: str) -> None:
    assert not can_rotate(item(0, options=("a dog", "a cat", option)))


@pytest.mark.parametrize(
    "option", ["A man and a dog", "Both of his hands", "a cat above the sofa", "Vitamin C", "All day"]
)
def test_options_that_only_sound_so_are_moved(option: str) -> None:
    assert can_rotate(item(0, options=("a dog", "a cat", option)))
