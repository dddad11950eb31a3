"""What the gate decides on, gathered from what the stages left behind. What is not there is `None`, never a guess.

    evidence = gather(metrics=…, evaluation=…, training=…, validation=…, …)

Pure: files are read, models proved and the registry asked by others (`flows/register.py`).
"""

from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import Field, NonNegativeInt, TypeAdapter, ValidationError

from tpo.evaluation.intervals import Interval
from tpo.records import NOT_ASKED, Checked, Record

ALL = "all"
# Duration groups as benchmarks name them (`tpo.evaluation.metrics.metric_name`), each scale from short to long. Groups
# of these names split nothing.
_SCALES = (
    ("short", "medium", "long"),
    ("15", "60", "600", "3600"),
    ("under 5min", "5-10min", "10-30min", "over 30min"),
    ("under 30s", "30-60s", "over 60s"),
)
_NO_GROUPS = {"all", "unknown"}
Facts = Mapping[str, Any]
Confidence = Annotated[float, Field(gt=0, lt=1)]


class Gain(Record):
    """Candidate minus another model on the same items, as a fraction of items, with an interval clustered by video."""

    difference: float
    low: float
    high: float
    p: float = Field(ge=0, le=1, description="exact McNemar test of gained against lost items, two-sided")
    num_items: int = Field(ge=0)
    num_videos: int = Field(ge=0)


class Blind(Record):
    """The same comparison without the video (the control text_only)."""

    gain: Interval = Field(description="candidate minus the other, without the video")
    rest: Interval = Field(description="the part of the gain that is gone without the video")


class Against(Record):
    """The candidate against one other model. Keys are benchmarks; `all` is all items together."""

    model_id: str
    gains: dict[str, Gain] = Field(description="also `NAME spans` and `NAME free_answers`")
    short: dict[str, Gain | None] = Field(
        description="`NAME GROUP`: the shortest duration group; none = which one that is, is not known"
    )
    unreadable: dict[str, Interval] = Field(
        description="other minus candidate, share of readable answers: by log-probability, and as written"
    )
    blind: dict[str, Blind]


class Decontamination(Record):
    """What was compared with the benchmarks before training."""

    benchmarks: tuple[str, ...] = Field(description="whose videos and whose questions were compared")
    num_videos: int = Field(ge=0, description="of training and of benchmarks")
    num_by_bytes_alone: int = Field(ge=0, description="unusable, or too short or too still to be recognised")
    num_kept: int = Field(ge=0, description="videos that show a benchmark's and were trained on (score_only)")
    num_questions: int = Field(ge=0)
    num_short_questions: int = Field(ge=0, description="too short to be told from what anyone might ask")
    is_validated: bool = Field(description="these are the reports that validation read")


class Proof(Record):
    """A registered version, fetched from the registry and asked its example."""

    version: str
    candidate_id: str
    registered_digest: str
    found_digest: str
    answer: str | None = Field(pattern=r"\S", description="none = it was not asked, could not answer, or says nothing")
    problem: str = Field("", description="why there is no answer")

    @property
    def is_intact(self) -> bool:
        return bool(self.registered_digest) and self.registered_digest == self.found_digest


class Standing(Record):
    """The registry's champion."""

    version: str
    candidate_id: str = Field(description='content id of its weights; "" = the registry does not say')


class Registry(Record):
    """What the registry says; that there is no champion is an answer too."""

    champion: Standing | None
    rolled_back: dict[str, str] = Field(description="by whom and why, by content id of the weights")


class Evidence(Record):
    """What is known about a candidate. `None` means not known, and refuses."""

    candidate_id: str | None = Field(description="content id of the model that was measured")
    tuned_id: str | None = Field(description="content id of the model that training left behind")
    base: Against | None
    trained_from: str | None = Field(description="content id of the base that training began with")
    champion: Against | None = Field(description="none = no champion was measured")
    registry: Registry | None
    num_unanswered: int | None = Field(
        ge=0,
        description="planned items not asked as planned: bad row, video missing or broken, subtitles of no use, prompt "
        "too long",
    )
    validation_passed: bool | None
    validated_pairs: str | None = Field(description="digest of the pairs that the verdict is about")
    trained_pairs: str | None = Field(description="digest of the pairs that were trained on")
    decontamination: Decontamination | None
    proof: Proof | None
    confidence: Confidence | None = Field(description="of all intervals")
    missing: tuple[str, ...] = Field(description="what was looked for and not found")


