"""What must hold of the records that training builds on: one suite for each kind of record, in code.

What is not known of an imported pair (its query, its views, its tokens) is not held against it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import pandas as pd

from tpo.params import ValidateParams
from tpo.records import (
    Caption,
    Checked,
    Granularity,
    PreferencePair,
    Query,
    QuestionType,
    Segment,
    Verdict,
    Video,
    View,
    ViewKind,
)
from tpo.validation.expectations import Rule, Suite, of_records

_ROUNDING_S = 0.001  # timestamps of views are rounded to milliseconds
# The rest are ours.
_MAX_FRAME_S = 10.0
_MIN_NEW_CAPTIONS = 0.5
_MAX_BLIND_SCORE = 0.5
_MIN_NOT_BLIND = 0.5
_MIN_SHARE = 0.2  # of a granularity, where no mix was asked for; the paper mixes half and half
_SHARE_TOLERANCE = 0.05
_MAX_TIMES_MEDIAN = 10


@dataclass(frozen=True)
class Records:
    """What is judged together: what the stages before training made, and whether it was compared with benchmarks.

    `pairs` are trained on, `held_out` are not.
    """

    videos: Sequence[Video]
    captions: Sequence[Caption]
    queries: Sequence[Query]
    pairs: Sequence[PreferencePair]
    held_out: Sequence[PreferencePair]
    videos_checked: Checked
    questions_checked: Checked

    @property
    def only_imported(self) -> bool:
        """No pair was made here, so there need be no captions and no queries."""
        pairs = [*self.pairs, *self.held_out]
        return bool(pairs) and not any(pair.verdicts for pair in pairs)


def suites(records: Records, params: ValidateParams, localized_share: float | None) -> list[Suite]:
    """The suites over videos, captions, queries, pairs, held-out pairs and the comparison with benchmarks.

    Args:
        localized_share: of the pairs, as the mix was to have it; none = as it came.
    """
    catalog = {video.id: video for video in records.videos}
    return [
        _video_suite(records),
        _caption_suite(records, catalog),
        _query_suite(records, catalog, params),
        _pair_suite(records, catalog, params, localized_share),
        of_records("held_out", records.held_out, 0, _pair_rules(records, catalog)),
        _decontamination_suite(records),
    ]


def _video_suite(records: Records) -> Suite:
    paths = pd.Series([video.path for video in records.videos], dtype=object)
    shared = set(paths[paths.duplicated()])
    captioned = {caption.video_id for caption in records.captions}
    rules: list[Rule[Video]] = [
        Rule("path_is_unique", lambda video: video.path not in shared),
        Rule("width_is_positive", lambda video: video.width > 0),
        Rule("height_is_positive", lambda video: video.height > 0),
        Rule("size_is_positive", lambda video: video.size_bytes > 0),
        Rule(
            "no_frames_are_lost",
            lambda video: video.longest_frame_s <= _MAX_FRAME_S,
            f"no frame stays for more than {_MAX_FRAME_S:g} s; a slide show may, and a damaged file does",
            "warning",
        ),
    ]
    if not records.only_imported:
        meaning = "has a caption; without one nothing is asked about it"
        rules.append(Rule("is_captioned", lambda video: video.id in captioned, meaning, "warning"))
    return of_records("videos", records.videos, 1, rules)


def _caption_suite(records: Records, catalog: Mapping[str, Video]) -> Suite:
    repeats = _said_before([(caption.video_id, caption.text) for caption in records.captions])
    repeated = {caption.id for caption, repeat in zip(records.captions, repeats, strict=True) if repeat}
    rules: list[Rule[Caption]] = [
        Rule("video_is_in_catalog", lambda caption: caption.video_id in catalog),
        Rule(
            "span_is_inside_video",
            lambda caption: caption.start_s < caption.end_s <= _latest_s(caption.video_id, catalog),
            "starts before it ends, and ends before the video does",
        ),
        Rule("text_is_not_blank", lambda caption: bool(caption.text.strip())),
        Rule(
            "shown_frames_are_inside_span",
            lambda caption: all(
                caption.start_s - _ROUNDING_S <= time_s <= caption.end_s + _ROUNDING_S for time_s in caption.frames_s
            ),
            "the frames that the captioner was shown are inside the caption's span",
        ),
        Rule(
            "captions_differ",
            lambda caption: caption.id not in repeated,
            f"at least {_MIN_NEW_CAPTIONS:.0%} say what was not said of the same video before",
            "warning",
            _MIN_NEW_CAPTIONS,
        ),
    ]
    return of_records("captions", records.captions, int(not records.only_imported), rules)


def _query_suite(records: Records, catalog: Mapping[str, Video], params: ValidateParams) -> Suite:
    repeats = _said_before([(query.video_id, query.question) for query in records.queries])
    repeated = {query.id for query, repeat in zip(records.queries, repeats, strict=True) if repeat}
    rules: list[Rule[Query]] = [
        Rule("video_is_in_catalog", lambda query: query.video_id in catalog),
        Rule(
            "segment_is_of_its_video", lambda query: query.segment is None or query.segment.video_id == query.video_id
        ),
        Rule("segment_is_inside_video", lambda query: _segment_is_inside(query.segment, catalog)),
        Rule(
            "segment_fits_granularity",
            lambda query: (query.granularity is Granularity.LOCALIZED) == (query.segment is not None),
            "a localized question has a segment, a comprehensive one has none",
        ),
        Rule("question_is_not_blank", lambda query: bool(query.question.strip())),
        Rule(
            "question_is_asked_once",
            lambda query: query.id not in repeated,
            "asked once about a video; asked twice, two pairs may teach different answers to it",
            "warning",
        ),
        Rule(
            "reference_answer_is_there",
            lambda query: query.reference_answer is not None,
            "has a reference answer; without one nothing tells whether an answer is correct",
            "warning",
        ),
    ]
    suite = of_records("queries", records.queries, int(not records.only_imported), rules)
    suite.measure(
        "blind_score",
        [None if query.blind is None else query.blind.score for query in records.queries],
        "ExpectColumnValuesToBeBetween",
        "question_needs_its_video",
        f"of the checked, at least {_MIN_NOT_BLIND:.0%} are not answered blind in more than {_MAX_BLIND_SCORE:.0%} of"
        " the tries",
        max_value=_MAX_BLIND_SCORE,
        mostly=_MIN_NOT_BLIND,
    )
    types = [query.question_type for query in records.queries]
    _expect_of_each_type(suite, types, types, params.min_pairs_per_type)
    return suite


def _pair_rules(records: Records, catalog: Mapping[str, Video]) -> list[Rule[PreferencePair]]:
    """What holds of every pair, trained on or held out."""
    asked = {query.id: query for query in records.queries}
    return [
        Rule("video_is_in_catalog", lambda pair: pair.video_id in catalog),
        Rule(
            "agrees_with_its_query",
            lambda pair: _agrees(pair, asked.get(pair.query_id)),
            "its query is there and has the same video, question, segment, granularity and type; imports have none",
        ),
        Rule("segment_is_of_its_video", lambda pair: pair.segment is None or pair.segment.video_id == pair.video_id),
        Rule("segment_is_inside_video", lambda pair: _segment_is_inside(pair.segment, catalog)),
        Rule("views_are_of_its_video", lambda pair: all(view.video_id == pair.video_id for view in _views(pair))),
        Rule("views_are_inside_video", lambda pair: all(_view_is_inside(view, catalog) for view in _views(pair))),
        Rule(
            "distractors_are_of_other_videos",
            lambda pair: all(
                distractor.video_id != view.video_id and distractor.video_id in catalog
                for view in _views(pair)
                for distractor in view.distractors
            ),
        ),
        Rule(
            "training_view_is_whole",
            lambda pair: pair.view.kind is ViewKind.DENSE and not pair.view.masked and not pair.view.distractors,
            "the view it is trained with is over the whole video, with nothing taken from it",
        ),
        Rule(
            "answers_come_from_different_views",
            lambda pair: (
                pair.chosen_view is None
                or pair.rejected_view is None
                or _shown(pair.chosen_view) != _shown(pair.rejected_view)
            ),
            "what was shown for the chosen and for the rejected answer differs in some frame",
        ),
        Rule("question_is_not_blank", lambda pair: bool(pair.question.strip())),
        Rule("chosen_is_not_blank", lambda pair: bool(pair.chosen.strip())),
        Rule("rejected_is_not_blank", lambda pair: bool(pair.rejected.strip())),
        Rule("chosen_differs_from_rejected", lambda pair: pair.chosen.strip() != pair.rejected.strip()),
        Rule(
            "approved_in_both_orders",
            lambda pair: _is_approved(pair.verdicts) or (not pair.verdicts and pair.query_id not in asked),
            "judged better, free of conflict and correct, in both orders of its answers; imports are not judged",
        ),
    ]


def _pair_suite(
    records: Records, catalog: Mapping[str, Video], params: ValidateParams, localized_share: float | None
) -> Suite:
    held_out_ids = {pair.id for pair in records.held_out}
    held_out_videos = {pair.video_id for pair in records.held_out}
    lengths = [pair.chosen_tokens for pair in records.pairs if pair.chosen_tokens is not None]
    most_tokens = _MAX_TIMES_MEDIAN * median(lengths or [0])
    rules: list[Rule[PreferencePair]] = [
        *_pair_rules(records, catalog),
        Rule("is_not_held_out", lambda pair: pair.id not in held_out_ids),
        Rule("video_is_not_held_out", lambda pair: pair.video_id not in held_out_videos),
        Rule(
            "chosen_does_not_run_on",
            lambda pair: pair.chosen_tokens is None or pair.chosen_tokens <= most_tokens,
            f"has at most {_MAX_TIMES_MEDIAN} times as many tokens as the median, which makes {most_tokens:g}",
            "warning",
        ),
    ]
    suite = of_records("pairs", records.pairs, params.min_pairs, rules)
    _expect_like_lengths(suite, records.pairs, params.max_length_ratio)
    _expect_a_mix(suite, records.pairs, localized_share)
    types = [pair.question_type for pair in records.pairs]
    asked = [query.question_type for query in records.queries]
    _expect_of_each_type(suite, types, [*types, *asked], params.min_pairs_per_type)
    return suite


def _decontamination_suite(records: Records) -> Suite:
    compared = {"videos": records.videos_checked, "questions": records.questions_checked}
    statuses = [status.value for status in compared.values()]
    frame = pd.DataFrame({"id": [f"{what} {status}" for what, status in compared.items()], "status": statuses})
    suite = Suite("decontamination", frame, [])
    suite.expect(
        "ExpectColumnValuesToBeInSet",
        "compared_with_benchmarks",
        "every video and question was compared with the benchmarks';"
        " decontamination.json in data/catalog and in data/queries tell what is missing",
        "warning",
        column="status",
        value_set=[Checked.CHECKED.value],
    )
    return suite


def _expect_like_lengths(suite: Suite, pairs: Sequence[PreferencePair], max_ratio: float) -> None:
    """Neither answer is much longer than the other in the mean, else length is what is learnt."""
    tokens = {"chosen": [pair.chosen_tokens for pair in pairs], "rejected": [pair.rejected_tokens for pair in pairs]}
    known = pd.DataFrame(tokens, dtype=float).dropna()
    for name, other in (("chosen", "rejected"), ("rejected", "chosen")):
        suite.measure(
            f"{name}_over_{other}",  # its mean is mean(length) / mean(length of the other)
            known[name] / (known[other].mean() or math.nan),
            "ExpectColumnMeanToBeBetween",
            f"{name}_is_not_much_longer",
            f"mean {name} / mean {other} length in tokens, at most {max_ratio:g}",
            max_value=max_ratio,
        )


def _expect_a_mix(suite: Suite, pairs: Sequence[PreferencePair], localized_share: float | None) -> None:
    least, most = _MIN_SHARE, 1 - _MIN_SHARE
    if localized_share is not None:
        least, most = localized_share - _SHARE_TOLERANCE, localized_share + _SHARE_TOLERANCE
    suite.measure(
        "is_localized",
        [None if pair.granularity is None else float(pair.granularity is Granularity.LOCALIZED) for pair in pairs],
        "ExpectColumnMeanToBeBetween",
        "localized_and_comprehensive_are_mixed",
        f"share of localized pairs, {least:g} to {most:g}",
        min_value=least,
        max_value=most,
    )


def _expect_of_each_type(
    suite: Suite, found: Sequence[QuestionType | None], wanted: Iterable[QuestionType | None], at_least: int
) -> None:
    """Enough of each question type that is wanted at all."""
    for question_type in [one for one in QuestionType if one in set(wanted)]:
        suite.measure(
            question_type.value,
            [None if one is None else float(one is question_type) for one in found],
            "ExpectColumnSumToBeBetween",
            f"enough_{question_type.value}",
            f"number of {question_type.value.replace('_', ' ')} {suite.name}, at least {at_least}",
            min_value=at_least,
        )


def _said_before(said: Iterable[tuple[str, str]]) -> list[bool]:
    """Whether the same words, whatever their case and spacing, were said of the same video before."""
    seen: set[tuple[str, str]] = set()
    before = []
    for video_id, text in said:
        words = (video_id, " ".join(text.casefold().split()))
        before.append(words in seen)
        seen.add(words)
    return before


def _agrees(pair: PreferencePair, query: Query | None) -> bool:
    if query is None:
        return not pair.verdicts
    return (pair.video_id, pair.question, pair.segment, pair.granularity, pair.question_type) == (
        query.video_id,
        query.question,
        query.segment,
        query.granularity,
        query.question_type,
    )


def _is_approved(verdicts: Sequence[Verdict]) -> bool:
    orders = {verdict.preferred_shown_first for verdict in verdicts}
    return orders == {True, False} and all(
        verdict.preferred_is == "better" and not verdict.conflicts_with_captions and verdict.is_correct
        for verdict in verdicts
    )


def _views(pair: PreferencePair) -> list[View]:
    """The views that are known."""
    return [view for view in (pair.view, pair.chosen_view, pair.rejected_view) if view is not None]


def _shown(view: View) -> tuple[object, ...]:
    """What a model sees of a view; its kind only says how it was made."""
    return view.video_id, view.timestamps_s, frozenset(view.masked), frozenset(view.distractors)


def _view_is_inside(view: View, catalog: Mapping[str, Video]) -> bool:
    """Every moment lies in the video that it is of, and masks and distractors stand where the view has a frame."""
    moments = [(view.video_id, time_s) for time_s in view.timestamps_s]
    moments += [(distractor.video_id, distractor.timestamp_s) for distractor in view.distractors]
    positions = [*view.masked, *(distractor.position for distractor in view.distractors)]
    return all(0 <= time_s <= _latest_s(video_id, catalog) for video_id, time_s in moments) and all(
        0 <= position < len(view.timestamps_s) for position in positions
    )


def _segment_is_inside(segment: Segment | None, catalog: Mapping[str, Video]) -> bool:
    return segment is None or segment.end_s <= _latest_s(segment.video_id, catalog)


def _latest_s(video_id: str, catalog: Mapping[str, Video]) -> float:
    """The end of a video. That one is not in the catalog is what another rule says."""
    return catalog[video_id].duration_s + _ROUNDING_S if video_id in catalog else math.inf
