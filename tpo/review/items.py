"""What the evaluation browser shows: each question of a benchmark as it was put, and what every model said to it.

shelf = ItemShelf(Path(), params)
for position in shelf.find(ItemFilter(change="lost")): shelf.row(position)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from pydantic import Field

from tpo.evaluation.benchmarks import NEEDLES, find_items
from tpo.evaluation.controls import shown_under
from tpo.evaluation.needle import find_questions, read_case_id
from tpo.evaluation.preflight import check_video, video_path
from tpo.params import Params
from tpo.records import (
    Condition,
    Item,
    Method,
    NeedleShown,
    Prediction,
    Record,
    Rejection,
    Role,
    Task,
    Video,
    View,
    ViewKind,
)
from tpo.store import read_stage
from tpo.video.probe import Prober
from tpo.video.sample import dense

Change = Literal["gained", "lost", "both right", "both wrong", "one model"]


class ItemFilter(Record):
    """Empty = any."""

    change: str = ""
    benchmark: str = ""
    duration_group: str = ""
    condition: str = ""
    method: str = ""
    text: str = Field("", max_length=200, description="in the question or its id, in whatever case")


class ItemRow(Record):
    """A question in the list."""

    position: int
    item_id: str
    question: str
    benchmark: str
    change: Change
    detail: str


class Said(Record):
    """What one model said."""

    option_logprobs: tuple[float, ...]
    text: str
    predicted: int | None
    span_s: tuple[float, float] | None
    score: float
    correct: bool
    status: str
    detail: str


class ItemCard(Record):
    """A question, its answers, and what is right."""

    position: int
    item_id: str
    benchmark: str
    question: str
    options: tuple[str, ...]
    gold: int | None
    reference: str
    spans_s: tuple[tuple[float, float], ...]
    video: str
    task: Task
    duration_group: str
    category: str
    condition: Condition
    method: Method
    rotation: int
    defects: tuple[str, ...]
    change: Change
    said: dict[Role, Said]


class Look(Record):
    """What the models were shown. `problem` says why there is nothing to see."""

    video_id: str = ""
    duration_s: float = 0
    frames_s: tuple[float, ...] = Field((), description="in the order shown")
    borrowed: dict[int, tuple[str, float]] = Field({}, description="frames of another video: its id, and the moment")
    needles_s: tuple[tuple[float, float], ...] = Field((), description="where frames show the needle, start and end")
    problem: str = ""


class Seen(NamedTuple):
    """A video of which moments may be looked at."""

    path: Path
    view: View


class ItemShelf:
    """All questions of data/evaluation, those of the needle test among them."""

    def __init__(self, root: Path, params: Params):
        self._root, self._params, self._folder = root, params, root / params.data.benchmarks
        evaluation = root / "data/evaluation"
        benchmarks = read_stage(evaluation / "predictions.jsonl", Prediction)
        needles = read_stage(evaluation / "needles.jsonl", Prediction)
        asked: dict[tuple[str | int, ...], dict[Role, Prediction]] = {}
        for one in (*benchmarks, *needles):
            key = (one.benchmark, one.item_id, one.condition, one.rotation, one.method)
            asked.setdefault(key, {})[one.model] = one
        self._asked: list[Mapping[Role, Prediction]] = [models for _, models in sorted(asked.items())]
        items, problem = find_items(self._folder) if benchmarks else ([], "")
        questions, needle_problem = find_questions(self._folder / NEEDLES) if needles else ({}, "")
        self._items = {item.id: item for item in items}
        for one in needles:
            if (question := questions.get(read_case_id(one.item_id)[1])) is not None:
                self._items[one.item_id] = question
        self._shown = {one.item_id: one for one in read_stage(evaluation / "needles_shown.jsonl", NeedleShown)}
        self.problem = problem or needle_problem
        if not asked:
            self.problem = "No model was evaluated yet. `dvc repro` asks base and tuned model the same questions."
        self._texts = [f"{self._question(of)}\n{_any(of).item_id}".casefold() for of in self._asked]

    def __len__(self) -> int:
        return len(self._asked)

    def choices(self) -> dict[str, list[str]]:
        some = [_any(of) for of in self._asked]
        there = {_change(of) for of in self._asked}
        return {
            "change": [change for change in get_args(Change) if change in there],
            "benchmark": sorted({one.benchmark for one in some}),
            "duration_group": sorted({one.duration_group for one in some}),
            "condition": [condition for condition in Condition if any(one.condition is condition for one in some)],
            "method": sorted({one.method for one in some}),
        }

    def find(self, wanted: ItemFilter) -> list[int]:
        """Positions of the questions that a filter lets through."""
        text = wanted.text.casefold()
        return [
            position
            for position, models in enumerate(self._asked)
            if wanted.change in ("", _change(models))
            and wanted.benchmark in ("", _any(models).benchmark)
            and wanted.duration_group in ("", _any(models).duration_group)
            and wanted.condition in ("", _any(models).condition)
            and wanted.method in ("", _any(models).method)
            and text in self._texts[position]
        ]

    def row(self, position: int) -> ItemRow:
        models = self._asked[position]
        one = _any(models)
        return ItemRow(
            position=position,
            item_id=one.item_id,
            question=self._question(models)[:200] or one.item_id,
            benchmark=one.benchmark,
            change=_change(models),
            detail=", ".join(filter(None, (_where(one), one.duration_group, _way(one)))),
        )

    def card(self, position: int) -> ItemCard:
        models = self._asked[position]
        one = _any(models)
        item = self._items.get(one.item_id)
        return ItemCard(
            position=position,
            item_id=one.item_id,
            benchmark=one.benchmark,
            question=self._question(models),
            options=item.options if item else (),
            gold=one.gold,
            reference=item.reference if item else "",
            spans_s=item.spans_s if item else (),
            video=one.video,
            task=one.task,
            duration_group=one.duration_group,
            category=_where(one) or one.category,
            condition=one.condition,
            method=one.method,
            rotation=one.rotation,
            defects=item.defects if item else (),
            change=_change(models),
            said={role: _said(models[role]) for role in get_args(Role) if role in models},
        )

    def look(self, position: int, prober: Prober) -> tuple[Look, list[Seen]]:
        """What the models were shown, and the videos that it is in, the one that was asked about first.

        By the settings of params.yaml as they are now. A video that was not measured before is measured first.
        """
        one = _any(self._asked[position])
        item = self._items.get(one.item_id)
        if item is None:
            return Look(problem=self.problem or "the benchmark does not have this question any more"), []
        if one.benchmark == NEEDLES:
            return self._look_for_needle(one.item_id, item, prober)
        found = check_video(self._folder, [item], prober)
        if isinstance(found, Rejection):
            return Look(problem=f"{found.reason}: {found.detail}"), []
        view = self._view(found, one.condition)
        if view is None:
            return Look(problem="the models were shown no frame"), []
        look = Look(video_id=found.id, duration_s=found.duration_s, frames_s=view.timestamps_s)
        return look, [Seen(self._folder / video_path([item]), view)]

    def _look_for_needle(self, item_id: str, item: Item, prober: Prober) -> tuple[Look, list[Seen]]:
        shown = self._shown.get(item_id)
        if shown is None:
            return Look(problem="the models could not be shown this"), []
        path, view = self._root / shown.path, shown.view
        if not path.is_file():
            return Look(problem=f"{shown.path} is not there any more. `dvc repro -f evaluate` writes it again"), []
        found = prober.probe(path.parent, path)
        if isinstance(found, Rejection):
            return Look(problem=f"{found.reason}: {found.detail}"), []
        ends_s = (*view.timestamps_s[1:], found.duration_s)
        look = Look(
            video_id=view.video_id,
            duration_s=found.duration_s,
            frames_s=view.timestamps_s,
            borrowed={one.position: (one.video_id, one.timestamp_s) for one in view.distractors},
            needles_s=tuple((view.timestamps_s[at], ends_s[at]) for at in shown.positions),
        )
        moments = {one.video_id: sorted({o.timestamp_s for o in view.distractors}) for one in view.distractors}
        clips = [
            Seen(
                self._folder / NEEDLES / item.video,
                View(video_id=video_id, kind=ViewKind.DENSE, timestamps_s=tuple(of_clip)),
            )
            for video_id, of_clip in moments.items()
        ]
        return look, [Seen(path, view), *clips]

    def _view(self, video: Video, condition: Condition) -> View | None:
        return shown_under(condition, dense(video, self._params.evaluate.num_frames), self._params.data.seed)

    def _question(self, models: Mapping[Role, Prediction]) -> str:
        item: Item | None = self._items.get(_any(models).item_id)
        return item.question if item else ""


def _any(models: Mapping[Role, Prediction]) -> Prediction:
    """What is the same of all models' predictions is told by any of them."""
    return next(iter(models.values()))


def _where(one: Prediction) -> str:
    """Where the needle is, of a question about one."""
    if one.benchmark != NEEDLES:
        return ""
    where, _ = read_case_id(one.item_id)
    mode, _, control = one.category.partition(" ")
    return f"{control or f'depth {float(where):.0%}'}, {mode}".replace("_", " ")


def _way(one: Prediction) -> str:
    """How it was asked, where that is not the usual way."""
    rotated = f" {one.rotation}" if one.condition is Condition.CIRCULAR else ""
    ways = [] if one.condition is Condition.FULL else [one.condition + rotated]
    return ", ".join(ways + (["written"] if one.method is Method.GENERATION else []))


def _change(models: Mapping[Role, Prediction]) -> Change:
    if "base" not in models or "tuned" not in models:
        return "one model"
    match models["base"].correct, models["tuned"].correct:
        case False, True:
            return "gained"
        case True, False:
            return "lost"
        case True, True:
            return "both right"
    return "both wrong"


def _said(one: Prediction) -> Said:
    return Said(
        option_logprobs=one.option_logprobs,
        text=one.text,
        predicted=one.predicted,
        span_s=one.predicted_span_s,
        score=one.score,
        correct=one.correct,
        status=one.status,
        detail=one.detail,
    )
