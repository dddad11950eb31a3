"""register: package the tuned model, let the gate decide, move `champion` or not → reports/gate.json and the report."""

import json
import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from prefect import runtime
from prefect.artifacts import create_markdown_artifact

from flows.decision import as_markdown
from flows.stage import (
    CATALOG,
    EVALUATION,
    PAIRS,
    PIPELINE_ID,
    QUERIES,
    REPORTS,
    TUNED,
    VALIDATION,
    call,
    run,
    stage_flow,
    stage_task,
)
from tpo.errors import UserError
from tpo.models.identity import model_id
from tpo.params import Params, load_params
from tpo.progress import progress
from tpo.records import GateDecision, PreferencePair, Video
from tpo.registry.card import licence_of, model_card
from tpo.registry.evidence import Proof, gather
from tpo.registry.gate import decide
from tpo.registry.package import DataInput, challenge, code_digest, register, versions
from tpo.registry.promotion import Promotion, kept_decision, promote, registry_state, stay
from tpo.registry.proof import prove
from tpo.registry.tracking import flatten_metrics, locked_inputs, provenance, recorded
from tpo.report.page import write_html
from tpo.store import MANIFEST, digest, read_manifest, read_records, write_atomic

VIDEOS_REPORT, QUESTIONS_REPORT = CATALOG / "decontamination.json", QUERIES / "decontamination.json"
METRICS = REPORTS / "evaluation.json"
THE_GATE = "the gate (register stage)"  # who moves the alias where no person does


def read_json(path: Path) -> dict[str, Any] | None:
    """None if there is no such file: the gate refuses what is missing, by name.

    Raises:
        UserError: what is there is damaged.
    """
    if not path.is_file():
        return None
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is damaged: it is no JSON ({error}). `dvc repro` makes it again.") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: it holds no JSON object. `dvc repro` makes it again.")
    return found


