"""Real Great Expectations runs on small sets: good ones, one with everything broken, one with every warning, none."""

from pathlib import Path

import pytest
from made_records import (
    APPROVED,
    PARAMS,
    caption,
    imported,
    not_met,
    outcome,
    pair,
    query_of,
    records,
    segment,
    verdict,
    video,
    view,
)

from tpo.records import BlindCheck, Checked, Distractor, Granularity, ViewKind
from tpo.validation.checkpoint import ValidationVerdict, failure_text, validate
from tpo.validation.suites import Records


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> ValidationVerdict:
    return validate(records(), PARAMS, None, tmp_path_factory.mktemp("good"))


def test_a_good_set_meets_every_expectation(good: ValidationVerdict) -> None:
    assert good.success
    assert not_met(good) == []
    assert outcome(good, "pairs", "enough_rows").observed == 4
    assert outcome(good, "pairs", "localized_and_comprehensive_are_mixed").observed == 0.5
    assert outcome(good, "pairs", "enough_descriptive").observed == 2
    assert outcome(good, "queries", "enough_descriptive").observed == 2
    assert outcome(good, "pairs", "chosen_is_not_much_longer").observed == 1
    assert {found.suite for found in good.outcomes} == {
        "videos", "captions", "queries", "pairs", "held_out", "decontamination"
    }  # fmt: skip


def test_a_verdict_survives_the_way_to_disk_and_back(good: ValidationVerdict) -> None:
    assert ValidationVerdict.model_validate_json(good.model_dump_json()) == good


def test_what_is_not_known_of_imported_pairs_is_not_held_against_them(tmp_path: Path) -> None:
    only_imported = records([imported(number) for number in range(4)], [], captions=[], queries=[])
    found = validate(only_imported, PARAMS, None, tmp_path)
    assert found.success
    assert not_met(found) == []


def test_imported_pairs_are_measured_together_with_those_made_here(tmp_path: Path) -> None:
    made, held_out = [pair(0, chosen_tokens=4), pair(1)], [pair(4, "v1")]
    both = records([*made, imported(2), imported(3)], held_out, queries=[query_of(one) for one in (*made, *held_out)])
    found = validate(both, PARAMS, None, tmp_path)
    assert found.success
    assert outcome(found, "pairs", "localized_and_comprehensive_are_mixed").observed == 0.5
    assert outcome(found, "pairs", "chosen_is_not_much_longer").observed == pytest.approx(7 / 6)


def test_an_imported_pair_is_held_to_what_is_known_of_it(tmp_path: Path) -> None:
    elsewhere = imported(5, video_id="v9")
    alike = imported(6, chosen="a star", rejected="a star ")
    degraded = imported(7, view=view(0, 10, masked=(1,), kind=ViewKind.MASKED))
    rows = [*(imported(number) for number in range(4)), elsewhere, alike, degraded]
    found = validate(records(rows, [], captions=[], queries=[]), PARAMS, None, tmp_path)
    assert not_met(found) == [
        ("pairs", "video_is_in_catalog"),
        ("pairs", "training_view_is_whole"),
        ("pairs", "chosen_differs_from_rejected"),
    ]


def distractor(**changes: object) -> Distractor:
    return Distractor.model_validate({"position": 0, "video_id": "v1", "timestamp_s": 3.0} | changes)


def with_distractor(**changes: object) -> dict[str, object]:
    return {"rejected_view": view(0, 19.5, distractors=(distractor(**changes),), kind=ViewKind.DISTRACTORS_INSERTED)}


