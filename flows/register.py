"""register: package the tuned model, let the gate decide, move `champion` or not → reports/gate.json and the report."""

import json
from pathlib import Path

from prefect import task
from prefect.artifacts import create_markdown_artifact

from flows.stage import CATALOG, EVALUATION, PAIRS, REPORTS, TASK, TUNED, VALIDATION, run, stage_flow
from tpo.params import Params, load_params
from tpo.progress import progress
from tpo.records import GateDecision, PreferencePair, Video
from tpo.registry.gate import decide, gather
from tpo.registry.package import Promotion, challenge, promote, register, versions
from tpo.registry.tracking import flatten_metrics
from tpo.report.summary import collect, write_html
from tpo.store import read_manifest, read_records, write_atomic


@task(name="register model", **TASK)
def register_model(params: Params, numbers: dict[str, object], tags: dict[str, str]) -> str:
    """Package and register `models/tuned`; a version of the same weights and measurement is not made twice."""
    name = params.register_.name
    same = ("candidate_id", "evaluate_run_id")
    for version in versions(name):
        if all(version.tags.get(key) == tags[key] for key in same):
            return version.version
    pair = read_records(PAIRS / "pairs.jsonl", PreferencePair)[0]
    videos = {video.id: video for video in read_records(CATALOG / "videos.jsonl", Video)}
    return register(
        TUNED,
        base=params.model.base,
        base_revision=params.model.revision,
        name=name,
        measured_with={
            "num_frames": params.evaluate.num_frames,
            "prompts": params.evaluate.prompts,
            "max_new_tokens": params.answer.max_new_tokens,
            "model": params.model.as_measured(),
        },
        tags=tags,
        metrics=flatten_metrics(numbers),
        run_id=read_manifest(TUNED).facts["mlflow_run_id"],
        example={"video": str(params.data.videos / videos[pair.video_id].path), "question": pair.question},
    )


@task(name="move aliases", **TASK)
def move_aliases(name: str, version: str, decision: GateDecision) -> Promotion:
    challenge(name, version)
    return promote(name, version, decision)


@stage_flow("register")
def register_and_gate() -> None:
    params = load_params()
    numbers = json.loads((REPORTS / "evaluation.json").read_text(encoding="utf-8"))
    evaluation, validation = read_manifest(EVALUATION).facts, read_manifest(VALIDATION).facts
    evidence = gather(
        numbers,
        validation_passed=validation.get("success"),
        base_id=evaluation.get("base_id"),
        candidate_id=evaluation.get("tuned_id"),
    )
    decision = decide(evidence, params.register_.min_gain)
    tags = {
        "candidate_id": evaluation["tuned_id"],
        "evaluate_run_id": evaluation["mlflow_run_id"],
        "validation_status": "passed" if validation.get("success") else "failed",
        "num_pairs": str(read_manifest(PAIRS).counts["training pairs"]),
    }
    with progress(3, "register", "steps") as bar:
        version = register_model(params, numbers, tags)
        bar.update()
        promotion = move_aliases(params.register_.name, version, decision)
        bar.update()
        write_atomic(REPORTS / "gate.json", decision.model_dump_json(indent=2) + "\n")
        write_atomic(REPORTS / "registry.json", promotion.model_dump_json(indent=2) + "\n")
        write_html(collect(Path()), REPORTS / "index.html")
        bar.update()
    rules = [f"| {rule.name} | {'yes' if rule.passed else 'no'} | {rule.reason} |" for rule in decision.rules]
    table = "\n".join(["| rule | passed | why |", "|---|---|---|", *rules])
    create_markdown_artifact(key="tpo-gate", markdown=f"{decision.summary}\n\n{table}")
    print(f"register: {params.register_.name} version {version}. {decision.summary}")


if __name__ == "__main__":
    run(register_and_gate)
