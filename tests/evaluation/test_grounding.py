"""Spans that models write, and how they score. Texts and videos are made up."""

import math

import pytest

from tpo.evaluation.grounding import (
    best_iop,
    best_iou,
    grounding_metrics,
    parse_span,
    predict_span,
    span_prompt,
)
from tpo.evaluation.scoring import predict, predict_failure
from tpo.records import Condition, Item, Method, Prediction, PredictionStatus, Task

DURATION_S = 100.0

NAMED = {
    "from 12.3 to 15 seconds": (12.3, 15),
    "12.3 - 15.0": (12.3, 15),
    "12.3-15.0s": (12.3, 15),
    "12.3s–15.0s": (12.3, 15),
    "12 ~ 15": (12, 15),
    "12 s -> 15 s": (12, 15),
    "12 s → 15 s": (12, 15),
    "1. Start time: 5.0 seconds\n2. End time: 12.0 seconds": (5, 12),
    '{"timestamps": [5.0, 12.0], "duration": 34}': (5, 12),
    "He lifts it 5 - 12 times from 3 to 8 s": (3, 8),
    "[12.3, 15]": (12.3, 15),
    "[12.3,15]": (12.3, 15),
    "[[12.3, 15]]": (12.3, 15),
    "(12.3, 15.0)": (12.3, 15),
    "12.3, 15.0": (12.3, 15),
    "12.3s, 15.0s": (12.3, 15),
    "00:12 - 00:15": (12, 15),
    "1:02 to 1:15.5": (62, 75.5),
    "00:00:12 - 00:00:15": (12, 15),
    "1 minute 5 seconds to 1 minute 20 seconds": (65, 80),
    "1m05s - 1m20s": (65, 80),
    "from 1 minute to 75 seconds": (60, 75),
    "from 12 seconds to 15": (12, 15),
    "from 12 to 15 sec.": (12, 15),
    "12 to 15\nThe man walks in.": (12, 15),
    "between 12 and 15 seconds": (12, 15),
    "between the 12 second mark and the 15 second mark": (12, 15),
    "from about 12 until around 15 seconds": (12, 15),
    "From second 12 to second 15": (12, 15),
    "starts at 12.3 seconds and ends at 15": (12.3, 15),
    "It starts at 5.5. It ends at 9.5.": (5.5, 9.5),
    "Start: 12.3, End: 15.0": (12.3, 15),
    "Starting time: 0.8 seconds\nEnding time: 1.1 seconds": (0.8, 1.1),
    "The start time for this event is 0 seconds, and the end time is 12 seconds.": (0, 12),
    "The event starts at 00:00:18 and ends at 00:00:23.": (18, 23),
    '{"start": 12.3, "end": 15}': (12.3, 15),
    "{'start': 12.3, 'end': 15}": (12.3, 15),
    '```json\n{\n  "start_time": "00:12",\n  "end_time": "00:15"\n}\n```': (12, 15),
    "<start>12</start><end>15</end>": (12, 15),
    "**12.3** to **15.0** seconds": (12.3, 15),
    "ANSWER:12-15": (12, 15),
    "The event 'he waves' happens in the 24.3 - 30.4 seonds.": (24.3, 30.4),
    "He waves from 12 to 15 in the video.": (12, 15),
    "12.3 to 15.0 seconds, that is 12.3 - 15.0": (12.3, 15),
    "I'm not sure, but from 3 to 5 seconds.": (3, 5),
    "It is not from 3 to 5 but from 7 to 9.": (7, 9),
    "<think>from 1 to 2?</think>from 3 to 5": (3, 5),
    "frames 300 to 375 (12.0 - 15.0 s)": (12, 15),
    "from 0 to 101": (0, 101),
}

