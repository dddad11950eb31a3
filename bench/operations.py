"""What orchestration and the registry cost beside the work, in a project in which `make demo` has run.

    python bench/operations.py            # 5 runs of each
    python bench/operations.py --quick    # 1 run

Starts a Prefect server of its own and stops it again; the registry that it moves aliases in is a copy. A stage's
overhead is the time of its process less its work (seconds of its manifest) and less the start of a Python that imports
what the stage does of `tpo`. Operations on the registry are timed behind the imports. A promotion by `tpo promote`
fetches the version, checks its files, and loads and asks the model in a process of its own, whose imports are taken off
too; the register stage promotes with the proof that the gate had. A rollback checks files and loads nothing.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median

import httpx

from tpo.errors import UserError
from tpo.params import load_params
from tpo.registry.promotion import history, promote, registry_state, rollback
from tpo.registry.tracking import connect

ROOT = Path(__file__).resolve().parents[1]
IMPORTS = "import tpo.curation.mix, tpo.curation.reviews, tpo.params, tpo.store"
PROOF_IMPORTS = "import mlflow.pyfunc, tpo.models.load, tpo.registry.ask"
LOOK = """from pathlib import Path
from tpo.status import project, text
print(text.to_text(project.look(Path())))"""
WHO, WHY = "bench/operations.py", "timed"


def seconds_of(work: Callable[[], object]) -> float:
    started_s = time.perf_counter()
    work()
    return time.perf_counter() - started_s


@contextmanager
def prefect_server(home: Path) -> Iterator[dict[str, str]]:
    """A server on a free port; the environment of its clients."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    url = f"http://127.0.0.1:{port}/api"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PREFECT_HOME": str(home), "PREFECT_API_URL": url}
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port, "--no-ui"]
    nowhere = subprocess.DEVNULL
    with subprocess.Popen(command, env=environment, stdout=nowhere, stderr=nowhere) as server:
        try:
            while server.poll() is None and not answers(f"{url}/health"):
                time.sleep(0.2)
            yield environment
        finally:
            server.terminate()


def answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def stage_overhead_s(project: Path, environment: Mapping[str, str]) -> float:
    """Of the mix stage, in a copy of what it reads."""

    def run(*arguments: str) -> float:
        command = [sys.executable, *arguments]
        return seconds_of(
            lambda: subprocess.run(command, cwd=project, env=environment, check=True, capture_output=True)
        )

    whole_s = run("-m", "flows.mix")
    work_s: float = json.loads((project / "data/pairs/manifest.json").read_text(encoding="utf-8"))["seconds"]
    return whole_s - work_s - run("-c", IMPORTS)


def copy_registry(name: str, scratch: Path) -> tuple[str, str]:
    """Point MLflow at a copy in which the champion has a twin; the versions of both."""
    import mlflow

    copied = scratch / "mlflow.db"
    shutil.copy("mlflow.db", copied)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{copied}"
    connect()
    client = mlflow.MlflowClient()
    champion = client.get_model_version_by_alias(name, "champion")
    twin = client.create_model_version(name, str(champion.source), tags=champion.tags)
    return str(champion.version), str(twin.version)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="1 run of each")
    repeats = 1 if parser.parse_args().quick else 5
    if not (Path("reports/gate.json").is_file() and Path("mlflow.db").is_file()):
        raise UserError("No finished project is here. Run `make demo` first, and this in the same folder.")
    name = load_params().register_.name
    figures: dict[str, float] = {}

    def show(figure: str, what: str, measured: list[float]) -> None:
        figures[figure] = round(median(measured), 2)
        print(f"{what:60} {figures[figure]:8.2f} s   (slowest {max(measured):.2f})", flush=True)

    def time_program(figure: str, what: str, *arguments: str) -> None:
        command = [sys.executable, *arguments]
        run = partial(subprocess.run, command, check=True, capture_output=True)
        show(figure, what, [seconds_of(run) for _ in range(repeats)])

    time_program("tpo_help_s", "tpo --help", "-m", "tpo.cli", "--help")
    time_program("tpo_status_without_dvc_s", "tpo status, before DVC is asked", "-c", LOOK)
    with tempfile.TemporaryDirectory() as folder, prefect_server(Path(folder) / "prefect") as environment:
        scratch = Path(folder)
        for needed in ("data/judged", "data/review"):
            shutil.copytree(needed, scratch / needed)
        shutil.copy("params.yaml", scratch)
        stage_overhead_s(scratch, environment)  # the first run fills caches
        overheads_s = [stage_overhead_s(scratch, environment) for _ in range(repeats)]
        show("stage_overhead_s", "a stage with a running server, beyond its work and imports", overheads_s)
        retrain = [sys.executable, "-m", "flows.retrain"]
        no_ops_s = [
            seconds_of(lambda: subprocess.run(retrain, env=environment, check=True, capture_output=True))
            for _ in range(repeats)
        ]
        show("no_op_retrain_s", "retrain when nothing has changed", no_ops_s)
        _, twin = copy_registry(name, scratch)
        registry_state(name)
        show("registry_state_s", "who is champion", [seconds_of(lambda: registry_state(name)) for _ in range(repeats)])
        show("history_s", "history of promotions", [seconds_of(lambda: history(name)) for _ in range(repeats)])
        imports = [sys.executable, "-c", PROOF_IMPORTS]
        imports_s = [
            seconds_of(lambda: subprocess.run(imports, env=environment, check=True)) for _ in range(repeats + 1)
        ][1:]
        show("proof_imports_s", "a process that imports what a model needs to be asked", imports_s)
        moved_s = seconds_of(lambda: promote(name, twin, who=WHO, reason=WHY, force=True)) - median(imports_s)
        show("promote_s", "promotion: files checked, model loaded and asked, moved", [moved_s])
        back_s = [seconds_of(lambda: rollback(name, who=WHO, reason=WHY)) for _ in range(repeats)]
        show("rollback_s", "rollback: files checked, moved", back_s)
    print(json.dumps(figures))


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(str(error))
