"""Reviews on disk, by several people at once, and how far those agree."""

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import cohen_kappa_score

from tpo.curation.reviews import read_reviews, standing
from tpo.records import Review, ReviewVerdict
from tpo.review.agreement import cohen_kappa, summarize, to_text
from tpo.review.journal import ReviewJournal
from tpo.store import to_line

ACCEPT, REJECT, TIE, BAD = ReviewVerdict
ROOT = Path(__file__).resolve().parents[2]


def a_review(pair_id: str, verdict: ReviewVerdict | None, reviewer: str = "anna") -> Review:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    return Review(pair_id=pair_id, reviewer=reviewer, verdict=verdict, chosen_shown_as="A", unblinded=False, at=at)


def test_many_threads_and_journals_lose_no_line_and_all_see_all(tmp_path: Path) -> None:
    journals = [ReviewJournal(tmp_path / "review/verdicts.jsonl") for _ in range(2)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda n: journals[n % 2].append(a_review(f"p{n}", TIE)), range(60)))
    for journal in journals:
        journal.refresh()
        assert journal.standing() == {f"p{number}": {"anna": TIE} for number in range(60)}


def test_what_a_crash_left_of_a_line_is_dropped_and_what_another_process_wrote_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    journal = ReviewJournal(path)
    journal.append(a_review("p", ACCEPT))
    with path.open("a") as file:
        file.write(to_line(a_review("q", TIE, "ben")) + to_line(a_review("r", TIE))[:30])
    journal.append(a_review("s", REJECT))
    assert [review.pair_id for review in read_reviews(path)] == ["p", "q", "s"]
    assert journal.standing() == standing(read_reviews(path))


def test_a_line_survives_the_death_of_its_process(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from tpo.records import Review;"
        "from tpo.review.journal import ReviewJournal;"
        "ReviewJournal(Path(sys.argv[1])).append(Review.model_validate_json(sys.argv[2])); os.kill(os.getpid(), 9)"
    )
    path = tmp_path / "verdicts.jsonl"
    arguments = [sys.executable, "-c", code, str(path), to_line(a_review("p", BAD))]
    assert subprocess.run(arguments, cwd=ROOT, check=False).returncode == -9
    assert standing(read_reviews(path)) == {"p": {"anna": BAD}}


def test_another_file_in_its_place_is_read_from_its_beginning(tmp_path: Path) -> None:
    path = tmp_path / "verdicts.jsonl"
    journal = ReviewJournal(path)
    journal.append(a_review("p", ACCEPT))
    path.unlink()
    journal.refresh()
    assert journal.standing() == {}
    path.write_text(to_line(a_review("q", TIE)) * 3)
    journal.refresh()
    assert journal.standing() == {"q": {"anna": TIE}}


@pytest.mark.parametrize("seed", range(5))
def test_kappa_is_that_of_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    first = [list(ReviewVerdict)[number] for number in rng.integers(4, size=40)]
    second = [one if rng.random() < 0.6 else list(ReviewVerdict)[rng.integers(4)] for one in first]
    assert cohen_kappa(first, second) == pytest.approx(cohen_kappa_score([*map(str, first)], [*map(str, second)]))


def test_kappa_of_two_who_say_one_and_the_same_of_everything_is_not_defined() -> None:
    assert cohen_kappa([ACCEPT] * 5, [ACCEPT] * 5) is None
    assert cohen_kappa([ACCEPT, REJECT], [ACCEPT, REJECT]) == 1
    assert cohen_kappa([ACCEPT, REJECT], [REJECT, ACCEPT]) == -1


def test_a_summary_tells_who_said_what_how_much_was_accepted_and_how_far_people_agree() -> None:
    said = standing(
        [
            a_review("p0", ACCEPT),
            a_review("p1", REJECT),
            a_review("p2", ACCEPT),
            a_review("p0", ACCEPT, "\x1bben"),
            a_review("p1", TIE, "\x1bben"),
            a_review("of another run", TIE),
        ]
    )
    summary = summarize({f"p{number}": f"v{number}" for number in range(9)}, said)
    assert (summary.num_pairs, summary.num_reviewed) == (9, 3)
    assert summary.verdicts == {"accept": 2, "reject": 1}
    assert summary.accepted is not None
    assert summary.accepted.value == pytest.approx(2 / 3)
    text = to_text(summary)
    assert "3 of 9 pairs that the judge kept were reviewed: 2 accept, 1 reject" in text
    assert "Cohen's kappa 0.33, the same verdict on 50% of 2 pairs" in text
    assert "1 more reviewed pairs are not among those that the judge kept" in text
    assert "\x1b" not in text
