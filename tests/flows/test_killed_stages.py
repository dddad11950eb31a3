"""Stages killed in their middle on the way to the registry, and run again.

The others are killed where they work hardest: ingest in test_real_world_folder.py; caption, ask and judge in
test_curation_by_models.py, where calls cost money; register while it makes the `finished` project.
"""

import shutil
from pathlib import Path

import pytest
from processes import edit_params, killed_when, must_work, num_done, put_old_reports, resume

from tpo.records import Answer, Prediction, Rejection
from tpo.store import read_manifest, read_records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

RECORDS = {
    "answer": ("data/answers", {"answers.jsonl": Answer, "rejected.jsonl": Rejection}),
    "evaluate": (
        "data/evaluation",
        {"predictions.jsonl": Prediction, "needles.jsonl": Prediction, "rejected.jsonl": Rejection},
    ),
}


# Of evaluate's items, the first 34 are looks at videos and needles.
@pytest.mark.parametrize(("stage", "killed_after", "num_items"), [("answer", 1, 12), ("evaluate", 40, 100)])
def test_a_killed_stage_goes_on_and_ends_as_an_undisturbed_one(
    finished: Path, copy: Path, environment: dict[str, str], stage: str, killed_after: int, num_items: int
) -> None:
    edit_params(copy, lambda settings: settings["runtime"].update(items_per_task=1))  # so that it has a middle
    for remembered in (copy / ".tpo").glob("replies.sqlite*"):
        remembered.unlink()
    reports = put_old_reports(stage, copy)
    out, kinds = RECORDS[stage]
    resumed = resume(stage, copy / out, copy, environment, lambda: num_done(stage, copy) >= killed_after, num_items)
    undisturbed = read_manifest(finished / out)
    for name, kind in kinds.items():
        assert read_records(copy / out / name, kind) == read_records(finished / out / name, kind)
    passing = {"resumed", "seconds", "facts"}
    assert resumed.model_dump(exclude=passing) == undisturbed.model_dump(exclude=passing)
    for path in reports:
        assert path.read_text() == (finished / path.relative_to(copy)).read_text()


def test_a_killed_validation_comes_to_the_same_verdict(finished: Path, copy: Path, environment: dict[str, str]) -> None:
    for made in ("data/validation", "reports/data_docs"):
        shutil.rmtree(copy / made)
    with killed_when((copy / "reports/data_docs").exists, "validate", copy, environment):
        assert not (copy / "data/validation").exists()
    must_work("validate", copy, environment)
    verdict = "data/validation/verdict.json"
    assert (copy / verdict).read_text() == (finished / verdict).read_text()
    assert (copy / "reports/data_docs/index.html").is_file()


def test_a_killed_training_ends_at_the_very_same_weights(
    finished: Path, copy: Path, environment: dict[str, str]
) -> None:
    shutil.rmtree(copy / "models/tuned")
    with killed_when(
        lambda: any(copy.glob(".tpo/train/*/checkpoints/*/*/trainer_state.json")), "train", copy, environment
    ):
        assert not (copy / "models/tuned").exists()
    must_work("train", copy, environment)
    weights = "models/tuned/model.safetensors"
    assert (copy / weights).read_bytes() == (finished / weights).read_bytes()
