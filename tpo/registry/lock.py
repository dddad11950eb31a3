"""One at a time may move a registered model's aliases, whatever machine they sit at.

    with promotion_lock("tpo-demo", "alice") as lock:
        lock.check()
        client.set_registered_model_alias(…)

MLflow moves an alias without asking what it was, but names of registered models are unique in its database. So the lock
is a registered model, `NAME-promotion-lock`: whoever creates it holds it. A holder that died is taken over, at once if
it was a process of this machine, else when it has held for longer than any move takes.

A lock is deleted by name, so of two that found the same one dead the slower would delete the other's new one. That is
why deleting the lock of a token takes another, `NAME-promotion-lock-TOKEN`. What is left: a holder that is halted for
minutes just between `check` and its move may move after it was taken over, since MLflow cannot do both in one step.
"""

import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tpo.errors import UserError
from tpo.registry.tracking import redact

_STALE_S = 120.0  # nothing slow happens under the lock


@dataclass(frozen=True)
class Lock:
    """Held. `check` before each move: a holder that slept for minutes may have been taken over."""

    name: str
    token: str

    def check(self) -> None:
        """Raises:
        UserError: someone else holds the lock by now.
        """
        if _holder(self.name).get("token") != self.token:
            raise UserError(f"The lock {self.name} was taken over, so nothing more was moved. See `tpo registry`.")


@contextmanager
def promotion_lock(model: str, who: str) -> Iterator[Lock]:
    """Hold the lock of a registered model for the length of a block.

    Raises:
        UserError: someone else holds it.
    """
    lock = Lock(f"{model}-promotion-lock", uuid.uuid4().hex)
    tags = {"token": lock.token, "who": redact(who), "host": socket.gethostname(), "pid": str(os.getpid())}
    tags["since"] = str(time.time())
    if not _create(lock.name, tags):
        holder = _holder(lock.name)
        if holder and not _is_dead(holder):
            raise UserError(
                f"{holder['who']} moves the aliases of {model!r} at this moment, so nothing was done. Look at "
                "`tpo registry` in a minute, and decide again."
            )
        _delete(lock.name, holder.get("token"))
        if not _create(lock.name, tags):
            raise UserError(
                f"Someone else began to move the aliases of {model!r} at this moment: nothing was done. Look at "
                f"`tpo registry` in a minute; if nobody did, delete the registered model {lock.name!r}, which says so."
            )
    try:
        yield lock
    finally:
        _delete(lock.name, lock.token)


def _create(name: str, tags: dict[str, str]) -> bool:
    """Whether the lock was free."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        mlflow.MlflowClient().create_registered_model(name, tags, "Moves of aliases are under way; gone in a moment.")
    except MlflowException as error:
        if error.error_code == "RESOURCE_ALREADY_EXISTS":
            return False
        raise
    return True


def _holder(name: str) -> dict[str, str]:
    """What the holder wrote down; empty = nobody holds it."""
    import mlflow
    from mlflow.exceptions import MlflowException

    try:
        return dict(mlflow.MlflowClient().get_registered_model(name).tags)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return {}
        raise


def _delete(name: str, token: str | None) -> None:
    """Give a lock back, if it still is the one of this token and nobody else is about to."""
    import mlflow

    right = f"{name}-{token}"
    if token is None or not _create(right, {}):
        return
    try:
        if _holder(name).get("token") == token:
            mlflow.MlflowClient().delete_registered_model(name)
    finally:
        mlflow.MlflowClient().delete_registered_model(right)


def _is_dead(holder: dict[str, str]) -> bool:
    if time.time() - float(holder.get("since", 0)) > _STALE_S:
        return True
    if holder["host"] != socket.gethostname():
        return False
    try:
        os.kill(int(holder["pid"]), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # another user's, alive
        return False
    return False
