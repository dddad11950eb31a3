"""What the evaluation browser shows: each question of a benchmark as it was put, and what every model said to it.

shelf = ItemShelf(Path(), params)
for position in shelf.find(ItemFilter(change="lost")): shelf.row(position)
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from tpo.evaluation.benchmarks import find_items
from tpo.evaluation.controls import shown_under
from tpo.evaluation.preflight import check_video, video_path
from tpo.params import Params
from tpo.records import Condition, Item, Method, Prediction, Record, Rejection, Role, Task, Video, View
from tpo.review.stages import read_stage
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
    problem: str = ""


class ItemShelf:
    """All questions of data/evaluation, those of the needle test excepted: reports show it as a map."""

    def __init__(self, root: Path, params: Params):
        self._params, self.folder = params, root / params.data.benchmarks
        asked: dict[tuple[str | int, ...], dict[Role, Prediction]] = {}
        for one in read_stage(root / "data/evaluation/predictions.jsonl", Prediction):
            key = (one.benchmark, one.item_id, one.condition, one.rotation, one.method)
            asked.setdefault(key, {})[one.model] = one
        self._asked: list[Mapping[Role, Prediction]] = [models for _, models in sorted(asked.items())]
        items, self.problem = find_items(self.folder) if asked else ([], "")
        self._items = {item.id: item for item in items}
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
            detail=", ".join(filter(None, (one.duration_group, _way(one)))),
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
            category=one.category,
            condition=one.condition,
            method=one.method,
            rotation=one.rotation,
            defects=item.defects if item else (),
            change=_change(models),
            said={role: _said(models[role]) for role in get_args(Role) if role in models},
        )

    def look(self, position: int, prober: Prober) -> tuple[Look, View | None, str]:
        """What was shown, its view, and the path of the video below the folder of benchmarks.

        By the settings of params.yaml as they are now. A video that was not measured before is measured first.
        """
        one = _any(self._asked[position])
        item = self._items.get(one.item_id)
        if item is None:
            return Look(problem=self.problem or "the benchmark does not have this question any more"), None, ""
        found = check_video(self.folder, [item], prober)
        if isinstance(found, Rejection):
            return Look(problem=f"{found.reason}: {found.detail}"), None, ""
        view = self._view(found, one.condition)
        if view is None:
            return Look(problem="the models were shown no frame"), None, ""
        look = Look(video_id=found.id, duration_s=found.duration_s, frames_s=view.timestamps_s)
        return look, view, video_path([item])

    def _view(self, video: Video, condition: Condition) -> View | None:
        return shown_under(condition, dense(video, self._params.evaluate.num_frames), self._params.data.seed)

    def _question(self, models: Mapping[Role, Prediction]) -> str:
        item: Item | None = self._items.get(_any(models).item_id)
        return item.question if item else ""


def _any(models: Mapping[Role, Prediction]) -> Prediction:
    """What is the same of all models' predictions is told by any of them."""
    return next(iter(models.values()))


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