def measured(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """What the evaluation wrote; nothing if that is not what is there: an edited number gets into no card."""
    found = read_json(METRICS)
    return found if found is not None and digest_of(METRICS) == evaluation.get("metrics_digest") else {}


def digest_of(*paths: Path) -> str | None:
    return digest(*paths) if all(path.is_file() for path in paths) else None


def noted(folder: Path, *names: str) -> dict[str, Any]:
    """What a stage noted in its manifest.

    Raises:
        UserError: something is not there.
    """
    facts = read_manifest(folder).facts
    if absent := [name for name in names if name not in facts]:
        raise UserError(
            f"{folder}/{MANIFEST} does not say {', '.join(absent)}: it was edited, or is of an earlier version of this "
            "project. `dvc repro -f` with its stage's name makes it again."
        )
    return facts


@stage_task("register model")
def register_model(params: Params) -> str:
    """Package and register `models/tuned`; of the same weights, measurement and code no version is made twice.

    The version is of the weights that lie there, whatever the evaluation is of: the gate compares the two.
    """
    evaluation, pairs = noted(EVALUATION, "tuned_id", "base_id", "mlflow_run_id"), read_manifest(PAIRS)
    name, candidate = params.register_.name, model_id(params.model.of(TUNED))
    metrics = measured(evaluation) if evaluation["tuned_id"] == candidate else {}
    same = {
        "candidate_id": candidate,
        "evaluate_run_id": evaluation["mlflow_run_id"],
        "code": code_digest(),
    }
    for version in versions(name):
        if same.items() <= version.tags.items():
            return version.version
    reports = {"videos": read_json(VIDEOS_REPORT), "questions": read_json(QUESTIONS_REPORT)}
    statuses = {what: str((report or {}).get("status", "unknown")) for what, report in reports.items()}
    checks = {
        "validation": "passed" if read_manifest(VALIDATION).facts.get("success") else "failed",
        **{f"{what} against the benchmarks'": status for what, status in statuses.items()},
    }
    measured_with = {
        "num_frames": params.evaluate.num_frames,
        "prompts": params.evaluate.prompts,
        "subtitles": params.evaluate.subtitles,
        "max_new_tokens": params.answer.max_new_tokens,
        "decoding": "greedy",
        "model": params.model.as_measured(),
    }
    inputs = data_inputs(params)
    return register(
        TUNED,
        base=params.model.base,
        base_revision=params.model.revision,
        name=name,
        measured_with=measured_with,
        tags={
            **same,
            "base_id": evaluation["base_id"],
            "validation_status": checks["validation"],
            **{f"decontamination_{what}": status for what, status in statuses.items()},
            **{f"num_{what.replace(' ', '_')}": str(number) for what, number in pairs.counts.items()},
        },
        metrics=flatten_metrics(metrics),
        run_id=noted(TUNED, "mlflow_run_id")["mlflow_run_id"],
        example=example(params),
        card=model_card(
            name=name,
            base=params.model.base,
            base_revision=params.model.revision,
            is_adapter=(TUNED / "adapter_config.json").is_file(),
            candidate_id=candidate,
            measured_with=measured_with,
            metrics=metrics,
            counts=pairs.counts,
            checks=checks,
            inputs=inputs,
            licences={str(folder): licence_of(folder) for folder in licensed(params)},
            origin=provenance(),
        ),
        inputs=inputs,
        project=recorded(),
    )


def data_inputs(params: Params) -> list[DataInput]:
    """What training and evaluation read, where DVC ran them."""
    wanted = {
        "train": ("training", (str(params.data.videos), str(PAIRS / "pairs.jsonl"))),
        "evaluate": ("evaluation", (str(params.data.benchmarks),)),
    }
    return [
        DataInput(path=path, dvc_hash=locked[path], context=context)
        for stage, (context, paths) in wanted.items()
        for locked in [locked_inputs(stage)]
        for path in paths
        if path in locked
    ]


def licensed(params: Params) -> list[Path]:
    """Base model, videos, and each benchmark: whose licences reach into the tuned model."""
    benchmarks = sorted(path for path in params.data.benchmarks.iterdir() if path.is_dir())
    return [Path(params.model.base), params.data.videos, *benchmarks]


def example(params: Params) -> dict[str, str]:
    """A question that was trained on, about a real video."""
    pair = read_records(PAIRS / "pairs.jsonl", PreferencePair)[0]
    paths = {video.id: video.path for video in read_records(CATALOG / "videos.jsonl", Video)}
    return {"video": str(params.data.videos / paths[pair.video_id]), "question": pair.question}


@stage_task("ask the gate")
def ask_gate(params: Params, version: str) -> GateDecision:
    """Decide about a version. Of one that is champion already the decision stands: a killed stage goes on."""
    name = params.register_.name
    state = registry_state(name)
    is_champion = state.champion is not None and state.champion.version == version
    if is_champion and (kept := kept_decision(name, version)) is not None:
        return kept
    evidence = gather(
        metrics=read_json(METRICS),
        metrics_digest=digest_of(METRICS),
        evaluation=read_manifest(EVALUATION).facts,
        training=read_manifest(TUNED).facts,
        validation=read_manifest(VALIDATION).facts,
        videos_report=read_json(VIDEOS_REPORT),
        questions_report=read_json(QUESTIONS_REPORT),
        reports_digest=digest_of(VIDEOS_REPORT, QUESTIONS_REPORT),
        tuned_id=model_id(params.model.of(TUNED)),
        proof=prove(name, version),
        registry=state,
    )
    return decide(evidence, params.register_, datetime.now(UTC).isoformat(timespec="seconds"))


@stage_task("move aliases")
def move_aliases(params: Params, version: str, decision: GateDecision) -> Promotion:
    """`challenger` for the version whatever the gate says; `champion` if it may and no person is to decide."""
    name = params.register_.name
    challenge(name, version, decision)
    if decision.promote and params.register_.promotion == "gate":
        proof = Proof.model_validate(decision.evidence["proof"])  # a large model takes a minute to load once more
        return promote(name, version, who=THE_GATE, reason=decision.summary, decision=decision, proof=proof)
    return stay(name, version, decision.summary)


@stage_flow("register")
def register_and_gate() -> None:
    params = load_params()
    with progress(4, "register", "steps") as bar:
        version: str = call(register_model, params)
        bar.update()
        decision: GateDecision = call(ask_gate, params, version)
        write_atomic(REPORTS / "gate.json", decision.model_dump_json(indent=2) + "\n")
        bar.update()
        promotion: Promotion = call(move_aliases, params, version, decision)
        write_atomic(REPORTS / "registry.json", promotion.model_dump_json(indent=2) + "\n")
        bar.update()
        write_html(Path(), flow_runs())
        bar.update()
    create_markdown_artifact(key="tpo-gate", markdown=as_markdown(decision))
    where = "champion" if promotion.promoted else f"challenger; champion is version {promotion.champion or 'none yet'}"
    print(f"register: {params.register_.name} version {version} is {where}. {decision.summary}")


def flow_runs() -> dict[str, str]:
    """Ids of Prefect's runs: this stage's, and that of the pipeline where one runs it."""
    ids = {"register": runtime.flow_run.id, "whole pipeline": os.environ.get(PIPELINE_ID)}
    return {what: str(run_id) for what, run_id in ids.items() if run_id}


if __name__ == "__main__":
    run(register_and_gate)
