"""Controls: the same questions with less to see. What a gain is worth shows in how much of it is left there.

| condition    | what is shown                          | a gain that is left here comes from     |
|--------------|----------------------------------------|-----------------------------------------|
| text_only    | no frame                               | language                                |
| single_frame | one frame of the full view, drawn      | what needs no time at all               |
| shuffled     | the full view in another order         | anything but order                      |
| reversed     | the full view backwards                | anything but the direction of time      |
| circular     | everything; the options moved on by 1… | (lost here: preferring a place or letter) |
"""

import re
from collections.abc import Sequence

from tpo.records import Condition, Item, Task, View, content_id
from tpo.video.sample import backwards, shuffled, sparse

# An option that speaks of others means something else once they have moved (MMMU-Benchmark/MMMU issue 83).
_SPEAKS_OF_OTHERS = re.compile(
    r"\b(?:all|none|neither|both|any|either|some) of (?:the )?(?:above|below|these|those|them|other)"
    r"|\b(?:both|either|neither) \(?[a-h]\)? (?:and|or|nor) \(?[a-h]\b|\b\(?[a-h]\)? and \(?[a-h]\)?(?: only)?$"
    r"|\boptions? \(?[a-h]\b|\b(?:the )?(?:above|below|previous|following) options?\b",
    re.IGNORECASE,
)


def stratified(items: Sequence[Item], per_group: int | None) -> set[str]:
    """Ids of up to `per_group` choice items of each benchmark and duration group; none = of all.

    Whole videos are drawn, by a hash of their name, so that the order of the items does not matter and questions about
    one video, which are cheap together, stay together; the last video may bring a group above its number.
    """
    groups: dict[tuple[str, str], dict[str, list[str]]] = {}
    for item in items:
        if item.task is Task.CHOICE:
            videos = groups.setdefault((item.benchmark, item.duration_group), {})
            videos.setdefault(item.video, []).append(item.id)
    chosen: set[str] = set()
    for videos in groups.values():
        taken = 0
        for video in sorted(videos, key=content_id):
            if per_group is not None and taken >= per_group:
                break
            chosen.update(videos[video])
            taken += len(videos[video])
    return chosen


def shown_under(condition: Condition, full: View, seed: int) -> View | None:
    """What is left of the full view under a condition; None = nothing. Draws depend on the seed and the video alone."""
    count = len(full.timestamps_s)
    match condition:
        case Condition.TEXT_ONLY:
            return None
        case Condition.SINGLE_FRAME:
            return sparse(full, 1, seed)
        case Condition.SHUFFLED:
            return shuffled(full, 1, seed) if count > 1 else full
        case Condition.REVERSED:
            return backwards(full, 1, seed) if count > 1 else full
        case Condition.FULL | Condition.CIRCULAR:
            return full


def can_rotate(item: Item) -> bool:
    """Whether the options mean the same in any order."""
    return not any(_SPEAKS_OF_OTHERS.search(option) for option in item.options)


def rotated(item: Item, by: int) -> Item:
    """The same question with its options moved on by so many places, the gold option with them."""
    count = len(item.options)
    gold = None if item.gold is None else (item.gold + by) % count
    options = tuple(item.options[(place - by) % count] for place in range(count))
    return item.model_copy(update={"options": options, "gold": gold})
