"""Unattended runs as they are: `make up`'s servers and workers, deployments of prefect.yaml, killed while training."""

import csv
import datetime as dt
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml
from processes import edit_params, free_port

from tpo.demo.build import build_benchmarks, build_videos
from tpo.params import load_params
from tpo.records import GateDecision, PreferencePair, Video
from tpo.registry.package import challenge, register
from tpo.registry.promotion import Promotion
from tpo.registry.tracking import log_stage
from tpo.store import Manifest, publish
from tpo.video.probe import Prober
from tpo.video.sample import dense

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).resolve().parents[2]
NIGHTLY = yaml.safe_load((ROOT / "prefect.yaml").read_text())
STAGES = {
    "ingest": (["data/demo/videos", "data/demo/benchmarks"], "data/catalog"),
    "caption": (["data/demo/videos", "data/catalog/videos.jsonl"], "data/captions"),
    "ask": (["data/catalog/videos.jsonl", "data/captions/captions.jsonl"], "data/queries"),
    # After the others, as in dvc.yaml.
    "train": (["data/catalog/videos.jsonl", "data/queries/queries.jsonl", "data/pairs"], "models/tuned"),
}
CHECKPOINTS = ".tpo/train/*/checkpoints/*/*/trainer_state.json"
NUM_STEPS = 40
SLOW_TRAINING = {
    "pairs_per_step": 1, "pairs_per_device": 1, "num_epochs": 4, "save_every_steps": 5, "learning_rate": 1e-6,
}  # fmt: skip

# A stage that may be kept from its work until something else has happened.
WHEN_LET_GO = "while [ -e hold ]; do sleep 0.1; done; python -m flows.ingest"


def git(folder: Path, *arguments: str) -> str:
    who = ["-c", "user.name=A Test", "-c", "user.email=test@example.org"]
    return subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True, text=True).stdout


def write_stages(folder: Path, more: dict[str, Any] | None = None, **commands: str) -> None:
    usual = {name: f"python -m flows.{name}" for name in STAGES} | {"ingest": WHEN_LET_GO}
    stages = {
        name: {"cmd": (usual | commands)[name], "deps": deps, "params": [name], "outs": [out]}
        for name, (deps, out) in STAGES.items()
    }
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages | (more or {})}, sort_keys=False))


def write_pairs(folder: Path) -> None:
    """What the stages between `ask` and `train` would have left: ten pairs, and a verdict on them."""
    root = load_params(folder / "params.yaml").data.videos
    with Prober(folder / ".tpo/frames") as prober:
        video = prober.probe(folder / root, min((folder / root).glob("*.mp4")))
    assert isinstance(video, Video)
    view = dense(video, 4)
    pairs = [
        PreferencePair(
            id=f"pair{number}", video_id=video.id, query_id="q", granularity=None, question_type=None,
            question="What comes first?", view=view, chosen="a red star", rejected=f"{number} blue moons",
            chosen_tokens=3, rejected_tokens=3, chosen_view=view, rejected_view=view, segment=None, model_id="m",
            verdicts=(), judge="rule",
        )
        for number in range(10)
    ]  # fmt: skip
    counts = {"training pairs": len(pairs), "held-out pairs": 0}
    passing: dict[str, Any] = {"items_in": 10, "items_out": 10, "set_aside": {}, "seconds": 0, "item": "pairs"}
    publish(
        folder / "data/pairs",
        {"pairs.jsonl": pairs, "held_out.jsonl": []},
        Manifest(stage="mix", counts=counts, **passing),
    )
    publish(folder / "data/validation", {}, Manifest(stage="validate", facts={"success": True}, **passing))


