from tpo.evaluation.prompts import INSTRUCTION, candidates, render
from tpo.records import Item

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


def test_a_bare_question_has_the_options_texts_as_its_answers() -> None:
    assert render(ITEM, "question").user == "What comes first?"
    assert candidates(ITEM, "question") == ("a dog", "a cat", "a cow")


def test_where_options_are_listed_only_the_letters_there_are_can_be_answers() -> None:
    assert render(ITEM, "official").user == f"What comes first?\nA. a dog\nB. a cat\nC. a cow\n{INSTRUCTION}"
    assert candidates(ITEM, "official") == ("A", "B", "C")
