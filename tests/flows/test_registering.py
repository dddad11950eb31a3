"""From an evaluated model to the champion and back: the register stage and `tpo`, as real processes on a real registry.

What the stages before would have left is made here, small and without training, so that the gate has what it asks for.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from markdown_it import MarkdownIt
from processes import edit_params, must_work, start
from typer.testing import CliRunner

from flows.decision import as_markdown
from flows.register import METRICS, measured, noted, read_json, register_model
from tpo.cli import app
from tpo.curation.contamination import check_questions
from tpo.demo.model import build_model, build_tokenizer, save_checkpoint
from tpo.demo.world import plan_events, write_video
from tpo.errors import UserError
from tpo.evaluation.analysis import analyse
from tpo.evaluation.metrics import metrics
from tpo.evaluation.scoring import predict
from tpo.models.identity import model_id
from tpo.params import load_params
from tpo.records import Checked, Condition, GateDecision, GateRule, Item, PreferencePair, Role, Video
from tpo.registry.tracking import log_stage
from tpo.status.registered import registered
from tpo.store import Manifest, digest, publish
from tpo.validation.checkpoint import ValidationVerdict
from tpo.video.decontaminate import BenchmarkCheck, VideoReport
from tpo.video.probe import Prober
from tpo.video.sample import dense

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
ITEMS = [
    Item(
        id=str(i), benchmark="mlvu", video=f"{i // 2}.mp4", question="What comes first?", options=("a", "b"), gold=0,
        duration_group="<5min", category="order",
    )
    for i in range(32)
]  # fmt: skip
# How many of the 32 questions each model answers rightly.
RIGHT: dict[Role, int] = {"base": 8, "champion": 16, "tuned": 32}


def make_small(settings: dict[str, Any]) -> None:
    settings["data"] |= {"videos": "videos", "benchmarks": "benchmarks"}
    settings["model"]["base"] = "base"
    settings["evaluate"]["num_frames"] = 4


def manifest(stage: str, counts: dict[str, int] | None = None, **facts: Any) -> Manifest:
    return Manifest(
        stage=stage, item="items", items_in=1, items_out=1, set_aside={}, seconds=0, counts=counts or {}, facts=facts
    )


def make_project(folder: Path) -> None:
    """All that does not depend on the candidate: base, data, and the reports on it."""
    shutil.copy(ROOT / "params.yaml", folder)
    edit_params(folder, make_small)
    tokenizer = build_tokenizer()
    save_checkpoint(build_model(tokenizer, 0), tokenizer, folder / "base")
    (folder / "base/README.md").write_text("---\nlicense: apache-2.0\n---\n# A base\n")
    (folder / "benchmarks/mlvu").mkdir(parents=True)
    (folder / "videos").mkdir()
    write_video(folder / "videos/clip.mp4", plan_events(np.random.default_rng(0), 4), 0.0)
    with Prober(folder / ".tpo/frames") as prober:
        video = prober.probe(folder / "videos", folder / "videos/clip.mp4")
    assert isinstance(video, Video)
    view, question = dense(video, 4), "What comes first?"
    pair = PreferencePair(
        id="p", video_id=video.id, query_id="q", granularity=None, question_type=None, question=question, view=view,
        chosen="a red star", rejected="a blue moon", chosen_tokens=3, rejected_tokens=3, chosen_view=view,
        rejected_view=view, segment=None, model_id="m", verdicts=(), judge="rule",
    )  # fmt: skip
    check = BenchmarkCheck(name="mlvu", status=Checked.CHECKED, videos=16, unusable=[], not_comparable=[])
    videos = VideoReport(
        status=Checked.CHECKED, videos=1, not_comparable=[], benchmarks=[check], found=[], note="",
        limits=load_params(folder / "params.yaml").ingest.contamination,
    )  # fmt: skip
    questions = check_questions({"q": question}, ITEMS, 13)
    verdict = ValidationVerdict(success=True, outcomes=())
    data = folder / "data"
    publish(
        data / "catalog",
        {"videos.jsonl": [video], "decontamination.json": videos.model_dump_json()},
        manifest("ingest", benchmarks="checked"),
    )
    publish(data / "queries", {"decontamination.json": questions.model_dump_json()}, manifest("ask"))
    publish(data / "pairs", {"pairs.jsonl": [pair]}, manifest("mix", {"training pairs": 1, "held-out pairs": 0}))
    reports = (data / "catalog/decontamination.json", data / "queries/decontamination.json")
    facts = {"pairs_digest": digest(data / "pairs/pairs.jsonl"), "decontamination": digest(*reports)}
    publish(
        data / "validation", {"verdict.json": verdict.model_dump_json()}, manifest("validate", success=True, **facts)
    )


def make_candidate(folder: Path, seed: int, champion: dict[str, str] | None = None) -> str:
    """A tuned model and its evaluation, beside a champion or not; its content id."""
    model = load_params(folder / "params.yaml").model.of(folder / "base")
    tuned, tokenizer = folder / "models/tuned", build_tokenizer()
    run_id = log_stage("train", "tpo", params={}, metrics={})
    facts = {
        "mlflow_run_id": run_id,
        "base_id": model_id(model),
        "pairs_digest": digest(folder / "data/pairs/pairs.jsonl"),
    }
    publish(
        tuned,
        {".": lambda out: save_checkpoint(build_model(tokenizer, seed), tokenizer, out)},
        manifest("train", **facts),
    )
    roles: tuple[Role, ...] = ("base", "tuned", "champion") if champion else ("base", "tuned")
    answers = [
        predict(one, role, (0.0, -1.0) if int(one.id) % 32 < RIGHT[role] else (-1.0, 0.0))
        for role in roles
        for one in ITEMS
    ]
    blind = [
        one.model_copy(update={"condition": Condition.TEXT_ONLY, "correct": False, "score": 0.0}) for one in answers
    ]
    numbers = metrics(analyse([*answers, *blind], confidence=0.95, samples=200, seed=0))
    (folder / "reports").mkdir(exist_ok=True)
    (folder / "reports/evaluation.json").write_text(json.dumps(numbers))
    candidate = model_id(model.of(tuned))
    facts = {
        "base_id": model_id(model),
        "tuned_id": candidate,
        "champion": champion,
        "metrics_digest": digest(folder / "reports/evaluation.json"),
    }
    evaluated = manifest("evaluate", mlflow_run_id=log_stage("evaluate", "tpo", params={}, metrics={}), **facts)
    publish(folder / "data/evaluation", {"predictions.jsonl": answers}, evaluated)
    return candidate


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    make_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return tmp_path


def tpo(*arguments: str) -> str:
    """What a command prints."""
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def decided(folder: Path) -> tuple[GateDecision, dict[str, Any]]:
    """What the register stage wrote: the gate's decision, and what became of the aliases."""
    decision = GateDecision.model_validate_json((folder / "reports/gate.json").read_text())
    return decision, json.loads((folder / "reports/registry.json").read_text())


