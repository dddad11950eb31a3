"""What every stage does around its work: journal, resume, progress, publish, and a Prefect artifact with the counts."""

import functools
import importlib.metadata
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar

import httpx
from prefect import Flow, State, Task, flow, runtime, tags, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import FailedRun
from prefect.futures import PrefectFuture, as_completed
from prefect.settings import PREFECT_API_URL
from prefect.states import Failed
from prefect.task_runners import ThreadPoolTaskRunner
from prefect.utilities.annotations import quote
from tqdm import tqdm

from tpo.errors import UserError, redact
from tpo.params import load_params
from tpo.progress import progress
from tpo.records import Caption, PreferencePair, Query, Record, Rejection, content_id
from tpo.store import Clock, Journal, Manifest, count_reasons, digest, publish

JOURNALS = Path(".tpo")
CATALOG = Path("data/catalog")
CAPTIONS = Path("data/captions")
QUERIES = Path("data/queries")
ANSWERS = Path("data/answers")
JUDGED = Path("data/judged")
PAIRS = Path("data/pairs")
VALIDATION = Path("data/validation")
TUNED = Path("models/tuned")
EVALUATION = Path("data/evaluation")
REPORTS = Path("reports")

# Set for every stage of a pipeline run (flows/retrain.py), which finds the stages' own flow runs by their tag.
PIPELINE_ID = "TPO_PIPELINE_ID"

_ANSWERING = ("av", "numpy", "pillow", "tokenizers", "torch", "transformers")
_CODE = Path(__file__).resolve().parent.parent
R = TypeVar("R", bound=Record)
P = ParamSpec("P")
V = TypeVar("V", Caption, Query, PreferencePair)

# At exit it may tell that events are still being delivered, after the message that is to come last.
logging.getLogger("EventsWorker").setLevel(logging.ERROR)

# Tasks return records and leave no files: Prefect's cache would replay a value and not what it stands for.
TASK: dict[str, Any] = {"cache_policy": NO_CACHE, "persist_result": False}
Done = list[tuple[str, list[Record]]]


def stage_flow(name: str) -> Callable[[Callable[[], None]], Flow[[], Any]]:
    """A Prefect flow that ends a user's mistake as a failed run with a readable message, not with a traceback."""

    def decorate(work: Callable[[], None]) -> Flow[[], Any]:
        @functools.wraps(work)
        def guarded() -> Any:
            try:
                work()
            except UserError as error:
                return Failed(message=str(error))
            return None

        return flow(name=name)(guarded)

    return decorate


def stage_task(name: str) -> Callable[[Callable[P, Any]], Task[P, Any]]:
    """A Prefect task for `Stage.map` or `call` that ends a user's mistake in the same way."""

    def decorate(work: Callable[P, Any]) -> Task[P, Any]:
        @functools.wraps(work)
        def guarded(*args: P.args, **kwargs: P.kwargs) -> Any:
            try:
                return work(*args, **kwargs)
            except UserError as error:
                return Failed(message=str(error))

        return task(name=name, **TASK)(guarded)

    return decorate


def call(task: Task[P, Any], *args: P.args, **kwargs: P.kwargs) -> Any:
    """Run one task of `stage_task` and give what it returns. Raises what it raised, a user's mistake as one."""
    return _done(task(*args, **kwargs, return_state=True))


def run(stage: Flow[[], Any]) -> None:
    """Run a stage's flow as a program: exit code 1 and the message if it failed."""
    try:
        workers = load_params().runtime.workers
        server_url()
    except UserError as error:
        sys.exit(f"{stage.name}: {error}")
    runner: Any = ThreadPoolTaskRunner(max_workers=workers)
    pipeline_id = os.environ.get(PIPELINE_ID)
    with tags(*([pipeline_tag(pipeline_id)] if pipeline_id else [])):
        state: Any = stage.with_options(task_runner=runner)(return_state=True)
    if not state.is_completed():
        sys.exit(f"{stage.name}: {state.message}")


def pipeline_tag(pipeline_id: str) -> str:
    return f"pipeline:{pipeline_id}"


def server_url() -> str:
    """Prefect's server: the one that is set, or else one of our own, which is started.

    Raises:
        UserError: nothing listens where one is set.
    """
    url = PREFECT_API_URL.value()
    if not url:
        return start_own_server()
    try:
        httpx.get(f"{url}/health", timeout=10)
    except httpx.ConnectError:
        raise UserError(
            f"Prefect's server does not answer at {redact(url)}. `make up` starts one; with PREFECT_API_URL unset, a "
            "server of its own is started."
        ) from None
    except httpx.HTTPError:
        pass  # it is busy, or tells nothing about itself
    return str(url)


def start_own_server() -> str:
    """Prefect's temporary server, as the flow itself would start it, but one that does not outlive this process.

    Prefect stops it at exit, which a `kill -9` skips. The watcher reads from a pipe that ends with this process. Some
    servers whose client died in the middle of something wait for it forever: it gets five seconds to end by itself.
    Returns its URL.
    """
    from prefect.server.api.server import SubprocessASGIServer  # takes seconds that others need not wait

    server = SubprocessASGIServer()
    server.start()
    assert server.server_process is not None
    until_we_end, _ = os.pipe()
    wait_and_end = 'read -r _; kill "$0" 2>/dev/null && sleep 5 && kill -9 "$0" 2>/dev/null'
    watcher = ["sh", "-c", wait_and_end, str(server.server_process.pid)]
    # It holds no output of ours: whoever reads that would wait for the watcher's end.
    nowhere = subprocess.DEVNULL
    subprocess.Popen(watcher, stdin=until_we_end, stdout=nowhere, stderr=nowhere, start_new_session=True)
    os.close(until_we_end)
    return server.api_url


