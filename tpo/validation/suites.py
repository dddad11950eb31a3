"""What must hold of the records that training builds on: one Great Expectations suite per kind of record, in code.

Great Expectations compares neither columns nor records on pandas, so each rule is computed here as a column of True and
False, named like the sentence it stands for, and the suite expects True. The frames hold ids, numbers and booleans, no
text from outside.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import pandas as pd

from tpo.params import ValidateParams
from tpo.records import Granularity, PreferencePair, Query, Segment, Video, View

if TYPE_CHECKING:
    from great_expectations.expectations.expectation import Expectation

Severity: TypeAlias = Literal["critical", "warning", "info"]
R = TypeVar("R", Video, Query, PreferencePair)
_ROUNDING_S = 0.001  # timestamps of views are rounded to milliseconds
_MAX_FRAME_S = 10.0  # ours
_MIN_GRANULARITY_SHARE = 0.2  # ours; the paper mixes half and half


@dataclass(frozen=True)
class Suite:
    """A table of one kind of record, one row each with its `id`, and what is expected of it."""

    name: str
    frame: pd.DataFrame
    expectations: "list[Expectation]"


def suites(
    videos: Sequence[Video], queries: Sequence[Query], pairs: Sequence[PreferencePair], params: ValidateParams
) -> list[Suite]:
    """The suites over videos, queries and pairs. An expectation has its name in `meta` and its meaning in `notes`."""
    catalog = {video.id: video for video in videos}
    asked = {query.id: query for query in queries}
    return [_video_suite(videos), _query_suite(queries, catalog), _pair_suite(pairs, catalog, asked, params)]


def _video_suite(videos: Sequence[Video]) -> Suite:
    paths = pd.Series([video.path for video in videos], dtype=object)
    positive = ("duration_s", "fps", "num_frames", "width", "height", "size_bytes")
    shared = set(paths[paths.duplicated()])
    frame = _frame(videos, {"path_is_unique": lambda video: video.path not in shared})
    for name in positive:
        frame[name] = [float(getattr(video, name)) for video in videos]
    more_than_zero = [
        _expect(
            "ExpectColumnValuesToBeBetween",
            f"{name}_is_positive",
            "more than 0",
            column=name,
            min_value=0,
            strict_min=True,
        )
        for name in positive
    ]
    frame["longest_frame_s"] = [video.longest_frame_s for video in videos]
    no_gap = _expect(
        "ExpectColumnValuesToBeBetween",
        "no_frames_are_lost",
        f"no frame stays for more than {_MAX_FRAME_S:g} s; a slide show may, and a damaged file does",
        severity="warning",
        column="longest_frame_s",
        max_value=_MAX_FRAME_S,
    )
    return Suite("videos", frame, [*_row_rules(frame, at_least=1), *more_than_zero, no_gap])


def _query_suite(queries: Sequence[Query], catalog: Mapping[str, Video]) -> Suite:
    rules: dict[str, Callable[[Query], bool]] = {
        "video_is_in_catalog": lambda query: query.video_id in catalog,
        "segment_is_inside_video": lambda query: _segment_is_inside(query.segment, query.video_id, catalog),
        "segment_fits_granularity": lambda query: (
            (query.granularity is Granularity.LOCALIZED) == (query.segment is not None)
        ),
        "question_is_not_blank": lambda query: bool(query.question.strip()),
    }
    frame = _frame(queries, rules)
    return Suite("queries", frame, _row_rules(frame, at_least=1))


def _pair_suite(
    pairs: Sequence[PreferencePair], catalog: Mapping[str, Video], asked: Mapping[str, Query], params: ValidateParams
) -> Suite:
    def views(pair: PreferencePair) -> tuple[View, View, View]:
        return pair.view, pair.chosen_view, pair.rejected_view

    def asks_its_query(pair: PreferencePair) -> bool:
        query = asked.get(pair.query_id)
        return query is not None and (query.video_id, query.question) == (pair.video_id, pair.question)

    rules: dict[str, Callable[[PreferencePair], bool]] = {
        "video_is_in_catalog": lambda pair: pair.video_id in catalog,
        "question_is_its_querys": asks_its_query,
        "segment_is_inside_video": lambda pair: _segment_is_inside(pair.segment, pair.video_id, catalog),
        "views_are_not_empty": lambda pair: all(view.timestamps_s for view in views(pair)),
        "views_are_inside_video": lambda pair: all(
            _view_is_inside(view, pair.video_id, catalog) for view in views(pair)
        ),
        "answers_come_from_different_views": lambda pair: (
            pair.chosen_view.timestamps_s != pair.rejected_view.timestamps_s
        ),
        "chosen_is_not_blank": lambda pair: bool(pair.chosen.strip()),
        "rejected_is_not_blank": lambda pair: bool(pair.rejected.strip()),
        "chosen_differs_from_rejected": lambda pair: pair.chosen.strip() != pair.rejected.strip(),
    }
    frame = _frame(pairs, rules)
    chosen, rejected = (
        pd.Series([len(text.strip()) for text in texts], dtype=float)
        for texts in ([pair.chosen for pair in pairs], [pair.rejected for pair in pairs])
    )
    # The mean of this column is mean(chosen length) / mean(rejected length).
    frame["length_ratio"] = chosen / (rejected.mean() or math.nan)
    expectations = [
        *_row_rules(frame, at_least=params.min_pairs),
        _expect(
            "ExpectColumnMeanToBeBetween",
            "chosen_is_not_much_longer",
            f"mean chosen / mean rejected length in characters, at most {params.max_length_ratio}",
            "warning",
            column="length_ratio",
            max_value=params.max_length_ratio,
        ),
    ]
    for granularity in Granularity:
        frame[granularity.value] = [float(pair.granularity is granularity) for pair in pairs]
        expectations.append(
            _expect(
                "ExpectColumnMeanToBeBetween",
                f"enough_{granularity.value}",
                f"share of {granularity.value} pairs, at least {_MIN_GRANULARITY_SHARE}",
                "warning",
                column=granularity.value,
                min_value=_MIN_GRANULARITY_SHARE,
            )
        )
    return Suite("pairs", frame, expectations)


def _frame(records: Sequence[R], rules: Mapping[str, Callable[[R], bool]]) -> pd.DataFrame:
    frame = pd.DataFrame({"id": pd.Series([record.id for record in records], dtype=object)})
    for name, holds in rules.items():
        frame[name] = pd.Series([holds(record) for record in records], dtype=bool)
    return frame


def _row_rules(frame: pd.DataFrame, at_least: int) -> "list[Expectation]":
    """There are enough rows, ids are unique, and every boolean column is True."""
    return [
        _expect("ExpectTableRowCountToBeBetween", "enough_rows", f"at least {at_least}", min_value=at_least),
        _expect("ExpectColumnValuesToBeUnique", "id_is_unique", "each id once", column="id"),
        *(
            _expect("ExpectColumnValuesToBeInSet", name, name.replace("_", " "), column=name, value_set=[True])
            for name in frame.select_dtypes(bool).columns
        ),
    ]


def _expect(kind: str, name: str, meaning: str, severity: Severity = "critical", **arguments: Any) -> "Expectation":
    from great_expectations import expectations
    from great_expectations.expectations.metadata_types import FailureSeverity

    of_kind: type[Expectation] = getattr(expectations, kind)
    return of_kind(meta={"name": name}, notes=meaning, severity=FailureSeverity(severity), **arguments)


def _segment_is_inside(segment: Segment | None, video_id: str, catalog: Mapping[str, Video]) -> bool:
    """A video that is not in the catalog has a rule of its own."""
    if segment is None or video_id not in catalog:
        return True
    return segment.video_id == video_id and segment.end_s <= catalog[video_id].duration_s + _ROUNDING_S


def _view_is_inside(view: View, video_id: str, catalog: Mapping[str, Video]) -> bool:
    if video_id not in catalog:
        return True
    latest_s = catalog[video_id].duration_s + _ROUNDING_S
    return view.video_id == video_id and all(0 <= time_s <= latest_s for time_s in view.timestamps_s)
