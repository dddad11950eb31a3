"""A small finished project to report on."""

import json
from pathlib import Path

import pytest

from tpo.curation.mix import mix_pairs
from tpo.evaluation.analysis import analyse
from tpo.evaluation.metrics import metrics
from tpo.evaluation.scoring import predict
from tpo.params import MixParams, RegisterParams
from tpo.records import Granularity, Item, PreferencePair, QuestionType, Video, View, ViewKind
from tpo.registry.evidence import gather
from tpo.registry.gate import decide
from tpo.registry.promotion import Promotion
from tpo.store import Manifest, publish
from tpo.validation.checkpoint import ValidationVerdict

EVIL = "<script>alert('x')</script> & {{ 7 * 7 }}"
VIEW = View(video_id="v", kind=ViewKind.DENSE, timestamps_s=(0.0, 1.0))


def _pair(number: int, granularity: Granularity) -> PreferencePair:
    return PreferencePair(
        id=str(number), video_id="v", query_id=str(number), granularity=granularity,
        question_type=QuestionType.TEMPORAL_REASONING, question=f"What comes first? {EVIL}", view=VIEW,
        chosen="a red star", rejected="a blue moon", chosen_tokens=3, rejected_tokens=3,
        chosen_view=VIEW, rejected_view=VIEW, segment=None,
        model_id="m", verdicts=(), judge="rule",
    )  # fmt: skip


def _metrics() -> dict[str, object]:
    items = [
        Item(
            id=str(i), benchmark="mlvu", video=f"{i // 2}.mp4", question="?", options=("a", "b"), gold=0,
            duration_group="short", category="order",
        )
        for i in range(16)
    ]  # fmt: skip
    base = [predict(item, "base", (-1.0, 0.0) if int(item.id) % 2 else (0.0, -1.0)) for item in items]
    tuned = [predict(item, "tuned", (0.0, -1.0)) for item in items]
    return metrics(analyse([*base, *tuned], confidence=0.95, samples=200, seed=0))


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    """A project folder in which every stage but captions, queries, answers and training has run."""
    catalog = Manifest(
        stage="ingest", item="videos", items_in=5, items_out=2, set_aside={"too_short": 2, "unreadable": 1}, seconds=1,
        facts={"benchmarks": "partly checked"},
    )  # fmt: skip
    videos = [
        Video(
            id=str(number), path=f"{number}.mp4", size_bytes=9, duration_s=lasts_s, last_frame_s=1, longest_frame_s=1,
            fps=1, num_frames=9, num_restarts=1, width=64, height=64, rotation_deg=0, codec="h264", is_vfr=False,
            has_audio=False, brightness=99, change=9,
        )
        for number, lasts_s in enumerate((30.0, 690.0))
    ]  # fmt: skip
    publish(tmp_path / "data/catalog", {"videos.jsonl": videos}, catalog)
    pairs = [_pair(i, Granularity.LOCALIZED if i % 3 else Granularity.COMPREHENSIVE) for i in range(9)]
    kept = Manifest(stage="mix", item="pairs", items_in=12, items_out=9, set_aside={"over_quota": 3}, seconds=1)
    mixed = mix_pairs(pairs, MixParams(max_pairs=100, localized_share=None), 0)
    report = mixed.report.model_dump_json()
    publish(tmp_path / "data/pairs", {"pairs.jsonl": pairs, "mix.json": report}, kept)
    evaluated = Manifest(stage="evaluate", item="items", items_in=8, items_out=8, set_aside={}, seconds=1)
    publish(tmp_path / "data/evaluation", {}, evaluated)
    (tmp_path / "data/validation").mkdir()
    verdict = ValidationVerdict(success=True, outcomes=())
    (tmp_path / "data/validation/verdict.json").write_text(verdict.model_dump_json())
    (tmp_path / "reports/data_docs").mkdir(parents=True)
    (tmp_path / "reports/data_docs/index.html").write_text("")
    found = _metrics()
    limits = RegisterParams(name="demo", experiment="demo", min_gain=0.0)
    evidence = gather(
        metrics=found, metrics_digest="m", evaluation={"base_id": "a", "tuned_id": "b", "metrics_digest": "m"},
        training={}, validation={}, videos_report=None, questions_report=None, reports_digest=None,
        tuned_id="b", proof=None, registry=None,
    )  # fmt: skip
    decision = decide(evidence, limits, "2026-11-26T12:00:00+00:00")
    (tmp_path / "reports/evaluation.json").write_text(json.dumps(found))
    (tmp_path / "reports/gate.json").write_text(decision.model_dump_json())
    stayed = Promotion(promoted=False, version="2", champion="1", previous=None, reason=decision.summary)
    (tmp_path / "reports/registry.json").write_text(stayed.model_dump_json())
    return tmp_path
