"""Temporal grounding: a model is asked when something starts and ends, and what it writes is read strictly.

    prompt = span_prompt(item, "official", video.duration_s)
    prediction = predict_span(item, "tuned", model_says, video.duration_s)
    numbers = grounding_metrics(items, predictions)

Nothing is guessed: a text counts if it names exactly one span of the video, in seconds or as clock times.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from tpo.evaluation.benchmarks import charades_sta, nextgqa
from tpo.evaluation.scoring import prediction
from tpo.params import PromptStyle
from tpo.records import Condition, Item, Method, Prediction, PredictionStatus, Prompt, Role, Task

Span = tuple[float, float]
IOU_THRESHOLDS = (0.3, 0.5, 0.7)
CORRECT_IOU = 0.5
# A grounded answer is a right one whose span lies, for at least this share of it, where the evidence is (arXiv
# 2309.01327, section 5).
GROUNDED_IOP = 0.5
END_TOLERANCE_S = 1.0  # ours: models are told, and annotators wrote, durations that are rounded

# Both texts as in lmms-eval 0.7.2, `temporal_grounding_charades`, with its "seonds" and its two full stops.
_LMMS_EVAL_BEFORE = (
    "Please find the visual event described by a sentence in the video, determining its starting and ending times. "
    "The format should be: 'The event happens in the start time - end time'. For example, The event 'person turn a "
    "light on' happens in the 24.3 - 30.4 seonds. Now I will give you the textual sentence: "
)
_LMMS_EVAL_AFTER = "Please return its start time and end time."


def span_prompt(item: Item, style: PromptStyle, duration_s: float) -> Prompt:
    """What a model is asked about a span item of a video of that (measured) length.

    Neither benchmark has an official prompt for chat models, so the wording is ours, except for Charades-STA in the
    style of lmms-eval. Ours shows no example: models repeat it.
    """
    if style == "lmms_eval" and item.benchmark == charades_sta.NAME:
        return Prompt(user=f"{_LMMS_EVAL_BEFORE}{item.question}. {_LMMS_EVAL_AFTER}")
    asked = (
        f"The video is {duration_s:.1f} seconds long. When does this moment of it start and end?\n{item.question}\n"
        'Answer with its start and end in seconds, in the form "from START to END seconds".'
    )
    return Prompt(user=asked)


@dataclass(frozen=True)
class ParsedSpan:
    """The span that was named, start and end in seconds; none unless the status is `ok`."""

    status: PredictionStatus
    span_s: Span | None = None
    detail: str = ""


_NUMBER = r"\d+(?:\.\d+)?"
_SECONDS = r"[\s-]?(?:seconds?|secs?|s|seonds)(?![a-z])"  # "seonds": models repeat the slip in lmms-eval's prompt
_MINUTES = r"[\s-]?(?:minutes?|mins?)(?![a-z])"
_OTHER = r"\s*(?:%|(?:per ?cent|frames?|hours?|milliseconds?|ms)(?![a-z]))"
_CLOCK = rf"\d{{1,3}}:\d\d(?::\d\d)?(?:\.\d+)?(?:{_SECONDS}|{_MINUTES})?"
_MINUTES_AND_SECONDS = rf"{_NUMBER}(?:{_MINUTES}|\s*m(?![a-z]))\s*(?:and\s*)?{_NUMBER}{_SECONDS}"
# Atomic, (?>…): where "15.3" does not fit, neither "15" nor "1" is taken for it.
_TIME = rf"((?>{_CLOCK}|{_MINUTES_AND_SECONDS}|-?{_NUMBER}(?:{_SECONDS}|{_MINUTES}|{_OTHER})?))(?!\w|%|[.:]\d)"
_FIRST = rf"(?<![\w.-])(?<!\d[:,]){_TIME}"
_ABOUT = r"(?:(?:about|around|approximately|roughly|the|seconds?)\s+)*"
_TO = rf"(?:\s*mark)?\s*(?:--?|[–—~→]|(?:to|until|till|through)(?![a-z]))\s*{_ABOUT}"
_GAP = r"[^\d\n;!?]{0,40}?"
_SPANS = [
    re.compile(pattern)
    for pattern in (
        rf"{_FIRST}{_TO}{_TIME}(?!,\d|\s*(?:[-–—~]|to\b)\s*\d)",
        rf"between\s+{_ABOUT}{_TIME}(?:\s*mark)?\s+and\s+{_ABOUT}{_TIME}(?!,\d)",
        rf"[\[({{]\s*{_TIME}\s*,\s*{_TIME}\s*[\])}}]",
        rf"^{_TIME}\s*,\s+{_TIME}\.?$",
        rf"\b(?:start|begin)\w*{_GAP}{_FIRST}\D{{0,40}}?(?:\n ?\d[.)] ?)?\b(?:end|finish|stop)\w*{_GAP}{_FIRST}",
    )
]
_MARKS = re.compile(r"[*`\"]|(?<![a-z])['’]|['’](?![a-z])")
_OF_A_CHAIN = re.compile(r"\d\s*(?:[-–—~]|to)\s*$")
_CLAUSE_END = re.compile(r"[;!?,\n]|\.\s|\bbut\b")
_DENIED = re.compile(r"\b(?:not|never|cannot)\b|n['’]t\b")
_NOT_SECONDS = re.compile(r"\bframes?\b|%|\bper ?cent\b")
# A number without a unit is a time only where nothing follows that it could count: not in "2 - 3 people".
_COUNTS_NOTHING = re.compile(r" *(?:$|[^\w ]|(?:in|when|while|where|as|and|to|until|till|through)\b)")


def parse_span(text: str, duration_s: float) -> ParsedSpan:
    """The one span that `text` names, of a video of that length.

    Understood are "from 12.3 to 15 seconds", "12.3 - 15.0", "[12.3, 15]", "between 12 and 15 s", "starts at 12.3 s and
    ends at 15 s", {"start": 12.3, "end": 15}; times may be clock times ("1:02:03", "00:12") or "1 minute 5 seconds".
    Different spans, even if they are nearly the same, are ambiguous. None is a text without a span. Illegal is a span
    without length, one that is not in the video (its end may be a second too late), and one in frames or percent.
    """
    said = re.sub(r"[_<> \t]+", " ", _MARKS.sub("", text.lower().rpartition("</think>")[2])).strip()
    named = [times for pattern in _SPANS for match in pattern.finditer(said) if (times := _times(match))]
    spans = sorted({(start_s, end_s) for start_s, end_s in named if start_s is not None and end_s is not None})
    if len(spans) > 1:
        return ParsedSpan(PredictionStatus.AMBIGUOUS, detail=f"{len(spans)} spans are named: {spans[:4]}")
    if not spans:
        status = PredictionStatus.ILLEGAL if named else PredictionStatus.NONE
        return ParsedSpan(status, detail="a span is named, but not clearly in seconds" if named else "no span is named")
    start_s, end_s = spans[0]
    if end_s <= start_s:
        detail = f"the span ends at {end_s} s, not after its start at {start_s} s"
    elif start_s < 0 or start_s >= duration_s or end_s > duration_s + END_TOLERANCE_S:
        detail = f"the span from {start_s} to {end_s} s is not in the video of {duration_s:.1f} s"
    else:
        return ParsedSpan(PredictionStatus.OK, spans[0])
    return ParsedSpan(PredictionStatus.ILLEGAL, detail=detail)


def _times(match: re.Match[str]) -> tuple[float | None, float | None] | None:
    """Start and end in seconds; each is none if it is in another unit. None at all: this is no span."""
    before = match.string[: match.start()]
    clause = _CLAUSE_END.split(before)[-1] + match[0]
    if _OF_A_CHAIN.search(before) or _DENIED.search(clause):
        return None
    bare = [group for group in (1, 2) if re.fullmatch(rf"-?{_NUMBER}", match[group])]
    if not all(_COUNTS_NOTHING.match(match.string, match.end(group)) for group in bare):
        return None
    if len(bare) == 2 and _NOT_SECONDS.search(clause):
        return None, None
    if len(bare) == 1 and not re.fullmatch(_NUMBER + _SECONDS, match[3 - bare[0]]):
        return None, None  # "1 to 2 minutes" does not say what 1 is
    return _seconds(match[1]), _seconds(match[2])


def _seconds(time: str) -> float | None:
    """ "12.3 s", "1:02:03" or "1 minute 5 seconds" in seconds; none for other units and for "00:75"."""
    numbers = [float(number) for number in re.findall(rf"-?{_NUMBER}", time)]
    if ":" in time:
        hours, minutes, seconds = [0.0, *numbers][-3:]
        return None if seconds >= 60 or (hours and minutes >= 60) else 3600 * hours + 60 * minutes + seconds
    if re.search(_OTHER, time):
        return None
    if re.search(r"\dm|[\s-]m", time):
        return 60 * numbers[0] + sum(numbers[1:])
    return numbers[0]


def predict_span(
    item: Item, role: Role, text: str, duration_s: float, condition: Condition = Condition.FULL
) -> Prediction:
    """What `text` says about a span item of a video of that (measured) length. What names no span scores 0."""
    parsed = parse_span(text, duration_s)
    score = best_iou(parsed.span_s, item.spans_s) if parsed.span_s else 0.0
    return prediction(
        item,
        role,
        condition=condition,
        method=Method.GENERATION,
        status=parsed.status,
        detail=parsed.detail,
        text=text,
        predicted_span_s=parsed.span_s,
        score=score,
        correct=score >= CORRECT_IOU,
    )


def best_iou(span_s: Span, truths_s: Iterable[Span]) -> float:
    """Intersection over union with that true span that fits best, 0 to 1.

    For spans apart from each other the union is all from the first start to the last end; their score is 0 either way.
    """
    return max(
        _overlap_s(span_s, truth_s) / (max(span_s[1], truth_s[1]) - min(span_s[0], truth_s[0])) for truth_s in truths_s
    )


def best_iop(span_s: Span, truths_s: Iterable[Span]) -> float:
    """Intersection over prediction: the share of the span that lies in one true span, at best; 0 to 1.

    Like NExT-GQA's official scoring it takes the best true span anew, it may be another one than `best_iou`'s.
    """
    return max(_overlap_s(span_s, truth_s) / (span_s[1] - span_s[0]) for truth_s in truths_s)


def _overlap_s(span_s: Span, truth_s: Span) -> float:
    return max(0.0, min(span_s[1], truth_s[1]) - max(span_s[0], truth_s[0]))


def grounding_metrics(items: Sequence[Item], predictions: Sequence[Prediction]) -> dict[str, dict[str, Any]]:
    """Per benchmark with span items: what one model said under one condition, as shares from 0 to 1, and counts.

    `{"nextgqa": {"num_items": …, "miou": …, "miop": …, "recall_iou_30": …, "recall_iou_50": …, "recall_iou_70": …,
    "acc_qa": …, "acc_gqa": …, "status": {"ok": …}}}`. Items without a span that counts (unparsable, no video) are in
    every mean with 0. `acc_gqa`, NExT-GQA's own: the right option is chosen, and half of the span or more shows why.
    Predictions about none of `items` are left out.

    Raises:
        ValueError: an item has no prediction, or several; give those of one model, condition and method.
    """
    by_id = _one_each(items, predictions)
    spans: dict[str, list[Item]] = {}
    for item in items:
        if item.task is Task.SPAN:
            spans.setdefault(item.benchmark, []).append(item)
    return {benchmark: _benchmark_metrics(asked, by_id) for benchmark, asked in spans.items()}


def _one_each(items: Sequence[Item], predictions: Sequence[Prediction]) -> dict[str, Prediction]:
    wanted = {item.id for item in items if item.task is not Task.OPEN}
    counts = Counter(one.item_id for one in predictions if one.item_id in wanted)
    if wrong := sorted(item for item in wanted if counts[item] != 1):
        raise ValueError(f"{wrong[0]} has {counts[wrong[0]]} predictions, expected one of one model and condition")
    return {one.item_id: one for one in predictions if one.item_id in wanted}


def _benchmark_metrics(asked: Sequence[Item], by_id: dict[str, Prediction]) -> dict[str, Any]:
    found = [by_id[item.id] for item in asked]
    iops = [
        best_iop(one.predicted_span_s, item.spans_s) if one.predicted_span_s else 0.0
        for item, one in zip(asked, found, strict=True)
    ]
    numbers: dict[str, Any] = {
        "num_items": len(asked),
        "miou": _mean(one.score for one in found),
        "miop": _mean(iops),
        **{f"recall_iou_{round(100 * at)}": _mean(one.score >= at for one in found) for at in IOU_THRESHOLDS},
        "status": {status.value: sum(one.status is status for one in found) for status in PredictionStatus},
    }
    answers = [by_id.get(item.id.removesuffix(nextgqa.SPAN)) for item in asked]
    if asked[0].benchmark == nextgqa.NAME:
        numbers["acc_qa"] = _mean(answer is not None and answer.correct for answer in answers)
        numbers["acc_gqa"] = _mean(
            answer is not None and answer.correct and iop >= GROUNDED_IOP
            for answer, iop in zip(answers, iops, strict=True)
        )
    return numbers


def _mean(values: Iterable[float]) -> float:
    listed = list(values)
    return sum(listed) / len(listed)
