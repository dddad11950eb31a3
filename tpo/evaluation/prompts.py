"""How a question of a benchmark is put to a model: in the benchmark's own words, in lmms-eval's, or bare.

| style     | prompt                                         | possible answers  | for                              |
|-----------|------------------------------------------------|-------------------|----------------------------------|
| official  | as the benchmark's authors ask                 | A, B, C, …        | numbers beside the leaderboard's |
| lmms_eval | as lmms-eval 0.7.3 asks                        | A, B, C, …        | numbers beside lmms-eval's       |
| question  | the question alone                             | the options' text | models that never learnt letters |

A benchmark that is not here is asked in LongVideoBench's words, in both styles.

LongVideoBench puts each subtitle line between the frames that it is said under, in both styles. A model here takes its
video in one piece, so all lines stand before the question; `style_name` says so. That is ours.
"""

from collections.abc import Callable, Sequence
from string import ascii_uppercase

from tpo.params import PromptStyle
from tpo.records import Item, Prompt, Task

# The last line of LongVideoBench's official prompt.
INSTRUCTION = "Answer with the option's letter from the given choices directly."

_WATCH = "Carefully watch this video and pay attention to every detail. Based on your observations, "
_MLVU_CHOICE = f"{_WATCH}select the best option that accurately addresses the question."
_MLVU_OPEN = f"{_WATCH}answer the given questions."
_SELECT = "Select the best answer to the following multiple-choice question based on the video{}. "
_RESPOND = "Respond with only the letter (A, B, C, or D) of the correct option."

Renderer = Callable[[Item, Sequence[str]], Prompt]


def render(item: Item, style: PromptStyle, subtitles: Sequence[str] = ()) -> Prompt:
    """What a model is asked about `item`.

    Args:
        subtitles: the lines under the frames that it is shown. With none it is asked as one of a video without
            subtitles; lmms-eval's `videomme_w_subtitle` would say "No subtitles available" in their place.
    """
    if style == "question":
        return Prompt(user="\n".join([*subtitles, item.question.strip()]))
    if item.task is not Task.CHOICE:
        # lmms-eval has no such task; spans are asked for in the question itself.
        system = _MLVU_OPEN if style == "official" and item.benchmark in ("mlvu", "mlvu_test") else ""
        return Prompt(system=system, user="\n".join([*subtitles, item.question]))
    renderers = _OFFICIAL if style == "official" else _LMMS_EVAL
    return renderers.get(item.benchmark, renderers["longvideobench"])(item, subtitles)


def candidates(item: Item, style: PromptStyle) -> tuple[str, ...]:
    """One possible answer per option, in the order of the options; none of an item without options."""
    if style == "question":
        return tuple(option.strip() for option in item.options)
    return tuple(ascii_uppercase[: len(item.options)])


def style_name(benchmark: str, style: PromptStyle, *, subtitles: bool) -> str:
    """The name of a prompt in results: with what it shows, and how it differs from its model."""
    if not subtitles:
        return style
    moved = benchmark == "longvideobench" and style != "question"
    return f"{style}, subtitles before the question instead of between the frames" if moved else f"{style}, subtitles"


def style_names(items: Sequence[Item], style: PromptStyle, *, subtitles: bool) -> dict[str, str]:
    """`style_name` of each benchmark among `items`; of one that has no subtitles as of one shown without."""
    has_any = {item.benchmark for item in items if item.subtitles} if subtitles else set()
    benchmarks = sorted({item.benchmark for item in items})
    return {benchmark: style_name(benchmark, style, subtitles=benchmark in has_any) for benchmark in benchmarks}


def _listed(item: Item, form: str = "{}. {}") -> str:
    return "\n".join(form.format(letter, option) for letter, option in zip(ascii_uppercase, item.options, strict=False))


def _longvideobench_official(item: Item, subtitles: Sequence[str]) -> Prompt:
    return Prompt(user="\n".join([*subtitles, f"Question: {item.question}", _listed(item), INSTRUCTION]))


def _longvideobench_lmms_eval(item: Item, subtitles: Sequence[str]) -> Prompt:
    return Prompt(user="\n".join([*subtitles, item.question, _listed(item), f"{INSTRUCTION}\n"]))


def _mlvu_official(item: Item, subtitles: Sequence[str]) -> Prompt:
    question = f"Question: {item.question}\nOptions:\n{_listed(item, '({}) {}')}".rstrip()
    user = "\n".join([*subtitles, question, "Only give the best option."])
    return Prompt(system=_MLVU_CHOICE, user=user, prefill="Best Option: (")


def _mlvu_lmms_eval(item: Item, subtitles: Sequence[str]) -> Prompt:
    """Its copy of the dev set has the options in the question. What others prefill is the end of the user's turn."""
    ending = ["Only give the best option.", "Best option: ("]
    return Prompt(user="\n".join([*subtitles, item.question, _listed(item, "({}) {}"), *ending]))


def _mlvu_test_lmms_eval(item: Item, subtitles: Sequence[str]) -> Prompt:
    """Of the test set it asks without any instruction."""
    return Prompt(user="\n".join([*subtitles, item.question, _listed(item, "({}) {}")]))


def _videomme_official(item: Item, subtitles: Sequence[str]) -> Prompt:
    said = ["This video's subtitles are listed below:", *subtitles] if subtitles else []
    ask = _SELECT.format("") + _RESPOND
    return Prompt(user="\n".join([*said, ask, item.question, _listed(item), "The best answer is:"]))


def _videomme_lmms_eval(item: Item, subtitles: Sequence[str]) -> Prompt:
    """It speaks of subtitles also where there are none; with them (`videomme_w_subtitle`) it ends in another way."""
    said = ["This video's subtitles are listed below: ", *subtitles] if subtitles else []
    ask = _SELECT.format(" and the subtitles") + _RESPOND
    ending = "The best answer is:" if subtitles else f"\n{INSTRUCTION}"
    return Prompt(user="\n".join([*said, ask, item.question, _listed(item), ending]))


def _tempcompass(item: Item, subtitles: Sequence[str]) -> Prompt:
    return Prompt(user="\n".join([*subtitles, item.question, _listed(item), "Please directly give the best option:"]))


_OFFICIAL: dict[str, Renderer] = {
    "longvideobench": _longvideobench_official,
    "mlvu": _mlvu_official,
    "mlvu_test": _mlvu_official,
    "videomme": _videomme_official,
    "tempcompass": _tempcompass,
}
_LMMS_EVAL: dict[str, Renderer] = {
    "longvideobench": _longvideobench_lmms_eval,
    "mlvu": _mlvu_lmms_eval,
    "mlvu_test": _mlvu_test_lmms_eval,
    "videomme": _videomme_lmms_eval,
    "tempcompass": _tempcompass,
}
