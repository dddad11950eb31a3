"""What a language model is asked for, and what is made of its replies."""

from pathlib import Path

import pytest
from scripted import chat_that, text_of

from tpo.curation.model_queries import TASKS, ask_videos, parse_question, prompts_of
from tpo.llm.chat import Failed
from tpo.params import AskParams, LocalParams
from tpo.records import Caption, Granularity, Query, QuestionType, Reason, Rejection, Video


def params(localized: int = 4, comprehensive: int = 3, temperature: float = 0, **settings: object) -> AskParams:
    fields: dict[str, object] = {
        "asker": LocalParams(checkpoint="m", temperature=temperature),
        "captions_per_segment": 2,
        "localized_per_video": localized,
        "comprehensive_per_video": comprehensive,
        "contamination_words": 13,
    }
    return AskParams.model_validate(fields | settings)


def a_walk(num_captions: int = 6, name: str = "a") -> tuple[Video, list[Caption]]:
    video = Video(
        id=name * 64, path=f"{name}.mp4", size_bytes=1, duration_s=num_captions * 10.0, fps=2, num_frames=20, width=64,
        height=64, rotation_deg=0, codec="h264", is_vfr=False, has_audio=False, last_frame_s=9.5, longest_frame_s=0.5,
        num_restarts=1, brightness=90.0, change=3.0,
    )  # fmt: skip
    captions = [
        Caption(
            id=f"{name}{n}", video_id=video.id, start_s=10.0 * n, end_s=10.0 * n + 10, text=f"scene {n}", source="m"
        )
        for n in range(num_captions)
    ]
    return video, captions


def numbered(system: str, text: str) -> str:
    """A different question for each prompt."""
    return f"Q: What about {abs(hash(text))}?\nA: Number {len(text)}."


def test_a_prompt_names_captions_with_their_times_and_one_question_type(tmp_path: Path) -> None:
    chat, model = chat_that(tmp_path, numbered)
    ((_, records),) = ask_videos(chat, [a_walk()], params(), 0)
    queries = [record for record in records if isinstance(record, Query)]
    assert len(queries) == len(model.asked) == 4 + 3
    for query, request in zip(queries, model.asked, strict=True):
        text = text_of(request)
        assert TASKS[query.question_type] in text
        assert query.prompt_id == request.prompt_id
        assert query.asker == "scripted"
        if query.segment is None:
            assert text.count("scene") == 6
        else:
            assert text.count("scene") == 2
            assert f'{query.segment.start_s:.1f}-{query.segment.start_s + 10:.1f} s: "scene' in text


def test_types_and_segments_each_have_their_turn() -> None:
    video, captions = a_walk(9)
    prompts = prompts_of(video, captions, params(localized=64, comprehensive=20), 0)
    local = [prompt for prompt in prompts if prompt.granularity is Granularity.LOCALIZED]
    wide = [prompt for prompt in prompts if prompt.granularity is Granularity.COMPREHENSIVE]
    assert len(local) == len({(prompt.segment, prompt.question_type) for prompt in local}) == 8 * 8
    assert len({prompt.segment for prompt in local[:8]}) == 8
    assert {prompt.question_type for prompt in local[:8]} == set(QuestionType)
    assert sorted(prompt.question_type for prompt in wide) == sorted(QuestionType), "a greedy model repeats itself"
    by_chance = prompts_of(video, captions, params(comprehensive=20, temperature=0.7), 0)
    assert sum(prompt.segment is None for prompt in by_chance) == 20
    assert len({prompt.request(9999).sample for prompt in by_chance}) > 1


@pytest.mark.parametrize("num_captions", range(1, 20))
def test_no_prompt_is_written_twice_whatever_the_number_of_captions(num_captions: int) -> None:
    video, captions = a_walk(num_captions)
    names = [prompt.name for prompt in prompts_of(video, captions, params(localized=40), 3)]
    assert len(names) == len(set(names)) > 0


def test_the_prompts_depend_on_the_seed_and_the_video_alone() -> None:
    first, second = a_walk(), a_walk(name="b")
    names = [prompt.name for prompt in prompts_of(*first, params(), 0)]
    assert [prompt.name for prompt in prompts_of(first[0], first[1][::-1], params(), 0)] == names
    assert [prompt.name for prompt in prompts_of(*first, params(), 1)] != names
    assert [prompt.name[1:] for prompt in prompts_of(*second, params(), 0)] != [name[1:] for name in names]


READABLE = {
    "as asked": "Q: What is red?\nA: The door.",
    "in bold": "**Q:** What is red?\n**A:** The door.",
    "in words": "Question: What is red?\nAnswer: The door.",
    "as a list": "- Q: What is red?\n- A: The door.",
    "on more lines": "Q: What\nis red?\n\nA: The\n door.",
    "with words around it": "Sure! Here is one.\n\nQ: What is red?\nA: The door.\n\nShall I write another?",
}


@pytest.mark.parametrize("case", READABLE)
def test_a_question_and_an_answer_are_found_in_a_reply(case: str) -> None:
    assert parse_question(READABLE[case]) == ("What is red?", "The door.")


