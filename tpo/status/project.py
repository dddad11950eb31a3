"""A project at a glance: what is there, what runs, what was decided, what is stale, and what to do next.

    status = look(Path())                    # everything that disk and processes tell, at once
    stale = find_stale(Path(), status)       # seconds
    print(next_step(status, stale))          # `tpo.status.text` has words for the rest

Nothing here raises because of what it finds in a project: a damaged file is what a status is asked for.
"""

from pathlib import Path

from pydantic import Field, ValidationError

from tpo.errors import UserError
from tpo.params import Params, load_params
from tpo.records import GateDecision, Record
from tpo.status.registered import Registered, registered
from tpo.status.running import Running, prefect_runs, running, services
from tpo.status.stages import StageStatus, stage_statuses
from tpo.status.stale import Stale, ask_dvc

GATE, REPORT = Path("reports/gate.json"), Path("reports/index.html")


class ProjectStatus(Record):
    params_problem: str
    base: str
    promoted_by: str = Field(description="register.promotion: gate or person")
    stages: tuple[StageStatus, ...]
    registered: Registered | None
    decision: GateDecision | None
    decision_problem: str = Field("", description="why the gate's last decision is not known")
    running: tuple[Running, ...]
    services: tuple[str, ...]
    prefect: tuple[str, ...] = Field(description="flow runs that its server counts as under way, of any project")
    prefect_problem: str = ""
    has_report: bool

    @property
    def damaged(self) -> list[StageStatus]:
        return [stage for stage in self.stages if stage.state == "damaged"]


def check_project(root: Path) -> None:
    """Raises:
    UserError: `root` is no project of this kind.
    """
    if not (root / "dvc.yaml").is_file() or not (root / "params.yaml").is_file():
        raise UserError(f"{root.absolute()} is no tpo project (no dvc.yaml and params.yaml). Run from its root folder.")


def look(root: Path) -> ProjectStatus:
    """All but what is stale."""
    params, problem = _params(root)
    decision, decision_problem = _decision(root / GATE)
    runs, prefect_problem = prefect_runs()
    return ProjectStatus(
        params_problem=problem,
        base=params.model.base if params else "",
        promoted_by=params.register_.promotion if params else "",
        stages=stage_statuses(root),
        registered=registered(params.register_.name, root) if params else None,
        decision=decision,
        decision_problem=decision_problem,
        running=running(root),
        services=services(root),
        prefect=runs,
        prefect_problem=prefect_problem,
        has_report=(root / REPORT).is_file(),
    )


def _params(root: Path) -> tuple[Params | None, str]:
    try:
        return load_params(root / "params.yaml"), ""
    except (UserError, OSError) as error:
        return None, str(error)


def _decision(file: Path) -> tuple[GateDecision | None, str]:
    try:
        return GateDecision.model_validate_json(file.read_bytes()), ""
    except FileNotFoundError:
        return None, ""
    except (OSError, ValidationError):
        return None, f"{file} is damaged; `dvc repro -f register` writes it again"


def find_stale(root: Path, status: ProjectStatus) -> Stale:
    """What DVC would run again. It is not asked while something runs, which its lock could stop."""
    if status.running:
        return Stale(problem=f"DVC is not asked while something runs ({status.running[0].what})")
    return ask_dvc(root)


def next_step(status: ProjectStatus, stale: Stale) -> str:
    """The one thing to do now."""
    ran = [stage for stage in status.stages if stage.state != "not run"]
    known = status.registered
    waits = known is not None and known.challenger is not None and known.challenger != known.champion
    if status.params_problem:
        return "mend params.yaml; `tpo use` lists recipes, `git diff params.yaml` shows what you changed"
    if status.running:
        return f"wait for {status.running[0].what}; look again with `tpo status`"
    if status.damaged:
        return f"`dvc repro` makes {status.damaged[0].name} again, and what comes after it"
    if not ran:
        return "`make demo` runs the shipped demo; for your own videos and model see README, then `dvc repro`"
    if stale.stages:
        return "`dvc repro` runs what is stale; kill it at any time, it goes on where it was"
    if status.decision_problem or stale.problem:
        return status.decision_problem or "see why DVC does not answer: `dvc status`"
    if waits and status.decision is not None and status.decision.promote and status.promoted_by == "person":
        return (
            f'`tpo promote --dry-run` shows the rules, `tpo promote {known and known.challenger} --reason "…"` decides'
        )
    if status.decision is not None and not status.decision.promote and not _is_champion(status.decision):
        return f"{REPORT} and `tpo promote --dry-run` show why it was refused"
    if known is not None and known.champion:
        return f'look at {REPORT}, or ask the champion: tpo ask VIDEO "QUESTION"'
    return f"look at {REPORT}" if status.has_report else "`dvc repro`"


def _is_champion(decision: GateDecision) -> bool:
    """Nothing was wrong with it: the same weights came again, as of a stage that was run once more."""
    return decision.candidate_id is not None and decision.candidate_id == decision.champion_id
