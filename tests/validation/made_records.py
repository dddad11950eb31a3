"""Records of all kinds in which nothing is wrong, unless a test changes something, and what was found of them."""

from collections.abc import Sequence

from tpo.params import ValidateParams
from tpo.records import (
    Caption,
    Checked,
    Granularity,
    PreferencePair,
    Query,
    QuestionType,
    Segment,
    Verdict,
    Video,
    View,
    ViewKind,
)
from tpo.validation.checkpoint import Outcome, ValidationVerdict
from tpo.validation.suites import Records

PARAMS = ValidateParams(min_pairs=4, min_pairs_per_type=2, max_length_ratio=1.5)
TYPES = (QuestionType.TEMPORAL_REASONING, QuestionType.DESCRIPTIVE)


def video(video_id: str = "v0", **changes: object) -> Video:
    fields: dict[str, object] = {
        "id": video_id, "path": f"{video_id}.mp4", "size_bytes": 900, "duration_s": 20.0, "fps": 2.0, "num_frames": 40,
        "width": 64, "height": 64, "rotation_deg": 0, "codec": "h264", "is_vfr": False, "has_audio": False,
        "last_frame_s": 19.5, "longest_frame_s": 0.5, "num_restarts": 1, "brightness": 90.0, "change": 3.0,
    }  # fmt: skip
    return Video.model_validate(fields | changes)


def caption(number: int = 0, video_id: str = "v0", **changes: object) -> Caption:
    fields: dict[str, object] = {
        "id": f"c{number}", "video_id": video_id, "start_s": 2.0, "end_s": 9.0, "text": f"star {number}",
        "source": "m", "frames_s": (2.0, 5.5),
    }  # fmt: skip
    return Caption.model_validate(fields | changes)


def view(*times_s: float, video_id: str = "v0", kind: ViewKind = ViewKind.DENSE, **changes: object) -> View:
    return View.model_validate({"video_id": video_id, "kind": kind, "timestamps_s": times_s} | changes)


def segment(video_id: str = "v0", end_s: float = 9.0) -> Segment:
    return Segment(video_id=video_id, start_s=2.0, end_s=end_s)


def verdict(*, first: bool, **changes: object) -> Verdict:
    fields = {
        "preferred_shown_first": first, "preferred_is": "better", "conflicts_with_captions": False, "is_correct": True
    }  # fmt: skip
    return Verdict.model_validate(fields | changes)


APPROVED = (verdict(first=True), verdict(first=False))


def pair(number: int = 0, video_id: str = "v0", **changes: object) -> PreferencePair:
    """Every other one is localized, and of another question type."""
    localized = bool(number % 2)
    full = view(0, 10, 19.5, video_id=video_id)
    fields: dict[str, object] = {
        "id": f"p{number}", "video_id": video_id, "query_id": f"q{number}", "question": f"What comes {number}?",
        "granularity": Granularity.LOCALIZED if localized else Granularity.COMPREHENSIVE,
        "question_type": TYPES[number % 2], "segment": segment(video_id) if localized else None,
        "view": full, "chosen_view": full, "rejected_view": view(0, 19.5, video_id=video_id, kind=ViewKind.SPARSE),
        "chosen": "a red star", "rejected": "a blue star", "chosen_tokens": 3, "rejected_tokens": 3,
        "model_id": "m", "verdicts": APPROVED, "judge": "rule",
    }  # fmt: skip
    return PreferencePair.model_validate(fields | changes)


def imported(number: int = 0, **changes: object) -> PreferencePair:
    """Of which is known what a file says: question, answers and video."""
    unknown = dict.fromkeys(
        ("granularity", "question_type", "segment", "chosen_view", "rejected_view", "chosen_tokens", "rejected_tokens")
    )
    return pair(number, **({**unknown, "query_id": f"i{number}", "verdicts": (), "judge": "file"} | changes))


def query_of(pair: PreferencePair, **changes: object) -> Query:
    fields: dict[str, object] = {
        "id": pair.query_id, "video_id": pair.video_id, "granularity": pair.granularity, "segment": pair.segment,
        "question_type": pair.question_type, "question": pair.question, "reference_answer": "a red star",
        "asker": "rule",
    }  # fmt: skip
    return Query.model_validate(fields | changes)


def records(
    pairs: Sequence[PreferencePair] = tuple(pair(number) for number in range(4)),
    held_out: Sequence[PreferencePair] = (pair(4, "v1"),),
    videos: Sequence[Video] = (video("v0"), video("v1")),
    captions: Sequence[Caption] = (caption(0), caption(1, "v1")),
    queries: Sequence[Query] | None = None,
    videos_checked: Checked = Checked.CHECKED,
    questions_checked: Checked = Checked.CHECKED,
) -> Records:
    """The queries are those of the pairs, unless others are given."""
    queries = [query_of(pair) for pair in (*pairs, *held_out)] if queries is None else queries
    return Records(videos, captions, queries, pairs, held_out, videos_checked, questions_checked)


def outcome(verdict: ValidationVerdict, suite: str, name: str) -> Outcome:
    return next(found for found in verdict.outcomes if (found.suite, found.name) == (suite, name))


def not_met(verdict: ValidationVerdict) -> list[tuple[str, str]]:
    return [(found.suite, found.name) for found in verdict.outcomes if not found.passed]
