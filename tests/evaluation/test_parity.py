"""Against what lmms-eval 0.7.3 and the benchmarks' own programs made of the same replies (bench/parity.py)."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tpo.evaluation.compatible import Mode, compatible_accuracy, compatible_score
from tpo.evaluation.prompts import render
from tpo.records import Item, Prompt

PARITY = Path(__file__).parent / "parity"
LMMS_EVAL = "lmms_eval_0_7_3"
FROZEN: list[tuple[Mode, str, str]] = [
    ("lmms_eval", LMMS_EVAL, "longvideobench"),
    ("lmms_eval", LMMS_EVAL, "mlvu"),
    ("lmms_eval", LMMS_EVAL, "mlvu_test"),
    ("lmms_eval", LMMS_EVAL, "videomme"),
    ("lmms_eval", LMMS_EVAL, "tempcompass"),
    ("official", LMMS_EVAL, "longvideobench"),  # its authors' rule
    ("official", "official_mlvu", "mlvu"),
    ("official", "official_videomme", "videomme"),
    ("official", "official_tempcompass", "tempcompass"),
]


@cache
def frozen(file: str, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((PARITY / f"{file}.json").read_text(encoding="utf-8"))[name]
    return found


def items(file: str, name: str) -> list[Item]:
    return [
        Item(
            id=f"{name}/{number}",
            benchmark=name,
            video="a.mp4",
            question=row["question"],
            options=row["options"],
            gold=row["gold"],
            duration_group="15",
            category=row.get("category", "order"),
        )
        for number, row in enumerate(frozen(file, name)["rows"])
    ]


@pytest.mark.parametrize(("mode", "file", "name"), FROZEN)
def test_every_reply_scores_as_it_does_there(mode: Mode, file: str, name: str) -> None:
    rows, replies = items(file, name), frozen(file, name)["replies"]
    assert len(replies) > 150
    assert {reply["correct"] for reply in replies} >= {True, False}
    for reply in replies:
        score = compatible_score(rows[reply["row"]], reply["text"], mode)
        assert score.correct == reply["correct"], reply
        if reply["letter"]:
            assert score.option == ord(reply["letter"]) - ord("A"), reply


@pytest.mark.parametrize(
    ("mode", "file", "name", "tolerance"),
    [
        ("lmms_eval", LMMS_EVAL, "longvideobench", 5e-6),  # printed with five places
        ("lmms_eval", LMMS_EVAL, "mlvu", 1e-9),
        ("lmms_eval", LMMS_EVAL, "mlvu_test", 1e-9),
        ("lmms_eval", LMMS_EVAL, "videomme", 1e-9),
        ("official", "official_videomme", "videomme", 5e-4),  # printed in percent with one place
    ],
)
def test_so_does_the_whole(mode: Mode, file: str, name: str, tolerance: float) -> None:
    rows, replies = items(file, name), frozen(file, name)["replies"]
    asked = [rows[reply["row"]] for reply in replies]
    found = compatible_accuracy(asked, [reply["text"] for reply in replies], mode)
    assert found.accuracy == pytest.approx(frozen(file, name)["accuracy"], abs=tolerance, rel=0)
    assert 0.1 < found.accuracy < 0.9


def test_draws_by_chance_are_the_ones_that_are_drawn_there() -> None:
    rows, replies = items(LMMS_EVAL, "longvideobench"), frozen(LMMS_EVAL, "longvideobench")["replies"]
    drawn = [compatible_score(rows[reply["row"]], reply["text"], "lmms_eval").random_draw for reply in replies]
    assert drawn == [reply["letter"] is None for reply in replies]
    assert 10 < sum(drawn) < len(drawn) / 2


@pytest.mark.parametrize("name", ["longvideobench", "videomme", "tempcompass"])
def test_questions_are_put_as_lmms_eval_puts_them(name: str) -> None:
    for item, prompt in zip(items(LMMS_EVAL, name), frozen(LMMS_EVAL, name)["prompts"], strict=True):
        assert render(item, "lmms_eval") == Prompt(user=prompt)


@pytest.mark.parametrize("name", ["mlvu", "mlvu_test"])
def test_mlvu_questions_end_as_lmms_eval_ends_them(name: str) -> None:
    """Its rows hold the options in the question, in the form of whoever packed them; the rest is lmms-eval's."""
    (prompt,) = frozen(LMMS_EVAL, name)["prompts"]
    for item in items(LMMS_EVAL, name):
        asked = render(item, "lmms_eval")
        assert asked == Prompt(user=asked.user)
        assert asked.user.startswith(item.question)
        assert asked.user.endswith(item.options[-1] + prompt.removeprefix("{question}"))