def refused_by(decision: GateDecision) -> list[str]:
    return [rule.name for rule in decision.rules if not rule.passed]


def test_a_candidate_comes_becomes_champion_by_a_person_is_rolled_back_and_not_put_back_by_the_gate(
    project: Path, environment: dict[str, str]
) -> None:
    first = make_candidate(project, seed=1)
    must_work("register", project, environment)
    decision, moved = decided(project)
    assert refused_by(decision) == []
    assert (moved["champion"], moved["previous"], moved["decision_id"]) == ("1", None, decision.id)
    assert "- base: apache-2.0" in described(project, 1)

    # Another candidate, measured beside the champion, and a person is to decide.
    edit_params(project, lambda settings: settings["register"].update(promotion="person"))
    second = make_candidate(project, seed=4, champion={"version": "1", "candidate_id": first})
    must_work("register", project, environment)
    decision, moved = decided(project)
    assert refused_by(decision) == []
    assert (decision.candidate_id, decision.champion_id) == (second, first)
    assert (moved["promoted"], moved["version"], moved["champion"]) == (False, "2", "1")
    shown = tpo("promote", "--dry-run")
    assert "passed  better_than_champion" in shown
    assert "`tpo promote 2` would make tpo-demo/2 champion. Nothing was moved." in shown
    with pytest.raises(UserError, match="A reason is needed"):
        tpo("promote", "2")
    moved = json.loads(tpo("promote", "--json", "--reason", "read twenty answers"))
    assert (moved["champion"], moved["previous"], moved["decision_id"]) == ("2", "1", decision.id)
    assert tpo("promote", "2", "--dry-run").endswith("would move nothing: Version 2 is champion already.\n")
    assert tpo("rollback", "--reason", "answers in Latin") == "tpo-demo/1 is champion, previous is 2.\n"

    # Measured again, without the champion: that is no evidence, and what a person took back stays away.
    edit_params(project, lambda settings: settings["register"].update(promotion="gate"))
    make_candidate(project, seed=4)
    must_work("register", project, environment)
    decision, moved = decided(project)
    assert refused_by(decision) == ["not_rolled_back", "better_than_champion"]
    assert "answers in Latin" in decision.summary
    assert "run `dvc repro -f evaluate`, then `dvc repro`" in decision.summary
    assert (moved["promoted"], moved["champion"]) == (False, "1")
    told = json.loads(tpo("registry", "--json"))
    assert [version["aliases"] for version in told["versions"]] == [["challenger"], ["previous"], ["champion"]]
    assert [(one["action"], one["to"], one["reason"]) for one in told["history"][:2]] == [
        ("rollback", "1", "answers in Latin"),
        ("promote", "2", "read twenty answers"),
    ]
    read = registered("tpo-demo", project)
    assert (read.versions, read.champion, read.challenger) == (("3", "2", "1"), "1", "3")
    shown = tpo("registry")
    assert "tpo-demo/3  challenger" in shown
    assert f"model      full {first} of base" in shown
    assert "rollback 2 → 1 by " in shown


