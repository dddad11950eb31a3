"""Prompts, word by word. The texts of the questions are ours."""

import pytest

from tpo.evaluation.prompts import candidates, render, style_name, style_names
from tpo.records import Item, Prompt, Task

SAID = ("Good morning.", "Look there!")


def item(benchmark: str, *options: str) -> Item:
    return Item(
        id=f"{benchmark}/1",
        benchmark=benchmark,
        video="a.mp4",
        question="What comes first?",
        options=options or ("a dog", "a cat", "a cow", "a hen"),
        gold=1,
        duration_group="<5min",
        category="order",
    )


OPEN = Item(
    id="mlvu/9_summary:0",
    benchmark="mlvu",
    video="a.mp4",
    question="Summarize the video.",
    task=Task.OPEN,
    reference="A dog, then a cat.",
    duration_group="<5min",
    category="summary",
)


def test_a_bare_question_has_the_options_texts_as_its_answers() -> None:
    asked = item("mlvu", "a dog", "a cat ", "a cow")
    assert render(asked, "question") == Prompt(user="What comes first?")
    assert render(asked, "question", SAID) == Prompt(user="Good morning.\nLook there!\nWhat comes first?")
    assert candidates(asked, "question") == ("a dog", "a cat", "a cow")


@pytest.mark.parametrize("style", ["official", "lmms_eval"])
@pytest.mark.parametrize("benchmark", ["longvideobench", "mlvu", "mlvu_test", "videomme", "tempcompass", "nextgqa"])
def test_where_options_are_listed_only_the_letters_there_are_can_be_answers(benchmark: str, style: str) -> None:
    asked = item(benchmark, "a dog", "a cat", "a cow")
    rows = render(asked, style).user.split("\n")
    assert {"A. a dog", "B. a cat", "C. a cow"} <= set(rows) or {"(A) a dog", "(B) a cat", "(C) a cow"} <= set(rows)
    assert candidates(asked, style) == ("A", "B", "C")


def test_longvideobench_official() -> None:
    assert render(item("longvideobench"), "official") == Prompt(
        user="Question: What comes first?\n"
        "A. a dog\n"
        "B. a cat\n"
        "C. a cow\n"
        "D. a hen\n"
        "Answer with the option's letter from the given choices directly."
    )
    assert render(item("longvideobench", "a", "b", "c", "d", "e"), "official", SAID) == Prompt(
        user="Good morning.\n"
        "Look there!\n"
        "Question: What comes first?\n"
        "A. a\n"
        "B. b\n"
        "C. c\n"
        "D. d\n"
        "E. e\n"
        "Answer with the option's letter from the given choices directly."
    )


def test_longvideobench_as_lmms_eval_asks() -> None:
    assert render(item("longvideobench"), "lmms_eval") == Prompt(
        user="What comes first?\n"
        "A. a dog\n"
        "B. a cat\n"
        "C. a cow\n"
        "D. a hen\n"
        "Answer with the option's letter from the given choices directly.\n"
    )


@pytest.mark.parametrize("benchmark", ["mlvu", "mlvu_test"])
def test_mlvu_official_writes_the_beginning_of_the_answer(benchmark: str) -> None:
    assert render(item(benchmark), "official") == Prompt(
        system="Carefully watch this video and pay attention to every detail. Based on your observations, select the "
        "best option that accurately addresses the question.",
        user="Question: What comes first?\n"
        "Options:\n"
        "(A) a dog\n"
        "(B) a cat\n"
        "(C) a cow\n"
        "(D) a hen\n"
        "Only give the best option.",
        prefill="Best Option: (",
    )


def test_mlvu_as_lmms_eval_asks_has_that_beginning_in_the_users_turn() -> None:
    assert render(item("mlvu"), "lmms_eval") == Prompt(
        user="What comes first?\n(A) a dog\n(B) a cat\n(C) a cow\n(D) a hen\nOnly give the best option.\nBest option: ("
    )


