import pytest

from tpo.evaluation.scoring import predict, predict_failure
from tpo.records import Item, PredictionStatus

ITEM = Item(
    id="mlvu/5_order:0",
    benchmark="mlvu",
    video="MLVU/video/5_order/a.mp4",
    question="What comes first?",
    options=("a dog", "a cat", "a cow"),
    gold=1,
    duration_group="<5min",
    category="order",
)


def test_the_likeliest_option_is_the_prediction() -> None:
    right, wrong = predict(ITEM, "base", [-3.0, -1.0, -2.0]), predict(ITEM, "tuned", [-1.0, -3.0, -2.0])
    assert (right.predicted, right.correct, right.model, right.status) == (1, True, "base", PredictionStatus.OK)
    assert (wrong.predicted, wrong.correct, wrong.model) == (0, False, "tuned")


def test_a_tie_with_the_gold_answer_is_wrong_and_not_a_guess() -> None:
    tie = predict(ITEM, "base", [-1.0, -1.0, -2.0])
    assert (tie.predicted, tie.correct, tie.status) == (None, False, PredictionStatus.AMBIGUOUS)
    assert tie.detail == "options [0, 1] are equally probable"
    assert predict(ITEM, "base", [-2.0, -1.0, -2.0]).correct, "a tie of wrong options takes nothing from the right one"


def test_an_item_that_could_not_be_asked_is_wrong_and_says_why() -> None:
    failed = predict_failure(ITEM, "base", PredictionStatus.VIDEO_MISSING, "no file")
    assert (failed.predicted, failed.correct, failed.option_logprobs) == (None, False, ())
    assert (failed.status, failed.detail) == (PredictionStatus.VIDEO_MISSING, "no file")


def test_scores_of_another_question_are_refused() -> None:
    with pytest.raises(ValueError, match=r"mlvu/5_order:0 has 3 options but 2 log-probabilities"):
        predict(ITEM, "base", [-1.0, -2.0])


def test_a_model_that_gives_no_numbers_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"finite"):
        predict(ITEM, "base", [float("nan"), -1.0, -2.0])
