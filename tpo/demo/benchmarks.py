"""Three synthetic benchmarks about unseen long demo videos, written in the official layouts of the real ones.

    write_benchmarks(Path("data/demo/benchmarks"), 60, 6, 10, 14, seed=0)

They go through the same loaders as the real benchmarks and share nothing with them but the file layout. Every
question has four options; whenever the right answer is another one, one of the wrong options is (the colour of) the
video's last event, which is the habit that the demo's base model has to unlearn.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tpo.demo.world import COLORS, Event, plan_events, write_video
from tpo.errors import UserError
from tpo.llm.rules import RuleQuestion, comprehensive_questions, definite, localized_questions

SEED_STREAM = 2  # the training videos are drawn from stream 1
NUM_OPTIONS = 4
KINDS = {
    "color": "What color is",
    "after": "What comes right after",
    "before": "What comes right before",
    "first": "What comes first",
    "last": "What comes last",
    "which_first": "Which comes first",
}
# Subtitles give no answer away: they say the same in every film.
WORDS = ("So, here we are again.", "Let us see what there is.", "Well, take your time.", "And on it goes.")
SAID_S, SAID_EVERY_S = 2.5, 7.0
FAMILIES = (("color",), ("after", "before"), ("first", "last", "which_first"))


@dataclass(frozen=True)
class _Choice:
    kind: str
    question: str
    options: list[str]
    gold: int


@dataclass(frozen=True)
class _Film:
    name: str
    events: list[Event]
    phase: float
    choices: list[_Choice]

    @property
    def duration_s(self) -> float:
        return self.events[-1].end_s


def write_benchmarks(
    folder: Path, num_videos: int, questions_per_video: int, min_events: int, max_events: int, seed: int
) -> None:
    """Write `longvideobench/`, `mlvu/` and `videomme/` below `folder`; the videos are dealt to them in turn.

    The same arguments give the same bytes.

    Raises:
        UserError: the videos are too short for so many questions.
    """
    films = list(_plan_films(num_videos, questions_per_video, min_events, max_events, seed))
    writers = (_write_longvideobench, _write_mlvu, _write_videomme)
    for number, write in enumerate(writers):
        write(folder, films[number :: len(writers)])


def _plan_films(num_videos: int, num_questions: int, min_events: int, max_events: int, seed: int) -> Iterator[_Film]:
    rng = np.random.default_rng([seed, SEED_STREAM])
    for number in range(num_videos):
        events = plan_events(rng, int(rng.integers(min_events, max_events, endpoint=True)))
        phase = float(rng.uniform(0, 6.28))
        # A benchmark gets every third video: so each of them turns through all kinds.
        asked = _pick_questions(rng, events, num_questions, turn=number // 3)
        choices = [_with_options(rng, events, kind, question) for kind, question in asked]
        yield _Film(f"synthetic-{number:03d}", events, phase, choices)


def _pick_questions(
    rng: np.random.Generator, events: Sequence[Event], num_questions: int, turn: int
) -> list[tuple[str, RuleQuestion]]:
    """Different questions, the families in turn; `turn` rotates the kinds within them from video to video."""
    captions = [event.caption for event in events]
    everything = [*localized_questions(captions, captions), *comprehensive_questions(captions)]
    if num_questions > len(everything):
        raise UserError(
            f"A demo video of {len(events)} events has {len(everything)} questions, not {num_questions}. "
            "Lower demo.questions_per_eval_video or raise demo.min_events in params.yaml."
        )
    rng.shuffle(everything)
    pools = {kind: [q for q in everything if q.question.startswith(words)] for kind, words in KINDS.items()}
    picked = []
    for number in range(num_questions):
        family = FAMILIES[number % len(FAMILIES)]
        shift = turn + number // len(FAMILIES)
        wanted = [family[(shift + i) % len(family)] for i in range(len(family))]
        kind = next(kind for kind in [*wanted, *KINDS] if pools[kind])
        picked.append((kind, pools[kind].pop()))
    return picked


def _with_options(rng: np.random.Generator, events: Sequence[Event], kind: str, question: RuleQuestion) -> _Choice:
    others = [events[-1], *(events[i] for i in rng.permutation(len(events) - 1))]
    if kind == "color":
        more_colors = [str(color) for color in rng.permutation(list(COLORS))]
        possible = [*(event.color for event in others), *more_colors]
    else:
        named = [event for event in others if definite(event.caption) in question.question]
        unnamed = [event for event in others if event not in named]
        if kind == "which_first":  # the two it asks about, then the last one, then others
            possible = [definite(event.caption) for event in named + unnamed]
        else:  # what the question itself names is no good answer, unless it is the last event or nothing else is left
            possible = [event.caption for event in [events[-1], *unnamed, *named]]
    wrong = [fill for fill in dict.fromkeys(possible) if fill != question.fill][: NUM_OPTIONS - 1]
    options = [question.answer_with(fill) for fill in (question.fill, *wrong)]
    order = rng.permutation(NUM_OPTIONS)
    return _Choice(kind, question.question, [options[i] for i in order], int(np.flatnonzero(order == 0)[0]))


def _write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _write_films(folder: Path, films: Sequence[_Film]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for film in films:
        write_video(folder / f"{film.name}.mp4", film.events, film.phase)


def _write_readme(folder: Path, real_name: str) -> None:
    text = (
        f"SYNTHETIC. This is not {real_name}: no video, question or answer of it is here.\n\n"
        f"Made by `tpo.demo.benchmarks` in the file layout of {real_name}, so that the demo runs through the\n"
        "same code as the real benchmark. Scores on it say nothing about real videos.\n"
    )
    (folder / "README.md").write_text(text, encoding="utf-8")


def _said(film: _Film) -> Iterator[tuple[float, float, str]]:
    """Start and end in seconds and the words of what an off-screen voice says now and then: nothing of the film."""
    for number, start_s in enumerate(np.arange(1.0, film.duration_s - SAID_S, SAID_EVERY_S)):
        yield float(start_s), float(start_s) + SAID_S, WORDS[number % len(WORDS)]


def _clock(seconds: float, decimal: str = ".") -> str:
    """3661.5 → 01:01:01.500"""
    whole, ms = divmod(round(seconds * 1000), 1000)
    return f"{whole // 3600:02}:{whole // 60 % 60:02}:{whole % 60:02}{decimal}{ms:03}"


def _longvideobench_subtitles(number: int, film: _Film) -> tuple[float, list[dict[str, Any]]]:
    """Where in its original the video begins, and its lines on the original's clock, in one of the official shapes.

    Every third video is silent, like many of the real ones.
    """
    if number % 3 == 0:
        cut_s = 75.5
        lines = [{"start": _clock(cut_s + a), "end": _clock(cut_s + b), "line": words} for a, b, words in _said(film)]
        return cut_s, lines
    if number % 3 == 1:
        cut_s = 30  # the real file has whole numbers too, and ends that are not known
        entries: list[dict[str, Any]] = [
            {"timestamp": [cut_s + a, cut_s + b], "text": words} for a, b, words in _said(film)
        ]
        if entries:
            entries[-1]["timestamp"][1] = None
        return cut_s, entries
    return 0, []


def _srt(film: _Film) -> str:
    """The film's subtitles in the style of Video-MME's files."""
    return "\n".join(
        f'{number}\n{_clock(a, ",")} --> {_clock(b, ",")}\n<font color="white" size=".72c">{words}</font>\n'
        for number, (a, b, words) in enumerate(_said(film), start=1)
    )


def _write_longvideobench(root: Path, films: Sequence[_Film]) -> None:
    folder = root / "longvideobench"
    _write_films(folder / "videos", films)
    cut_s = {}
    for number, film in enumerate(films):
        cut_s[film.name], lines = _longvideobench_subtitles(number, film)
        _write_json(folder / f"subtitles/{film.name}_en.json", lines)
    rows = [
        {
            "id": f"{film.name}_{number}",
            "video_id": film.name,
            "video_path": f"{film.name}.mp4",
            "question": choice.question,
            "question_wo_referring_query": choice.question,
            "candidates": choice.options,
            "correct_choice": choice.gold,
            "position": [],
            "topic_category": "synthetic",
            "question_category": choice.kind,
            "level": "L1-Perception" if choice.kind == "color" else "L2-Relation",
            "type": "global" if choice.kind in FAMILIES[-1] else "local",
            "subtitle_path": f"{film.name}_en.json",
            "starting_timestamp_for_subtitles": cut_s[film.name],
            "view_count": 0,
            "duration_group": next(limit_s for limit_s in (15, 60, 600, 3600) if film.duration_s <= limit_s),
            "duration": film.duration_s,
        }
        for film in films
        for number, choice in enumerate(film.choices)
    ]
    _write_json(folder / "lvb_val.json", rows)
    _write_readme(folder, "LongVideoBench")


def _write_mlvu(root: Path, films: Sequence[_Film]) -> None:
    folder, task = root / "mlvu", "5_order"
    _write_films(folder / "MLVU/video" / task, films)
    rows = [
        {
            "video": f"{film.name}.mp4",
            "duration": film.duration_s,
            "question": choice.question,
            "candidates": choice.options,
            "answer": choice.options[choice.gold],
            "question_type": choice.kind,
        }
        for film in films
        for choice in film.choices
    ]
    _write_json(folder / "MLVU/json" / f"{task}.json", rows)
    _write_readme(folder, "MLVU")


def _write_videomme(root: Path, films: Sequence[_Film]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    folder = root / "videomme"
    _write_films(folder / "data", films)
    (folder / "subtitle").mkdir(exist_ok=True)
    for film in films[::2]:  # the real one has none of 156 videos
        (folder / f"subtitle/{film.name}.srt").write_text(_srt(film), encoding="utf-8")
    rows = [
        {
            "video_id": film.name,
            "duration": "short" if film.duration_s <= 131 else "medium",  # the real one's short videos end at 131 s
            "domain": "Synthetic",
            "sub_category": "Synthetic",
            "url": "",
            "videoID": film.name,
            "question_id": f"{film.name}-{number}",
            "task_type": choice.kind,
            "question": choice.question,
            "options": [f"{letter}. {option}" for letter, option in zip("ABCD", choice.options, strict=True)],
            "answer": "ABCD"[choice.gold],
        }
        for film in films
        for number, choice in enumerate(film.choices, start=1)
    ]
    (folder / "videomme").mkdir(exist_ok=True)
    pq.write_table(pa.Table.from_pylist(rows), folder / "videomme/test-00000-of-00001.parquet")
    _write_readme(folder, "Video-MME")
