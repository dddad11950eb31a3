"""Aliases of a real model in a real registry: moved, moved back, fought over, killed in between, and told about."""

import functools
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tpo.cli import app
from tpo.demo.model import build_model, build_tokenizer, save_checkpoint
from tpo.demo.world import plan_events, write_video
from tpo.errors import UserError
from tpo.records import GateDecision
from tpo.registry.evidence import Proof
from tpo.registry.lock import promotion_lock
from tpo.registry.package import DECISION, challenge, register, versions
from tpo.registry.promotion import Promotion, history, kept_decision, objection, promote, registry_state, rollback
from tpo.registry.proof import prove
from tpo.registry.tracking import connect, log_stage

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = {"1": "one", "2": "two", "3": "three"}


@pytest.fixture(scope="module")
def project(tracking_folder: Path) -> Path:
    """One package, registered three times as if it were three models: `demo` versions 1, 2 and 3."""
    import mlflow

    tokenizer = build_tokenizer()
    save_checkpoint(build_model(tokenizer, 0), tokenizer, tracking_folder / "full")
    write_video(tracking_folder / "clip.mp4", plan_events(np.random.default_rng(0), 4), 0.0)
    register(
        Path("full"),
        base="base",
        base_revision=None,
        name="demo",
        measured_with={"num_frames": 4, "max_new_tokens": 5, "model": {"dtype": "float32"}},
        tags={"candidate_id": "one"},
        metrics={},
        run_id=log_stage("train", "tpo", params={}, metrics={}),
        example={"video": "clip.mp4", "question": "Which color is the star?"},
    )
    client = mlflow.MlflowClient()
    first = client.get_model_version("demo", "1")
    for number in ("2", "3"):
        tags = first.tags | {"candidate_id": WEIGHTS[number]}
        client.create_model_version("demo", first.source, run_id=first.run_id, tags=tags)
    return tracking_folder