def test_what_a_decision_says_is_no_markup_on_prefects_pages() -> None:
    evil = "<b>x</b> [link](javascript:y) | *z*\n# head"
    rule = GateRule(name="answers", passed=False, value=evil, threshold=evil, reason=evil)
    decision = GateDecision(promote=False, rules=(rule,), summary=evil, id="d")
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(as_markdown(decision))
    assert page.count("<td>") == 5, "it stays in its cell"
    assert page.count("&lt;b&gt;x&lt;/b&gt;") == 4
    assert not any(tag in page for tag in ("<b>", "<a ", "<em>", "<h1>"))


@pytest.mark.parametrize("content", [b"", b'{"all": ', b"\xff\xfe", b"[]", b"3"])
def test_a_damaged_file_of_evidence_is_named_with_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "evaluation.json").write_bytes(content)
    with pytest.raises(UserError, match=r"evaluation\.json is damaged: .* `dvc repro` makes it again"):
        read_json(tmp_path / "evaluation.json")
    assert read_json(tmp_path / "missing.json") is None, "which the gate refuses"


def test_numbers_that_were_edited_or_not_noted_get_into_no_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "reports").mkdir()
    (tmp_path / METRICS).write_text('{"all": {}}')
    facts = {"metrics_digest": digest(METRICS)}
    assert measured(facts) == {"all": {}}
    assert measured({}) == {}
    (tmp_path / METRICS).write_text('{"all": {"difference": 1}}')
    assert measured(facts) == {}
    publish(tmp_path / "data/evaluation", {}, manifest("evaluate", **facts))
    with pytest.raises(UserError, match=r"data/evaluation/manifest\.json does not say tuned_id: it was edited"):
        noted(Path("data/evaluation"), "metrics_digest", "tuned_id")


def test_a_version_is_of_the_weights_that_lie_there_and_not_of_those_that_were_measured(project: Path) -> None:
    """Or the version with others would be taken for the measured ones, once these are back."""
    import mlflow

    measured_id = make_candidate(project, seed=1)
    weights, params = project / "models/tuned/model.safetensors", load_params()
    kept = weights.read_bytes()
    shutil.copy(project / "base/model.safetensors", weights)
    assert register_model.fn(params) == "1"
    weights.write_bytes(kept)
    assert register_model.fn(params) == register_model.fn(params) == "2"
    tags = [mlflow.MlflowClient().get_model_version("tpo-demo", version).tags for version in "12"]
    assert tags[0]["candidate_id"] != measured_id == tags[1]["candidate_id"]
    results = [described(project, version).count("| all |") for version in (1, 2)]
    assert results == [0, 1], "nor do their numbers get into its card"


def described(folder: Path, version: int) -> str:
    import mlflow

    return str(mlflow.MlflowClient().get_model_version("tpo-demo", str(version)).description)


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/server.db", "--artifacts-destination", f"{folder}/stored"]
    with (
        (folder / "server.log").open("ab") as log,
        subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True) as server,
    ):
        try:
            while not is_open(port):
                assert server.poll() is None, (folder / "server.log").read_text()
                time.sleep(0.1)
            yield server
        finally:
            kill(server)


def is_open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def kill(server: "subprocess.Popen[bytes]") -> None:
    """At once, with its workers: they are a group of their own."""
    if server.poll() is None:
        os.killpg(server.pid, 9)
    server.wait()


def test_a_server_that_dies_during_registration_leaves_nothing_half_registered(
    project: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    impatient = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_TRACKING_URI": address}
    for name, value in impatient.items():
        monkeypatch.setenv(name, value)
    with mlflow_server(project, port) as server:
        make_candidate(project, seed=1)
        with start("register", project, environment | impatient) as stage:
            while not any(project.glob("stored/**/MLmodel")):
                assert stage.poll() is None, stage.communicate()
                time.sleep(0.01)
            kill(server)
            _, told = stage.communicate(timeout=300)
        assert stage.returncode == 1
        assert f"register: MLflow ({address}) could not store the package of tpo-demo" in told
        assert told.rstrip().endswith("Then run the same command again."), told
        assert "Traceback" not in told, told
    assert not (project / "reports/gate.json").exists()
    with mlflow_server(project, port):
        assert mlflow.MlflowClient().search_model_versions("name = 'tpo-demo'") == []
        must_work("register", project, environment | impatient)
        decision, moved = decided(project)
        assert refused_by(decision) == []
        assert (moved["promoted"], moved["champion"]) == (True, "1")
        mlflow.MlflowClient().set_registered_model_alias("tpo-demo", "previous", "1")
        told = json.loads(tpo("rollback", "--reason", "to see what it prints", "--json"))
        assert (told["champion"], told["previous"]) == ("1", "1")