class Stage:
    """One run of a stage, which counts `item`s. `key_parts` is everything its work depends on besides the code."""

    def __init__(self, name: str, item: str, *key_parts: Any, unit: str = "videos"):
        self.name, self.item, self.unit = name, item, unit
        self.key = content_id(name, code_digest("tpo", "flows"), *key_parts)
        self.journal = Journal(JOURNALS, name, self.key)
        self.clock = Clock()
        self._bar: tqdm[Any] | None = None

    def __enter__(self) -> Self:
        self.journal.__enter__()
        if self.journal.resumed:
            print(f"{self.name}: going on, {self.journal.resumed} {self.item} were done already", flush=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.journal.__exit__(kind, error, trace)

    def map(
        self,
        task: Task[..., Any],
        items: Sequence[Any],
        name_of: Callable[[Any], str],
        per_task: int,
        *args: Any,
        what: str = "",
        unit: str = "",
    ) -> list[Record]:
        """Run `task` on the items that are not in the journal, `per_task` at a time; every item's records, in order.

        `task` takes a list of items (and `args`) and returns, for each, its name and records. `what` tells this bar
        from others of the stage, `unit` says what it counts if that is not what the stage counts.
        """
        todo = [item for item in items if name_of(item) not in self.journal.done]
        shards = [todo[i : i + per_task] for i in range(0, len(todo), per_task)]
        title = f"{self.name}, {what}" if what else self.name
        with progress(len(items), title, unit or self.unit, done=len(items) - len(todo)) as bar:
            self._bar = bar
            # Quoted: Prefect would look into every record for futures, which takes longer than many a stage's work.
            futures = [task.submit(quote(shard), *map(quote, args)) for shard in shards]
            for future in as_completed(futures):
                for name, records in _done(future):
                    self.journal.append(name, records)
                    bar.update()
        self._bar = None
        return [record for item in items for record in self.journal.done[name_of(item)]]

    def tell(self, note: str) -> None:
        """Show a note behind the bar, for what goes on inside an item. Threads may call it."""
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(0)

    def publish(
        self,
        out: Path,
        files: dict[str, Any],
        *,
        items_in: int,
        items_out: int,
        set_aside: Iterable[Rejection] = (),
        facts: Mapping[str, Any] | None = None,
        **others: Any,
    ) -> Manifest:
        """Publish the stage's output with its manifest, leave a Prefect artifact, and drop the journal."""
        manifest = Manifest(
            stage=self.name,
            item=self.item,
            items_in=items_in,
            items_out=items_out,
            set_aside=count_reasons(set_aside),
            resumed=self.journal.resumed,
            seconds=self.clock.seconds,
            versions=_versions(),
            facts={"flow_run_id": runtime.flow_run.id, **(facts or {})},
            **others,
        )
        publish(out, files, manifest)
        self.journal.clear()
        rows = [{"what": f"{self.item} in", "count": items_in}, {"what": f"{self.item} out", "count": items_out}]
        rows += [{"what": f"set aside: {reason}", "count": count} for reason, count in manifest.set_aside.items()]
        rows += [{"what": what, "count": count} for what, count in manifest.counts.items()]
        create_table_artifact(key=f"tpo-{self.name}", table=rows, description=f"{self.name}: what came in and out")
        told = ", ".join(f"{count} {reason}" for reason, count in manifest.set_aside.items())
        print(f"{self.name}: {items_in} {self.item} in, {items_out} out" + (f", set aside: {told}" if told else ""))
        return manifest


def _done(ended: PrefectFuture[Any] | State[Any]) -> Any:
    """What a task of `stage_task` returned. Raises what it raised, a user's mistake without a traceback in the log."""
    try:
        return ended.result()
    except FailedRun as error:  # has no exception behind it, but a message
        raise UserError(str(error)) from None


def code_digest(*rooms: str) -> str:
    """Stands for the code of some rooms of the project: "tpo/models"."""
    return digest(*(_CODE / room for room in rooms))


def answering_code() -> str:
    """Stands for what prepares frames and runs models: our code, and the releases of the libraries that do it.

    Other releases decode other colours or count other tokens (PyAV 15 and 18 on BT.709 files), and two models must not
    be compared across them.
    """
    libraries = {name: importlib.metadata.version(name) for name in _ANSWERING}
    return content_id(code_digest("tpo/models", "tpo/video"), libraries)


def of_kind(records: Iterable[Record], kind: type[R]) -> list[R]:
    return [record for record in records if isinstance(record, kind)]


def by_video(records: Iterable[V]) -> dict[str, list[V]]:
    """Records grouped by the video they are about, in their order."""
    groups: dict[str, list[V]] = {}
    for record in records:
        groups.setdefault(record.video_id, []).append(record)
    return groups


def _versions() -> dict[str, str]:
    names = ("torch", "transformers", "trl", "peft", "av", "great-expectations", "mlflow", "prefect", "dvc")
    return {name: importlib.metadata.version(name) for name in names}
