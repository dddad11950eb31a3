"""What people said of pairs: `tpo review` appends it to a file, a reviewer's last word counts, and mix honours it.

verdicts = standing(read_reviews(REVIEWS))          # {"3f2a…": {"anna": accept, "ben": tie}}
decided(verdicts["3f2a…"].values())                 # none: one is for it, one against
"""

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path

from pydantic import ValidationError

from tpo.errors import UserError
from tpo.records import Review, ReviewVerdict

REVIEWS = Path("data/review/verdicts.jsonl")
UNDECIDED = "undecided"


def read_reviews(path: Path) -> list[Review]:
    """All that was said, in its order; nothing if there is no such file. A line that a kill cut short was not said.

    Raises:
        UserError: a line is not a `Review`; names file and line.
    """
    return parse_reviews(path.read_bytes(), path) if path.is_file() else []


def parse_reviews(content: bytes, path: Path, first_line: int = 1) -> list[Review]:
    """Reviews of a part of a file that begins with its line `first_line`."""
    reviews = []
    *whole, _ = content.split(b"\n")
    for number, line in enumerate(whole, start=first_line):
        try:
            reviews.append(Review.model_validate_json(line))
        except ValidationError as error:
            raise UserError(
                f"{path}, line {number}: not a review: {error.errors()[0]['msg']}. "
                "Mend that line or delete it; the others stay as they are."
            ) from error
    return reviews


def standing(reviews: Iterable[Review]) -> dict[str, dict[str, ReviewVerdict]]:
    """By pair, the last verdict of each of its reviewers who did not take it back."""
    found: dict[str, dict[str, ReviewVerdict]] = {}
    for review in reviews:
        of_pair = found.setdefault(review.pair_id, {})
        if review.verdict is None:
            of_pair.pop(review.reviewer, None)
        else:
            of_pair[review.reviewer] = review.verdict
    return {pair_id: of_pair for pair_id, of_pair in found.items() if of_pair}


def decided(verdicts: Collection[ReviewVerdict]) -> ReviewVerdict | None:
    """What the reviewers of a pair say together; none = as many accept it as do not.

    Ours: each has one vote. If most do not accept, it is for the reason that most of them give, among equals the one
    that is worse for the pair.
    """
    against: Counter[ReviewVerdict] = Counter(verdict for verdict in verdicts if verdict is not ReviewVerdict.ACCEPT)
    accepted = len(verdicts) - against.total()
    if accepted == against.total():
        return None
    if accepted > against.total():
        return ReviewVerdict.ACCEPT
    worst_first = (ReviewVerdict.BAD_QUESTION, ReviewVerdict.REJECT, ReviewVerdict.TIE)
    return max(worst_first, key=lambda verdict: against[verdict])
