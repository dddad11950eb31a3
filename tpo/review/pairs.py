"""What the review page shows of pairs, and which of them it lists.

    shelf = PairShelf(Path(), params)
    for position in shelf.find(PairFilter(judge="tie"), standing, "anna"): shelf.row(position, standing, "anna")

Beside the pairs that the judge kept lie those that it set aside after comparing their answers: whoever reviews both
learns what its verdicts are worth. A card is blind: which answer was chosen is in its `Origin`, which the server hands
out with the verdict.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from tpo.curation.judging import STAGE, Candidate, pair_of
from tpo.params import Params
from tpo.records import (
    Answer,
    Branch,
    Caption,
    PreferencePair,
    Query,
    Reason,
    Record,
    Rejection,
    ReviewVerdict,
    Verdict,
    Video,
    View,
    content_id,
)
from tpo.review.agreement import Standing
from tpo.store import read_stage

KEPT = "kept"
UNKNOWN = "unknown"
Letter = Literal["A", "B"]
_COMPARED = {Reason.TIE, Reason.NOT_BETTER, Reason.CONFLICT, Reason.INCORRECT, Reason.ORDER_DISAGREEMENT}
# By `View.difficulty`, in thirds: the share of the frames, or of the video, that the worse view was left.
_THIRDS = {"easy": (0.0, 1 / 3), "medium": (1 / 3, 2 / 3), "hard": (2 / 3, 1.01)}


class PairFilter(Record):
    """Empty = any."""

    granularity: str = ""
    question_type: str = ""
    judge: str = Field("", description="kept, or the reason why the judge set it aside")
    difficulty: Literal["", "easy", "medium", "hard"] = ""
    reviewed: Literal["", "not_by_me", "by_me", "divided", "against_judge"] = ""
    text: str = Field("", max_length=200, description="in the question or an answer, in whatever case")


class PairRow(Record):
    """A pair in the list."""

    position: int
    id: str
    question: str
    granularity: str
    question_type: str
    mine: ReviewVerdict | None
    num_reviewers: int


class CaptionLine(Record):
    start_s: float
    end_s: float
    text: str
    source: str
    in_segment: bool


class PairCard(Record):
    """All that a reviewer sees before a verdict."""

    position: int
    id: str
    question: str
    granularity: str
    question_type: str
    answers: dict[Letter, str]
    video_id: str
    video: str
    duration_s: float
    segment_s: tuple[float, float] | None
    frames_s: tuple[float, ...] = Field(description="moments of the video that any of the views shows, ascending")
    captions: tuple[CaptionLine, ...]


class Shown(Record):
    """What a model was shown when it gave an answer."""

    kind: str
    frames_s: tuple[float, ...] = Field(description="of this video, in the order shown")
    num_frames: int
    num_masked: int
    num_of_other_videos: int
    difficulty: float | None
    num_tokens: int | None


class Origin(Record):
    """What is hidden until there is a verdict."""

    chosen: Letter
    shown: dict[Letter, Shown | None]
    judge: str
    judge_outcome: str = Field(description="kept, or the reason why it set the pair aside")
    judge_detail: str
    judge_verdicts: tuple[Verdict, ...]
    model_id: str
    reference_answer: str | None
    asker: str
    blind_score: float | None
    reviews: dict[str, ReviewVerdict]


class _Entry(Record):
    """A pair, or what would be one, and what the judge made of it."""

    pair: PreferencePair
    outcome: str
    detail: str = ""


class PairShelf:
    """All pairs, in the order of the stage. Raises UserError as `read_stage` does."""

    def __init__(self, root: Path, params: Params):
        data = root / "data"
        self.videos = {video.id: video for video in read_stage(data / "catalog/videos.jsonl", Video)}
        self._queries = {query.id: query for query in read_stage(data / "queries/queries.jsonl", Query)}
        self._captions: dict[str, list[Caption]] = {}
        for caption in read_stage(data / "captions/captions.jsonl", Caption):
            self._captions.setdefault(caption.video_id, []).append(caption)
        kept = read_stage(data / "judged/pairs.jsonl", PreferencePair)
        self._entries = [
            _Entry.model_construct(pair=pair, outcome=KEPT, detail="") for pair in kept if pair.video_id in self.videos
        ]
        self.problem = _problem(len(kept), len(kept) - len(self._entries))
        self._entries += self._set_aside(data, params.answer.full_frames)
        self._at = {entry.pair.id: position for position, entry in enumerate(self._entries)}
        self._texts = [
            "\n".join((one.pair.question, one.pair.chosen, one.pair.rejected)).casefold() for one in self._entries
        ]

    def _set_aside(self, data: Path, full_frames: int) -> Iterator[_Entry]:
        dropped = [
            one
            for one in read_stage(data / "judged/rejected.jsonl", Rejection)
            if one.stage == STAGE and one.reason in _COMPARED
        ]
        if not dropped:
            return
        answers = read_stage(data / "answers/answers.jsonl", Answer)
        given = {(one.query_id, one.sample, one.branch): one for one in answers}
        for one in dropped:
            query_id, _, sample = one.item.partition("#")
            query = self._queries.get(query_id)
            both = [given.get((query_id, int(sample or 0), branch)) for branch in Branch]
            if query is None or query.video_id not in self.videos or None in both:
                continue  # the stage before it was run again since
            preferred, other = (answer for answer in both if answer is not None)
            candidate = Candidate(self.videos[query.video_id], (), query, preferred, other)
            pair = pair_of(candidate, (), "", full_frames)
            yield _Entry.model_construct(pair=pair, outcome=one.reason.value, detail=one.detail)

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def kept(self) -> dict[str, str]:
        """The video of each pair that the judge kept."""
        return {one.pair.id: one.pair.video_id for one in self._entries if one.outcome == KEPT}

    def choices(self) -> dict[str, list[str]]:
        """What there is to choose from, for the filters that depend on the data."""
        return {
            "granularity": sorted({one.pair.granularity or UNKNOWN for one in self._entries}),
            "question_type": sorted({one.pair.question_type or UNKNOWN for one in self._entries}),
            "judge": sorted({one.outcome for one in self._entries}, key=lambda outcome: (outcome != KEPT, outcome)),
        }

    def position(self, pair_id: str) -> int | None:
        return self._at.get(pair_id)

    def pair(self, position: int) -> PreferencePair:
        return self._entries[position].pair

    def find(self, wanted: PairFilter, said: Standing, reviewer: str) -> list[int]:
        """Positions of the pairs that a filter lets through."""
        text = wanted.text.casefold()
        return [
            position
            for position, entry in enumerate(self._entries)
            if wanted.judge in ("", entry.outcome)
            and wanted.granularity in ("", entry.pair.granularity or UNKNOWN)
            and wanted.question_type in ("", entry.pair.question_type or UNKNOWN)
            and text in self._texts[position]
            and _is_as_difficult(entry.pair, wanted.difficulty)
            and _is_reviewed(said.get(entry.pair.id, {}), wanted.reviewed, reviewer, kept=entry.outcome == KEPT)
        ]

    def row(self, position: int, said: Standing, reviewer: str) -> PairRow:
        pair = self._entries[position].pair
        verdicts = said.get(pair.id, {})
        return PairRow(
            position=position,
            id=pair.id,
            question=pair.question[:200],
            granularity=pair.granularity or UNKNOWN,
            question_type=pair.question_type or UNKNOWN,
            mine=verdicts.get(reviewer),
            num_reviewers=len(verdicts),
        )

    def card(self, position: int, reviewer: str) -> PairCard:
        pair = self._entries[position].pair
        video, part = self.videos[pair.video_id], pair.segment
        texts = pair.chosen, pair.rejected
        first = letter_of_chosen(pair.id, reviewer)
        captions = sorted(self._captions.get(video.id, []), key=lambda caption: (caption.start_s, caption.end_s))
        return PairCard(
            position=position,
            id=pair.id,
            question=pair.question,
            granularity=pair.granularity or UNKNOWN,
            question_type=pair.question_type or UNKNOWN,
            answers=dict(sorted({first: texts[0], _other(first): texts[1]}.items())),
            video_id=video.id,
            video=video.path,
            duration_s=video.duration_s,
            segment_s=None if part is None else (part.start_s, min(part.end_s, video.duration_s)),
            frames_s=tuple(sorted({moment for view in views_of(pair) for moment in own_moments_s(view)})),
            captions=tuple(
                CaptionLine(
                    start_s=one.start_s,
                    end_s=one.end_s,
                    text=one.text,
                    source=one.source,
                    in_segment=part is not None and one.start_s < part.end_s and one.end_s > part.start_s,
                )
                for one in captions
            ),
        )

    def origin(self, position: int, reviews: Mapping[str, ReviewVerdict], reviewer: str) -> Origin:
        entry = self._entries[position]
        pair, chosen = entry.pair, letter_of_chosen(entry.pair.id, reviewer)
        query = self._queries.get(pair.query_id)
        shown = {
            chosen: _shown(pair.chosen_view, pair.chosen_tokens),
            _other(chosen): _shown(pair.rejected_view, pair.rejected_tokens),
        }
        return Origin(
            chosen=chosen,
            shown=dict(sorted(shown.items())),
            judge=pair.judge,
            judge_outcome=entry.outcome,
            judge_detail=entry.detail,
            judge_verdicts=pair.verdicts,
            model_id=pair.model_id,
            reference_answer=query.reference_answer if query else None,
            asker=query.asker if query else "",
            blind_score=query.blind.score if query and query.blind else None,
            reviews=dict(sorted(reviews.items())),
        )


def _problem(num_kept: int, num_without_video: int) -> str:
    if not num_kept:
        return "No pair was judged yet. `dvc repro` makes them."
    if num_without_video:
        return (
            f"{num_without_video} of {num_kept} pairs are not shown: data/catalog does not have their videos. "
            "`dvc repro` makes pairs of those that are there."
        )
    return ""


def letter_of_chosen(pair_id: str, reviewer: str) -> Letter:
    """Which of the two answers the chosen one is: by chance for each pair and reviewer, the same at every look."""
    return "B" if int(content_id("order of answers", pair_id, reviewer), 16) % 2 else "A"


def _other(letter: Letter) -> Letter:
    return "B" if letter == "A" else "A"


def views_of(pair: PreferencePair) -> list[View]:
    return [view for view in (pair.view, pair.chosen_view, pair.rejected_view) if view is not None]


def own_moments_s(view: View) -> Sequence[float]:
    """When a view shows its own video, in the order shown."""
    taken = {*view.masked, *(one.position for one in view.distractors)}
    return [moment for position, moment in enumerate(view.timestamps_s) if position not in taken]


def _shown(view: View | None, num_tokens: int | None) -> Shown | None:
    if view is None:
        return None
    return Shown(
        kind=view.kind,
        frames_s=tuple(own_moments_s(view)),
        num_frames=len(view.timestamps_s),
        num_masked=len(view.masked),
        num_of_other_videos=len(view.distractors),
        difficulty=view.difficulty,
        num_tokens=num_tokens,
    )


def _is_as_difficult(pair: PreferencePair, wanted: str) -> bool:
    if not wanted:
        return True
    difficulty = pair.rejected_view.difficulty if pair.rejected_view else None
    low, high = _THIRDS[wanted]
    return difficulty is not None and low <= difficulty < high


def _is_reviewed(verdicts: Mapping[str, ReviewVerdict], wanted: str, reviewer: str, *, kept: bool) -> bool:
    match wanted:
        case "not_by_me":
            return reviewer not in verdicts
        case "by_me":
            return reviewer in verdicts
        case "divided":
            return len(set(verdicts.values())) > 1
        case "against_judge":
            return any((verdict is ReviewVerdict.ACCEPT) != kept for verdict in verdicts.values())
    return True
