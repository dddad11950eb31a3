"""`tpo status`: truthful in an empty project, half-way, while something runs, and when files are damaged."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tpo.records import GateDecision
from tpo.status.project import ProjectStatus, look, next_step
from tpo.status.registered import Registered
from tpo.status.running import running
from tpo.status.stages import StageStatus
from tpo.status.stale import Stale, stale_stages, upstream
from tpo.status.text import next_text, stale_text, to_text
from tpo.store import Manifest, publish

ROOT = Path(__file__).resolve().parents[1]
CHAIN = {"ingest": set(), "mix": {"ingest"}, "train": {"mix"}, "evaluate": {"train"}, "extra": set()}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def test_an_empty_project_says_how_to_begin(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    found = look(project)
    assert to_text(found).splitlines() == [
        "Stages     none has run yet",
        "Base model demo/checkpoint",
        "Registry   tpo-demo: nothing is registered yet",
        "Gate       has not decided yet",
        "Running    nothing in this folder",
    ]
    assert "`make demo`" in next_step(found, Stale())


def test_half_way_it_tells_what_is_done_and_what_is_kept_of_the_rest(project: Path) -> None:
    counts = {"items_in": 9, "items_out": 7, "set_aside": {"empty_file": 2}}
    publish(project / "data/catalog", {}, Manifest(stage="ingest", item="files", seconds=1, **counts))
    (project / ".tpo/caption/abc").mkdir(parents=True)
    (project / ".tpo/caption/abc/journal.jsonl").write_text("{}\n{}\n{}\n")
    (project / ".tpo/train/abc/checkpoints/def/checkpoint-25").mkdir(parents=True)
    (project / ".tpo/train/abc/checkpoints/def/checkpoint-100").mkdir()
    told = to_text(look(project))
    assert "ingest    7 of 9 files; set aside: 2 empty file\n" in told
    assert "caption   begun: 3 videos or files are done\n" in told
    assert "train     begun: step 100 is saved\n" in told
    assert "ask       has not run\n" in told


def test_damaged_files_are_named_and_the_rest_is_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest = Manifest(stage="ingest", item="files", items_in=1, items_out=1, set_aside={}, seconds=1)
    publish(project / "data/catalog", {}, manifest)
    publish(project / "data/captions", {}, manifest)
    (project / "data/captions/manifest.json").write_bytes(b"\xff\x00 half")
    (project / "reports").mkdir()
    (project / "reports/gate.json").write_text('{"promote": ')
    (project / "mlflow.db").write_text("no database " * 50)
    (project / "params.yaml").write_text("train: [\n")
    (project / ".tpo/progress").mkdir(parents=True)
    (project / f".tpo/progress/{os.getpid()}.json").write_text('{"prefix": "train"}')
    (project / f".tpo/progress/{os.getppid()}.json").write_text('{"prefix": "tra')
    monkeypatch.chdir(project)
    found = look(Path())
    told = to_text(found)
    assert "params     params.yaml is not valid YAML" in told
    assert "ingest    1 of 1 files" in told
    assert "caption   DAMAGED: " in told
    assert "reports/gate.json is damaged" in told
    assert "Registry   not looked up without params.yaml" in told
    assert "mend params.yaml" in next_step(found, Stale())


def test_what_runs_is_told_with_its_step_and_who_was_killed_is_not(project: Path) -> None:
    (project / "flows").mkdir()
    (project / "flows/__init__.py").touch()
    (project / "flows/train.py").write_text(
        "import os, sys, time\n"
        "from tpo.progress import progress\n"
        "bar = progress(40, 'train', 'steps', done=10)\n"
        "time.sleep(1.1)\n"
        "bar.update(5)\n"
        "print('ready', flush=True)\n"
        "sys.stdin.read()\n"
    )
    (project / ".tpo").mkdir()
    with subprocess.Popen(
        [sys.executable, "-m", "flows.train"], cwd=project, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    ) as stage:  # fmt: skip
        assert stage.stdout is not None
        assert stage.stdout.readline() == "ready\n"
        [one] = running(project)
        told = to_text(look(project))
        stage.kill()
    assert (one.what, one.pid, one.done, one.total, one.unit) == ("train", stage.pid, 15, 40, "steps")
    assert one.left_s is not None
    assert 5 < one.left_s < 60  # 25 steps at 5 in a good second
    assert f"Running    train, pid {stage.pid}, for " in told
    assert ": 15 of 40 steps, " in " ".join(told.split())
    assert (project / f".tpo/progress/{stage.pid}.json").is_file()  # left by a kill
    assert running(project) == ()


def test_a_stage_is_stale_for_its_reason_or_because_of_what_comes_before_it() -> None:
    dot = 'strict digraph {\n"ingest";\n"extra";\n"ingest" -> "mix";\n"mix" -> "train";\n"train" -> "evaluate";\n}\n'
    assert upstream(dot) == CHAIN
    changed: dict[str, Any] = {
        "evaluate": ["changed command"],
        "mix": [
            {"changed deps": {"params.yaml": {"mix": "modified"}, "tpo/store.py": "modified", "flows/mix.py": "new"}},
            {"changed outs": {"data/pairs": "modified"}},
        ],
    }
    assert stale_stages(changed, CHAIN) == {
        "mix": "settings: mix; code: tpo/store.py and 1 more; own output changed: data/pairs",
        "train": "comes after mix",
        "evaluate": "changed command",
    }
    gone = {"ingest": [{"changed deps": {"data/videos": "modified"}}, {"changed outs": {"data/catalog": "deleted"}}]}
    assert stale_stages(gone, {"ingest": set()}) == {"ingest": "its output is not here"}
    assert stale_text(Stale()) == "Stale      nothing"


DONE = StageStatus(name="ingest", state="done", item="files", items_in=1, items_out=1)
STATUS = ProjectStatus(
    params_problem="", base="base", promoted_by="person", stages=(DONE,), decision=None, running=(), services=(),
    registered=Registered(name="demo", versions=("2", "1"), champion="1", challenger="2"), prefect=(), has_report=True,
)  # fmt: skip
OF_THE_CHAMPION = {"candidate_id": "a", "champion_id": "a"}
PASSED = {"promote": True, "rules": [], "summary": "Passed."}


@pytest.mark.parametrize(
    ("changes", "stale", "step"),
    [
        ({}, Stale(stages={"train": "settings: train"}), "`dvc repro` runs what is stale"),
        ({}, Stale(problem="DVC is not installed"), "`dvc status`"),
        ({"decision": PASSED}, Stale(), "`tpo promote --dry-run` shows the rules, `tpo promote 2 --reason"),
        ({"decision": PASSED, "promoted_by": "gate"}, Stale(), "ask the champion"),
        ({"decision": PASSED | {"promote": False}}, Stale(), "why it was refused"),
        ({"decision": PASSED | {"promote": False, **OF_THE_CHAMPION}}, Stale(), "ask the champion"),
        ({"running": [{"what": "train", "pid": 1, "seconds": 5}]}, Stale(stages={"a": "b"}), "wait for train"),
        ({"stages": [DONE.model_copy(update={"state": "damaged"})]}, Stale(), "`dvc repro` makes ingest again"),
        ({"decision_problem": "reports/gate.json is damaged"}, Stale(), "reports/gate.json is damaged"),
        ({"registered": None}, Stale(), "look at reports/index.html"),
    ],
)
def test_the_next_step_is_one(changes: dict[str, Any], stale: Stale, step: str) -> None:
    status = ProjectStatus.model_validate(json.loads(STATUS.model_dump_json()) | changes)
    assert step in next_step(status, stale)


def test_it_fits_into_80_columns() -> None:
    long = StageStatus(
        name="judge", state="done", item="pairs", items_in=9, items_out=1, set_aside={"x" * 20: 4, "y": 4}
    )
    decision = GateDecision(promote=False, rules=(), summary="Refused: " + "not better than before; " * 9)
    status = STATUS.model_copy(
        update={"stages": (DONE, long), "decision": decision, "services": ("prefect  pid 1  http://127.0.0.1:4200",)}
    )
    stale = Stale(stages={f"stage{n}": "its output is not here" for n in range(12)} | {"train": "settings: train"})
    text = "\n".join([to_text(status), stale_text(stale), next_text(next_step(status, stale))])
    assert max(map(len, text.splitlines())) <= 80
    titles = [line.split(" ")[0] for line in text.splitlines() if not line.startswith(" ")]
    assert titles == ["Stages", "Base", "Registry", "Gate", "Running", "Servers", "Stale", "Next"]
