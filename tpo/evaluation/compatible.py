"""The scores that other programs would give to the same replies, so that ours can be put beside published ones.

    compatible_accuracy(items, texts, "official").accuracy

| benchmark      | official                                       | lmms_eval (release 0.7.3)                     |
|----------------|------------------------------------------------|-----------------------------------------------|
| longvideobench | first of A to E, else a RANDOM option; plain   | the same                                      |
| mlvu           | the character before the first ")"; macro      | best of A to D; macro                         |
| mlvu_test      | all that is before the first ")"; macro        | best of A to D, of six options; macro         |
| videomme       | first of A to D, else left out; plain          | best of A to D, else wrong; plain             |
| tempcompass    | a letter at the beginning, else ChatGPT; plain | the same                                      |

They are kept as they are, with their faults: they take letters out of words ("CCTV" is C) and guess. None of it is used
for our own scores (`tpo.evaluation.parsing`). tests/evaluation/test_parity.py holds them against what the programs
themselves say. MLVU's program for the test set only makes a submission; that its letters are compared as they are is
ours. Macro is a mean over the tasks there are; lmms-eval counts tasks without a question as 0.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import Field

from tpo.records import Item, Prediction, Record

Mode = Literal["official", "lmms_eval"]

_MACRO = ("mlvu", "mlvu_test")

_LEAD_INS = (
    "The best answer is",
    "The correct answer is",
    "The answer is",
    "The answer",
    "The best option is",
    "The correct option is",
    "Best answer:",
    "Best option:",
)
# Two commas are missing in Video-MME's list, so that the last four became two that no reply holds.
_VIDEOMME_LEAD_INS = (*_LEAD_INS[:4], "".join(_LEAD_INS[4:6]), "".join(_LEAD_INS[6:]))
_LMMS_EVAL_PHRASES = (
    *(
        f"{the}{kind} is"
        for kind in (
            "answer",
            "correct answer",
            "best answer",
            "correct option",
            "best option",
            "choice",
            "correct choice",
        )
        for the in ("the ", "")
    ),
    *("i choose", "i select", "i pick", "my answer is", "my choice is"),
    *("옵션", "정답은", "답은", "답:", "答案是", "答案为", "选", "答えは"),
)


@dataclass(frozen=True)
class CompatibleScore:
    """What a program makes of one reply.

    Attributes:
        correct: none = it has no verdict of its own: Video-MME leaves the question out, TempCompass asks ChatGPT.
        option: the index of the letter it found, also of one that the question does not have; none = it found none.
        random_draw: it would draw an option by chance, which is not done here: the reply counts as wrong.
    """

    correct: bool | None
    option: int | None
    random_draw: bool = False


class CompatibleAccuracy(Record):
    """What a program prints for one benchmark, as a share (1 = 100 %)."""

    benchmark: str
    mode: Mode
    accuracy: float = Field(description="as the program puts it together: MLVU a mean over categories, others plain")
    micro: float = Field(description="the plain share of the questions that count")
    num_items: int
    num_counted: int = Field(description="questions that the program has a verdict on")
    num_random_draws: int = Field(
        description="counted as wrong; by chance one in so many as there are options is right"
    )


def compatible_score(item: Item, text: str, mode: Mode) -> CompatibleScore:
    """Score one reply as the program would.

    Raises:
        ValueError: there is no such program for the item's benchmark.
    """
    if (item.benchmark, mode) not in _RULES:
        known = ", ".join(sorted({benchmark for benchmark, _ in _RULES}))
        raise ValueError(f"there is no {mode} score of {item.benchmark}; there is one of {known}")
    return _RULES[item.benchmark, mode](item, text)


def compatible_accuracy(items: Sequence[Item], texts: Sequence[str], mode: Mode) -> CompatibleAccuracy:
    """The program's number for replies to questions of one benchmark. What could not be asked has an empty reply.

    Raises:
        ValueError: there is no item, they are of several benchmarks, or of one without such a program.
    """
    benchmarks = {item.benchmark for item in items}
    if len(benchmarks) != 1:
        raise ValueError(f"expected items of one benchmark, got {sorted(benchmarks)}")
    scores = [compatible_score(item, text, mode) for item, text in zip(items, texts, strict=True)]
    counted = [
        (item.category, score.correct) for item, score in zip(items, scores, strict=True) if score.correct is not None
    ]
    micro = _mean([correct for _, correct in counted])
    (benchmark,) = benchmarks
    return CompatibleAccuracy(
        benchmark=benchmark,
        mode=mode,
        accuracy=_macro(counted) if benchmark in _MACRO else micro,
        micro=micro,
        num_items=len(items),
        num_counted=len(counted),
        num_random_draws=sum(score.random_draw for score in scores),
    )


def compatible_metrics(
    items: Sequence[Item], choices: Sequence[Prediction], written: Sequence[Prediction]
) -> dict[str, dict[str, Any]]:
    """What other programs would print for one model, per benchmark that they know: shares, 1 = 100 %.

    `{"mlvu": {"m_avg": …, "official": {"accuracy": …, "micro": …, …}, "lmms_eval": {…}}}`; `m_avg` is MLVU's mean over
    tasks of our own answers.

    Args:
        choices: the model's answers by log-probability.
        written: what it wrote when it was asked for a letter; none = the programs' scores are not known.
    """
    texts = {one.item_id: one.text for one in written}
    result: dict[str, dict[str, Any]] = {}
    for benchmark in dict.fromkeys(benchmark for benchmark, _ in _RULES):
        own = [one for one in choices if one.benchmark == benchmark]
        if own and benchmark in _MACRO:
            result[benchmark] = {"m_avg": macro_by_category(own)}
        replied = [item for item in items if item.benchmark == benchmark and item.id in texts]
        for mode in get_args(Mode) if replied else ():
            numbers = compatible_accuracy(replied, [texts[item.id] for item in replied], mode)
            result.setdefault(benchmark, {})[mode] = numbers.model_dump(exclude={"benchmark", "mode"})
    return result


def macro_by_category(predictions: Sequence[Prediction]) -> float:
    """The mean over categories of the share of right answers: MLVU's "M-Avg". What could not be asked is wrong."""
    return _macro([(prediction.category, prediction.correct) for prediction in predictions])


