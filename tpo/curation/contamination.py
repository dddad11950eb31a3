"""A benchmark's questions must not be trained on: which training questions share long runs of words with them."""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from pydantic import BaseModel

from tpo.records import Checked, Item, Query, Reason, Rejection

STAGE = "ask"


class SharedWords(BaseModel, extra="forbid"):
    """A training question that has a run of words in common with a benchmark's question."""

    query_id: str
    question: str
    item: str
    words: str


class QuestionReport(BaseModel, extra="forbid"):
    """`data/queries/decontamination.json`: what was compared with what. The queries in `found` were set aside.

    Questions of fewer than `num_words` words cannot be told from what anyone might ask, so they are only counted.
    """

    status: Checked
    num_words: int
    queries: int
    too_short: int
    benchmark_questions: dict[str, int]
    found: list[SharedWords]
    note: str


def check_questions(
    questions: Mapping[str, str], items: Sequence[Item], num_words: int, note: str = ""
) -> QuestionReport:
    """Look for runs of `num_words` words, whatever their case and punctuation, that are in a question and in an item.

    Args:
        questions: those that are to be trained on, by the id of their query or pair.
    """
    owners: dict[str, str] = {}
    for item in items:
        for run in _runs(item.question, num_words):
            owners.setdefault(run, item.id)
    found, too_short = [], 0
    for question_id, question in questions.items():
        runs = list(_runs(question, num_words))
        too_short += not runs
        shared = next((run for run in runs if run in owners), None)
        if shared is not None:
            found.append(SharedWords(query_id=question_id, question=question, item=owners[shared], words=shared))
    status = (
        Checked.NOT if not owners or too_short == len(questions) else Checked.PARTLY if too_short else Checked.CHECKED
    )
    return QuestionReport(
        status=status,
        num_words=num_words,
        queries=len(questions),
        too_short=too_short,
        benchmark_questions=dict(sorted(Counter(item.benchmark for item in items).items())),
        found=found,
        note=note,
    )


def rejections(report: QuestionReport) -> list[Rejection]:
    """One for each contaminated query."""
    return [
        Rejection(
            stage=STAGE,
            item=found.query_id,
            reason=Reason.CONTAMINATED,
            detail=f"{found.question!r} shares {report.num_words} words with {found.item}: {found.words!r}",
        )
        for found in report.found
    ]


def keep_clean(queries: Sequence[Query], report: QuestionReport) -> tuple[list[Query], list[Rejection]]:
    """The queries that were not found in a benchmark, and a rejection of each video that is left without any."""
    contaminated = {found.query_id for found in report.found}
    kept = [query for query in queries if query.id not in contaminated]
    gone = {query.video_id for query in queries} - {query.video_id for query in kept}
    detail = "every question about it is in a benchmark; contaminated.jsonl says which"
    return kept, [
        Rejection(stage=STAGE, item=video_id, reason=Reason.CONTAMINATED, detail=detail) for video_id in sorted(gone)
    ]


def _runs(text: str, num_words: int) -> Iterator[str]:
    words = re.findall(r"\w+", text.casefold())
    for first in range(len(words) - num_words + 1):
        yield " ".join(words[first : first + num_words])