NOT_NAMED = {
    "": PredictionStatus.NONE,
    "I cannot say.": PredictionStatus.NONE,
    "12": PredictionStatus.NONE,
    "at 12 seconds": PredictionStatus.NONE,
    "starts at 12": PredictionStatus.NONE,
    "12 15": PredictionStatus.NONE,
    "12 and 15": PredictionStatus.NONE,
    "from the start to the end": PredictionStatus.NONE,
    "from 12 to the end": PredictionStatus.NONE,
    "2 - 3 people walk in": PredictionStatus.NONE,
    "between 2 and 3 dogs": PredictionStatus.NONE,
    "12 people and 15 dogs": PredictionStatus.NONE,
    "[1, 2, 3, 4]": PredictionStatus.NONE,
    "5 - 10 - 15": PredictionStatus.NONE,
    "2023-05-12": PredictionStatus.NONE,
    "12.3.4 - 15": PredictionStatus.NONE,
    "12,5 - 15,3": PredictionStatus.NONE,
    "1,200 - 1,300": PredictionStatus.NONE,
    ".5 - 3": PredictionStatus.NONE,
    "from 12 to 15th": PredictionStatus.NONE,
    "1:2 - 1:5": PredictionStatus.NONE,
    "It ends at 12 s and starts at 5 s.": PredictionStatus.NONE,
    "It starts at 5 s and lasts 7 s.": PredictionStatus.NONE,
    "from 0.1 to 0.2 of the video": PredictionStatus.NONE,
    "from frame 10 to frame 20": PredictionStatus.NONE,
    "It does not happen from 3 to 5 seconds.": PredictionStatus.NONE,
    "It doesn't happen between 3 and 5.": PredictionStatus.NONE,
    "frames 10 to 20": PredictionStatus.ILLEGAL,
    "from 10 to 20 frames": PredictionStatus.ILLEGAL,
    "starts at frame 10 and ends at frame 20": PredictionStatus.ILLEGAL,
    "from 10% to 20%": PredictionStatus.ILLEGAL,
    "10 - 20 percent": PredictionStatus.ILLEGAL,
    "from 1 to 2 minutes": PredictionStatus.ILLEGAL,
    "0:12 to 15": PredictionStatus.ILLEGAL,
    "00:75 - 00:80": PredictionStatus.ILLEGAL,
    "15 to 12": PredictionStatus.ILLEGAL,
    "12 - 12": PredictionStatus.ILLEGAL,
    "90 - 101.1": PredictionStatus.ILLEGAL,
    "100 - 101": PredictionStatus.ILLEGAL,
    "-5 to 3": PredictionStatus.ILLEGAL,
    "from 1 to " + "9" * 400: PredictionStatus.ILLEGAL,
    "from 3 to 5 and from 7 to 9": PredictionStatus.AMBIGUOUS,
    "[3, 5], [7, 9]": PredictionStatus.AMBIGUOUS,
    "12.3 to 15.0 (00:12 - 00:15)": PredictionStatus.AMBIGUOUS,
    "First I thought 3 - 5. The answer: 7 - 9": PredictionStatus.AMBIGUOUS,
}


@pytest.mark.parametrize("text", NAMED)
def test_a_span_in_a_usual_form_is_read(text: str) -> None:
    parsed = parse_span(text, DURATION_S)
    assert (parsed.status, parsed.span_s, parsed.detail) == (PredictionStatus.OK, NAMED[text], "")


@pytest.mark.parametrize("text", NOT_NAMED, ids=lambda text: text[:40])
def test_what_does_not_name_one_span_in_seconds_is_no_answer_and_says_why(text: str) -> None:
    parsed = parse_span(text, DURATION_S)
    assert (parsed.status, parsed.span_s) == (NOT_NAMED[text], None)
    assert parsed.detail


def test_a_long_text_takes_no_long_time_and_names_nothing() -> None:
    for text in ("start 1 " * 5000, "between " * 5000, "1 - " * 5000, "about the second " * 5000):
        assert parse_span(text, DURATION_S).span_s is None


def span_item(name: str = "a", *spans_s: tuple[float, float], benchmark: str = "nextgqa") -> Item:
    return Item(
        id=f"{benchmark}/{name}#span",
        benchmark=benchmark,
        video=f"videos/{name}.mp4",
        question="a man waves.",
        task=Task.SPAN,
        spans_s=spans_s or ((10.0, 20.0),),
        duration_group="all",
        category="temporal",
    )


def choice_item(name: str = "a") -> Item:
    return Item(
        id=f"nextgqa/{name}",
        benchmark="nextgqa",
        video=f"videos/{name}.mp4",
        question="Why does the man wave?",
        options=("greeting", "a fly"),
        gold=0,
        duration_group="all",
        category="temporal",
    )


def test_our_prompt_says_how_long_the_video_is_and_gives_no_times_to_repeat() -> None:
    prompt = span_prompt(span_item(benchmark="charades_sta"), "official", 34.04)
    assert prompt.user == (
        "The video is 34.0 seconds long. When does this moment of it start and end?\na man waves.\n"
        'Answer with its start and end in seconds, in the form "from START to END seconds".'
    )
    assert parse_span(prompt.user, DURATION_S).status is PredictionStatus.NONE
    assert span_prompt(span_item(), "lmms_eval", 34.04) == span_prompt(span_item(), "official", 34.04)


def test_the_prompt_of_charades_sta_can_be_lmms_eval_s() -> None:
    assert span_prompt(span_item(benchmark="charades_sta"), "lmms_eval", 34.04).user == (
        "Please find the visual event described by a sentence in the video, determining its starting and ending times. "
        "The format should be: 'The event happens in the start time - end time'. For example, The event 'person turn a "
        "light on' happens in the 24.3 - 30.4 seonds. Now I will give you the textual sentence: a man waves.. "
        "Please return its start time and end time."
    )


