"""validate: data/pairs and what it was made from → data/validation and reports/data_docs. Is the data fit to train on?

Great Expectations says so. A broken critical expectation stops the pipeline, and the offending records are named;
warnings are in Prefect's artifact and in Data Docs.
"""

from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact
from pydantic import BaseModel, ValidationError

from flows.stage import CAPTIONS, CATALOG, PAIRS, QUERIES, REPORTS, TASK, VALIDATION, Stage, run, stage_flow
from tpo.errors import UserError
from tpo.markdown import escaped
from tpo.params import Params, load_params
from tpo.records import Caption, Checked, PreferencePair, Query, Video
from tpo.store import digest, read_records
from tpo.validation.checkpoint import ValidationVerdict, failure_text
from tpo.validation.checkpoint import validate as check
from tpo.validation.suites import Records

DATA_DOCS = REPORTS / "data_docs"
VIDEOS_FILE = CATALOG / "videos.jsonl"
CAPTIONS_FILE = CAPTIONS / "captions.jsonl"
QUERIES_FILE = QUERIES / "queries.jsonl"
PAIRS_FILE = PAIRS / "pairs.jsonl"
HELD_OUT_FILE = PAIRS / "held_out.jsonl"
VIDEOS_REPORT = CATALOG / "decontamination.json"
QUESTIONS_REPORT = QUERIES / "decontamination.json"
INPUTS = (VIDEOS_FILE, CAPTIONS_FILE, QUERIES_FILE, PAIRS_FILE, HELD_OUT_FILE, VIDEOS_REPORT, QUESTIONS_REPORT)


class _Report(BaseModel):
    """What is read of a report on what was compared with the benchmarks."""

    status: Checked


@task(name="check expectations", **TASK)
def check_expectations(params: Params) -> tuple[ValidationVerdict, int]:
    """The verdict and the number of pairs. Reads the records itself: Prefect looks into all that a task is handed."""
    records = Records(
        videos=read_records(VIDEOS_FILE, Video),
        captions=read_records(CAPTIONS_FILE, Caption),
        queries=read_records(QUERIES_FILE, Query),
        pairs=read_records(PAIRS_FILE, PreferencePair),
        held_out=read_records(HELD_OUT_FILE, PreferencePair),
        videos_checked=read_status(VIDEOS_REPORT),
        questions_checked=read_status(QUESTIONS_REPORT),
    )
    verdict = check(records, params.validate_, params.mix.localized_share, DATA_DOCS)
    return verdict, len(records.pairs) + len(records.held_out)


@stage_flow("validate")
def validate() -> None:
    params = load_params()
    key = (digest(*INPUTS), params.validate_.model_dump(mode="json"), params.mix.localized_share)
    with Stage("validate", "pairs", *key) as stage:
        verdict, num_pairs = check_expectations(params)
        create_markdown_artifact(key="tpo-verdict", markdown=as_markdown(verdict))
        broken, warnings = verdict.broken("critical"), verdict.broken("warning")
        stage.publish(
            VALIDATION,
            {"verdict.json": verdict.model_dump_json(indent=2) + "\n"},
            items_in=num_pairs,
            items_out=num_pairs,
            counts={"expectations": len(verdict.outcomes), "broken": len(broken), "warnings": len(warnings)},
            # The gate asks whether the verdict is about the pairs that were trained on, and about these reports.
            facts={
                "success": verdict.success,
                "pairs_digest": digest(PAIRS_FILE),
                "decontamination": digest(VIDEOS_REPORT, QUESTIONS_REPORT),
            },
        )
    for outcome in warnings:
        print(f"validate: warning: {outcome.suite}: {outcome.name}")
    if not verdict.success:
        raise UserError(f"{failure_text(verdict)}\nData Docs: {DATA_DOCS}/index.html")


def read_status(path: Path) -> Checked:
    """Whether data was compared with the benchmarks, from a stage's report.

    Raises:
        UserError: there is no such report, or it is damaged.
    """
    try:
        return _Report.model_validate_json(path.read_text(encoding="utf-8")).status
    except (OSError, ValidationError) as error:
        raise UserError(
            f"{path} does not tell whether the data was compared with the benchmarks. Expected a report with a status:"
            f" {', '.join(Checked)}. Run `dvc repro`, which makes it."
        ) from error


def as_markdown(verdict: ValidationVerdict) -> str:
    """What does not hold and which records are at fault, for Prefect's artifact; ids are shown as they are."""
    lines = ["Fit to train on." if verdict.success else "**Not fit to train on.**", ""]
    lines += [
        f"- **{outcome.severity}** {escaped(f'{outcome.suite}: {outcome.expected}: {outcome.found}')}"
        for outcome in (*verdict.broken("critical"), *verdict.broken("warning"))
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    run(validate)
