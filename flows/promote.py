"""promote: show the gate's decision about a challenger, wait for a person, move the alias `champion` or leave it.

    prefect deployment run promote/promote          # then answer on that run's page

While it waits no process runs: the run is suspended, outlives restarts, and fails when nobody answers in time.
"""

from typing import Any

from prefect import flow
from prefect.flow_runs import suspend_flow_run
from prefect.input import RunInput, create_flow_run_input, read_flow_run_input
from prefect.states import Completed, Failed
from pydantic import Field

from tpo.errors import UserError
from tpo.markdown import escaped
from tpo.params import load_params
from tpo.registry.package import CHALLENGER, versions
from tpo.registry.promotion import kept_decision, objection, promote


class Approval(RunInput):
    """What a person says to it."""

    version: str = Field(description="the version that this is about")
    approve: bool = Field(default=False, description="move the alias `champion` to it")
    who: str = Field(min_length=1, description="your name; kept in the history, as is the reason")
    reason: str = Field(min_length=1)


@flow(name="promote")
def promote_challenger(*, version: str | None = None, hours: float = 72) -> Any:
    """Ask a person whether a challenger becomes champion.

    Args:
        version: of the registered model; none = the one with the alias `challenger`.
        hours: how long to wait for an answer. None is a no.
    """
    name = load_params().register_.name
    try:
        form = _form(name, version or _asked_about(name))
        said = suspend_flow_run(wait_for_input=form, timeout=int(hours * 3600), key="approval")
        return Completed(message=decided(name, said))
    except UserError as error:
        return Failed(message=str(error))


def decided(name: str, said: Approval) -> str:
    """Do what a person said; what became of the champion.

    Raises:
        UserError: the version cannot be champion; nothing was moved.
    """
    if not said.approve:
        return f"{said.who} left the champion as it was: {said.reason}"
    done = promote(name, said.version, who=said.who, reason=said.reason)
    return f"Version {done.champion} of {name} is champion; before it was {done.previous or 'none'}."


def _form(name: str, version: str) -> type[Approval]:
    """What a person is asked, below what the gate said.

    Raises:
        UserError: the gate does not let this version be champion, so there is nothing to ask.
    """
    decision = kept_decision(name, version)
    if decision is None or (problem := objection(name, version)):
        raise UserError(problem if decision else f"The gate has not decided about version {version} of {name}.")
    rules = "".join(f"\n- {escaped(rule.reason)}" for rule in decision.rules)
    told = f"**{name}, version {version}.** {escaped(decision.summary)}\n{rules}"
    return Approval.with_initial_data(told, version=version)


def _asked_about(name: str) -> str:
    """The challenger of the time when the question was put: the run begins anew when it is answered."""
    asked: Any = read_flow_run_input("version")
    if asked is None:
        asked = _challenger(name)
        create_flow_run_input("version", asked)
    return str(asked)


def _challenger(name: str) -> str:
    for version in versions(name):
        if CHALLENGER in version.aliases:
            return version.version
    raise UserError(f"No version of {name} has the alias {CHALLENGER!r}. `tpo registry` shows what there is.")
