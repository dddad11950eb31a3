import pytest

from tpo.evaluation.compatible import Mode, compatible_accuracy, compatible_score, macro_by_category
from tpo.evaluation.scoring import predict, predict_failure
from tpo.records import Item, PredictionStatus


def item(benchmark: str, gold: int = 2, category: str = "order", num_options: int = 4) -> Item:
    return Item(
        id=f"{benchmark}/{category}",
        benchmark=benchmark,
        video="a.mp4",
        question="Which fruit comes first?",
        options=("Apples", "Pears", "Berries", "Plums", "Figs", "Limes")[:num_options],
        gold=gold,
        duration_group="15",
        category=category,
    )


@pytest.mark.parametrize(
    ("text", "benchmark", "mode", "option"),
    [
        ("Answer: C", "longvideobench", "official", 0),
        ("Based on the video, C", "longvideobench", "official", 1),
        ("Based on the video, C", "videomme", "official", 1),
        ("The correct option is (C) Berries.", "videomme", "lmms_eval", 1),
        ("CCTV", "longvideobench", "lmms_eval", 2),
        ("CCTV", "videomme", "official", 2),
        ("CCTV", "videomme", "lmms_eval", 2),
        ("The best option is C", "videomme", "official", 2),
        ("C. Berries", "mlvu", "official", None),
        ("C) Berries", "mlvu", "official", 2),
    ],
)
def test_the_faults_of_the_programs_are_kept(text: str, benchmark: str, mode: Mode, option: int | None) -> None:
    score = compatible_score(item(benchmark), text, mode)
    assert (score.option, score.correct) == (option, option == 2)


def test_what_would_be_drawn_by_chance_is_marked_and_wrong() -> None:
    asked = [item("longvideobench")] * 3
    assert compatible_score(asked[0], "berries", "lmms_eval").random_draw
    found = compatible_accuracy(asked, ["C", "no idea", ""], "lmms_eval")
    assert (found.accuracy, found.num_counted, found.num_random_draws) == (pytest.approx(1 / 3), 3, 2)


def test_a_fifth_letter_is_taken_where_there_are_four_options() -> None:
    score = compatible_score(item("longvideobench"), "E", "official")
    assert (score.option, score.correct, score.random_draw) == (4, False, False)


def test_the_official_videomme_leaves_out_what_it_cannot_read_and_lmms_eval_does_not() -> None:
    asked = [item("videomme")] * 4
    texts = ["C", "A", "no idea", ""]
    official, other = (compatible_accuracy(asked, texts, mode) for mode in ("official", "lmms_eval"))
    assert (official.accuracy, official.num_counted, official.num_items) == (0.5, 2, 4)
    assert (other.accuracy, other.num_counted) == (0.25, 4)


def test_lmms_eval_never_finds_the_fifth_and_sixth_of_mlvu_tests_options() -> None:
    asked = item("mlvu_test", gold=5, num_options=6)
    assert not compatible_score(asked, "F", "lmms_eval").correct
    assert compatible_score(asked, "F) Limes", "official").correct
    assert not compatible_score(asked, "(F) Limes", "official").correct, (
        "its program hands in what is before the bracket"
    )


def test_mlvu_is_a_mean_over_its_tasks_beside_the_plain_share() -> None:
    for benchmark in ("mlvu", "mlvu_test"):
        asked = [item(benchmark, category=category) for category in ("order", "order", "order", "count")]
        found = compatible_accuracy(asked, ["C)", "C)", "C)", "A)"], "official")
        assert (found.accuracy, found.micro) == (0.5, 0.75)


def test_our_own_predictions_have_a_mean_over_tasks_too() -> None:
    right = [predict(item("mlvu", category="order"), "base", [0.0, 0.0, 1.0, 0.0])] * 3
    missing = predict_failure(item("mlvu", category="count"), "base", PredictionStatus.VIDEO_MISSING, "no file")
    assert macro_by_category([*right, missing]) == 0.5
    assert macro_by_category([]) == 0


def test_an_item_whose_gold_answer_is_no_option_is_never_right() -> None:
    broken = item("mlvu").model_copy(update={"gold": None, "defects": ("no gold",)})
    assert not any(compatible_score(broken, text, "official").correct for text in ("A)", "@", "", "C"))


def test_other_benchmarks_and_mixtures_are_refused() -> None:
    with pytest.raises(ValueError, match="no official score of needle; there is one of longvideobench, mlvu"):
        compatible_score(item("needle"), "C", "official")
    with pytest.raises(ValueError, match="one benchmark, got"):
        compatible_accuracy([item("mlvu"), item("videomme")], ["C", "C"], "official")
    with pytest.raises(ValueError, match="one benchmark, got"):
        compatible_accuracy([], [], "official")
