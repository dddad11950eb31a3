"""What people said of pairs: whose word counts, and what mix makes of it."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from test_mix import a_pair

from tpo.curation.mix import mix_pairs
from tpo.curation.reviews import decided, read_reviews, standing
from tpo.errors import UserError
from tpo.params import MixParams
from tpo.records import Reason, Review, ReviewVerdict
from tpo.store import to_line

ACCEPT, REJECT, TIE, BAD = ReviewVerdict


def a_review(pair_id: str, reviewer: str, verdict: ReviewVerdict | None) -> Review:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    return Review(pair_id=pair_id, reviewer=reviewer, verdict=verdict, chosen_shown_as="A", unblinded=False, at=at)


def test_the_last_word_of_each_reviewer_counts_and_what_was_taken_back_was_not_said() -> None:
    said = [
        a_review("p", "anna", REJECT), a_review("p", "ben", TIE), a_review("p", "anna", ACCEPT),
        a_review("p", "ben", None), a_review("q", "ben", BAD), a_review("q", "ben", None),
    ]  # fmt: skip
    assert standing(said) == {"p": {"anna": ACCEPT}}


@pytest.mark.parametrize(
    ("votes", "verdict"),
    [
        ([], None),
        ([ACCEPT], ACCEPT),
        ([REJECT], REJECT),
        ([ACCEPT, TIE], None),
        ([ACCEPT, ACCEPT, BAD], ACCEPT),
        ([ACCEPT, REJECT, TIE], REJECT),  # among equals the one that is worse for the pair
        ([ACCEPT, TIE, TIE, BAD], TIE),
    ],
)
def test_reviewers_have_one_vote_each(votes: list[ReviewVerdict], verdict: ReviewVerdict | None) -> None:
    assert decided(votes) is verdict


def test_mix_sets_aside_what_people_do_not_accept_and_every_pair_is_accounted_for() -> None:
    pairs = [a_pair(number) for number in range(6)]
    reviews = [
        a_review("p0", "anna", ACCEPT), a_review("p1", "anna", REJECT), a_review("p2", "anna", TIE),
        a_review("p3", "anna", BAD), a_review("p4", "anna", ACCEPT), a_review("p4", "ben", REJECT),
        a_review("of another run", "ben", REJECT),
    ]  # fmt: skip
    mixed = mix_pairs(pairs, MixParams(max_pairs=None, localized_share=None), 0, reviews)
    assert {one.item: one.reason for one in mixed.rejections} == {
        "p1": Reason.REVIEW_REJECT,
        "p2": Reason.REVIEW_TIE,
        "p3": Reason.REVIEW_BAD_QUESTION,
    }
    assert mixed.rejections[0].detail == "0 of 1 who reviewed it accept it"
    assert sorted(pair.id for pair in mixed.trained_on) == ["p0", "p4", "p5"]
    assert mixed.report.pairs_in == 6
    assert mixed.report.reviewed == {"accept": 1, "bad_question": 1, "reject": 1, "tie": 1, "undecided": 1}


def test_nobody_is_held_out_either_whom_people_do_not_accept() -> None:
    pairs = [a_pair(number, video_id=f"video {number}") for number in range(10)]
    reviews = [a_review(f"p{number}", "anna", REJECT) for number in range(5)]
    mixed = mix_pairs(pairs, MixParams(max_pairs=None, localized_share=None, held_out_share=0.4), 0, reviews)
    assert len(mixed.held_out) == 2
    assert {pair.id for pair in (*mixed.trained_on, *mixed.held_out)} == {f"p{number}" for number in range(5, 10)}


def test_a_file_is_read_to_its_last_whole_line_and_a_bad_one_is_named(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    assert read_reviews(path) == []
    line = to_line(a_review("p", "anna", TIE))
    path.write_text(line + line[:20])
    assert [review.verdict for review in read_reviews(path)] == [TIE]
    path.write_text(line + "accept\n" + line)
    with pytest.raises(UserError, match=r"verdicts.jsonl, line 2: not a review: .* Mend that line or delete it"):
        read_reviews(path)