def gather(
    *,
    metrics: Facts | None,
    metrics_digest: str | None,
    evaluation: Facts,
    training: Facts,
    validation: Facts,
    videos_report: Facts | None,
    questions_report: Facts | None,
    reports_digest: str | None,
    tuned_id: str | None,
    proof: Proof | None,
    registry: Registry | None,
) -> Evidence:
    """Evidence out of what the stages published.

    Args:
        metrics: `reports/evaluation.json` (`tpo.evaluation.metrics.metrics`).
        metrics_digest: of that file, which the evaluation has noted.
        evaluation: facts of the stage's manifest; so are training and validation.
        videos_report: `data/catalog/decontamination.json`.
        questions_report: `data/queries/decontamination.json`.
        reports_digest: of these two files.
        tuned_id: of `models/tuned`, as it lies there now.
    """
    missing: list[str] = []

    def found(what: str, read: Any) -> Any:
        try:
            return read()
        except KeyError as error:
            missing.append(f"{what} lacks {error}")
        except ValidationError as error:
            first = error.errors()[0]
            missing.append(f"{what}: {'.'.join(map(str, first['loc']))} {first['input']!r}: {first['msg']}")
        except (AttributeError, TypeError):
            missing.append(f"there is no {what}")
        return None

    numbers = metrics or {}
    if metrics is not None and (metrics_digest is None or metrics_digest != evaluation.get("metrics_digest")):
        missing.append("reports/evaluation.json is not what the evaluation wrote: run `dvc repro`")
        numbers = {}
    base = found("evaluation of base and tuned", lambda: _against(numbers, evaluation["base_id"]))
    champion = None
    if evaluation.get("champion") and "champion" in numbers:
        champion = found(
            "evaluation of champion and tuned",
            lambda: _against(numbers["champion"], evaluation["champion"]["candidate_id"]),
        )
    return Evidence(
        candidate_id=evaluation.get("tuned_id"),
        tuned_id=tuned_id,
        base=base,
        trained_from=training.get("base_id"),
        champion=champion,
        registry=registry,
        num_unanswered=found("evaluation's count of what was not answered", lambda: _unanswered(numbers)),
        validation_passed=validation.get("success"),
        validated_pairs=validation.get("pairs_digest"),
        trained_pairs=training.get("pairs_digest"),
        decontamination=found(
            "report on benchmarks in the training data",
            lambda: _decontamination(videos_report, questions_report, validation["decontamination"] == reports_digest),
        ),
        proof=proof,
        confidence=found("confidence of the evaluation's intervals", lambda: _confidence(numbers)),
        missing=tuple(missing),
    )


def measured_benchmarks(against: Against) -> set[str]:
    """Benchmarks that something was measured on."""
    return {name.split(" ")[0] for name in against.gains if name != ALL}


def _against(numbers: Facts, model_id: str) -> Against:
    everything = numbers[ALL]
    written = everything.get("generation")
    return Against(
        model_id=model_id,
        gains={ALL: _gain(everything), **dict(_gains(numbers))},
        short=dict(_short(numbers)),
        unreadable={ALL: _interval(everything, "parse_rate_difference")}
        | ({"written": _interval(written, "parse_rate_difference")} if written else {}),
        blind={
            name: Blind(gain=_interval(control, "difference"), rest=_interval(control, "drop_difference"))
            for name, own in _of_benchmarks(numbers)
            if (control := own.get("conditions", {}).get("text_only"))
        },
    )


def _of_benchmarks(numbers: Facts) -> Iterator[tuple[str, Facts]]:
    """What was compared, by name; `all` too."""
    for name, own in numbers.items():
        if isinstance(own, Mapping) and any(part in own for part in ("difference", "spans", "free_answers")):
            yield name, own


def _gains(numbers: Facts) -> Iterator[tuple[str, Gain]]:
    for name, own in _of_benchmarks(numbers):
        if name == ALL:
            continue
        if "difference" in own:
            yield name, _gain(own)
        for part in ("spans", "free_answers"):
            if part in own:
                yield f"{name} {part}", _gain(own[part])


def _short(numbers: Facts) -> Iterator[tuple[str, Gain | None]]:
    for name, own in _of_benchmarks(numbers):
        if name == ALL or "difference" not in own:
            continue
        groups = set(own.get("duration_group", ())) - _NO_GROUPS
        scale = next((scale for scale in _SCALES if groups and groups <= set(scale)), ())
        shortest = next((group for group in scale if group in groups), None)
        if shortest is not None:
            yield f"{name} {shortest}", _gain(own["duration_group"][shortest])
        elif groups or "duration_group" not in own:
            yield name, None


def _gain(numbers: Facts) -> Gain:
    return Gain(
        difference=numbers["difference"],
        low=numbers["difference_low"],
        high=numbers["difference_high"],
        p=numbers["holm_p"],
        num_items=numbers["num_items"],
        num_videos=numbers["num_videos"],
    )


def _interval(numbers: Facts, name: str) -> Interval:
    return Interval(value=numbers[name], low=numbers[f"{name}_low"], high=numbers[f"{name}_high"])


def _confidence(numbers: Facts) -> float:
    return TypeAdapter(Confidence).validate_python(numbers["intervals"]["confidence"])


def _unanswered(numbers: Facts) -> int:
    of_champion = numbers["status"]["champion"] if "champion" in numbers else {}
    lost = sum(numbers["incomplete"][name] for name in ("num_bad_rows", "num_items", "num_without_subtitles"))
    lost += sum(of_champion.get(status.value, 0) for status in NOT_ASKED)
    return TypeAdapter(NonNegativeInt).validate_python(lost)


def _decontamination(videos: Any, questions: Any, is_validated: bool) -> Decontamination:
    checks = [check for check in videos["benchmarks"] if check["status"] != Checked.NOT]
    asked = questions["benchmark_questions"]
    unusable = sum(len(check["unusable"]) for check in checks)
    by_bytes_alone = len(videos["not_comparable"]) + sum(len(check["not_comparable"]) for check in checks)
    return Decontamination(
        benchmarks=tuple(sorted({check["name"] for check in checks} & set(asked))),
        num_videos=videos["videos"] + sum(check["videos"] for check in checks) + unusable,
        num_by_bytes_alone=by_bytes_alone + unusable,
        num_kept=len(videos["found"]) if videos["limits"]["score_only"] else 0,
        num_questions=questions["queries"],
        num_short_questions=questions["too_short"],
        is_validated=is_validated,
    )
