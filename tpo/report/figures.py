"""The report's charts, each from a file that a stage published, with a sentence that says what is seen and of how many.

A file that is not there, or says nothing, gives no chart: the page says so in its place.
"""

import csv
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from markupsafe import Markup

from tpo.records import PreferencePair, Video
from tpo.report.charts import (
    BLUE,
    INK,
    ORANGE,
    Cell,
    Line,
    Span,
    bars,
    curves,
    drawn_as_one,
    heat_map,
    histogram,
    spans,
)
from tpo.report.scores import Estimate, Score
from tpo.store import read_stage

Rows = list[dict[str, str]]
_UNKNOWN = "unknown"


class Figure(NamedTuple):
    svg: Markup
    caption: str


def data_figures(root: Path) -> tuple[Figure, ...]:
    """What was trained on: kinds of questions, lengths of answers and of videos."""
    pairs = read_stage(root / "data/pairs/pairs.jsonl", PreferencePair)
    videos = read_stage(root / "data/catalog/videos.jsonl", Video)
    return tuple(figure for figure in (_types(pairs), _lengths(pairs), _durations(videos)) if figure)


def _types(pairs: Sequence[PreferencePair]) -> Figure | None:
    if not pairs:
        return None
    found = Counter((pair.question_type or _UNKNOWN, pair.granularity or _UNKNOWN) for pair in pairs)
    types = sorted({kind for kind, _ in found}, key=lambda kind: -sum(n for (k, _), n in found.items() if k == kind))
    series = {
        part: [found[kind, part] for kind in types]
        for part in ("localized", "comprehensive", _UNKNOWN)
        if any(found[kind, part] for kind in types)
    }
    parts = ", ".join(f"{sum(counts):,} {part}" for part, counts in series.items())
    title = "Question types"
    labels = [kind.replace("_", " ") for kind in types]
    return Figure(bars(title, labels, series, "pairs"), f"{title} of the {len(pairs):,} pairs trained on: {parts}.")


def _lengths(pairs: Sequence[PreferencePair]) -> Figure | None:
    known = [
        (pair.chosen_tokens, pair.rejected_tokens)
        for pair in pairs
        if pair.chosen_tokens is not None and pair.rejected_tokens is not None
    ]
    if not known:
        return None
    chosen, rejected = zip(*known, strict=True)
    title = "Answer lengths"
    unknown = f"; of {len(pairs) - len(known):,} more it is not known" if len(known) < len(pairs) else ""
    caption = f"{title} in tokens, of {len(known):,} pairs trained on{unknown}. Where the two lie apart, a model may "
    caption += "learn length instead of truth."
    return Figure(histogram(title, {"chosen": chosen, "rejected": rejected}, "tokens", "answers"), caption)


def _durations(videos: Sequence[Video]) -> Figure | None:
    if not videos:
        return None
    seconds = [video.duration_s for video in videos]
    divisor, unit = (60, "minutes") if max(seconds) > 600 else (1, "seconds")
    title = "Durations of the videos"
    caption = f"{title} in the catalog: {len(videos):,} videos, {sum(seconds) / 3600:,.1f} hours in all."
    return Figure(histogram(title, {"": [s / divisor for s in seconds]}, unit, "videos"), caption)


def training_figures(root: Path) -> tuple[Figure, ...]:
    """Whether training was healthy, from its curves; held-out pairs beside them where there are any."""
    trained, held_out = (_rows(root / "reports/training" / name) for name in ("curves.csv", "held_out.csv"))
    if not trained:
        return ()
    charts = (
        (
            "Loss",
            [
                _line(trained, "preference", "loss/preference", BLUE),
                _line(trained, "SFT", "loss/sft", ORANGE, "--"),
                _line(held_out, "preference, held out", "eval_loss/preference", INK, ":", "o"),
            ],
            "nats",
            "that of preference (where DPO begins, 0.693), and of SFT on the chosen answers, a token",
        ),
        (
            "Reward margin",
            [
                _line(trained, "trained on", "rewards/margins", BLUE),
                _line(held_out, "held out", "eval_rewards/margins", ORANGE, "--", "s"),
            ],
            "reward",
            "chosen minus rejected; above 0 the model prefers what it was to prefer more than the base does",
        ),
        (
            "Right order",
            [
                _line(trained, "trained on", "rewards/accuracies", BLUE, percent=True),
                _line(held_out, "held out", "eval_rewards/accuracies", ORANGE, "--", "s", percent=True),
                _line(held_out, "held out, as options", "eval_probe_accuracy", INK, ":", "D", percent=True),
            ],
            "% of pairs",
            "pairs whose chosen answer is ahead, and held-out questions where it is ahead of all options",
        ),
        (
            "Drift",
            [
                _line(trained, "chosen", "drift/chosen", BLUE),
                _line(trained, "rejected", "drift/rejected", ORANGE, "--"),
            ],
            "nats an answer",
            "how far answers' log-probabilities are from the base's; where both fall, the model forgets both",
        ),
    )
    figures = []
    for title, candidates, unit, meaning in charts:
        if lines := [line for line in candidates if line]:
            points = "; ".join(f"{line.name} {len(line.x):,}{_together(line)}" for line in lines)
            svg = curves(title, lines, "step", unit)
            figures.append(Figure(svg, f"{title}: {meaning}. Measured points: {points}."))
    return tuple(figures)