@dataclass
class Site:
    """A project with three real stages, and the servers and workers that `make up` starts for it."""

    folder: Path
    environment: dict[str, str]

    def services(self, command: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "flows.services", command],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def status(self) -> dict[str, Any]:
        """What `tpo status --json` says."""
        done = subprocess.run(
            [sys.executable, "-m", "tpo.cli", "status", "--json"],
            cwd=self.folder, capture_output=True, text=True, check=True,
            env=self.environment | {"PREFECT_API_URL": self.url, "MLFLOW_TRACKING_URI": self.mlflow_url},
        )  # fmt: skip
        return dict(json.loads(done.stdout))

    def schedule(self, *schedules: dict[str, Any]) -> None:
        retrain, *others = NIGHTLY["deployments"]
        deployments = [retrain | {"schedules": list(schedules)}, *others]
        (self.folder / "prefect.yaml").write_text(yaml.safe_dump(NIGHTLY | {"deployments": deployments}))

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.environment['PREFECT_SERVER_API_PORT']}/api"

    @property
    def mlflow_url(self) -> str:
        return f"http://127.0.0.1:{self.environment['MLFLOW_PORT']}"

    def api(self, path: str, **body: Any) -> Any:
        for _ in range(20):
            answer = httpx.post(f"{self.url}/{path}", json=body, timeout=90)
            if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:  # with SQLite, now and then
                break
            time.sleep(0.5)
        answer.raise_for_status()
        return answer.json() if answer.content else None

    def runs(self, **of_flow_run: Any) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.api("flow_runs/filter", flow_runs=of_flow_run, sort="START_TIME_ASC")
        return found

    def run(self, run_id: str) -> dict[str, Any]:
        return self.runs(id={"any_": [run_id]})[0]

    def command(self, command: str, **body: Any) -> Any:
        """Of Prefect's API, about the deployment of retraining."""
        deployment = self.api("deployments/filter", deployments={"name": {"any_": ["retrain"]}})[0]
        return self.api(f"deployments/{deployment['id']}/{command}", **body)

    def start(self, **parameters: Any) -> str:
        """The id of a run of the deployment, on demand."""
        return str(self.command("create_flow_run", parameters=parameters)["id"])

    def wait(self, run_id: str) -> dict[str, Any]:
        final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        return until(lambda: run if (run := self.run(run_id))["state_type"] in final else None)

    def log(self, run_id: str) -> str:
        lines = self.api("logs/filter", logs={"flow_run_id": {"any_": [run_id]}}, sort="TIMESTAMP_ASC")
        return "\n".join(line["message"] for line in lines)

    def artifact(self, run_id: str, key: str) -> str:
        found = self.api("artifacts/filter", artifacts={"flow_run_id": {"any_": [run_id]}, "key": {"any_": [key]}})
        return str(found[0]["data"])

    def processes(self, words: str = "") -> list[psutil.Process]:
        """Of this site, by what is in their command lines, or by the flow run that they work for."""
        found = []
        for process in psutil.process_iter(["cmdline", "status"]):
            try:
                variables = process.environ()
                ours = variables.get("TPO_SERVICES") == str(self.folder / ".tpo/services")
                told = " ".join([*process.info["cmdline"], variables.get("PREFECT__FLOW_RUN_ID", "")])
                if ours and process.pid != os.getpid() and words in told:
                    found.append(process)
            except psutil.Error:
                continue
        return found


