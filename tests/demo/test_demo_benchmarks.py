import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from tpo.demo.benchmarks import FAMILIES, KINDS, SEED_STREAM, WORDS, write_benchmarks
from tpo.demo.world import COLORS, SHAPES, Event, plan_events
from tpo.errors import UserError
from tpo.evaluation.benchmarks import describe, load_benchmarks
from tpo.evaluation.benchmarks.subtitles import read_subtitles
from tpo.llm.rules import definite
from tpo.records import Granularity, Item
from tpo.store import digest
from tpo.video.decode import decode
from tpo.video.probe import Prober
from tpo.video.sample import dense

NUM_VIDEOS, NUM_QUESTIONS, EVENTS = 12, 6, (10, 14)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmarks")
    write_benchmarks(folder, NUM_VIDEOS, NUM_QUESTIONS, *EVENTS, seed=3)
    return folder


@pytest.fixture(scope="module")
def items(folder: Path) -> list[Item]:
    items, rejections = load_benchmarks(folder)
    assert rejections == []
    return items


@pytest.fixture(scope="module")
def films() -> dict[int, list[Event]]:
    """What each video shows, drawn again from the seed, apart from the code under test."""
    rng = np.random.default_rng([3, SEED_STREAM])
    return {0: plan_events(rng, int(rng.integers(*EVENTS, endpoint=True)))}


def by_video(items: list[Item]) -> dict[tuple[str, str], list[Item]]:
    groups: dict[tuple[str, str], list[Item]] = {}
    for item in items:
        groups.setdefault((item.benchmark, item.video), []).append(item)
    return groups


def fills(item: Item) -> list[str]:
    """The options without the words that restate the question: "the ring is red" → "red"."""
    return [option.rsplit(" is " if item.category == "color" else " comes ", 1)[1] for option in item.options]


def test_the_loaders_of_the_real_benchmarks_read_every_question(items: list[Item]) -> None:
    assert len(items) == NUM_VIDEOS * NUM_QUESTIONS
    assert Counter(item.benchmark for item in items) == {"longvideobench": 24, "mlvu": 24, "videomme": 24}
    assert all("synthetic" in item.video for item in items)


def test_every_video_is_asked_about_colours_neighbours_and_order_alike(items: list[Item]) -> None:
    for group in by_video(items).values():
        kinds = Counter(item.category for item in group)
        assert [sum(kinds[kind] for kind in family) for family in FAMILIES] == [2, 2, 2]
        assert len({item.question for item in group}) == NUM_QUESTIONS
    for benchmark in ("longvideobench", "mlvu", "videomme"):
        assert {item.category for item in items if item.benchmark == benchmark} == set(KINDS)


def test_options_are_four_different_ones_in_one_grammatical_form_and_gold_is_anywhere(items: list[Item]) -> None:
    for item in items:
        assert len(set(item.options)) == 4
        starts = {"color": tuple(COLORS), "which_first": ("the ",)}.get(item.category, ("a ", "an "))
        assert all(fill.startswith(starts) for fill in fills(item))
        assert len({option.removesuffix(fill) for option, fill in zip(item.options, fills(item), strict=True)}) == 1
        if item.category == "which_first":
            assert sum(fill in item.question for fill in fills(item)) == 2
            assert fills(item)[item.gold] in item.question
    assert set(Counter(item.gold for item in items)) == {0, 1, 2, 3}


def test_the_last_event_is_always_among_the_options(items: list[Item], films: dict[int, list[Event]]) -> None:
    last = films[0][-1]
    first_video = [item for item in items if item.video.endswith("synthetic-000.mp4")]
    assert len(first_video) == NUM_QUESTIONS
    for item in first_video:
        fill = {"color": last.color, "which_first": definite(last.caption)}.get(item.category, last.caption)
        assert fill in fills(item)


def test_gold_is_what_the_video_shows(items: list[Item], films: dict[int, list[Event]]) -> None:
    events = films[0]
    names = [definite(event.caption) for event in events]
    for item in items:
        if not item.video.endswith("synthetic-000.mp4"):
            continue
        gold, words = fills(item)[item.gold], item.question.rstrip("?")
        match item.category:
            case "color":
                truth = next(event.color for event in events if words.endswith(event.shape))
            case "after" | "before":
                at = next(i for i, name in enumerate(names) if words.endswith(name))
                truth = events[at + (1 if item.category == "after" else -1)].caption
            case "first" | "last":
                truth = events[0 if item.category == "first" else -1].caption
            case _:
                truth = next(name for name in names if name in words)
        assert gold == truth