def _macro(scored: Sequence[tuple[str, bool]]) -> float:
    categories = sorted({category for category, _ in scored})  # a sum of floats in the same order every time
    return _mean([_mean([correct for of, correct in scored if of == category]) for category in categories])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _score(item: Item, letter: str) -> CompatibleScore:
    option = ord(letter) - ord("A") if letter else None
    return CompatibleScore(option is not None and option == item.gold, option)


def _longvideobench(item: Item, text: str) -> CompatibleScore:
    letter = _first_capital(text, _LEAD_INS, "ABCDE")
    return _score(item, letter) if letter else CompatibleScore(correct=False, option=None, random_draw=True)


def _videomme_official(item: Item, text: str) -> CompatibleScore:
    letter = _first_capital(text, _VIDEOMME_LEAD_INS, "ABCD")
    return _score(item, letter) if letter else CompatibleScore(correct=None, option=None)


def _first_capital(text: str, lead_ins: Sequence[str], letters: str) -> str:
    for lead_in in lead_ins:
        text = text.replace(lead_in, "")
    return next((character for character in text if character in letters), "")


def _mlvu_official(item: Item, text: str) -> CompatibleScore:
    """Only what stands before the bracket counts; the prompt ends with the opening one. A full stop is wrong."""
    before, bracket, _ = text.partition(")")
    letter = before[-1:] if bracket else text
    return _score(item, letter if re.fullmatch("[A-Z]", letter) else "")


def _mlvu_test_official(item: Item, text: str) -> CompatibleScore:
    letter = text.partition(")")[0].strip()
    return _score(item, letter if re.fullmatch("[A-Z]", letter) else "")


def _tempcompass(item: Item, text: str) -> CompatibleScore:
    lines = [f"{letter}. {option}" for letter, option in zip("ABCD", item.options, strict=False)]
    if text in lines:
        return _score(item, text[0])
    found = re.match(r"([ABCD])(?:\Z|[.)])", text)
    return _score(item, found[1]) if found else CompatibleScore(correct=None, option=None)


def _best_of_four(item: Item, text: str) -> CompatibleScore:
    """lmms-eval's extractor: kinds of mention from the best to the worst, and in a kind the last one."""
    said = text.strip()
    for mark in ",.!?;:'\"":
        said = said.strip(mark)
    bare, padded = said.strip(), f" {said} "

    def last(mention: str) -> list[tuple[int, str]]:
        return [(padded.rfind(mention % letter), letter) for letter in "ABCD" if mention % letter in padded]

    kinds: tuple[Callable[[], list[tuple[int, str]]], ...] = (
        lambda: [(0, bare[0])] if bare[:1] in tuple("ABCD") and not bare[1:2].isalpha() else [],
        lambda: [(0, bare[-1])] if bare[-1:] in tuple("ABCD") and not bare[-2:-1].isalpha() else [],
        lambda: _behind_phrases(padded),
        *((lambda mention=mention: last(mention)) for mention in ("(%s)", "%s.", "%s:", "%s)", "%s ", "%s")),
    )
    return _score(item, next((max(found)[1] for kind in kinds if (found := kind())), ""))


def _behind_phrases(text: str) -> list[tuple[int, str]]:
    """Behind each phrase, where it first stands, the first of every letter, however far and in whatever word."""
    places = [(text.lower().find(phrase), phrase) for phrase in _LMMS_EVAL_PHRASES]
    found = [(text.find(letter, at + len(phrase)), letter) for at, phrase in places if at >= 0 for letter in "ABCD"]
    return [(at, letter) for at, letter in found if at >= 0]


_RULES: dict[tuple[str, Mode], Callable[[Item, str], CompatibleScore]] = {
    ("longvideobench", "official"): _longvideobench,
    ("longvideobench", "lmms_eval"): _longvideobench,
    ("mlvu", "official"): _mlvu_official,
    ("mlvu", "lmms_eval"): _best_of_four,
    ("mlvu_test", "official"): _mlvu_test_official,
    ("mlvu_test", "lmms_eval"): _best_of_four,
    ("videomme", "official"): _videomme_official,
    ("videomme", "lmms_eval"): _best_of_four,
    ("tempcompass", "official"): lambda item, text: _tempcompass(item, text.replace("</s>", "").strip()),
    ("tempcompass", "lmms_eval"): _tempcompass,
}