def _line(
    rows: Rows, name: str, column: str, color: str, style: str = "-", mark: str = "", percent: bool = False
) -> Line | None:
    points = [(float(row["step"]), float(row[column])) for row in rows if row.get(column)]
    if not points:
        return None
    x, y = zip(*points, strict=True)
    return Line(name=name, color=color, style=style, mark=mark, x=x, y=tuple(100 * v for v in y) if percent else y)


def _together(line: Line) -> str:
    size = drawn_as_one(len(line.x))
    return f" (means of {size} drawn)" if size > 1 else ""


def accuracy_figure(title: str, scores: Sequence[Score]) -> Figure | None:
    """Base, tuned model and, where another one is champion, that, on each row's questions."""
    if not scores:
        return None
    series = {
        "base": [_span(score.name, score.base) for score in scores],
        "tuned": [_span(score.name, score.tuned) for score in scores],
        "champion": [_span(score.name, score.champion) for score in scores if score.champion],
    }
    svg = spans(title, {name: found for name, found in series.items() if found}, "% right")
    asked = "; ".join(f"{score.name}: {score.asked}" for score in scores)
    return Figure(svg, f"{title} with intervals. {asked}.")


def _span(label: str, share: Estimate) -> Span:
    return Span(label=label, value=100 * share.value, low=100 * share.low, high=100 * share.high)


def needle_figures(root: Path) -> dict[str, tuple[Figure, ...]]:
    """Where in a video a needle is found, by each model, and the difference; by how needles were put there."""
    found, differences = (_rows(root / "reports" / name) for name in ("needle.csv", "needle_difference.csv"))
    modes = dict.fromkeys(row["mode"] for row in found)
    return {mode.replace("_", " "): tuple(_needle_maps(mode, found, differences)) for mode in modes}


def _needle_maps(mode: str, found: Rows, differences: Rows) -> Iterator[Figure]:
    unit, where = "frames" if mode == "after_sampling" else "minutes", mode.replace("_", " ")
    for model in dict.fromkeys(row["model"] for row in found):
        if rows := [row for row in found if (row["mode"], row["model"]) == (mode, model)]:
            title = f"Needle {where}, {model}"
            cells = [_cell(row, "accuracy", "{:.0f}") for row in rows]
            svg = heat_map(title, cells, "depth, % of the video", unit, "Blues", (0, 1.25))
            yield Figure(svg, f"{title}: % found, {_questions(rows)}{_not_sampled(rows)}.")
    if rows := [row for row in differences if row["mode"] == mode]:
        title = f"Needle {where}, tuned minus base"
        cells = [_cell(row, "difference", "{:+.0f}") for row in rows]
        svg = heat_map(title, cells, "depth, % of the video", unit, "RdBu", (-1, 1))
        changed = f"{_sum(rows, 'gained')} gained, {_sum(rows, 'lost')} lost"
        yield Figure(svg, f"{title}: points, {_questions(rows)}; {changed}.")


def _cell(row: Mapping[str, str], column: str, form: str) -> Cell:
    value = float(row[column])
    text = form.format(100 * value).replace("-0", "0") if round(100 * value) == 0 else form.format(100 * value)
    return Cell(column=f"{100 * float(row['depth']):g}", row=f"{float(row['length']):g}", value=value, text=text)


def _questions(rows: Rows) -> str:
    each = {int(row["n"]) for row in rows}
    share = str(*each) if len(each) == 1 else f"{min(each)} to {max(each)}"
    return f"{_sum(rows, 'n')} questions, {share} a field"


def _not_sampled(rows: Rows) -> str:
    missed = _sum(rows, "not_sampled")
    return f"; {missed} of them on no sampled frame" if missed else ""


def _sum(rows: Rows, column: str) -> int:
    return sum(int(row[column]) for row in rows)


def _rows(path: Path) -> Rows:
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))
