"""The demo world's needles and haystacks, in the layout of `tpo.evaluation.needle`.

    write_needles(Path("data/demo/benchmarks"), num_needles=16, num_haystacks=4, num_events=10, seed=0)

A needle is three events, one after the other, and asks what comes right after or before one of them. The other two are
both among the options: whoever sees one frame, or all of them in no order, cannot tell which is right. Haystacks show
none of the shapes that needles and their options are made of.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tpo.demo.world import COLORS, SHAPES, Event, plan_events, write_video
from tpo.llm.rules import RuleQuestion, definite, localized_questions

SEED_STREAM = 3  # 1 and 2 are those of the training and benchmark videos
NUM_OPTIONS = 4
NEEDLE_SHAPES = 6
MAX_HAYSTACK_EVENTS = len(SHAPES) - NEEDLE_SHAPES
_EVENTS = 3


def write_needles(root: Path, num_needles: int, num_haystacks: int, num_events: int, seed: int) -> None:
    """Write `needle/` below `root`. The same arguments give the same bytes.

    Args:
        num_events: of a haystack, 10 s each on average, at most `MAX_HAYSTACK_EVENTS`.
    """
    folder = root / "needle"
    for name in ("clips", "haystacks"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, SEED_STREAM])
    shapes = [str(shape) for shape in rng.permutation(list(SHAPES))]
    ours, theirs = shapes[:NEEDLE_SHAPES], shapes[NEEDLE_SHAPES:]
    for number in range(num_haystacks):
        events = plan_events(rng, num_events, theirs)
        write_video(folder / f"haystacks/synthetic-{number:03d}.mp4", events, phase=float(rng.uniform(0, 6.28)))
    rows = []
    for number in range(num_needles):
        events = plan_events(rng, _EVENTS, ours)
        name = f"synthetic-{number:03d}"
        write_video(folder / f"clips/{name}.mp4", events, phase=float(rng.uniform(0, 6.28)))
        rows.append({"id": name, "clip": f"{name}.mp4", **_ask(rng, events, ours, turn=number)})
    (folder / "needles.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    (folder / "README.md").write_text(
        "SYNTHETIC. Made by `tpo.demo.needles`; scores on it say nothing about real videos.\n", encoding="utf-8"
    )


def _ask(rng: np.random.Generator, events: Sequence[Event], shapes: Sequence[str], turn: int) -> dict[str, object]:
    """A question about neighbours, each of the four kinds that three events give in turn, and its options."""
    captions = [event.caption for event in events]
    order = [q for q in localized_questions(captions, captions) if q.question_type == "temporal_reasoning"]
    question = order[turn % len(order)]
    options = _options(rng, question, events, shapes)
    places = rng.permutation(NUM_OPTIONS)
    return {
        "question": question.question,
        "options": [options[place] for place in places],
        "gold": int(np.flatnonzero(places == 0)[0]),
    }


def _options(
    rng: np.random.Generator, question: RuleQuestion, events: Sequence[Event], shapes: Sequence[str]
) -> list[str]:
    """The right answer, the needle's other event, and two that are not shown anywhere."""
    unnamed = [event.caption for event in events if definite(event.caption) not in question.question]
    other = next(caption for caption in unnamed if caption != question.fill)
    absent = [shape for shape in rng.permutation(shapes) if shape not in {event.shape for event in events}]
    colors = rng.choice(list(COLORS), NUM_OPTIONS - 2)
    unseen = [Event(0, 1, str(color), str(shape)).caption for color, shape in zip(colors, absent, strict=False)]
    return [question.answer_with(fill) for fill in (question.fill, other, *unseen)]
