"""dvc.yaml against the code: what a stage runs is what it depends on, and nothing in there is a name of nothing."""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tpo.curation.reviews import REVIEWS
from tpo.params import Params, load_params

ROOT = Path(__file__).resolve().parents[1]
SETTINGS: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text())
STAGES: dict[str, dict[str, Any]] = {
    name: stage
    for file in ("dvc.yaml", "demo/dvc.yaml")
    for name, stage in yaml.safe_load((ROOT / file).read_text())["stages"].items()
}
FLOWS = [name for name in STAGES if name != "world"]
# Settings of other sections that a flow reads and that change nothing in what it makes.
HARMLESS = {"runtime"}
HARMLESS_IN = {"train": {"register"}, "evaluate": {"register", "ingest"}}


def module_of(stage: str) -> str:
    match = re.fullmatch(r"python -m ([\w.]+)", STAGES[stage]["cmd"])
    assert match, "a stage is run as a module, which works from any environment"
    return match[1]


def names(stage: str, kind: str) -> list[str]:
    """The paths under `deps`, `outs`, …, those templated from params.yaml filled in."""
    entries = [next(iter(entry)) if isinstance(entry, dict) else entry for entry in STAGES[stage].get(kind, [])]
    sections = SETTINGS["data"]
    return [re.sub(r"\$\{data\.(\w+)\}", lambda match: sections[match[1]], entry) for entry in entries]


def file_of(module: str) -> Path | None:
    path = ROOT / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file()), None)


@cache
def used_by(file: Path) -> frozenset[Path]:
    """Project files that a file imports, at its top or in a function, or names ("index.html.jinja", "serving.py")."""
    modules = set()
    named: set[Path] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module, "imports here are absolute"
            modules |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and re.fullmatch(r"\w+(\.\w+)+", str(node.value)):
            named.add(file.with_name(str(node.value)))
    parents = {module.rsplit(".", depth)[0] for module in modules for depth in range(module.count(".") + 1)}
    files = {file_of(module) for module in parents if module.split(".")[0] in ("tpo", "flows")}
    return frozenset({path for path in files if path} | {path for path in named if path.is_file()})


def closure(stage: str) -> set[str]:
    """Every file of the project that a stage runs, as dvc.yaml would name it; empty `__init__.py`s are left out."""
    start = file_of(module_of(stage))
    assert start
    seen: set[Path] = set()
    todo = {start}
    while todo:
        seen |= todo
        todo = {used for file in todo if file.suffix == ".py" for used in used_by(file)} - seen
    return {file.relative_to(ROOT).as_posix() for file in seen if file.stat().st_size}


def covers(dep: str, file: str) -> bool:
    return file == dep or file.startswith(f"{dep}/")


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_file_that_it_runs_and_on_no_other(stage: str) -> None:
    files = closure(stage)
    deps = [dep for dep in names(stage, "deps") if dep.split("/")[0] in ("tpo", "flows")]
    assert [file for file in sorted(files) if not any(covers(dep, file) for dep in deps)] == []
    assert [dep for dep in deps if not any(covers(dep, file) for file in files)] == []


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_depends_on_is_a_file_of_the_project_or_made_by_another_stage(stage: str) -> None:
    made = [
        path
        for other in STAGES if other != stage
        for kind in ("outs", "metrics", "plots")
        for path in names(other, kind)
    ]  # fmt: skip
    for dep in names(stage, "deps"):
        assert (ROOT / dep).exists() if dep.startswith(("tpo/", "flows/")) else any(covers(path, dep) for path in made)


@pytest.mark.parametrize("stage", STAGES)
def test_the_module_that_a_stage_runs_is_there_and_runs_when_run(stage: str) -> None:
    spec = find_spec(module_of(stage))
    assert spec
    assert spec.origin
    assert 'if __name__ == "__main__":' in Path(spec.origin).read_text()


def test_params_yaml_loads_as_shipped() -> None:
    assert load_params(ROOT / "params.yaml").data.videos == Path("data/demo/videos")


@pytest.mark.parametrize("stage", STAGES)
def test_every_setting_that_a_stage_names_exists(stage: str) -> None:
    for name in STAGES[stage]["params"]:
        found: Any = SETTINGS
        for part in name.split("."):
            assert part in found, f"params.yaml has no {name}"
            found = found[part]


