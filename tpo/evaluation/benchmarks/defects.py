"""What is wrong with questions that are asked all the same; scores are given with and without them.

Most is seen by rule, so that a corrected file is believed and any benchmark's file is checked. `DISPUTED` names what
no rule sees. `LISTED` is what we counted in the files of 2026; it only serves to notice that a file is another one.
Ids and reasons only: no text of a benchmark is here.
"""

from collections import Counter
from collections.abc import Sequence

from tpo.records import Item, Task

SAME_OPTIONS = "two wrong options are the same"
GOLD_TWICE = "the right option is there twice"
EMPTY_OPTION = "a wrong option is empty"
EMPTY_GOLD = "the right option is empty"
NO_GOLD = "the file's answer is none of the options"
FEW_OPTIONS = "there are fewer options than this benchmark's questions have"
DURATION = "the annotated duration is longer than any video of this benchmark"
ASKED_TWICE = "the question is asked twice about the video"

_VIDEOMME_34 = "users dispute the answer (https://github.com/MME-Benchmarks/Video-MME/issues/34)"
DISPUTED = {f"videomme/{question}": _VIDEOMME_34 for question in ("603-3", "814-1", "811-3")}

# Rows that nobody can ask, whatever they download: the question is empty too. They are set aside, and it is not the
# download that is incomplete.
UNASKABLE = {"mlvu/7_topic_reasoning.json:26"}

# MLVU dev at JUNJIE99/MLVU fd060c1, by file and row; Video-MME at lmms-lab/Video-MME.
LISTED = {
    **dict.fromkeys(("mlvu/2_needle:34", "mlvu/2_needle:338"), NO_GOLD),
    **dict.fromkeys(("mlvu/3_ego:119", "mlvu/3_ego:313"), EMPTY_GOLD),
    "mlvu/1_plotQA:23": EMPTY_OPTION,
    **dict.fromkeys((f"mlvu/1_plotQA:{row}" for row in (335, 387, 493)), GOLD_TWICE),
    **dict.fromkeys(("mlvu/6_anomaly_reco:66", "mlvu/7_topic_reasoning:163"), GOLD_TWICE),
    "mlvu/1_plotQA:18": SAME_OPTIONS,
    **dict.fromkeys((f"mlvu/6_anomaly_reco:{row}" for row in (2, 8, 45, 127, 130, 142, 164, 179)), SAME_OPTIONS),
    **dict.fromkeys((f"mlvu/3_ego:{row}" for row in (68, 70, 76, 115, 176, 189, 234, 323)), ASKED_TWICE),
    "mlvu/6_anomaly_reco:49": DURATION,
    **dict.fromkeys((f"videomme/{q}" for q in ("119-1", "214-3", "321-2", "375-3", "624-2", "627-2")), GOLD_TWICE),
    **dict.fromkeys((f"videomme/{q}" for q in ("325-1", "587-3", "648-2", "894-1")), SAME_OPTIONS),
}


def with_defects(item: Item) -> Item:
    """`item`, with what a rule sees in its options and what is disputed about it added to its defects."""
    found = (*item.defects, *_in_options(item), *([DISPUTED[item.id]] if item.id in DISPUTED else []))
    return item.model_copy(update={"defects": found}) if found != item.defects else item


def with_repeats(items: Sequence[Item]) -> list[Item]:
    """`items`, with those marked that ask about a video what another one asks."""
    asked = Counter((item.video, item.question.strip()) for item in items)
    return [
        item.model_copy(update={"defects": (*item.defects, ASKED_TWICE)})
        if asked[item.video, item.question.strip()] > 1
        else item
        for item in items
    ]


def unseen(items: Sequence[Item]) -> list[str]:
    """The ids of `LISTED` that are among `items` without the defect: the file was corrected, or is another release."""
    return [item.id for item in items if item.id in LISTED and LISTED[item.id] not in item.defects]


def _in_options(item: Item) -> list[str]:
    if item.task is not Task.CHOICE:
        return []
    texts = [option.strip() for option in item.options]
    gold = None if item.gold is None else texts[item.gold]
    found = []
    if gold == "":
        found.append(EMPTY_GOLD)
    elif "" in texts:
        found.append(EMPTY_OPTION)
    if gold is not None and texts.count(gold) > 1:
        found.append(GOLD_TWICE)
    elif len(set(texts)) < len(texts):
        found.append(SAME_OPTIONS)
    return found