def until(found: Callable[[], Any], timeout_s: float = 120) -> Any:
    ends_at = time.monotonic() + timeout_s
    while not (value := found()):
        assert time.monotonic() < ends_at, "waited in vain"
        time.sleep(0.1)
    return value


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, tiny_checkpoint: Path) -> Path:
    folder = tmp_path_factory.mktemp("site")
    for room in ("flows", "tpo"):
        (folder / room).symlink_to(ROOT / room)
    shutil.copy(ROOT / "params.yaml", folder)
    edit_params(folder, lambda wanted: wanted["demo"].update(num_train_videos=4, num_eval_videos=6, num_needles=2))
    edit_params(folder, lambda wanted: wanted["model"].update(base=str(tiny_checkpoint), device="cpu"))
    edit_params(folder, lambda wanted: wanted["train"].update(SLOW_TRAINING))
    demo = load_params(folder / "params.yaml").demo
    build_videos(folder / "data/demo/videos", demo)
    build_benchmarks(folder / "data/demo/benchmarks", demo)
    write_pairs(folder)
    write_stages(folder)
    (folder / "hold").touch()
    (folder / ".gitignore").write_text(
        "/hold\n/data/\n/models/\n/reports/\n/.tpo/\n/mlflow.db\n/remote/\n/.dvc/tmp\n/.dvc/cache\n/mlartifacts/\n"
    )
    (folder / ".dvc").mkdir()
    shared = (ROOT / ".dvc/config").read_text()
    (folder / ".dvc/config").write_text(
        shared.replace("[core]", "[core]\n    remote = box") + "['remote \"box\"']\n    url = ../remote\n"
    )
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", ".")
    git(folder, "commit", "--quiet", "--message", "begin")
    return folder


@pytest.fixture(scope="module")
def site(project: Path, without_server: dict[str, str]) -> Iterator[Site]:
    quick = {
        "PREFECT_SERVER_API_PORT": str(free_port()),
        "MLFLOW_PORT": str(free_port()),
        "PREFECT_WORKER_QUERY_SECONDS": "2",
        # Not a hundred at once, as usual.
        **{f"PREFECT_SERVER_SERVICES_SCHEDULER_{name}_RUNS": "1" for name in ("MIN", "MAX")},
        "PREFECT_SERVER_SERVICES_SCHEDULER_MIN_SCHEDULED_TIME": "PT1S",
        "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "2",
        "GIT_AUTHOR_NAME": "A Test", "GIT_AUTHOR_EMAIL": "test@example.org",
        "GIT_COMMITTER_NAME": "A Test", "GIT_COMMITTER_EMAIL": "test@example.org",
    }  # fmt: skip
    site = Site(project, without_server | quick)
    site.schedule({"interval": 15, "anchor_date": dt.datetime.now(dt.UTC).isoformat(), "slug": "nightly"})
    site.services("up")
    yield site
    site.services("down")


@dataclass(frozen=True)
class Killed:
    """A run that its schedule started and that was killed with its worker in the middle of training.

    `second` had been started in between, and waited. `trained` is what the last checkpoint tells of the steps before.
    """

    run: dict[str, Any]
    second: str
    trained: list[dict[str, float]]
    told_by_up: str


@pytest.fixture(scope="module")
def killed(site: Site) -> Killed:
    run = until(lambda: site.runs(state={"type": {"any_": ["RUNNING"]}}, parent_task_run_id={"is_null_": True}))[0]
    site.command("pause_deployment")  # the schedule has been seen to work, and those that it queued would be in the way
    for queued in site.runs(state={"type": {"any_": ["SCHEDULED"]}}):
        httpx.delete(f"{site.url}/flow_runs/{queued['id']}", timeout=90)
    second = site.start(commit_to="retrain")
    until(lambda: site.run(second)["state_name"] == "AwaitingConcurrencySlot")
    victims = [*site.processes("worker start --pool tpo-gpu"), *site.processes("prefect.engine")]
    assert f"{run['name']} is running" in (told := site.status())["prefect"]
    assert "DVC is not asked while something runs" in told["stale"]["problem"]
    (site.folder / "hold").unlink()
    until(lambda: any(site.folder.glob(CHECKPOINTS)), 300)  # three stages come before
    for process in victims:
        process.kill()
    until(lambda: not site.processes("flows.train"), 90)
    states = [json.loads(path.read_text()) for path in site.folder.glob(CHECKPOINTS)]
    trained = max(states, key=lambda state: state["global_step"])["log_history"]
    assert not (site.folder / "models/tuned").exists(), "the kill came too late to be in the middle"
    site.schedule(*NIGHTLY["deployments"][0]["schedules"])
    told = site.services("up")
    site.command("resume_deployment")
    return Killed(run, second, [entry for entry in trained if "loss" in entry], told)


