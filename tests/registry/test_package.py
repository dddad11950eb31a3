"""A real model in a real registry: packaged, proved, loaded by alias elsewhere."""

import ast
import importlib.metadata
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from tpo.demo.model import build_model, build_tokenizer, save_checkpoint
from tpo.demo.world import plan_events, write_video
from tpo.errors import UserError
from tpo.models.load import load_model
from tpo.params import ModelParams
from tpo.records import GateDecision
from tpo.registry.ask import Said, ask_registered
from tpo.registry.champion import CHAMPION
from tpo.registry.package import DECISION, REQUIREMENTS, DataInput, challenge, register, versions
from tpo.registry.proof import check_files, outcome, prove
from tpo.registry.stored import fetched, package_digest
from tpo.registry.tracking import log_stage

QUESTION = "Which color is the star?"
CARD = "# demo\n\nMade with http://me:s3cret@host/x\n"
INPUT = DataInput(path="data/videos", dvc_hash="0123456789abcdef0123456789abcdef.dir", context="training")
REFUSE = GateDecision(promote=False, rules=(), summary="Refused: a tie.")
MEASURED_WITH = {"num_frames": 4, "max_new_tokens": 5, "model": {"dtype": "float32"}, "prompts": "question"}


@pytest.fixture(scope="module")
def project(tracking_folder: Path) -> Path:
    """A folder with a base model, an adapter on it, a video, and two versions of the model `demo`."""
    import mlflow

    tokenizer = build_tokenizer()
    model = build_model(tokenizer, 0)
    save_checkpoint(model, tokenizer, tracking_folder / "base")
    _save_adapter(tracking_folder / "adapter")
    write_video(tracking_folder / "clip.mp4", plan_events(np.random.default_rng(0), 4), 0.0)
    (tracking_folder / "dvc.lock").write_text("remote: http://me:s3cret@host/x\n")
    _register(tracking_folder / "base")
    _register(tracking_folder / "adapter")
    packaged = mlflow.models.model.__mlflow_model__
    assert not hasattr(packaged, "_model"), "registering loads no model: of a large one there would soon be several"
    return tracking_folder


def _save_adapter(folder: Path) -> None:
    from peft import LoraConfig, get_peft_model

    base = load_model(ModelParams(base="base", dtype="float32", device="cpu"))
    config = LoraConfig(r=2, target_modules=base.family.lora_targets, base_model_name_or_path="base")
    get_peft_model(base.model, config).save_pretrained(folder)


def _register(model_dir: Path, **changes: object) -> str:
    run_id = log_stage("train", "tpo", params={}, metrics={})
    settings = {
        "base": "base",
        "base_revision": None,
        "name": "demo",
        "measured_with": MEASURED_WITH,
        "tags": {
            "validation_status": "passed",
            "data": "http://me:s3cret@host/x",
            "candidate_id": f"of {model_dir.name}",
        },
        "metrics": {"mlvu.accuracy_tuned": 0.5},
        "run_id": run_id,
        "example": {"video": "clip.mp4", "question": QUESTION},
        "card": CARD,
        "inputs": [INPUT],
        "project": [Path("dvc.lock"), Path("params.yaml")],
    }
    version = register(model_dir, **(settings | changes))  # type: ignore[arg-type]
    challenge("demo", version, REFUSE)
    return version


def test_a_registered_version_says_where_it_comes_from(project: Path):
    import mlflow

    newest, first = versions("demo")
    assert (first.version, newest.version) == ("1", "2")
    assert newest.aliases == ("challenger",)
    assert newest.tags["validation_status"] == "passed"
    assert newest.tags["data"] == "http://***@host/x"
    assert newest.tags["train_run_id"] == newest.run_id
    assert mlflow.get_run(newest.run_id).data.metrics == {"mlvu.accuracy_tuned": 0.5}
    assert json.loads(newest.tags["measured_with"]) == MEASURED_WITH


def _direct_answer(project: Path) -> str:
    from tpo.registry.ask import answer_file
    from tpo.video.probe import Prober

    model = load_model(ModelParams(base=str(project / "base"), dtype="float32", device="cpu"))
    with Prober(project / "frames") as prober:
        return answer_file(model, prober, str(project / "clip.mp4"), QUESTION, num_frames=4, max_new_tokens=5)


def test_a_promoted_model_is_asked_without_a_server(project: Path):
    import mlflow

    mlflow.MlflowClient().set_registered_model_alias("demo", CHAMPION, "1")
    assert ask_registered("models:/demo@champion", "clip.mp4", QUESTION) == _direct_answer(project)


