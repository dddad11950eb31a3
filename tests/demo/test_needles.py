import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tpo.demo.needles import MAX_HAYSTACK_EVENTS, SEED_STREAM, write_needles
from tpo.demo.world import BACKGROUND, COLORS, SHAPES, plan_events
from tpo.evaluation.needle import Needle, load_needles
from tpo.records import Video
from tpo.store import digest
from tpo.video.decode import decode
from tpo.video.probe import Prober
from tpo.video.sample import dense

SIZES = (12, 2, MAX_HAYSTACK_EVENTS, 3)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("benchmarks")
    write_needles(root, *SIZES)
    return root


@pytest.fixture(scope="module")
def loaded(root: Path) -> tuple[list[Needle], list[Video]]:
    with Prober(root / ".frames") as prober:
        needles, haystacks, rejections = load_needles(root / "needle", prober)
    assert rejections == []
    return needles, haystacks


@pytest.fixture(scope="module")
def rows(root: Path) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads((root / "needle/needles.json").read_text())
    assert len(rows) == 12
    return rows


def shape_in(option: str) -> str:
    return option.split()[-1].rstrip("?")


def test_every_needle_and_haystack_is_read_and_haystacks_are_much_longer(
    loaded: tuple[list[Needle], list[Video]],
) -> None:
    needles, haystacks = loaded
    assert (len(needles), len(haystacks)) == (12, 2)
    assert max(needle.clip.duration_s for needle in needles) < min(haystack.duration_s for haystack in haystacks) / 2


def test_the_four_kinds_of_question_come_up_equally_often_and_gold_has_no_favourite_place(
    rows: list[dict[str, Any]],
) -> None:
    sides = Counter(row["question"].split()[3] for row in rows)
    assert sides == {"after": 6, "before": 6}
    assert max(Counter(row["gold"] for row in rows).values()) <= 6


def test_options_are_four_different_shapes_that_the_question_does_not_name(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        gold = row["options"][row["gold"]]
        asked = shape_in(row["question"])
        shapes = [shape_in(option) for option in row["options"]]
        assert len(set(shapes)) == 4
        assert asked not in shapes
        assert all(option.startswith(gold.rsplit(" ", 3)[0]) for option in row["options"]), "all restate the question"


def test_right_answers_follow_from_what_the_needle_shows(root: Path, rows: list[dict[str, Any]]) -> None:
    """Seen in the pixels: the colour of the answer is on screen right after, or before, the colour asked about."""

    def color_of(pixels: np.ndarray) -> str:
        vivid = pixels[np.abs(pixels.astype(int) - BACKGROUND).sum(axis=-1) > 150].astype(int)
        return min(COLORS, key=lambda name: float(np.abs(np.median(vivid, axis=0) - COLORS[name]).sum()))

    checked = 0
    with Prober(root / ".frames") as prober:
        for row in rows:
            path = root / "needle/clips" / row["clip"]
            video = prober.probe(root, path)
            assert isinstance(video, Video)
            frames = decode(path, dense(video, video.num_frames), prober.index_dir)
            seen = [color_of(pixels) for pixels in frames.pixels]
            order = [color for at, color in enumerate(seen) if at == 0 or color != seen[at - 1]]
            asked = row["question"].rstrip("?").split()[-2]
            gold = row["options"][row["gold"]].split()[-2]
            if len(order) == len(set(order)) == 3:
                step = 1 if " after " in row["question"] else -1
                assert order[order.index(asked) + step] == gold
                offered = {option.split()[-2] for option in row["options"]}
                assert set(order) - {asked} <= offered, "both others are offered: one frame does not tell which it is"
                checked += 1
    assert checked >= 6


def test_haystacks_show_none_of_the_shapes_that_needles_ask_about(root: Path, rows: list[dict[str, Any]]) -> None:
    """Planned again from the seed, apart from the code under test: haystacks are drawn before needles."""
    rng = np.random.default_rng([3, SEED_STREAM])
    shapes = [str(shape) for shape in rng.permutation(list(SHAPES))]
    shown = {event.shape for event in plan_events(rng, MAX_HAYSTACK_EVENTS, shapes[6:])}
    assert len(shown) == MAX_HAYSTACK_EVENTS
    asked = {shape_in(text) for row in rows for text in (row["question"], *row["options"])}
    assert asked == set(shapes[:6])
    assert not shown & asked


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(root: Path, tmp_path: Path) -> None:
    write_needles(tmp_path / "again", *SIZES)
    write_needles(tmp_path / "other", *SIZES[:3], 4)
    assert digest(tmp_path / "again/needle") == digest(root / "needle")
    assert digest(tmp_path / "other/needle") != digest(root / "needle")