@pytest.mark.parametrize(
    ("span_s", "truths_s", "iou", "iop"),
    [
        ((10, 20), [(10, 20)], 1, 1),
        ((10, 20), [(15, 25)], 5 / 15, 0.5),
        ((12, 14), [(10, 20)], 0.2, 1),
        ((0, 40), [(10, 20)], 0.25, 0.25),
        ((0, 10), [(10, 20)], 0, 0),
        ((0, 5), [(10, 20)], 0, 0),
        ((10, 20), [(0, 1), (10, 15), (14, 34)], 0.5, 0.6),
        ((0, 10), [(-0.1, 9.9)], 9.9 / 10.1, 0.99),
    ],
)
def test_overlap_is_that_with_the_true_span_that_fits_best(
    span_s: tuple[float, float], truths_s: list[tuple[float, float]], iou: float, iop: float
) -> None:
    assert math.isclose(best_iou(span_s, truths_s), iou, abs_tol=1e-12)
    assert math.isclose(best_iop(span_s, truths_s), iop, abs_tol=1e-12)


def test_a_prediction_keeps_text_span_and_iou() -> None:
    said = predict_span(span_item(), "tuned", "from 15 to 25 s", DURATION_S, Condition.SHUFFLED)
    assert (said.predicted_span_s, said.score, said.correct) == ((15.0, 25.0), pytest.approx(1 / 3), False)
    assert (said.text, said.method, said.condition, said.task) == (
        "from 15 to 25 s", Method.GENERATION, Condition.SHUFFLED, Task.SPAN,
    )  # fmt: skip
    assert predict_span(span_item(), "base", "10 - 15", DURATION_S).correct, "an IoU of 0.5 is enough"
    beyond = predict_span(span_item(), "base", "10 - 20", duration_s=15)
    assert (beyond.status, beyond.score, beyond.correct) == (PredictionStatus.ILLEGAL, 0, False)
    assert beyond.detail == "the span from 10.0 to 20.0 s is not in the video of 15.0 s"


def test_means_recalls_and_grounded_answers_count_every_question() -> None:
    texts = {"a": "10 - 20", "b": "12 - 14", "c": "15 - 25", "d": "I do not know", "e": "1 - 2 and 3 - 4"}
    items = [item for name in (*texts, "f") for item in (choice_item(name), span_item(name))]
    spans = [predict_span(span_item(name), "base", text, DURATION_S) for name, text in texts.items()]
    spans.append(predict_failure(span_item("f"), "base", PredictionStatus.VIDEO_MISSING, "no such file"))
    right, wrong = [-1.0, -2.0], [-2.0, -1.0]
    answers = {"a": right, "b": wrong, "c": right, "d": right, "e": right, "f": wrong}
    choices = [predict(choice_item(name), "base", logprobs) for name, logprobs in answers.items()]
    elsewhere = predict_span(span_item("g"), "base", "10 - 20", DURATION_S)

    (numbers,) = grounding_metrics(items, [*spans, *choices, elsewhere]).values()
    status = numbers.pop("status")
    assert {name: round(value, 9) for name, value in numbers.items()} == {
        "num_items": 6,
        "miou": round((1 + 0.2 + 1 / 3) / 6, 9),
        "miop": round((1 + 1 + 0.5) / 6, 9),
        "recall_iou_30": round(2 / 6, 9),
        "recall_iou_50": round(1 / 6, 9),
        "recall_iou_70": round(1 / 6, 9),
        "acc_qa": round(4 / 6, 9),
        "acc_gqa": round(2 / 6, 9),  # a and c: b is grounded and wrong, d and e are right and not grounded
    }
    assert {name: count for name, count in status.items() if count} == {
        "ok": 3,
        "none": 1,
        "ambiguous": 1,
        "video_missing": 1,
    }


def test_only_nextgqa_has_answers_to_be_grounded_and_benchmarks_are_apart() -> None:
    charades = span_item(benchmark="charades_sta")
    items = [span_item(), choice_item(), charades]
    said = [
        predict_span(span_item(), "base", "10 - 20", DURATION_S),
        predict(choice_item(), "base", [-1.0, -2.0]),
        predict_span(charades, "base", "30 - 40", DURATION_S),
    ]
    numbers = grounding_metrics(items, said)
    assert {name: one["miou"] for name, one in numbers.items()} == {"nextgqa": 1.0, "charades_sta": 0.0}
    assert numbers["nextgqa"]["acc_gqa"] == 1.0
    assert "acc_gqa" not in numbers["charades_sta"]
    assert grounding_metrics([choice_item()], [said[1]]) == {}


@pytest.mark.parametrize("times", [0, 2])
def test_a_question_without_its_one_prediction_is_an_error_and_not_left_out(times: int) -> None:
    said: list[Prediction] = [predict_span(span_item(), "base", "10 - 20", DURATION_S)] * times
    with pytest.raises(ValueError, match=rf"nextgqa/a#span has {times} predictions"):
        grounding_metrics([span_item()], said)