def test_an_adapter_is_served_on_its_recorded_base_which_is_not_uploaded(project: Path):
    import mlflow

    model = mlflow.pyfunc.load_model("models:/demo/2")
    config = model.model_config
    assert (config["base"], len(config["base_digest"])) == ("base", 64)
    uploaded = {path.name for path in Path(model._model_impl.context.artifacts["checkpoint"]).iterdir()}
    assert "adapter_model.safetensors" in uploaded
    assert "model.safetensors" not in uploaded
    # LoRA starts at zero, so the answer is the base model's.
    assert model.predict([{"video": "clip.mp4", "question": QUESTION}] * 2) == [_direct_answer(project)] * 2


def test_a_video_that_is_missing_or_broken_is_named_with_its_row(project: Path):
    import mlflow

    (project / "broken.mp4").write_bytes(b"not a video")
    model = mlflow.pyfunc.load_model("models:/demo/1")
    with pytest.raises(UserError, match=r"Row 0: There is no video file 'nowhere\.mp4'"):
        model.predict([{"video": "nowhere.mp4", "question": QUESTION}])
    with pytest.raises(UserError, match=r"Row 1: 'broken\.mp4' cannot be used \(unreadable\)"):
        model.predict([{"video": name, "question": QUESTION} for name in ("clip.mp4", "broken.mp4")])
    with pytest.raises(UserError, match=r"Row 0: expected the keys"):
        model.predict([{"video": "clip.mp4"}])


def test_an_adapter_on_a_changed_base_is_not_served(project: Path):
    import mlflow

    readme = project / "base" / "README.md"
    readme.write_text("changed")
    with pytest.raises(UserError, match="not the one this adapter was trained on"):
        mlflow.pyfunc.load_model("models:/demo/2")
    readme.unlink()


def test_a_decision_is_kept_on_the_challenger(project: Path):
    challenge("demo", "2", REFUSE)
    newest, first = versions("demo")
    assert newest.aliases == ("challenger",)
    assert "challenger" not in first.aliases
    assert (newest.tags["gate_promote"], newest.tags["gate_summary"]) == ("false", "Refused: a tie.")
    assert GateDecision.model_validate_json(newest.tags[DECISION]) == REFUSE


def test_the_package_brings_its_card_its_lock_file_and_its_example_and_no_secret(project: Path):
    import mlflow

    newest, _ = versions("demo")
    found = mlflow.MlflowClient().get_model_version("demo", newest.version)
    with fetched("models:/demo/2") as folder:
        assert package_digest(folder) == newest.tags["package_digest"]
        assert (folder / "artifacts/README.md").read_text() == found.description == CARD.replace("me:s3cret", "***")
        assert (folder / "artifacts/project/dvc.lock").read_text() == "remote: http://***@host/x\n"
        assert not (folder / "artifacts/project/params.yaml").exists()
        model = mlflow.pyfunc.load_model(str(folder))
    assert model.input_example == [{"video": "clip.mp4", "question": QUESTION}]
    assert model.metadata.signature is not None
    assert (newest.tags["kind"], newest.tags["base"]) == ("adapter", "base")


def test_every_library_that_a_served_model_imports_is_pinned():
    """A server that sets up an environment of its own has these and no others."""
    root = Path(__file__).resolve().parents[2]
    todo, seen, libraries = {"tpo.registry.serving_model"}, set[str](), set[str]()
    while todo:
        seen |= todo
        files = (root / name.replace(".", "/") for name in todo)
        found = (file for path in files for file in (path.with_suffix(".py"), path / "__init__.py") if file.is_file())
        modules = {module for file in found for module in _imports(file)}
        libraries |= {name.partition(".")[0] for name in modules} - {"tpo"} - sys.stdlib_module_names
        todo = {name for name in modules if name.startswith("tpo.")} - seen
    known_as = importlib.metadata.packages_distributions()
    pinned = {name.replace("-", "_") for name in (*REQUIREMENTS, "pydantic-core")}  # which pydantic pins
    missing = {
        name for name in libraries if not pinned & {one.lower().replace("-", "_") for one in known_as.get(name, [name])}
    }
    assert missing == set()
    assert {"av", "imagehash", "torch"} <= libraries, "or nothing was looked at"


