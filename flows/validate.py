"""validate: data/pairs → data/validation and reports/data_docs. Great Expectations says whether the data is fit."""

from prefect import task
from prefect.artifacts import create_markdown_artifact

from flows.stage import CATALOG, PAIRS, QUERIES, REPORTS, TASK, VALIDATION, Stage, run, stage_flow
from tpo.errors import UserError
from tpo.params import ValidateParams, load_params
from tpo.records import PreferencePair, Query, Video
from tpo.store import digest, read_records
from tpo.validation.checkpoint import ValidationVerdict, failure_text
from tpo.validation.checkpoint import validate as check

DATA_DOCS = REPORTS / "data_docs"


@task(name="check expectations", **TASK)
def check_expectations(
    videos: list[Video], queries: list[Query], pairs: list[PreferencePair], params: ValidateParams
) -> ValidationVerdict:
    return check(videos, queries, pairs, params, DATA_DOCS)


@stage_flow("validate")
def validate() -> None:
    params = load_params().validate_
    videos = read_records(CATALOG / "videos.jsonl", Video)
    queries = read_records(QUERIES / "queries.jsonl", Query)
    pairs = read_records(PAIRS / "pairs.jsonl", PreferencePair)
    with Stage("validate", "pairs", digest(PAIRS / "pairs.jsonl"), params.model_dump(mode="json")) as stage:
        verdict = check_expectations(videos, queries, pairs, params)
        failed = [outcome for outcome in verdict.outcomes if not outcome.passed]
        lines = [f"- **{outcome.severity}** {outcome.suite}: {outcome.name}" for outcome in failed]
        create_markdown_artifact(key="tpo-verdict", markdown="\n".join(lines) or "All expectations hold.")
        stage.publish(
            VALIDATION,
            {"verdict.json": verdict.model_dump_json(indent=2) + "\n"},
            items_in=len(pairs),
            items_out=len(pairs),
            counts={"expectations": len(verdict.outcomes), "not met": len(failed)},
            facts={"success": verdict.success},
        )
    if not verdict.success:
        raise UserError(f"{failure_text(verdict)}\nData Docs: {DATA_DOCS}/index.html")


if __name__ == "__main__":
    run(validate)