# Each breaks one rule and no other.
BROKEN_PAIRS: list[tuple[str, dict[str, object]]] = [
    ("video_is_in_catalog", {"video_id": "v9"}),
    ("agrees_with_its_query", {"question": "Another one?"}),
    ("agrees_with_its_query", {"segment": None}),
    ("agrees_with_its_query", {"granularity": Granularity.COMPREHENSIVE}),
    ("agrees_with_its_query", {"query_id": "q99"}),
    ("segment_is_of_its_video", {"segment": segment("v1")}),
    ("segment_is_inside_video", {"segment": segment(end_s=20.5)}),
    ("views_are_of_its_video", {"rejected_view": view(0, 19.5, video_id="v1")}),
    ("views_are_inside_video", {"rejected_view": view(3, 25)}),
    ("views_are_inside_video", {"rejected_view": view(0, 10, masked=(2,), kind=ViewKind.MASKED)}),
    ("views_are_inside_video", with_distractor(timestamp_s=25)),
    ("views_are_inside_video", with_distractor(position=2)),
    ("distractors_are_of_other_videos", with_distractor(video_id="v0")),
    ("distractors_are_of_other_videos", with_distractor(video_id="v9")),
    ("training_view_is_whole", {"view": view(0, 10, kind=ViewKind.SPARSE)}),
    ("training_view_is_whole", {"view": view(0, 10, masked=(1,))}),
    ("answers_come_from_different_views", {"rejected_view": view(0, 10, 19.5)}),
    ("answers_come_from_different_views", {"rejected_view": view(0, 10, 19.5, kind=ViewKind.SPARSE, difficulty=1)}),
    ("question_is_not_blank", {"question": " "}),
    ("chosen_is_not_blank", {"chosen": " \n"}),
    ("rejected_is_not_blank", {"rejected": ""}),
    ("chosen_differs_from_rejected", {"chosen": "a star ", "rejected": "a star"}),
    ("approved_in_both_orders", {"verdicts": (APPROVED[0], verdict(first=False, preferred_is="equal"))}),
    ("approved_in_both_orders", {"verdicts": (APPROVED[0], verdict(first=False, conflicts_with_captions=True))}),
    ("approved_in_both_orders", {"verdicts": (APPROVED[0], verdict(first=False, is_correct=False))}),
    ("approved_in_both_orders", {"verdicts": (APPROVED[0], APPROVED[0])}),
    ("approved_in_both_orders", {"verdicts": ()}),
    ("is_not_held_out", {"id": "held"}),
    ("video_is_not_held_out", {"video_id": "v1"}),
    ("chosen_does_not_run_on", {"chosen_tokens": 31}),
]  # fmt: skip
NOT_HIDDEN = {
    "masked": {"rejected_view": view(0, 10, 19.5, masked=(1,), kind=ViewKind.MASKED)},
    "swapped": {"rejected_view": view(0, 10, 19.5, distractors=(distractor(),), kind=ViewKind.DISTRACTORS_INSERTED)},
    "reversed": {"rejected_view": view(19.5, 10, 0, kind=ViewKind.REVERSED)},
}


def broken_records() -> Records:
    """Everything wrong at once, each thing in a record of its own."""
    wrong = [pair(2 * n + 1, **changes) for n, (_, changes) in enumerate(BROKEN_PAIRS)]
    right = [pair(100 + n, id=name, **changes) for n, (name, changes) in enumerate(NOT_HIDDEN.items())]
    twice = [pair(200, id=f"many{n}") for n in range(12) for _ in range(2)]
    disagree = {pair.id for pair, (rule, _) in zip(wrong, BROKEN_PAIRS, strict=True) if rule == "agrees_with_its_query"}
    queries = [query_of(pair(int(one.id[1:])) if one.id in disagree else one) for one in (*wrong, *right, twice[0])]
    spare = pair(301)
    queries += [
        query_of(spare, id="twice", question="first?"),
        query_of(spare, id="twice", question="second?"),
        query_of(spare, id="elsewhere", question="where?", video_id="v9", segment=segment("v9")),
        query_of(spare, id="beyond", question="when?", segment=segment(end_s=20.5)),
        query_of(spare, id="of another", question="what?", segment=segment("v1")),
        query_of(spare, id="no segment", question="which?", segment=None),
        query_of(spare, id="blank", question="  "),
        query_of(spare, id="again", question="WHAT COMES  100?"),
        query_of(spare, id="no answer", question="why?", reference_answer=None),
    ]
    captions = [
        caption(0, "v9", id="elsewhere"),
        caption(1, end_s=20.5),
        caption(2, start_s=9.0, end_s=9.0, frames_s=()),
        caption(3, text=" "),
        caption(4, frames_s=(2.0, 9.5)),
        *(caption(5, text=f"star {n}") for n in (5, 6)),
        *(caption(n, "v1") for n in range(7, 11)),
        *(caption(n, "v1", text="The same.") for n in range(11, 14)),
    ]
    videos = [
        video(),
        video("v1"),
        video("v2", path="same.mp4"),
        video("v3", path="same.mp4"),
        video("v4", width=0, longest_frame_s=10.5),
        video("v5", height=0, size_bytes=0),
        *(video("v6", path=path) for path in ("one.mp4", "two.mp4")),
    ]
    held_out = [pair(401, "v1", id="held"), pair(402, "v1", chosen="")]
    queries += [query_of(one) for one in held_out]
    return records([*wrong, *right, *twice], held_out, videos, captions, queries)


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> ValidationVerdict:
    return validate(broken_records(), PARAMS, None, tmp_path_factory.mktemp("bad"))