@pytest.mark.parametrize("stage", FLOWS)
def test_a_stage_is_stale_when_a_setting_changes_that_its_flow_reads(stage: str) -> None:
    file = file_of(module_of(stage))
    assert file
    read = {node.attr for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Attribute)}
    sections = {field.alias or name for name, field in Params.model_fields.items() if name in read}
    declared = {name.split(".")[0] for name in STAGES[stage]["params"]}
    assert sections - declared - HARMLESS - HARMLESS_IN.get(stage, set()) == set()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The project as a new repository, without data."""
    for name in ("dvc.yaml", "demo/dvc.yaml", "params.yaml", ".dvc/config", ".dvcignore", ".gitignore"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    for name in ("flows", "tpo"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["git", "init", "--quiet"], cwd=tmp_path, check=True)
    return tmp_path


def dvc(folder: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "dvc", *arguments],
        cwd=folder, env=os.environ | {"DVC_NO_ANALYTICS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout


def test_the_demo_world_is_upstream_as_shipped_and_out_of_the_graph_with_own_folders(clone: Path) -> None:
    edges = dvc(clone, "dag", "--dot")
    for stage in ("ingest", "caption", "answer", "train", "evaluate"):
        assert f'"demo/dvc.yaml:world" -> "{stage}"' in edges
    assert dvc(clone, "repro", "--dry").strip().startswith("Running stage 'demo/dvc.yaml:world'")

    settings = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(settings.replace("data/demo/", "my/"))
    for folder in ("my/videos", "my/benchmarks"):
        (clone / folder).mkdir(parents=True)
    edges = dvc(clone, "dag", "--dot")
    assert '"ingest" -> "caption"' in edges
    assert '"demo/dvc.yaml:world" ->' not in edges
    dry = dvc(clone, "repro", "--dry")
    assert dry.strip().startswith("Running stage 'ingest'")
    assert "demo" not in dry


def flags_of(stage: str, kind: str) -> dict[str, dict[str, Any]]:
    """{"reports/gate.json": {"cache": False}} of outputs with such."""
    return {path: flags for out in STAGES[stage].get(kind, []) if isinstance(out, dict) for path, flags in out.items()}


@pytest.mark.parametrize("stage", STAGES)
def test_an_output_that_dvc_could_not_bring_back_is_not_removed_before_a_stage_runs(stage: str) -> None:
    """That each run of the stage replaces it nevertheless is seen where the stages run."""
    for kind in ("outs", "metrics", "plots"):
        assert all(flags.get("persist") for flags in flags_of(stage, kind).values() if not flags.get("cache", True))


def test_dvc_has_what_its_commands_compare_with_earlier_commits_and_the_templates_that_draw_it() -> None:
    named: list[dict[str, Any]] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"]
    plots = [plot for one in named for plot in one.values()]
    compared = {path for plot in plots for path in plot["y"]}
    compared |= {path for stage in FLOWS for path in names(stage, "metrics")}
    cached = [
        path
        for stage in FLOWS
        for kind in ("outs", "metrics")
        for path in names(stage, kind)
        if flags_of(stage, kind).get(path, {}).get("cache", True)
    ]
    assert [path for path in sorted(compared) if not any(covers(out, path) for out in cached)] == []
    for name in {plot["template"] for plot in plots if "template" in plot}:
        assert "<DVC_METRIC_DATA>" in json.loads((ROOT / f".dvc/plots/{name}.json").read_text())["data"]["values"]


def test_what_reads_or_moves_the_champion_is_run_and_not_restored_when_settings_go_back(tmp_path: Path) -> None:
    for stage in ("evaluate", "register"):
        assert any(not flags.get("cache", True) for flags in flags_of(stage, "outs").values()), stage
    wanted = {"evaluate": ["kept", {"left": {"cache": False}}], "restored": ["copy"]}
    stages = {
        name: {"cmd": f"echo x >> {name}.runs; touch kept left copy", "params": ["a"], "outs": outs}
        for name, outs in wanted.items()
    }
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    dvc(tmp_path, "init", "--no-scm", "--quiet")
    for value in ("1", "2", "1"):
        (tmp_path / "params.yaml").write_text(f"a: {value}\n")
        dvc(tmp_path, "repro", "--quiet")
    runs = [(tmp_path / f"{name}.runs").read_text().count("x") for name in wanted]
    assert runs == [3, 2], "of the other stage DVC had the outputs of the first time"


def test_reviews_are_kept_and_make_mix_stale_but_are_not_cached() -> None:
    """A cached output that has grown makes `dvc pull` refuse; one that is removed before a run would be lost."""
    assert {REVIEWS.as_posix(): {"persist": True, "cache": False}} in STAGES["mix"]["outs"]


def test_a_prompt_that_changes_asks_its_own_stage_again_and_those_behind_it() -> None:
    prompts = {"caption": "model_captions", "ask": "model_queries", "judge": "model_judging"}
    for stage, file in prompts.items():
        assert [name for name in STAGES if f"tpo/curation/{file}.py" in names(name, "deps")] == [stage]
