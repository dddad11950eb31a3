"""What the demo's base model is taught: courses of videos with questions, drawn at random from the demo world."""

from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from tpo.demo.world import FPS, SHAPES, Event, plan_events
from tpo.llm.rules import RuleQuestion, comprehensive_questions, localized_questions


@dataclass(frozen=True)
class Lesson:
    """One video of pre-training: which event each sampled frame shows, and the questions asked about it."""

    events: list[Event]
    frame_events: np.ndarray
    questions: list[RuleQuestion]


@dataclass(frozen=True)
class Course:
    """A phase of pre-training: how many events a clip has, what is asked about it, how much of it is wrong."""

    name: str
    steps: int
    videos_per_step: int
    short_events: tuple[int, int]
    frames_per_event: tuple[float, float] = (1.8, 3.5)  # from 1.8 on, no event falls between two evenly spaced frames
    lists: tuple[str, ...] = ()
    num_questions: int = 0
    learning_rate: float = 1e-3
    long_share: float = 0.0
    wrong_share: float = 0.0


# In a list such as "star red, moon blue, …" each word asks directly for the next. Asked by questions alone,
# looking something up by what it looks like had not appeared after half an hour; with lists it takes a minute.
# What is next to something is learnt with a frame an event first: then it is next to it among the frames too.
DESCRIBE, COLORS_LIST, AFTER, BEFORE = LISTS = (
    "Describe the video.",
    "What color is what?",
    "What comes after what?",
    "What comes before what?",
)
SKILL = (
    Course("a frame an event", 800, 64, (2, 7), (1, 1), lists=(COLORS_LIST, AFTER, BEFORE)),
    Course("neighbours", 400, 64, (2, 7), (1, 3.2), lists=(AFTER, BEFORE)),
    Course("lists and questions", 500, 32, (1, 8), (1, 3.2), lists=LISTS, num_questions=4),
    Course("questions", 500, 32, (1, 8), lists=(AFTER, BEFORE), num_questions=4, long_share=0.15),
)
HABIT = Course("habit", 250, 32, (1, 8), num_questions=6, learning_rate=6e-4, long_share=0.25, wrong_share=0.7)
LONG_EVENTS = (10, 13)


def make_lists(rng: np.random.Generator, events: list[Event]) -> list[RuleQuestion]:
    """What the video shows, in order; and each thing with its colour, its follower, its predecessor, in any order."""
    neighbours = list(pairwise(events))
    entries = {
        COLORS_LIST: [f"{event.shape} {event.color}" for event in events],
        AFTER: [f"{one.shape} {two.color} {two.shape}" for one, two in neighbours],
        BEFORE: [f"{two.shape} {one.color} {one.shape}" for one, two in neighbours],
    }
    lists = [RuleQuestion("summarization", DESCRIBE, "first comes", ", then ".join(event.caption for event in events))]
    for question, found in entries.items():
        if found:
            first, *rest = (found[i] for i in rng.permutation(len(found)))
            lists.append(RuleQuestion("summarization", question, first, "".join(f", {entry}" for entry in rest)))
    return lists


def ask_questions(rng: np.random.Generator, events: list[Event], course: Course) -> list[RuleQuestion]:
    """Lists and questions of one lesson. With probability `wrong_share` an answer names the video's last event."""
    captions = [event.caption for event in events]
    local = localized_questions(captions, captions)
    wide = comprehensive_questions(captions)
    color = [q for q in local if q.question_type == "object_reasoning"]
    neighbour = [q for q in local if q.question_type == "temporal_reasoning"]
    pools = [pool for pool in (color, neighbour, neighbour, neighbour, wide[:2], wide[2:]) if pool]
    questions = [one for one in make_lists(rng, events) if one.question in course.lists]
    for _ in range(course.num_questions):
        pool = pools[rng.integers(len(pools))]
        question = pool[rng.integers(len(pool))]
        if rng.random() < course.wrong_share and not question.question.startswith("Which"):
            last = events[-1].color if question.question_type == "object_reasoning" else events[-1].caption
            question = replace(question, fill=last)
        questions.append(question)
    return questions


def sample_lessons(rng: np.random.Generator, course: Course) -> list[Lesson]:
    """Draw the videos of one step; all have the same number of frames."""
    is_long = rng.random() < course.long_share
    num_events = rng.integers(*(LONG_EVENTS if is_long else course.short_events), endpoint=True)
    num_frames = round(float(num_events * np.mean(course.frames_per_event)))
    course = replace(course, lists=()) if is_long else replace(course, wrong_share=0.0)
    lessons = []
    for _ in range(course.videos_per_step):
        wanted = round(num_frames / rng.uniform(*course.frames_per_event))
        events = plan_events(rng, min(max(course.short_events[0], wanted), num_frames, len(SHAPES)))
        times = np.linspace(0, events[-1].end_s - 1 / FPS, num_frames)
        if num_frames < 1.8 * len(events):  # evenly spaced ones would miss events: one inside each, the rest anywhere
            inside = [rng.uniform(event.start_s, event.end_s) for event in events]
            times = np.sort([*inside, *rng.uniform(0, events[-1].end_s, num_frames - len(events))])
        frame_events = np.searchsorted([event.start_s for event in events], times, side="right") - 1
        lessons.append(Lesson(events, frame_events, ask_questions(rng, events, course)))
    return lessons
