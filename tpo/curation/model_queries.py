"""ask, by a language model: one prompt, one question and its answer, or None (arXiv 2501.13919, figure 8).

A prompt is about captions (of a segment, or of the whole video) and names one of the eight question types. The model
sees captions only, as in the paper. Its answer is kept as the reference for the judge; nothing is trained on it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tpo.curation.blind import check_blind
from tpo.curation.queries import STAGE, segments_of
from tpo.llm.chat import Chat, ChatRequest, Failed, Reply
from tpo.llm.judging import agreement
from tpo.llm.quoting import DATA_NOTICE, caption_lines
from tpo.params import AskParams
from tpo.records import Caption, Granularity, Query, QuestionType, Reason, Record, Rejection, Segment, Video, content_id

# The paper prints the intent of this prompt, not its task strings; the wording is ours.
_INSTRUCTIONS = f"""You write one question about a video, and its answer. You are given captions of the video with \
their times. {DATA_NOTICE} Whoever is asked sees the video and not the captions: ask about what is seen, and never \
speak of captions. The question must have exactly one right answer, which the captions give.

Reply with two lines and nothing else:
Q: the question
A: the answer, one short sentence
If no good question of the wanted kind can be asked here, reply with the one word None."""

TASKS = {
    QuestionType.TEMPORAL_REASONING: "Ask about order: what happens before, after or while something else does.",
    QuestionType.ACTION_REASONING: "Ask what someone or something does, or how or to what end it is done.",
    QuestionType.CAUSAL_REASONING: "Ask why something happens, or what follows from it, where the captions show it.",
    QuestionType.INFORMATION_EXTRACTION: "Ask for one particular fact: a number, a name, a text, a kind, a place.",
    QuestionType.DESCRIPTIVE: "Ask how someone, something or a place looks.",
    QuestionType.SUMMARIZATION: "Ask for what happens, taken together.",
    QuestionType.OBJECT_REASONING: "Ask about an object: what it is, what is done with it, how it changes.",
    QuestionType.SPATIAL_REASONING: "Ask where something is, or how things lie to each other.",
}
_SCOPE = {
    Granularity.LOCALIZED: (
        "The question is about this part alone. It must be clear which moment of the whole video it means, without "
        "times: name what is seen then."
    ),
    Granularity.COMPREHENSIVE: "The question is about the whole video: one moment alone must not be enough to answer.",
}
_LABEL = re.compile(r"^\W*(q|a|question|answer)\W*:\W*?", re.IGNORECASE)
_NONE = re.compile(r"\W*none\W*", re.IGNORECASE)


@dataclass(frozen=True)
class Prompt:
    """What the model is to be asked for: a question of one type, about a segment or the whole video."""

    video: Video
    captions: Sequence[Caption]
    question_type: QuestionType
    segment: Segment | None
    sample: int

    @property
    def granularity(self) -> Granularity:
        return Granularity.COMPREHENSIVE if self.segment is None else Granularity.LOCALIZED

    @property
    def name(self) -> str:
        """Names it in a rejection."""
        where = f"{self.segment.start_s:.1f}-{self.segment.end_s:.1f}s" if self.segment else "all"
        return f"{self.video.path}#{where}/{self.question_type}" + (f"/{self.sample}" if self.sample else "")

    def request(self, max_chars: int) -> ChatRequest:
        lines = caption_lines(self.captions, max_chars)
        wanted = f"{TASKS[self.question_type]} {_SCOPE[self.granularity]}"
        return ChatRequest(_INSTRUCTIONS, (f"Captions:\n{lines}\n\nWanted: {wanted}",), self.sample)


def ask_videos(
    chat: Chat, jobs: Sequence[tuple[Video, Sequence[Caption]]], params: AskParams, seed: int
) -> list[tuple[str, list[Record]]]:
    """For each video its id with its queries and what was set aside.

    A prompt that gave no question is named by `Prompt.name`, a question that was set aside by its id. A video that is
    left without any has one rejection of its own, whose `item` is the video's id.
    """
    prompts = [prompt for video, captions in jobs for prompt in prompts_of(video, captions, params, seed)]
    requests = [prompt.request(params.max_caption_chars) for prompt in prompts]
    asked = [
        _read(prompt, request, reply, chat.id)
        for prompt, request, reply in zip(prompts, requests, chat.ask_all(requests), strict=True)
    ]
    found: dict[str, list[Record]] = {video.id: [] for video, _ in jobs}
    for prompt, record in zip(prompts, asked, strict=True):
        of_video = found[prompt.video.id]
        earlier = [query for query in of_video if isinstance(query, Query)]
        of_video.append(_new(record, earlier, params.duplicate_agreement) if isinstance(record, Query) else record)
    checked = check_blind(chat, [r for records in found.values() for r in records if isinstance(r, Query)], params)
    for video, captions in jobs:
        records = [checked[one.id] if isinstance(one, Query) else one for one in found[video.id]]
        if not any(isinstance(record, Query) for record in records):
            reason = Reason.NOTHING_TO_ASK if records else Reason.TOO_FEW_CAPTIONS
            detail = f"{len(captions)} caption(s) and {len(records)} prompt(s) gave no question"
            records.append(_rejection(video.id, reason, detail))
        found[video.id] = records
    return list(found.items())


def prompts_of(video: Video, captions: Sequence[Caption], params: AskParams, seed: int) -> list[Prompt]:
    """As many prompts of each granularity as `params` says, spread over question types and over the video.

    A segment and a type come together once, and the whole video and a type once unless the model answers by chance.
    """
    ordered = sorted(captions, key=lambda caption: (caption.start_s, caption.end_s))
    rng = np.random.default_rng([seed, int(video.id[:8], 16)])
    types = [params.question_types[i] for i in rng.permutation(len(params.question_types))]
    segments = segments_of(video, ordered, params.captions_per_segment)
    segments = [segments[i] for i in rng.permutation(len(segments))]
    by_chance = params.asker != "rule" and params.asker.temperature > 0
    localized = min(params.localized_per_video, len(segments) * len(types))
    comprehensive = params.comprehensive_per_video if by_chance else min(params.comprehensive_per_video, len(types))
    turns = (divmod(number, len(segments)) for number in range(localized))
    # A type later in each turn, so that a segment meets them all before it meets one again.
    of_segments = [Prompt(video, segments[at][1], types[(at + n) % len(types)], segments[at][0], 0) for n, at in turns]
    turns = (divmod(number, len(types)) for number in range(comprehensive if ordered else 0))
    return of_segments + [Prompt(video, ordered, types[at], None, n) for n, at in turns]


def parse_question(text: str) -> tuple[str, str] | None:
    """Question and answer of a reply of the form `Q: …`, `A: …`; None where there is not exactly one of each.

    Each may go on over several lines, up to an empty one. Words before the question or behind an empty line after the
    answer, and emphasis and list marks around the labels, are overlooked.
    """
    parts: list[tuple[str, list[str]]] = []
    is_open = False
    for line in text.splitlines():
        label = _LABEL.match(line)
        if label:
            parts.append((label[1][0].lower(), [line[label.end() :]]))
        elif is_open and line.strip():
            parts[-1][1].append(line)
        is_open = bool(label) or (is_open and bool(line.strip()))
    if [label for label, _ in parts] != ["q", "a"]:
        return None
    question, answer = (" ".join(" ".join(lines).split()).strip("*_ ") for _, lines in parts)
    return (question, answer) if all(map(_has_words, (question, answer))) else None


def _read(prompt: Prompt, request: ChatRequest, reply: Reply | Failed, model_id: str) -> Query | Rejection:
    if isinstance(reply, Failed):
        return _rejection(prompt.name, reply.reason, reply.detail)
    if _NONE.fullmatch(reply.text):
        return _rejection(prompt.name, Reason.NOTHING_TO_ASK, "the model answered None")
    parsed = parse_question(reply.text)
    if parsed is None:
        return _rejection(prompt.name, Reason.BAD_REPLY, f"expected 'Q: …' and 'A: …', got {reply.text[:200]!r}")
    question, answer = parsed
    where = prompt.segment.model_dump() if prompt.segment else None
    return Query(
        id=content_id(prompt.video.id, prompt.granularity, where, question),
        video_id=prompt.video.id,
        granularity=prompt.granularity,
        question_type=prompt.question_type,
        segment=prompt.segment,
        question=question,
        reference_answer=answer,
        asker=model_id,
        prompt_id=request.prompt_id,
    )


def _new(query: Query, earlier: Sequence[Query], duplicate_agreement: float) -> Query | Rejection:
    same = next((one for one in earlier if agreement(query.question, one.question) >= duplicate_agreement), None)
    if same is None:
        return query
    return _rejection(query.id, Reason.DUPLICATE, f"{query.question!r} asks what {same.question!r} asks")


def _has_words(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _rejection(item: str, reason: Reason, detail: str) -> Rejection:
    return Rejection(stage=STAGE, item=item, reason=reason, detail=detail)
