"""The stage around the suites: what it reads, what it tells, and how it stops. One run is a real process."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from made_records import PARAMS, pair, records

from flows.validate import INPUTS, as_markdown, read_status
from tpo.errors import UserError
from tpo.records import Checked
from tpo.store import Manifest, digest, publish, read_manifest
from tpo.validation.checkpoint import ValidationVerdict, validate
from tpo.validation.suites import Records

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "</p><script>alert(1)</script> [x](javascript:y) *z* `q"


def project(folder: Path, made: Records) -> None:
    """A folder in which every stage before validate has run."""
    shutil.copy(ROOT / "params.yaml", folder)
    manifest = Manifest(stage="test", item="records", items_in=0, items_out=0, set_aside={}, seconds=0)
    outputs = {
        "catalog": {"videos.jsonl": made.videos, "decontamination.json": f'{{"status": "{made.videos_checked}"}}'},
        "captions": {"captions.jsonl": made.captions},
        "queries": {
            "queries.jsonl": made.queries,
            "decontamination.json": json.dumps({"status": made.questions_checked, "found": []}),
        },
        "pairs": {"pairs.jsonl": made.pairs, "held_out.jsonl": made.held_out},
    }
    for name, files in outputs.items():
        publish(folder / "data" / name, files, manifest)
    assert all((folder / file).is_file() for file in INPUTS)


@pytest.mark.slow
def test_an_unfit_set_stops_the_stage_with_the_offending_rows_and_leaves_verdict_and_data_docs(tmp_path: Path) -> None:
    leaked = pair(5, "v1", id="leaked")
    project(tmp_path, records([*(pair(n) for n in range(4)), leaked], questions_checked=Checked.NOT))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    environment |= {"PYTHONPATH": str(ROOT), "PREFECT_HOME": str(tmp_path / "prefect")}
    done = subprocess.run(
        [sys.executable, "-m", "flows.validate"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "pairs: video_is_not_held_out, video is not held out: not met by 1 record(s): leaked" in done.stderr
    assert "pairs: enough_rows, at least 50: found 5" in done.stderr
    assert "Traceback" not in done.stderr
    assert "validate: warning: decontamination: compared_with_benchmarks" in done.stdout
    verdict = ValidationVerdict.model_validate_json((tmp_path / "data/validation/verdict.json").read_text())
    assert [found.name for found in verdict.broken("critical")] == ["enough_rows", "video_is_not_held_out"]
    facts = read_manifest(tmp_path / "data/validation").facts
    assert facts["success"] is False
    assert facts["pairs_digest"] == digest(tmp_path / "data/pairs/pairs.jsonl"), "what the gate compares"
    assert "leaked" in (tmp_path / "reports/data_docs/index.html").read_text()


def test_the_artifact_names_what_is_wrong_and_shows_ids_as_they_are(tmp_path: Path) -> None:
    pairs = [*(pair(number) for number in range(4)), pair(5, id=HOSTILE, chosen="")]
    verdict = validate(records(pairs, questions_checked=Checked.PARTLY), PARAMS, None, tmp_path)
    first, _, critical, warning = as_markdown(verdict).split("\n")
    assert first == "**Not fit to train on.**"
    assert critical.startswith("- **critical** pairs: chosen is not blank: ")
    assert warning.startswith("- **warning** decontamination")
    assert warning.endswith("questions partly checked")
    assert re.sub(r"\\(.)", r"\1", critical).endswith(HOSTILE)
    assert not re.search(r"(?<!\\)[<>`*_\[\]()&]", critical.removeprefix("- **critical**"))


def test_the_artifact_of_a_fit_set_says_so(tmp_path: Path) -> None:
    assert as_markdown(validate(records(), PARAMS, None, tmp_path)).strip() == "Fit to train on."


@pytest.mark.parametrize("text", [None, "", "{}", '{"status": "clean"}'])
def test_a_missing_or_damaged_report_on_benchmarks_is_a_clear_error(tmp_path: Path, text: str | None) -> None:
    report = tmp_path / "decontamination.json"
    if text is not None:
        report.write_text(text)
    with pytest.raises(UserError, match=r"(?s)decontamination\.json does not tell .* checked, partly checked, not"):
        read_status(report)


def test_what_makes_the_stage_stale_is_what_it_reads() -> None:
    stage = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]["validate"]
    assert {dep for dep in stage["deps"] if dep.startswith("data/")} == {path.as_posix() for path in INPUTS}