def test_videos_are_as_long_as_their_rows_say_and_show_their_first_event(
    folder: Path, items: list[Item], films: dict[int, list[Event]], tmp_path: Path
) -> None:
    item = next(item for item in items if item.video.endswith("synthetic-000.mp4"))
    root = folder / item.benchmark
    with Prober(tmp_path) as prober:
        video = prober.probe(root, root / item.video)
    assert video.duration_s == films[0][-1].end_s
    assert video.duration_s <= float(item.duration_group) <= 600
    frames = decode(root / item.video, dense(video, 8), tmp_path)
    assert frames.pixels.shape == (8, 64, 64, 3)


def test_each_folder_says_that_it_is_synthetic(folder: Path) -> None:
    for name, real in (("longvideobench", "LongVideoBench"), ("mlvu", "MLVU"), ("videomme", "Video-MME")):
        text = (folder / name / "README.md").read_text()
        assert text.startswith(f"SYNTHETIC. This is not {real}")


def test_some_videos_have_subtitles_in_each_official_shape_on_a_clock_of_their_own(
    folder: Path, items: list[Item]
) -> None:
    root = folder / "longvideobench"
    by_path = {item.subtitles: item for item in items if item.benchmark == "longvideobench"}
    shapes = Counter()
    for name, item in by_path.items():
        assert name
        rows = json.loads((root / name).read_text())
        lines = read_subtitles(root / name, item.subtitles_start_s, item.duration_s or 0)
        shapes["silent" if not rows else "line" if "line" in rows[0] else "text"] += 1
        assert len(lines) == len(rows)
        assert not rows or (item.subtitles_start_s > 0 and lines[0].start_s == 1.0)
        assert all(0 < line.start_s < line.end_s <= (item.duration_s or 0) for line in lines)
    assert shapes == {"line": 2, "text": 1, "silent": 1}
    srt = {item.subtitles for item in items if item.benchmark == "videomme"}
    assert len(srt - {None}) == 2
    assert None in srt
    assert all(read_subtitles(folder / "videomme" / name, 0, 600)[0].start_s == 1.0 for name in srt if name)


def test_subtitles_give_no_answer_away(folder: Path) -> None:
    files = [*folder.rglob("subtitles/*.json"), *folder.rglob("subtitle/*.srt")]
    said = {line.text for file in files for line in read_subtitles(file, 0, 10_000)}
    assert said == set(WORDS)
    shown = {*COLORS, *SHAPES, "first", "last", "before", "after"}
    assert all(word not in text.lower().split() for text in said for word in shown)


def test_questions_are_said_to_be_of_a_part_or_of_the_whole(items: list[Item]) -> None:
    for item in items:
        if item.benchmark == "longvideobench":
            whole = item.category in ("first", "last", "which_first")
            assert item.granularity is (Granularity.COMPREHENSIVE if whole else Granularity.LOCALIZED)


def test_nothing_about_the_synthetic_sets_is_amiss(folder: Path, items: list[Item]) -> None:
    """Some of Video-MME's videos have no subtitles, as of the real ones."""
    assert describe(items, [], folder) == [
        *(f"{name}: 24 questions about 4 videos" for name in ("longvideobench", "mlvu", "videomme")),
        "videomme: 2 of 4 videos have no subtitles, such as data/synthetic-005.mp4",
    ]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        write_benchmarks(tmp_path / name / "benchmarks", 3, 3, 4, 5, seed)
    once, again, other = (digest(tmp_path / name / "benchmarks") for name in "abc")
    assert once == again
    assert once != other


def test_the_shortest_videos_have_enough_wrong_answers(tmp_path: Path) -> None:
    write_benchmarks(tmp_path, 3, 16, 4, 4, seed=0)
    items, rejections = load_benchmarks(tmp_path)
    assert (len(items), rejections) == (48, [])


def test_asking_more_than_there_is_says_what_to_change(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"of 4 events has 18 questions, not 19.*demo.questions_per_eval_video"):
        write_benchmarks(tmp_path, 3, 19, 4, 4, seed=0)
