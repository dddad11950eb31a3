"""How a question of a benchmark is put to a model: in the benchmark's own words, in lmms-eval's, or bare.

| style     | prompt                                         | possible answers  | for                              |
|-----------|------------------------------------------------|-------------------|----------------------------------|
| official  | as the benchmark's authors ask                 | A, B, C, …        | numbers beside the leaderboard's |
| lmms_eval | as lmms-eval 0.7.3 asks                        | A, B, C, …        | numbers beside lmms-eval's       |
| question  | the question alone                             | the options' text | models that never learnt letters |
"""

from collections.abc import Sequence
from string import ascii_uppercase

from tpo.params import PromptStyle
from tpo.records import Item, Prompt

# The last line of LongVideoBench's official prompt.
INSTRUCTION = "Answer with the option's letter from the given choices directly."


def render(item: Item, style: PromptStyle, subtitles: Sequence[str] = ()) -> Prompt:
    """What a model is asked about `item`, with the subtitle lines that belong to the frames it is shown."""
    if style == "question":
        return Prompt(user="\n".join([*subtitles, item.question]))
    options = [f"{letter}. {option}" for letter, option in zip(ascii_uppercase, item.options, strict=False)]
    return Prompt(user="\n".join([*subtitles, item.question, *options, INSTRUCTION]))


def candidates(item: Item, style: PromptStyle) -> tuple[str, ...]:
    """One possible answer per option, in the order of the options."""
    return item.options if style == "question" else tuple(ascii_uppercase[: len(item.options)])