def test_the_test_set_of_mlvu_as_lmms_eval_asks_has_no_instruction() -> None:
    assert render(item("mlvu_test"), "lmms_eval") == Prompt(
        user="What comes first?\n(A) a dog\n(B) a cat\n(C) a cow\n(D) a hen"
    )


def test_free_answers_of_mlvu_are_asked_for_with_the_official_system_prompt() -> None:
    assert render(OPEN, "official") == Prompt(
        system="Carefully watch this video and pay attention to every detail. Based on your observations, answer the "
        "given questions.",
        user="Summarize the video.",
    )
    assert render(OPEN, "lmms_eval") == Prompt(user="Summarize the video.")
    assert candidates(OPEN, "official") == candidates(OPEN, "question") == ()


def test_videomme_official_with_and_without_subtitles() -> None:
    without = (
        "Select the best answer to the following multiple-choice question based on the video. Respond with only the "
        "letter (A, B, C, or D) of the correct option.\n"
        "What comes first?\n"
        "A. a dog\n"
        "B. a cat\n"
        "C. a cow\n"
        "D. a hen\n"
        "The best answer is:"
    )
    said = "This video's subtitles are listed below:\nGood morning.\nLook there!\n"
    assert render(item("videomme"), "official") == Prompt(user=without)
    assert render(item("videomme"), "official", SAID) == Prompt(user=said + without)


def test_videomme_as_lmms_eval_asks_speaks_of_subtitles_in_any_case() -> None:
    question = (
        "Select the best answer to the following multiple-choice question based on the video and the subtitles. "
        "Respond with only the letter (A, B, C, or D) of the correct option.\n"
        "What comes first?\n"
        "A. a dog\n"
        "B. a cat\n"
        "C. a cow\n"
        "D. a hen\n"
    )
    said = "This video's subtitles are listed below: \nGood morning.\nLook there!\n"
    assert render(item("videomme"), "lmms_eval") == Prompt(
        user=question + "\nAnswer with the option's letter from the given choices directly."
    )
    assert render(item("videomme"), "lmms_eval", SAID) == Prompt(user=said + question + "The best answer is:")


def test_tempcompass_has_its_own_last_line_and_others_are_asked_like_longvideobench() -> None:
    asked = "What comes first?\nA. a dog\nB. a cat\nC. a cow\nD. a hen\n"
    expected = Prompt(user=f"{asked}Please directly give the best option:")
    assert render(item("tempcompass"), "official") == render(item("tempcompass"), "lmms_eval") == expected
    for style in ("official", "lmms_eval"):
        assert render(item("nextgqa"), style) == render(item("longvideobench"), style)


def test_white_space_of_the_file_is_asked_as_it_is_but_what_official_code_takes_off() -> None:
    asked = item("mlvu", "a dog ", " a cat", "a cow", "a hen ")
    assert "\n(A) a dog \n(B)  a cat\n(C) a cow\n(D) a hen\nOnly" in render(asked, "official").user
    assert "\n(A) a dog \n(B)  a cat\n(C) a cow\n(D) a hen \nOnly" in render(asked, "lmms_eval").user


def test_results_name_the_prompt_and_where_it_is_not_quite_what_it_is_called() -> None:
    assert style_name("longvideobench", "official", subtitles=False) == "official"
    assert style_name("videomme", "official", subtitles=True) == "official, subtitles"
    assert style_name("longvideobench", "lmms_eval", subtitles=True) == (
        "lmms_eval, subtitles before the question instead of between the frames"
    )


def test_a_benchmark_without_any_subtitles_is_not_said_to_show_them() -> None:
    told = item("videomme").model_copy(update={"subtitles": "subtitle/a.srt"})
    assert style_names([told, item("videomme"), item("mlvu")], "official", subtitles=True) == {
        "mlvu": "official",
        "videomme": "official, subtitles",
    }
    assert style_names([told], "official", subtitles=False) == {"videomme": "official"}
