from tpo.curation.contamination import QuestionReport, check_questions, keep_clean, rejections
from tpo.records import Checked, Granularity, Item, Query, QuestionType, Reason

LONG = "What does the man in the red coat put on the table before the dog runs in?"


def query(name: str, question: str) -> Query:
    return Query(
        id=name, video_id="v", granularity=Granularity.COMPREHENSIVE, question_type=QuestionType.DESCRIPTIVE,
        segment=None, question=question, reference_answer=None, asker="rule",
    )  # fmt: skip


def item(name: str, question: str) -> Item:
    return Item(
        id=name, benchmark=name.split("/")[0], video="a.mp4", question=question, options=("a", "b"), gold=0,
        duration_group="short", category="order",
    )  # fmt: skip


def checked(queries: list[Query], items: list[Item], num_words: int, note: str = "") -> QuestionReport:
    return check_questions({query.id: query.question for query in queries}, items, num_words, note)


def test_a_question_with_thirteen_words_of_a_benchmarks_is_found_whatever_its_case_and_punctuation() -> None:
    taken = query("q1", "so... WHAT does the man, in the red coat, put on the table -- BEFORE the cat?")
    own = query("q2", "What does the man in the red coat put on the chair before the dog runs in?")
    report = checked([taken, own], [item("mlvu/1", "Anything else?"), item("mlvu/2", LONG)], 13)
    assert [(found.query_id, found.item) for found in report.found] == [("q1", "mlvu/2")]
    assert (report.status, report.queries, report.too_short) == (Checked.CHECKED, 2, 0)
    assert report.benchmark_questions == {"mlvu": 2}
    (rejection,) = rejections(report)
    assert (rejection.stage, rejection.item, rejection.reason) == ("ask", "q1", Reason.CONTAMINATED)
    assert (
        "shares 13 words with mlvu/2: 'what does the man in the red coat put on the table before'" in rejection.detail
    )


def test_a_video_all_of_whose_questions_are_in_a_benchmark_is_set_aside() -> None:
    taken, own = query("q1", LONG), query("q2", "Who opens the door?")
    report = checked([taken, own], [item("mlvu/2", LONG)], 13)
    assert keep_clean([taken, own], report) == ([own], [])
    kept, (rejection,) = keep_clean([taken], report)
    assert (kept, rejection.item, rejection.reason) == ([], "v", Reason.CONTAMINATED)


def test_a_short_question_is_counted_as_not_compared() -> None:
    short = query("q1", "What is the man doing?")
    report = checked([short, query("q2", LONG)], [item("mlvu/1", "What is the man doing?"), item("a/2", "x " * 13)], 13)
    assert (report.found, report.too_short, report.status) == ([], 1, Checked.PARTLY)
    assert checked([short], [item("mlvu/2", LONG)], 13).status is Checked.NOT


def test_without_benchmark_questions_nothing_was_checked() -> None:
    report = checked([query("q1", LONG)], [], 13, "No benchmark below data/benchmarks")
    assert (report.status, report.found, report.benchmark_questions) == (Checked.NOT, [], {})
    assert report.note == "No benchmark below data/benchmarks"
