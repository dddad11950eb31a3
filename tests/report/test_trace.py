"""A pair is found by the beginning of its id, and what is shown of it cannot act on a terminal."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tpo.cli import app
from tpo.errors import UserError
from tpo.params import load_params
from tpo.records import (
    Caption,
    Granularity,
    PreferencePair,
    Query,
    QuestionType,
    Reason,
    Record,
    Rejection,
    Segment,
    Verdict,
    Video,
    View,
    ViewKind,
)
from tpo.report.trace import Trace, to_text, trace
from tpo.store import Manifest, publish

ROOT = Path(__file__).resolve().parents[2]
PARAMS = load_params(ROOT / "params.yaml")
EVIL = "a star \x1b[31m\x9b2J\r\nvideo: <script>"
VIEW = View(video_id="a" * 64, kind=ViewKind.SPARSE, timestamps_s=(0.0, 5.0), masked=(1,), difficulty=0.25)


def a_query(name: str) -> Query:
    return Query(
        id=name, video_id="a" * 64, granularity=Granularity.LOCALIZED, question_type=QuestionType.DESCRIPTIVE,
        segment=Segment(video_id="a" * 64, start_s=0, end_s=10), question=f"What is it? {EVIL}",
        reference_answer="a star", asker="rule",
    )  # fmt: skip


def a_pair(name: str) -> PreferencePair:
    verdict = Verdict(preferred_shown_first=True, preferred_is="better", conflicts_with_captions=False, is_correct=True)
    return PreferencePair(
        id=name, video_id="a" * 64, query_id=f"9{name}", granularity=Granularity.LOCALIZED,
        question_type=QuestionType.DESCRIPTIVE, question=f"What is it? {EVIL}", view=VIEW, chosen="a star",
        rejected="a moon", chosen_tokens=2, rejected_tokens=2, chosen_view=VIEW, rejected_view=VIEW, segment=None,
        model_id="m", verdicts=(verdict,), judge="rule",
    )  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two pairs, of which one was held out, and a query that was set aside by the judge."""
    video = Video(
        id="a" * 64, path=f"{EVIL}.mp4".replace("/", ""), size_bytes=1, duration_s=40.0, fps=2, num_frames=80, width=64,
        height=64, last_frame_s=39.5, longest_frame_s=0.5, rotation_deg=0, codec="h264", is_vfr=False, has_audio=False,
        num_restarts=1, brightness=90.0, change=3.0,
    )  # fmt: skip
    captions = [
        Caption(id=str(at), video_id=video.id, start_s=at, end_s=at + 10, text=EVIL, source="x.srt") for at in (0, 10)
    ]
    dropped = Rejection(stage="judge", item="cccc1111", reason=Reason.TIE, detail="as good")
    files: dict[str, dict[str, list[Record]]] = {
        "catalog": {"videos.jsonl": [video]},
        "captions": {"captions.jsonl": [*captions]},
        "queries": {"queries.jsonl": [a_query("9aaaa1111"), a_query("9aaaa2222"), a_query("cccc1111")]},
        "answers": {"answers.jsonl": []},
        "judged": {"pairs.jsonl": [a_pair("aaaa1111"), a_pair("aaaa2222")], "rejected.jsonl": [dropped]},
        "pairs": {"pairs.jsonl": [a_pair("aaaa1111")], "held_out.jsonl": [a_pair("aaaa2222")], "rejected.jsonl": []},
    }
    for stage in ("queries", "answers"):
        files[stage]["rejected.jsonl"] = []
    for stage, content in files.items():
        publish(
            tmp_path / "data" / stage,
            content,
            Manifest(stage=stage, item="x", items_in=0, items_out=0, set_aside={}, seconds=0),
        )
    shutil.copy(ROOT / "params.yaml", tmp_path)
    return tmp_path


def test_a_pair_tells_everything_it_came_from_and_where_it_went(project: Path) -> None:
    text = to_text(trace(project, "aaaa1", PARAMS))
    for told in (
        "Pair  aaaa1111  trained on",
        "saw sparse: 2 frames at 0.0, 5.0 s, 1 masked, difficulty 0.25",
        "Verdict   preferred first: better, no conflict, correct",
        "* 0.0-10.0 s",
        "  10.0-20.0 s",
        "(x.srt)",
    ):
        assert told in text
    assert trace(project, "aaaa2222", PARAMS).went == "held out"
    assert trace(project, "cccc", PARAMS).went == "set aside by judge: tie, as good"


def test_nothing_from_outside_acts_on_the_terminal(project: Path) -> None:
    text = to_text(trace(project, "aaaa1111", PARAMS), with_prompts=True)
    assert not {"\x1b", "\x9b", "\r"} & set(text)
    assert r"\x1b[31m\x9b2J" in text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("aaa", "'aaa' is too short for an id: give 4 digits of it or more"),
        ("aaaa", "2 ids begin with 'aaaa': aaaa1111, aaaa2222. Give more of it"),
        ("ffff", "No pair and no query has an id that begins with 'ffff'"),
    ],
)
def test_an_id_that_names_nothing_or_too_much_says_so(project: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        trace(project, name, PARAMS)


def test_the_records_themselves_come_as_json(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(project)
    done = CliRunner().invoke(app, ["show", "aaaa1111", "--json"])
    assert Trace.model_validate_json(done.output) == trace(project, "aaaa1111", PARAMS)
