"""Real Great Expectations runs on small sets: a good one, one broken in every way, an empty one."""

from pathlib import Path

import pytest

from tpo.params import ValidateParams
from tpo.records import (
    Granularity,
    PreferencePair,
    Query,
    QuestionType,
    Segment,
    Video,
    View,
    ViewKind,
)
from tpo.validation.checkpoint import Outcome, ValidationVerdict, failure_text, validate

PARAMS = ValidateParams(min_pairs=4, max_length_ratio=1.5)


def video(video_id: str = "v0", **changes: object) -> Video:
    fields: dict[str, object] = {
        "id": video_id, "path": f"{video_id}.mp4", "size_bytes": 900, "duration_s": 20.0, "fps": 2.0, "num_frames": 40,
        "width": 64, "height": 64, "rotation_deg": 0, "codec": "h264", "is_vfr": False, "has_audio": False,
        "last_frame_s": 19.5, "longest_frame_s": 0.5, "num_restarts": 1, "brightness": 90.0, "change": 3.0,
    }  # fmt: skip
    return Video.model_validate(fields | changes)


def view(*times_s: float, video_id: str = "v0") -> View:
    return View(video_id=video_id, kind=ViewKind.DENSE, timestamps_s=times_s)


def query(number: int = 0, granularity: Granularity = Granularity.COMPREHENSIVE, **changes: object) -> Query:
    localized = granularity is Granularity.LOCALIZED
    fields: dict[str, object] = {
        "id": f"q{number}", "video_id": "v0", "granularity": granularity, "question": f"What comes {number}?",
        "segment": Segment(video_id="v0", start_s=2, end_s=9) if localized else None, "asker": "rule",
        "question_type": QuestionType.TEMPORAL_REASONING, "reference_answer": None,
    }  # fmt: skip
    return Query.model_validate(fields | changes)


def pair(number: int = 0, granularity: Granularity = Granularity.COMPREHENSIVE, **changes: object) -> PreferencePair:
    of = query(number, granularity)
    fields: dict[str, object] = {
        "id": f"p{number}", "video_id": of.video_id, "query_id": of.id, "granularity": granularity,
        "question_type": of.question_type, "question": of.question, "view": view(0, 10, 19.5), "segment": of.segment,
        "chosen": "a red star", "rejected": "a blue star", "chosen_view": view(0, 10, 19.5),
        "rejected_view": view(0, 19.5), "model_id": "m", "verdicts": (), "judge": "rule",
    }  # fmt: skip
    return PreferencePair.model_validate(fields | changes)


def both_granularities(number: int) -> Granularity:
    return Granularity.LOCALIZED if number % 2 else Granularity.COMPREHENSIVE


def outcome(verdict: ValidationVerdict, suite: str, name: str) -> Outcome:
    return next(o for o in verdict.outcomes if (o.suite, o.name) == (suite, name))


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> tuple[ValidationVerdict, Path]:
    docs = tmp_path_factory.mktemp("good") / "data_docs"
    queries = [query(n, both_granularities(n)) for n in range(4)]
    pairs = [pair(n, both_granularities(n)) for n in range(4)]
    return validate([video()], queries, pairs, PARAMS, docs), docs


def test_a_good_set_passes_every_expectation(good: tuple[ValidationVerdict, Path]) -> None:
    verdict, _ = good
    assert verdict.success
    assert [o for o in verdict.outcomes if not o.passed] == []
    assert outcome(verdict, "pairs", "enough_rows").observed == 4
    assert outcome(verdict, "pairs", "enough_localized").observed == 0.5
    assert outcome(verdict, "pairs", "chosen_is_not_much_longer").observed == pytest.approx(10 / 11)


def test_a_verdict_survives_the_way_to_disk_and_back(good: tuple[ValidationVerdict, Path]) -> None:
    verdict, _ = good
    assert ValidationVerdict.model_validate_json(verdict.model_dump_json()) == verdict


def test_data_docs_open_at_an_index_that_leads_to_every_suite(good: tuple[ValidationVerdict, Path]) -> None:
    _, docs = good
    index = (docs / "index.html").read_text()
    for suite in ("videos", "queries", "pairs"):
        assert f"expectations/{suite}.html" in index
        (results,) = docs.glob(f"validations/{suite}/*/*/*.html")
        assert results.relative_to(docs).as_posix() in index
        assert "Succeeded" in results.read_text()
    assert "chosen_differs_from_rejected" in (docs / "expectations" / "pairs.html").read_text()