@pytest.fixture(scope="module")
def finished(site: Site, killed: Killed) -> dict[str, Any]:
    """The run that had to wait."""
    return site.wait(killed.second)


def test_a_deployments_schedule_starts_a_run_and_a_second_start_waits(killed: Killed) -> None:
    assert killed.run["auto_scheduled"]
    assert killed.run["work_pool_name"] == "tpo-gpu"


def test_what_died_is_started_again_and_told_to_have_crashed(site: Site, killed: Killed) -> None:
    assert "Running already: prefect, mlflow, tpo-cpu." in killed.told_by_up
    assert site.run(killed.run["id"])["state_type"] == "CRASHED"
    states = [run["state_type"] for run in site.runs(tags={"all_": [f"pipeline:{killed.run['id']}"]})]
    assert states == ["COMPLETED"] * 3 + ["CRASHED"]


def test_the_run_after_a_kill_trains_on_from_the_checkpoint_and_links_the_flow_runs_of_its_stages(
    site: Site, killed: Killed, finished: dict[str, Any]
) -> None:
    assert finished["state_type"] == "COMPLETED", site.log(finished["id"])
    (train,) = site.runs(tags={"all_": [f"pipeline:{finished['id']}"]})
    assert train["state_type"] == "COMPLETED"
    told = site.artifact(finished["id"], "tpo-retrain")
    assert re.search(rf"\| train \| ran \| [\d.]+ \| \[{train['name']}\]\(http://127\.0\.0\.1:", told)
    assert "No model was registered; the champion stays." in told
    curves = list(csv.DictReader((site.folder / "reports/training/curves.csv").open()))
    assert [float(row["step"]) for row in curves] == list(range(1, NUM_STEPS + 1))
    # How fast a step was is never the same twice: those before the kill were not taken again.
    speeds = [entry["tokens_per_second"] for entry in killed.trained]
    assert 5 <= len(speeds) < NUM_STEPS
    assert [float(row["tokens_per_second"]) for row in curves[: len(speeds)]] == pytest.approx(speeds)


def test_what_dvc_recorded_is_on_a_branch_and_in_the_remote_and_no_file_or_index_is_touched(
    site: Site, finished: dict[str, Any]
) -> None:
    assert git(site.folder, "log", "--format=%s", "main..retrain") == "retrain: train ran\n"
    assert git(site.folder, "show", "retrain:dvc.lock") == (site.folder / "dvc.lock").read_text()
    assert git(site.folder, "diff", "--cached", "--name-only") == ""
    assert list((site.folder / "remote").rglob("*.dir"))


def test_nothing_new_means_nothing_run(site: Site, finished: dict[str, Any]) -> None:
    run = site.wait(site.start(commit_to="retrain"))
    assert run["state_type"] == "COMPLETED"
    assert site.runs(tags={"all_": [f"pipeline:{run['id']}"]}) == []
    assert site.artifact(run["id"], "tpo-retrain").startswith("Nothing ran.")
    assert git(site.folder, "rev-list", "--count", "main..retrain") == "1\n"


def test_a_stage_that_finds_the_disk_full_leaves_the_champion_and_says_what_to_do(
    site: Site, finished: dict[str, Any]
) -> None:
    import mlflow

    client = mlflow.MlflowClient(f"http://127.0.0.1:{site.environment['MLFLOW_PORT']}")
    client.create_registered_model("tpo-demo")
    champion = client.create_model_version("tpo-demo", "s3://box/model")
    client.set_registered_model_alias("tpo-demo", "champion", champion.version)
    before = (site.folder / "data/queries/queries.jsonl").read_bytes()
    write_stages(site.folder, ask="ulimit -f 8; python -m flows.ask")
    run = site.wait(site.start())
    assert run["state_type"] == "FAILED"
    told = site.artifact(run["id"], "tpo-retrain-failed")
    assert told.startswith("The stage `ask` failed, and no later one ran. The champion is untouched.")
    assert "No space left to write .tpo/ask/" in told
    assert "Traceback" not in told
    assert (site.folder / "data/queries/queries.jsonl").read_bytes() == before
    assert client.get_model_version_by_alias("tpo-demo", "champion").version == champion.version
    told = until(lambda: found if (found := site.status())["stale"]["stages"] else None)
    assert told["stale"]["stages"]["ask"] == "changed command"
    assert (told["registered"]["versions"], told["registered"]["champion"]) == (["1"], "1")
    assert [line.split()[0] for line in told["services"]] == ["prefect", "mlflow", "tpo-gpu", "tpo-cpu"]
    write_stages(site.folder)


