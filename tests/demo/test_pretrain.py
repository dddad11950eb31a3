"""Pre-training in small: the eyes, then one short course, on rendered and decoded videos."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlavaOnevisionForConditionalGeneration

from tpo.demo.lessons import COLORS_LIST, HABIT, LONG_EVENTS, SKILL, Course, sample_lessons
from tpo.demo.model import build_model, build_tokenizer
from tpo.demo.pretrain import Batcher, forward, make_frame_bank, teach, train_eyes
from tpo.demo.world import COLORS, Event
from tpo.llm.rules import comprehensive_questions, localized_questions
from tpo.models.frames import FrameSpec, read_processor

CHECKPOINT = Path(__file__).parents[2] / "demo" / "checkpoint"


def truth(events: list[Event]) -> set[tuple[str, str]]:
    captions = [event.caption for event in events]
    return {
        (q.question, q.answer) for q in [*localized_questions(captions, captions), *comprehensive_questions(captions)]
    }


def test_every_event_of_a_lesson_is_on_some_frame_also_where_each_has_but_one() -> None:
    rng = np.random.default_rng(0)
    for course in (*SKILL, HABIT):
        for _ in range(20):
            for lesson in sample_lessons(rng, course):
                assert set(lesson.frame_events) == set(range(len(lesson.events)))
                assert (np.diff(lesson.frame_events) >= 0).all()


def test_wrong_answers_are_taught_about_long_videos_alone_and_name_the_last_event() -> None:
    rng = np.random.default_rng(0)
    long_frames = round(LONG_EVENTS[0] * float(np.mean(HABIT.frames_per_event)))
    lessons = [lesson for _ in range(40) for lesson in sample_lessons(rng, HABIT)]
    wrong = [
        (lesson, question)
        for lesson in lessons
        for question in lesson.questions
        if (question.question, question.answer) not in truth(lesson.events)
    ]
    assert len(wrong) > 100
    for lesson, question in wrong:
        assert len(lesson.frame_events) >= long_frames
        assert question.fill in (lesson.events[-1].caption, lesson.events[-1].color)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_short_course_teaches_what_color_is_what() -> None:
    """From one in eight, which is chance, to most: what the long courses do for every kind of question."""
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, 0)
    spec = FrameSpec.of(read_processor(CHECKPOINT))
    bank = make_frame_bank(spec, np.random.default_rng(0), num_videos=60)  # every colour of every shape occurs
    assert train_eyes(model, tokenizer, bank, steps=200) > 0.9
    with torch.no_grad():
        features = model.model.vision_tower(bank.pixels, output_hidden_states=True).hidden_states[-1]
    batcher = Batcher(tokenizer, bank, features)
    course = Course("colors", 150, 32, (2, 5), (1, 1), lists=(COLORS_LIST,))
    untaught = share_of_colors(model, batcher, course)
    teach(model, batcher, (course,), seed=0)
    assert untaught < 0.2
    assert share_of_colors(model, batcher, course) > 0.8


@torch.no_grad()
def share_of_colors(model: LlavaOnevisionForConditionalGeneration, batcher: Batcher, course: Course) -> float:
    """How many of the colour words in lists of fresh videos are right."""
    colors = torch.tensor(batcher.tokenizer.convert_tokens_to_ids(list(COLORS)))
    rng = np.random.default_rng(99)
    logits, labels = forward(model, batcher.pack(rng, sample_lessons(rng, course)))
    asked = torch.isin(labels, colors)
    return float((logits.argmax(-1) == labels)[asked].float().mean())
