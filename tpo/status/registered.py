"""Which versions are registered and which is champion, without MLflow, whose import alone takes seconds.

Of `sqlite:///…` the two tables are read, of a server its REST API; of anything else `tpo registry` tells.
"""

import json
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import urlopen

from pydantic import Field

from tpo.records import Record
from tpo.registry.tracking import redact, tracking_uri

_TIMEOUT_S = 2
_DELETED = "Deleted_Internal"  # what MLflow makes of a version's stage when it is deleted


class Registered(Record):
    """Versions are numbers as text, as MLflow gives them."""

    name: str
    versions: tuple[str, ...] = Field((), description="newest first; a server tells the newest alone")
    champion: str | None = None
    challenger: str | None = None
    state: Literal["read", "broken", "not read here"] = "read"
    problem: str = Field("", description="why this is not known")


def registered(name: str, root: Path) -> Registered:
    """What the registry of `MLFLOW_TRACKING_URI` knows of a model; never raises."""
    uri = tracking_uri()
    try:
        if uri.startswith("sqlite:///"):
            return _from_file(name, root / uri.removeprefix("sqlite:///").partition("?")[0])
        if uri.startswith(("http://", "https://")) and "@" not in uri:
            return _from_server(name, uri.rstrip("/"))
    except (OSError, ValueError, KeyError, sqlite3.Error) as error:
        told = redact(str(error)) or type(error).__name__
        refused = isinstance(error, HTTPError) and error.code in (401, 403)  # MLflow's client has what it asks for
        problem = f"The registry {redact(uri)} cannot be read: {told}"
        return Registered(name=name, state="not read here" if refused else "broken", problem=problem)
    return Registered(name=name, state="not read here", problem=f"{redact(uri)}: `tpo registry` asks it")


def _from_file(name: str, file: Path) -> Registered:
    if not file.is_file():
        return Registered(name=name)
    with closing(sqlite3.connect(f"file:{quote(str(file))}?mode=ro", uri=True, timeout=_TIMEOUT_S)) as connection:
        tables = {table for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        if not {"model_versions", "registered_model_aliases"} <= tables:  # nothing was logged yet, or something else
            return Registered(name=name)
        of_it = "WHERE name = ? AND current_stage IS NOT ?"
        versions = connection.execute(f"SELECT version FROM model_versions {of_it}", [name, _DELETED])  # noqa: S608
        aliases = connection.execute("SELECT alias, version FROM registered_model_aliases WHERE name = ?", [name])
        return _told(name, (version for (version,) in versions.fetchall()), aliases.fetchall())


def _from_server(name: str, uri: str) -> Registered:
    try:
        with urlopen(f"{uri}/api/2.0/mlflow/registered-models/get?name={quote(name)}", timeout=_TIMEOUT_S) as answer:  # noqa: S310
            model = json.load(answer)["registered_model"]
    except HTTPError as error:
        if error.code == 404 and b"RESOURCE_DOES_NOT_EXIST" in error.read():
            return Registered(name=name)
        raise
    aliases = [(one["alias"], one["version"]) for one in model.get("aliases", [])]
    return _told(name, (one["version"] for one in model.get("latest_versions", [])), aliases)


def _told(name: str, versions: Iterable[int | str], aliases: Iterable[tuple[str, int | str]]) -> Registered:
    newest_first = sorted(map(int, versions), reverse=True)
    of_alias = {alias: str(version) for alias, version in aliases}
    return Registered(
        name=name,
        versions=tuple(map(str, newest_first)),
        champion=of_alias.get("champion"),
        challenger=of_alias.get("challenger"),
    )