@pytest.mark.parametrize("name", dict.fromkeys(name for name, _ in BROKEN_PAIRS))
def test_broken_pairs_fail_their_rule_by_name_and_id(bad: ValidationVerdict, name: str) -> None:
    ids = [changes.get("id", f"p{2 * n + 1}") for n, (rule, changes) in enumerate(BROKEN_PAIRS) if rule == name]
    found = outcome(bad, "pairs", name)
    assert (found.passed, found.unexpected_count, list(found.unexpected_ids)) == (False, len(ids), ids)
    told = f"pairs: {name}, {found.expected}: not met by {len(ids)} record(s): {', '.join(map(str, ids))}"
    assert (told in failure_text(bad)) == (found.severity == "critical") == (name != "chosen_does_not_run_on")


@pytest.mark.parametrize(
    ("suite", "name", "ids"),
    [
        ("videos", "id_is_unique", ["v6"]),
        ("videos", "path_is_unique", ["v2", "v3"]),
        ("videos", "width_is_positive", ["v4"]),
        ("videos", "height_is_positive", ["v5"]),
        ("videos", "size_is_positive", ["v5"]),
        ("captions", "id_is_unique", ["c5"]),
        ("captions", "video_is_in_catalog", ["elsewhere"]),
        ("captions", "span_is_inside_video", ["c1", "c2"]),
        ("captions", "text_is_not_blank", ["c3"]),
        ("captions", "shown_frames_are_inside_span", ["c4"]),
        ("queries", "id_is_unique", ["twice"]),
        ("queries", "video_is_in_catalog", ["q1", "elsewhere"]),
        ("queries", "segment_is_of_its_video", ["q11", "of another"]),
        ("queries", "segment_is_inside_video", ["q13", "beyond"]),
        ("queries", "segment_fits_granularity", ["no segment"]),
        ("queries", "question_is_not_blank", ["q37", "blank"]),
        ("held_out", "chosen_is_not_blank", ["p402"]),
    ],
)
def test_other_broken_records_are_named(bad: ValidationVerdict, suite: str, name: str, ids: list[str]) -> None:
    found = outcome(bad, suite, name)
    assert (found.severity, found.passed, list(found.unexpected_ids)) == ("critical", False, ids)


def test_a_critical_rule_that_nothing_here_breaks_counts_rows_or_is_of_another_test(bad: ValidationVerdict) -> None:
    met = {(found.suite, found.name) for found in bad.of("critical") if found.passed and found.suite != "held_out"}
    assert met == {(suite, "enough_rows") for suite in ("videos", "captions", "queries", "pairs")}


def test_held_out_pairs_are_held_to_the_same_rules(bad: ValidationVerdict) -> None:
    of_every_pair = {name for name, _ in BROKEN_PAIRS[:-3]}
    assert {found.name for found in bad.outcomes if found.suite == "held_out"} - of_every_pair == {
        "enough_rows", "id_is_unique"
    }  # fmt: skip


def test_many_offenders_are_counted_and_at_most_ten_rows_listed(bad: ValidationVerdict) -> None:
    found = outcome(bad, "pairs", "id_is_unique")
    assert found.unexpected_count == 24
    assert found.unexpected_ids == ("many0", "many1", "many2", "many3", "many4")
    assert "many4, …" in failure_text(bad)