BROKEN_PAIRS = {
    "video_is_in_catalog": {"video_id": "v9"},
    "question_is_its_querys": {"question": "Another one?"},
    "segment_is_inside_video": {"segment": Segment(video_id="v0", start_s=15, end_s=20.5)},
    "views_are_inside_video": {"rejected_view": view(3, 25)},
    "answers_come_from_different_views": {"rejected_view": view(0, 10, 19.5)},
    "chosen_is_not_blank": {"chosen": " \n"},
    "rejected_is_not_blank": {"rejected": ""},
    "chosen_differs_from_rejected": {"chosen": "a star ", "rejected": "a star"},
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> ValidationVerdict:
    """Everything wrong at once, each thing in a record of its own."""
    videos = [
        video(),
        video("v1", path="same.mp4"),
        video("v2", path="same.mp4"),
        video("v3", width=0, longest_frame_s=10.5),
    ]
    queries = [
        query(0, video_id="v9"),  # the query of the pair whose video is not in the catalog
        *(query(n) for n in range(1, len(BROKEN_PAIRS))),
        *(query(20, question="twice") for _ in range(2)),
        query(21, video_id="v9"),
        query(22, Granularity.LOCALIZED, segment=Segment(video_id="v0", start_s=15, end_s=20.5)),
        query(23, Granularity.LOCALIZED, segment=None),
        query(24, question=" "),
    ]
    wrong = [pair(n, **changes) for n, changes in enumerate(BROKEN_PAIRS.values())]
    same_id = [pair(1, id=f"many{n}") for n in range(12) for _ in range(2)]
    wordy = pair(1, id="wordy", chosen="a red star, " * 400)
    docs = tmp_path_factory.mktemp("bad") / "data_docs"
    return validate(videos, queries, [*wrong, *same_id, wordy], PARAMS, docs)


@pytest.mark.parametrize(("number", "name"), enumerate(BROKEN_PAIRS))
def test_a_broken_pair_fails_its_rule_by_name_and_id(bad: ValidationVerdict, number: int, name: str) -> None:
    found = outcome(bad, "pairs", name)
    assert (found.severity, found.passed, found.unexpected_count) == ("critical", False, 1)
    assert found.unexpected_ids == (f"p{number}",)
    assert f"pairs: {name}: broken by 1 record(s): p{number}" in failure_text(bad)


@pytest.mark.parametrize(
    ("suite", "name", "ids"),
    [
        ("videos", "path_is_unique", ("v1", "v2")),
        ("videos", "width_is_positive", ("v3",)),
        ("queries", "id_is_unique", ("q20",)),
        ("queries", "video_is_in_catalog", ("q0", "q21")),
        ("queries", "segment_is_inside_video", ("q22",)),
        ("queries", "segment_fits_granularity", ("q23",)),
        ("queries", "question_is_not_blank", ("q24",)),
    ],
)
def test_a_broken_video_or_query_is_named(bad: ValidationVerdict, suite: str, name: str, ids: tuple[str, ...]) -> None:
    found = outcome(bad, suite, name)
    assert not found.passed
    assert found.unexpected_ids == ids


def test_many_offenders_are_counted_and_at_most_ten_rows_listed(bad: ValidationVerdict) -> None:
    found = outcome(bad, "pairs", "id_is_unique")
    assert found.unexpected_count == 24
    assert found.unexpected_ids == ("many0", "many1", "many2", "many3", "many4")
    assert "many4, …" in failure_text(bad)


def test_long_chosen_answers_a_missing_granularity_and_lost_frames_are_warnings_only(bad: ValidationVerdict) -> None:
    assert not bad.success
    assert outcome(bad, "videos", "no_frames_are_lost").unexpected_ids == ("v3",)
    names = {"chosen_is_not_much_longer": "pairs", "enough_localized": "pairs", "no_frames_are_lost": "videos"}
    for name, suite in names.items():
        found = outcome(bad, suite, name)
        assert (found.severity, found.passed) == ("warning", False)
        assert name not in failure_text(bad)


def test_no_pairs_at_all_is_a_clear_failure_and_not_a_crash(tmp_path: Path) -> None:
    verdict = validate([], [], [], PARAMS, tmp_path / "data_docs")
    assert not verdict.success
    assert "pairs: enough_rows: expected at least 4, found 0" in failure_text(verdict)
    assert (tmp_path / "data_docs" / "index.html").is_file()