def _imports(file: Path) -> set[str]:
    """Modules that a file imports, at its top or in a function, and what may be modules."""
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def test_data_is_named_by_dvcs_hashes(project: Path):
    import mlflow

    newest, _ = versions("demo")
    assert newest.tags["data:data/videos"] == INPUT.dvc_hash
    (logged,) = mlflow.get_run(newest.run_id).inputs.dataset_inputs
    assert (logged.dataset.name, logged.dataset.digest) == ("data/videos", INPUT.dvc_hash)
    assert {tag.value for tag in logged.tags} == {"training"}


def test_a_version_is_proved_by_what_the_registry_has_of_it(project: Path):
    proof = prove("demo", "1")
    assert proof.is_intact
    assert (proof.version, proof.candidate_id, proof.answer) == ("1", "of base", _direct_answer(project))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda code: (code / "__init__.py").unlink(), "the package lacks tpo"),
        (lambda code: (code / "video/sample.py").write_text("def dense(:"), "invalid syntax"),
    ],
    ids=["a file is missing, and the checkout's would do", "it is broken"],
)
def test_a_package_is_proved_on_its_own_code_and_not_on_this_checkouts(
    project: Path, tmp_path: Path, damage: Callable[[Path], object], told: str
):
    """It is registered like that, so its files are those that were registered."""
    import mlflow

    client = mlflow.MlflowClient()
    first = client.get_model_version("demo", "1")
    with fetched("models:/demo/1") as folder:
        shutil.copytree(folder, tmp_path / "package")
    damage(tmp_path / "package/code/tpo")
    tags = first.tags | {"package_digest": package_digest(tmp_path / "package")}
    client.create_registered_model("damaged")
    try:
        client.create_model_version("damaged", str(tmp_path / "package"), tags=tags)
        proof = prove("damaged", "1")
    finally:
        client.delete_registered_model("damaged")
    assert proof.is_intact
    assert proof.answer is None
    assert told in proof.problem


def test_what_a_model_said_proves_only_if_it_said_something(tmp_path: Path):
    (tmp_path / "clip.mp4").touch()
    here, gone = str(tmp_path / "clip.mp4"), str(tmp_path / "gone.mp4")
    assert outcome(Said(answer="a star", loaded=True), here) == {"answer": "a star"}
    assert outcome(Said(answer=" \n", loaded=True), here) == {"answer": None, "problem": "its answer is empty"}
    assert outcome(Said(error="no memory"), gone) == {"answer": None, "problem": "no memory"}
    told = outcome(Said(error="Row 0: no file", loaded=True), gone)
    assert "is not here (`dvc checkout` brings" in str(told["problem"])


def test_files_that_were_changed_in_the_registry_are_found_and_not_run(project: Path):
    import mlflow

    model = mlflow.MlflowClient().get_model_version("demo", "1").source.removeprefix("models:/")
    (code,) = project.glob(f"mlruns/*/models/{model}/artifacts/serving_model.py")
    kept = code.read_text()
    code.write_text("raise SystemExit('this code must not run')\n" + kept)
    try:
        proof = prove("demo", "1")
    finally:
        code.write_text(kept)
    assert not proof.is_intact
    assert (proof.answer, proof.problem) == (None, "its files in the registry are not those that were registered")


def test_a_store_of_files_that_wants_a_key_is_told_without_a_traceback(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    import mlflow

    nowhere = {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": str(tmp_path / "none")}
    for name, value in (nowhere | {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none")}).items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    client = mlflow.MlflowClient()
    client.create_registered_model("far")
    try:
        version = client.create_model_version("far", "s3://box/model").version
        told = r"could not give the files of models:/far/1: Unable to locate credentials\. Is MLFLOW_TRACKING_URI"
        with pytest.raises(UserError, match=told):
            check_files("far", str(version))
    finally:
        client.delete_registered_model("far")


def test_what_cannot_be_registered_promoted_or_loaded_is_an_error_that_says_why(project: Path):
    with pytest.raises(UserError, match="no video file"):
        _register(project / "base", example={"video": "nowhere.mp4", "question": QUESTION})
    with pytest.raises(UserError, match="trained on 'base', not on 'other'"):
        _register(project / "adapter", base="other")
    with pytest.raises(UserError, match="holds no model"):
        _register(project / "nothing")
    with pytest.raises(UserError, match="find version 9 of demo"):
        prove("demo", "9")
    with pytest.raises(UserError, match="The registry has no models:/demo@nobody"):
        ask_registered("models:/demo@nobody", "clip.mp4", QUESTION)
    assert len(versions("demo")) == 2
    assert versions("unknown") == []