@pytest.fixture(scope="module")
def warned(tmp_path_factory: pytest.TempPathFactory) -> ValidationVerdict:
    """Nothing that stops, and everything that warns."""
    pairs = [*(pair(number) for number in range(4)), pair(5, chosen_tokens=31)]
    blind = [BlindCheck(answers=("a",), score=score, model_id="m") for score in (0.6, 1.0, 0.5)]
    queries = [query_of(one, blind=check) for one, check in zip(pairs, [*blind, None, None], strict=True)]
    queries += [
        query_of(pair(4, "v1")),
        query_of(pair(0), id="again", question="WHAT comes  0?"),
        query_of(pair(0), id="no answer", question="Why?", reference_answer=None),
        query_of(pair(0), id="rare", question="Who?", question_type="summarization"),
    ]
    found = records(
        pairs,
        videos=[video(longest_frame_s=10.5), video("v1")],
        captions=[
            caption(number, text=text) for number, text in enumerate(("A star.", "a star.", "a  star.", "A STAR."))
        ],
        queries=queries,
        videos_checked=Checked.PARTLY,
        questions_checked=Checked.NOT,
    )
    return validate(found, PARAMS, 0.9, tmp_path_factory.mktemp("warned"))


@pytest.mark.parametrize(
    ("suite", "name", "found"),
    [
        ("videos", "no_frames_are_lost", "not met by 1 record(s): v0"),
        ("videos", "is_captioned", "not met by 1 record(s): v1"),
        ("captions", "captions_differ", "not met by 3 record(s): c1, c2, c3"),
        ("queries", "question_is_asked_once", "not met by 1 record(s): again"),
        ("queries", "reference_answer_is_there", "not met by 1 record(s): no answer"),
        ("queries", "question_needs_its_video", "not met by 2 record(s): q0, q1"),
        ("queries", "enough_summarization", "found 1"),
        ("pairs", "enough_summarization", "found 0"),
        ("pairs", "chosen_does_not_run_on", "not met by 1 record(s): p5"),
        ("pairs", "chosen_is_not_much_longer", "found 2.867"),
        ("pairs", "localized_and_comprehensive_are_mixed", "found 0.6"),
        (
            "decontamination",
            "compared_with_benchmarks",
            "not met by 2 record(s): videos partly checked, questions not checked",
        ),
    ],
)
def test_warnings_stop_nothing(warned: ValidationVerdict, suite: str, name: str, found: str) -> None:
    warning = outcome(warned, suite, name)
    assert warned.success
    assert (warning.severity, warning.passed, warning.found) == ("warning", False, found)
    assert warning in warned.broken("warning")


def test_rejected_answers_must_not_be_the_long_ones_either(tmp_path: Path) -> None:
    found = validate(records([pair(n, rejected_tokens=5) for n in range(4)]), PARAMS, 0.5, tmp_path)
    assert not_met(found) == [("pairs", "rejected_is_not_much_longer")]


def test_half_of_the_captions_may_repeat_and_half_of_the_checked_questions_be_easy(tmp_path: Path) -> None:
    found = validate(
        records(
            captions=[caption(0), caption(1, text="star 0"), caption(2, "v1"), caption(3, "v1", text="star 2")],
            queries=[
                query_of(one, blind=BlindCheck(answers=("a",), score=n % 2, model_id="m"))
                for n, one in enumerate([*(pair(n) for n in range(4)), pair(4, "v1")])
            ],
        ),
        PARAMS, None, tmp_path,
    )  # fmt: skip
    assert not_met(found) == []
    assert outcome(found, "captions", "captions_differ").unexpected_ids == ("c1", "c3")


def test_no_records_at_all_is_a_clear_failure_and_not_a_crash(tmp_path: Path) -> None:
    found = validate(records([], [], [], []), PARAMS, 0.5, tmp_path)
    assert not_met(found) == [(suite, "enough_rows") for suite in ("videos", "captions", "queries", "pairs")]
    assert "pairs: enough_rows, at least 4: found 0" in failure_text(found)
    assert (tmp_path / "index.html").is_file()