@pytest.mark.parametrize(
    "reply",
    [
        "What is red?",
        "Q: What is red?",
        "A: The door.\nQ: What is red?",
        "Q: What is red?\nA: The door.\nQ: And blue?\nA: The sky.",
        "Q: \nA: The door.",
        "Q: What is red?\nA: …",
        '{"question": "What is red?", "answer": "The door."}',
        "<html><body>502 Bad Gateway</body></html>",
    ],
)
def test_anything_else_is_not_guessed_at(reply: str) -> None:
    assert parse_question(reply) is None


SET_ASIDE: dict[str, tuple[str | Failed, Reason]] = {
    "nothing to ask": ("None", Reason.NOTHING_TO_ASK),
    "nothing to ask, in bold": ("**None.**", Reason.NOTHING_TO_ASK),
    "another format": ("What is red? The door.", Reason.BAD_REPLY),
    "a refusal": ("I cannot assist with that.", Reason.REFUSED),
    "no words": ("\n", Reason.EMPTY_REPLY),
    "far too much": ("Q: " + "why " * 25_000 + "?\nA: x", Reason.RUNAWAY_REPLY),
    "no reply": (Failed(Reason.REQUEST_FAILED, "500"), Reason.REQUEST_FAILED),
}


@pytest.mark.parametrize("case", SET_ASIDE)
def test_a_prompt_without_a_question_is_set_aside_and_so_is_a_video_without_any(tmp_path: Path, case: str) -> None:
    reply, reason = SET_ASIDE[case]
    chat, _ = chat_that(tmp_path, lambda *_: reply)
    ((video_id, records),) = ask_videos(chat, [a_walk()], params(localized=2, comprehensive=1), 0)
    *prompts, last = records
    assert [one.reason for one in prompts if isinstance(one, Rejection)] == [reason] * 3
    assert len({one.item for one in prompts if isinstance(one, Rejection)}) == 3
    assert isinstance(last, Rejection)
    assert (last.item, last.reason) == (video_id, Reason.NOTHING_TO_ASK)
    assert chat.usage.failed == (0 if reason in (Reason.NOTHING_TO_ASK, Reason.BAD_REPLY) else 3)


def test_the_same_question_in_other_letters_is_asked_once_a_video(tmp_path: Path) -> None:
    chat, _ = chat_that(
        tmp_path, lambda _, text: f"Q: What's {'the' if 'scene 0' in text else 'THE'} red thing?\nA: A door."
    )
    found = dict(ask_videos(chat, [a_walk(), a_walk(name="b")], params(), 0))
    for records in found.values():
        assert [type(record) for record in records].count(Query) == 1
        assert {one.reason for one in records if isinstance(one, Rejection)} == {Reason.DUPLICATE}
        assert len(records) == 7, "each prompt ends as a question or a rejection"


def blind_script(says: dict[str, str]) -> object:
    """Asks what is red, in other words each time; guesses and compares as told."""

    def say(system: str, text: str) -> str:
        if system.startswith("You are asked a question"):
            return says["guess"]
        if system.startswith("You compare answers"):
            return says["compare"]
        return numbered(system, text)

    return say


def test_questions_are_asked_blind_scored_and_if_wanted_set_aside(tmp_path: Path) -> None:
    for name, compare, score in (("a", "1: Yes\n2: No", 0.5), ("b", "1: No\n2: No", 0.0)):
        chat, model = chat_that(tmp_path / name, blind_script({"guess": "A door.", "compare": compare}))
        ((_, records),) = ask_videos(chat, [a_walk()], params(2, 1, blind_samples=2), 0)
        queries = [record for record in records if isinstance(record, Query)]
        assert [query.blind.score for query in queries if query.blind] == [score] * 3
        assert {query.blind.answers for query in queries if query.blind} == {("A door.", "A door.")}
        guesses = [request for request in model.asked if request.system.startswith("You are asked")]
        assert len(guesses) == 6
        assert not [request for request in guesses if "scene" in text_of(request)], "no caption is shown"
        ((_, kept),) = ask_videos(chat, [a_walk()], params(2, 1, blind_samples=2, max_blind_score=0.4), 0)
        dropped = [one for one in kept if isinstance(one, Rejection) and one.reason is Reason.BLIND_ANSWERABLE]
        assert len(dropped) == (3 if score > 0.4 else 0)


@pytest.mark.parametrize("compare", ["Yes", "1: Yes", "1: Yes\n2: Maybe", "1: Yes\n1: No", "1: Yes\n2: No\n3: No"])
def test_a_blind_check_that_cannot_be_read_leaves_the_question_unchecked(tmp_path: Path, compare: str) -> None:
    chat, _ = chat_that(tmp_path, blind_script({"guess": "A door.", "compare": compare}))
    ((_, records),) = ask_videos(chat, [a_walk()], params(2, 1, blind_samples=2, max_blind_score=0.0), 0)
    assert [record.blind for record in records if isinstance(record, Query)] == [None] * 3