def test_a_cancelled_run_ends_its_stage_with_all_that_runs(site: Site, finished: dict[str, Any]) -> None:
    """That the next run goes on is seen below."""
    write_stages(site.folder, ask="touch .tpo/asking; sleep 300")
    run = site.start()
    until((site.folder / ".tpo/asking").exists)
    site.api(f"flow_runs/{run}/set_state", state={"type": "CANCELLING"})
    assert site.wait(run)["state_type"] == "CANCELLED"
    until(lambda: not site.processes("sleep 300"), 30)
    write_stages(site.folder)


def test_a_challenger_waits_for_a_person_who_is_asked_before_a_push_that_fails_and_whose_yes_makes_it_champion(
    site: Site, finished: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    monkeypatch.chdir(site.folder)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{site.environment['MLFLOW_PORT']}")
    version = register(
        Path("models/tuned"), base="base", base_revision=None, name="tpo-demo", metrics={},
        measured_with={"num_frames": 4, "max_new_tokens": 5, "model": {"dtype": "float32"}},
        tags={"candidate_id": "one"}, run_id=log_stage("train", "tpo", params={}, metrics={}),
        example={"video": str(min(Path("data/demo/videos").glob("*.mp4"))), "question": "What comes first?"},
    )  # fmt: skip
    decision = GateDecision(promote=True, rules=(), summary="Passed: +5 points.", id="d", candidate_id="one")
    challenge("tpo-demo", version, decision)
    client = mlflow.MlflowClient()
    client.delete_registered_model_alias("tpo-demo", "champion")  # if another test left one, the decision is stale
    stays = Promotion(promoted=False, version=version, champion=None, previous=None, reason=decision.summary)
    Path("gate.json").write_text(decision.model_dump_json())
    Path("registry.json").write_text(stays.model_dump_json())
    deps = ["gate.json", "registry.json"]
    outs = [{f"reports/{name}": {"cache": False}} for name in deps]
    write_stages(site.folder, {"register": {"cmd": f"cp {' '.join(deps)} reports/", "deps": deps, "outs": outs}})
    away = Path(".dvc/config.local")
    away.write_text("['remote \"box\"']\n    url = ../gate.json\n")
    retraining = site.start(pull=False)
    run = until(lambda: site.runs(state={"type": {"any_": ["PAUSED"]}}))[0]
    assert run["parameters"]["version"] == version
    until(lambda: "-m dvc push` failed" in site.log(retraining))
    until(lambda: not site.processes(run["id"]))
    answer = {"version": version, "approve": True, "who": "alice", "reason": "read twenty answers"}
    assert site.api(f"flow_runs/{run['id']}/resume", run_input=answer)["status"] == "ACCEPT"
    done = site.wait(run["id"])
    assert done["state"]["message"] == f"Version {version} of tpo-demo is champion; before it was none."
    assert client.get_model_version_by_alias("tpo-demo", "champion").version == version
    assert "files pushed" not in site.log(retraining)
    away.unlink()  # it would push now; nobody waits for that


def test_down_leaves_no_process(site: Site, finished: dict[str, Any]) -> None:
    """Not even of a run that is not over, from the test before."""
    assert site.processes("mlflow")
    site.services("down")
    assert site.processes() == []
    assert site.services("status") == "Nothing runs. `make up` starts everything.\n"
