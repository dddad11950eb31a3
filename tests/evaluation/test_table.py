import csv
import io

from said import prediction

from tpo.evaluation.table import items_csv
from tpo.records import Condition, Method, Prediction, Task


def rows_of(predictions: list[Prediction]) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(items_csv(predictions), newline="")))


def test_one_row_holds_what_every_model_said_to_an_item() -> None:
    rows = rows_of([prediction("b", "tuned", 1), prediction("b", "base", 0), prediction("a", "base", 1)])
    assert [(row["item_id"], row["change"]) for row in rows] == [("a", ""), ("b", "gained")]
    gained = rows[1]
    assert (gained["gold"], gained["base_answer"], gained["tuned_answer"]) == ("A", "B", "A")
    assert (gained["base_correct"], gained["tuned_correct"], gained["tuned_score"]) == ("no", "yes", "1")
    assert gained["base_logprobs"] == "A -1.000, B -2.000"
    assert "champion_answer" not in gained
    assert rows[0]["tuned_status"] == "", "nothing was asked, so nothing is said"


def test_conditions_methods_and_rotations_have_their_own_rows() -> None:
    ways = [
        {},
        {"method": Method.GENERATION},
        {"condition": Condition.SHUFFLED},
        {"condition": Condition.CIRCULAR, "rotation": 1},
        {"condition": Condition.CIRCULAR, "rotation": 2},
    ]
    said = [prediction("a", role, right, **way) for role, right in (("base", 1), ("champion", 0)) for way in ways]
    rows = rows_of(said)
    assert [(row["method"], row["condition"], row["rotation"]) for row in rows] == [
        ("generation", "full", "0"),
        ("logprob", "circular", "1"),
        ("logprob", "circular", "2"),
        ("logprob", "full", "0"),
        ("logprob", "shuffled", "0"),
    ]
    assert {row["champion_correct"] for row in rows} == {"no"}
    assert items_csv(said) == items_csv(said[::-1])


def test_lost_and_unchanged_items_can_be_filtered() -> None:
    said = [prediction(item, "base", 1) for item in "ab"] + [prediction("a", "tuned", 0), prediction("b", "tuned", 1)]
    assert [row["change"] for row in rows_of(said)] == ["lost", "same"]


def test_no_text_runs_as_a_formula() -> None:
    evil = {
        "text": '=HYPERLINK("http://x","a")', "detail": "\t=1+1", "category": "@SUM(A1)", "duration_group": " -1+2",
    }  # fmt: skip
    row = rows_of([prediction("+a", "base", 1, "=v.mp4", **evil)])[0]
    for name, cell in row.items():
        assert not cell.strip().startswith(("=", "+", "-", "@")), name
    assert row["base_text"] == "'" + evil["text"]
    assert (row["item_id"], row["video"], row["category"]) == ("'+a", "'=v.mp4", "'@SUM(A1)")


def test_line_breaks_quotes_and_separators_stay_in_their_cell() -> None:
    text = 'A,"quoted"\nnext; line\r\nlast'
    rows = rows_of([prediction("a", "base", 1, text=text), prediction("b", "base", 1)])
    assert [row["base_text"] for row in rows] == [text, ""]


def test_a_span_is_written_in_seconds() -> None:
    span = {"task": Task.SPAN, "predicted": None, "predicted_span_s": (12.5, 20.0), "gold": None}
    row = rows_of([prediction("a", "base", 0.61, **span)])[0]
    assert (row["base_answer"], row["base_score"], row["gold"]) == ("12.5 to 20 s", "0.61", "")