@pytest.fixture(autouse=True)
def nobody_is_champion(project: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    for alias in client.get_registered_model("demo").aliases:
        client.delete_registered_model_alias("demo", alias)
    for number in WEIGHTS:
        for tag in ("forced", DECISION):
            client.delete_model_version_tag("demo", number, tag)
    experiment = client.get_experiment_by_name("demo promotions")
    for run in client.search_runs([experiment.experiment_id]) if experiment else []:
        client.delete_run(run.info.run_id)


def decision(version: str, champion: str | None = None, *, may: bool = True) -> GateDecision:
    said = "Passed: better." if may else "Refused: a tie."
    return GateDecision(
        promote=may, rules=(), summary=said, id=f"about {version}", candidate_id=WEIGHTS[version], champion_id=champion
    )


def move(version: str, champion: str | None = None, *, may: bool = True, force: bool = False) -> Promotion:
    """As the register stage does it, with a proof that was made before; it takes seconds."""
    said, proof = decision(version, champion, may=may), proof_of(version)
    return promote("demo", version, who="alice", reason="it is better", decision=said, proof=proof, force=force)


def proof_of(version: str) -> Proof:
    """All versions have the same package."""
    return proof_of_the_first().model_copy(update={"version": version})


@functools.cache
def proof_of_the_first() -> Proof:
    return prove("demo", "1")


def aliases() -> dict[str, str]:
    import mlflow

    return {alias: str(held) for alias, held in mlflow.MlflowClient().get_registered_model("demo").aliases.items()}


def is_locked() -> bool:
    import mlflow

    return bool(mlflow.MlflowClient().search_registered_models(filter_string="name LIKE 'demo-promotion-lock%'"))


def test_promotion_keeps_the_previous_champion_and_rollback_goes_back_in_one_step_and_forward_again(
    project: Path,
) -> None:
    move("1")
    assert aliases() == {"champion": "1"}
    promotion = move("2", "one")
    assert (promotion.champion, promotion.previous, promotion.decision_id) == ("2", "1", "about 2")
    assert move("2", "one") == promotion, "a second time nothing is moved"
    back = rollback("demo", who="bob", reason="answers in Latin")
    assert (back.champion, back.previous) == ("1", "2")
    assert aliases() == {"champion": "1", "previous": "2"}
    rollback("demo", who="bob", reason="was a joke")
    assert aliases() == {"champion": "2", "previous": "1"}
    told = [(one.action, one.champion, one.to, one.who, one.reason, one.state) for one in history("demo")]
    assert told == [
        ("rollback", "1", "2", "bob", "was a joke", "done"),
        ("rollback", "2", "1", "bob", "answers in Latin", "done"),
        ("promote", "1", "2", "alice", "it is better", "done"),
        ("promote", None, "1", "alice", "it is better", "done"),
    ]
    assert not is_locked()


def test_what_was_rolled_back_is_known_to_the_gate_until_somebody_brings_it_back(project: Path) -> None:
    move("1")
    move("2", "one")
    assert registry_state("demo").rolled_back == {}
    rollback("demo", who="bob", reason="answers in Latin")
    state = registry_state("demo")
    assert state.champion is not None
    assert state.champion.candidate_id == "one"
    assert list(state.rolled_back) == ["two"]
    assert state.rolled_back["two"].endswith(": answers in Latin")
    move("2", "one")
    assert registry_state("demo").rolled_back == {}


def test_the_decision_kept_on_the_version_is_what_counts_if_no_other_is_given(project: Path) -> None:
    with pytest.raises(UserError, match="The gate has not decided about version 1"):
        promote("demo", "1", who="alice", reason="why not")
    said = decision("1").model_copy(update={"summary": "see http://tracker.example", "decided_at": "by me@here"})
    challenge("demo", "1", said)
    assert kept_decision("demo", "1") == said
    assert objection("demo", "1") == ""
    promote("demo", "1", who="alice", reason="why not", proof=proof_of("1"))
    assert aliases() == {"challenger": "1", "champion": "1"}
    assert "champion already" in objection("demo", "1")


def test_refused_stale_and_foreign_decisions_move_nothing(project: Path) -> None:
    move("1")
    for wanted, message in (
        (decision("2", "one", may=False), r"Version 2\. Refused: a tie\."),
        (decision("2", None), r"stale: the champion is another one by now \(one\)"),
        (decision("2", "three"), r"`dvc repro -f evaluate`"),
        (decision("3", "one"), r"about three, which version 2 is not"),
    ):
        with pytest.raises(UserError, match=message):
            promote("demo", "2", who="alice", reason="I want it", decision=wanted)
    with pytest.raises(UserError, match="A reason is needed"):
        promote("demo", "2", who="alice", reason=" ", decision=decision("2", "one"))
    with pytest.raises(UserError, match="nothing to go back to"):
        rollback("demo", who="alice", reason="because")
    with pytest.raises(UserError, match="has no version 9"):
        promote("demo", "9", who="alice", reason="because")
    assert aliases() == {"champion": "1"}
    assert len(history("demo")) == 1


def test_a_forced_promotion_is_loud_and_recorded(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    move("1")
    promotion = move("2", "one", may=False, force=True)
    assert promotion.forced
    assert "FORCED: alice moves champion of demo to version 2. Version 2. Refused: a tie." in caplog.text
    assert history("demo")[0].forced
    assert versions("demo")[1].tags["forced"] == "alice: it is better"
    assert not move("3", "two", force=True).forced, "nothing had to be forced"


@pytest.mark.parametrize(("interrupted_at", "moved"), [("_set", False), ("_finish", True)])
def test_a_forced_promotion_that_was_broken_off_is_on_the_version_only_if_it_was_made(
    project: Path, monkeypatch: pytest.MonkeyPatch, interrupted_at: str, moved: bool
) -> None:
    move("1")
    with monkeypatch.context() as patch:
        patch.setattr(f"tpo.registry.promotion.{interrupted_at}", interrupt)
        with pytest.raises(KeyboardInterrupt):
            move("2", "one", may=False, force=True)
    assert history("demo")[0].state == "unfinished"
    move("3", "two" if moved else "one")
    assert [one.state for one in history("demo")] == ["done", "done" if moved else "broken off", "done"]
    assert versions("demo")[1].tags.get("forced") == ("alice: it is better" if moved else None)


def interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_run_that_somebody_logged_among_the_promotions_is_passed_over(project: Path) -> None:
    import mlflow

    move("1")
    client = mlflow.MlflowClient()
    client.create_run(client.get_experiment_by_name("demo promotions").experiment_id, run_name="by hand")
    assert [one.to for one in history("demo")] == ["1"]
    assert not move("2", "one").forced, "nor does it look like a promotion that is under way"


@pytest.mark.parametrize("look", ["promote 1 --dry-run", "promote --dry-run", "registry", "rollback --reason x"])
def test_a_registry_that_is_away_is_told_without_a_traceback(
    project: Path, monkeypatch: pytest.MonkeyPatch, look: str
) -> None:
    shutil.copy(ROOT / "params.yaml", project)
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        patch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        told = r"^The registry http://127\.0\.0\.1:9 cannot be read: .*does the server run\?$"
        with pytest.raises(UserError, match=told):
            CliRunner().invoke(app, look.split(), catch_exceptions=False)
    connect()


def test_a_version_that_was_tampered_with_is_refused_whatever_is_forced(project: Path) -> None:
    import mlflow

    move("1")
    (weights,) = project.glob("mlruns/*/models/*/artifacts/artifacts/full/model.safetensors")
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    try:
        for force in (False, True):
            with pytest.raises(UserError, match="not those that were registered"):
                promote("demo", "2", who="alice", reason="better", decision=decision("2", "one"), force=force)
        mlflow.MlflowClient().set_registered_model_alias("demo", "previous", "2")
        with pytest.raises(UserError, match="not those that were registered"):
            rollback("demo", who="bob", reason="back")
    finally:
        weights.write_bytes(kept)
    assert aliases() == {"champion": "1", "previous": "2"}


def test_without_its_examples_video_a_rollback_goes_and_a_promotion_does_not(project: Path) -> None:
    move("1")
    move("2", "one")
    shutil.move("clip.mp4", "elsewhere.mp4")
    try:
        with pytest.raises(UserError, match=r"the video of its example, 'clip\.mp4', is not here"):
            promote("demo", "3", who="alice", reason="better", decision=decision("3", "two"))
        rollback("demo", who="bob", reason="the data is on another machine")
    finally:
        shutil.move("elsewhere.mp4", "clip.mp4")
    assert aliases() == {"champion": "1", "previous": "2"}


def test_a_model_whose_base_is_gone_is_refused_as_champion_and_as_a_way_back(project: Path) -> None:
    import mlflow
    from peft import LoraConfig, get_peft_model

    from tpo.models.load import load_model
    from tpo.params import ModelParams

    shutil.copytree("full", "base", dirs_exist_ok=True)
    base = load_model(ModelParams(base="base", dtype="float32", device="cpu"))
    config = LoraConfig(r=2, target_modules=base.family.lora_targets, base_model_name_or_path="base")
    get_peft_model(base.model, config).save_pretrained("adapter")
    adapter = register(
        Path("adapter"),
        base="base",
        base_revision=None,
        name="on-base",
        measured_with={"num_frames": 4, "max_new_tokens": 5, "model": {"dtype": "float32"}},
        tags={"candidate_id": "one"},
        metrics={},
        run_id=log_stage("train", "tpo", params={}, metrics={}),
        example={"video": "clip.mp4", "question": "Which color is the star?"},
    )
    shutil.move("base", "gone")
    with pytest.raises(UserError, match="which is not here"):
        promote("on-base", adapter, who="alice", reason="better", decision=decision("1"), force=True)
    mlflow.MlflowClient().set_registered_model_alias("on-base", "previous", adapter)
    with pytest.raises(UserError, match="which is not here"):
        rollback("on-base", who="alice", reason="back")
    shutil.move("gone", "base")
    promote("on-base", adapter, who="alice", reason="better", decision=decision("1"))


PROMOTE = """
import sys, time
from pathlib import Path
from tpo.errors import UserError
from tpo.records import GateDecision
from tpo.registry.promotion import promote
from tpo.registry.evidence import Proof
import mlflow  # before the start
decision = GateDecision.model_validate_json(sys.argv[2])
proof = Proof.model_validate_json(sys.argv[3])
Path(f"ready-{sys.argv[1]}").touch()
while not Path("go").exists():
    time.sleep(0.001)
try:
    promote("demo", sys.argv[1], who=f"racer {sys.argv[1]}", reason="to win", decision=decision, proof=proof)
except UserError as error:
    sys.exit(f"REFUSED {error}")
"""


def start(version: str, champion: str) -> "subprocess.Popen[str]":
    """A process that stands ready to promote a version once there is a file `go`."""
    said = decision(version, champion).model_dump_json()
    for name in ("go", f"ready-{version}"):
        Path(name).unlink(missing_ok=True)
    command = [sys.executable, "-c", PROMOTE, version, said, proof_of(version).model_dump_json()]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def wait_for(*names: str) -> None:
    while not all(Path(name).exists() for name in names):
        time.sleep(0.01)


def test_of_two_promotions_at_once_one_wins_and_the_other_is_told(project: Path) -> None:
    move("1")
    racers = [start(version, "one") for version in ("2", "3")]
    wait_for("ready-2", "ready-3")
    Path("go").touch()
    told = [racer.communicate(timeout=120)[1] for racer in racers]
    codes = [racer.returncode for racer in racers]
    assert sorted(codes) == [0, 1], told
    assert "REFUSED" in told[codes.index(1)]
    winner = ("2", "3")[codes.index(0)]
    assert aliases() == {"champion": winner, "previous": "1"}
    assert [(one.to, one.state) for one in history("demo")] == [(winner, "done"), ("1", "done")]
    assert not is_locked()


def test_a_promotion_that_is_killed_in_between_is_seen_and_finished_by_the_same_command(project: Path) -> None:
    move("1")
    racer = start("2", "one")
    wait_for("ready-2")
    Path("go").touch()
    running = "SELECT 1 FROM runs WHERE status = 'RUNNING' AND name = 'promote 2'"
    with closing(sqlite3.connect("mlflow.db", timeout=60)) as database:
        while not database.execute(running).fetchall():
            assert racer.poll() is None, racer.communicate()
            time.sleep(0.0005)
    racer.send_signal(signal.SIGKILL)
    racer.communicate()
    state = history("demo")[0].state
    assert state in ("unfinished", "done")
    assert is_locked() or state == "done"
    assert aliases()["champion"] in ("1", "2")
    move("2", "one")
    assert aliases() == {"champion": "2", "previous": "1"}
    assert not is_locked()
    assert "unfinished" not in [one.state for one in history("demo")]
    assert sum(one.state == "done" and one.to == "2" for one in history("demo")) == 1


def test_a_movement_that_was_broken_off_is_undone_before_another_begins(project: Path) -> None:
    """As a kill leaves it after `previous` was moved and before `champion` was."""
    import mlflow

    move("1")
    move("2", "one")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("demo promotions").experiment_id
    facts = {"action": "promote", "to": "3", "from": "2", "previous": "1", "who": "x", "reason": "y", "forced": "false"}
    client.create_run(experiment, tags=facts)
    client.set_registered_model_alias("demo", "previous", "2")
    assert history("demo")[0].state == "unfinished"
    rollback("demo", who="bob", reason="quickly")
    assert aliases() == {"champion": "1", "previous": "2"}
    assert [one.state for one in history("demo")] == ["done", "broken off", "done", "done"]


def test_a_rollback_that_was_killed_before_it_was_written_down_is_not_made_twice(project: Path) -> None:
    import mlflow

    move("1")
    move("2", "one")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("demo promotions").experiment_id
    facts = {
        "action": "rollback",
        "to": "1",
        "from": "2",
        "previous": "1",
        "who": "x",
        "reason": "y",
        "forced": "false",
    }
    client.create_run(experiment, tags=facts)
    client.set_registered_model_alias("demo", "previous", "2")
    client.set_registered_model_alias("demo", "champion", "1")
    rollback("demo", who="bob", reason="quickly")
    assert aliases() == {"champion": "1", "previous": "2"}
    assert [one.state for one in history("demo")] == ["done", "done", "done"]


def test_while_someone_moves_aliases_others_are_told_and_a_dead_holder_is_taken_over(project: Path) -> None:
    import mlflow

    with promotion_lock("demo", "carol"):
        with pytest.raises(UserError, match="carol moves the aliases of 'demo' at this moment"):
            move("1")
        assert [version.version for version in versions("demo")] == ["3", "2", "1"]
    assert not is_locked()
    here, elsewhere = (
        {"host": os.uname().nodename, "pid": "999999999", "since": str(time.time())},
        {"host": "another machine", "pid": "1", "since": str(time.time() - 600)},
    )
    for holder, version, champion in ((here, "1", None), (elsewhere, "2", "one")):
        mlflow.MlflowClient().create_registered_model("demo-promotion-lock", {"who": "dave", "token": "t", **holder})
        move(version, champion)
        assert not is_locked()


def test_of_two_that_find_a_dead_holder_one_takes_over_and_what_nobody_may_be_said_to_hold_is_named(
    project: Path,
) -> None:
    import mlflow

    client = mlflow.MlflowClient()
    dead = {"who": "dave", "token": "t", "host": "another machine", "pid": "1", "since": "0"}
    client.create_registered_model("demo-promotion-lock", dead)
    client.create_registered_model("demo-promotion-lock-t")  # the other one is about to delete it
    try:
        with pytest.raises(UserError, match="Someone else began to move the aliases of 'demo' at this moment"):
            move("1")
        assert client.get_registered_model("demo-promotion-lock").tags == dead
    finally:
        for name in ("demo-promotion-lock", "demo-promotion-lock-t"):
            client.delete_registered_model(name)
    client.create_registered_model("demo-promotion-lock")  # by hand: it says nothing
    try:
        with pytest.raises(UserError, match="if nobody did, delete the registered model 'demo-promotion-lock'"):
            move("1")
    finally:
        client.delete_registered_model("demo-promotion-lock")
    assert aliases() == {}


def test_a_holder_that_was_taken_over_moves_nothing_more(project: Path) -> None:
    import mlflow

    with promotion_lock("demo", "carol") as lock:
        lock.check()
        mlflow.MlflowClient().set_registered_model_tag("demo-promotion-lock", "token", "dave's")
        with pytest.raises(UserError, match="was taken over"):
            lock.check()
    assert is_locked(), "it is dave's by now"
    mlflow.MlflowClient().delete_registered_model("demo-promotion-lock")


def test_no_password_of_an_address_gets_into_the_history(project: Path) -> None:
    why = "see https://me:s3cret@host/x"
    promote("demo", "1", who="alice", reason=why, decision=decision("1"), proof=proof_of("1"))
    assert json.dumps([one.model_dump() for one in history("demo")]).count("s3cret") == 0
    assert history("demo")[0].reason == "see https://***@host/x"
