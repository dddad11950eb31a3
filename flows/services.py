"""Servers and workers on this machine, for scheduled and unattended runs: `make up`, `make down`.

    python -m flows.services up | down | status

A Prefect server, an MLflow server and a worker for each pool of prefect.yaml, all on the loopback address; logs are in
`.tpo/services`. Ports and databases are the tools' own settings, from the environment: PREFECT_SERVER_API_PORT and
MLFLOW_PORT; PREFECT_API_DATABASE_CONNECTION_URL and MLFLOW_BACKEND_STORE_URI (SQLite without them).
"""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

from tpo.errors import UserError

HOST = "127.0.0.1"
FOLDER = Path(".tpo/services")
START_S = 180  # a first start makes the databases
END_S = 90  # a stage that is told to end may save a checkpoint, see flows/command.py
# Every process of ours is known by this in its environment, children of services that died as well; no file of pids
# could name those, or outlive a reboot.
MARK = "TPO_SERVICES"
POOLS = ("tpo-gpu", "tpo-cpu")
# Only servers are told, since there may be passwords in them. MLflow's is the one that stages use without a server.
_DATABASES = {
    "PREFECT_API_DATABASE_CONNECTION_URL": f"sqlite+aiosqlite:///{FOLDER.absolute()}/prefect.db",
    "MLFLOW_BACKEND_STORE_URI": "sqlite:///mlflow.db",
}
_UNFINISHED = ("RUNNING", "PENDING", "CANCELLING")


@dataclass(frozen=True)
class Service:
    """A program that runs until it is stopped. `health` can be read once it is ready."""

    name: str
    command: tuple[str, ...]
    health: str
    port_setting: str | None = None

    def is_run_by(self, process: psutil.Process) -> bool:
        try:
            return tuple(process.cmdline()[1:]) == self.command
        except psutil.Error:  # it ended
            return False

    @property
    def log(self) -> Path:
        return FOLDER / f"{self.name}.log"


def main(command: str) -> None:
    if command == "up":
        up()
    elif command == "down":
        down()
    else:
        print(_told(_ours()) or "Nothing runs. `make up` starts everything.")


def up() -> None:
    """Start what does not run, create pools and deployments, and say where everything is.

    Raises:
        UserError: a port is in use, or something did not start; then what this call started is stopped again.
    """
    running = _ours()
    environment = _environment(running)
    prefect, mlflow, *workers = services = _services(environment)
    missing = [service for service in services if not any(service.is_run_by(process) for process in running)]
    if already := [service.name for service in services if service not in missing]:
        print(f"Running already: {', '.join(already)}.")
    try:
        for service in missing:
            _check_port(service, environment)
        databases = {name: os.environ.get(name, default) for name, default in _DATABASES.items()}
        _start((one for one in (prefect, mlflow) if one in missing), environment | databases)
        for worker in workers:
            if worker in missing:
                _end_dead_runs(environment["PREFECT_API_URL"], worker.name)
        _start((one for one in workers if one in missing), environment)
        _deploy(environment)
    except BaseException:
        before = {process.pid for process in running}
        _stop([process for process in _ours() if process.pid not in before])
        raise
    print(_told(_ours()))


def down() -> None:
    """Stop everything: workers and what they run first, so that a stage can still tell the servers how it ended."""
    running = _ours()
    servers = _services(_environment(running))[:2]
    spared = {
        one
        for process in running
        if any(server.is_run_by(process) for server in servers)
        for one in (process, *process.children(recursive=True))
    }
    _stop([process for process in running if process not in spared])
    _stop(_ours())
    print(f"Stopped {len(running)} processes." if running else "Nothing was running.")


def _services(environment: Mapping[str, str]) -> tuple[Service, ...]:
    prefect_port, mlflow_port = environment["PREFECT_SERVER_API_PORT"], environment["MLFLOW_PORT"]
    server = ("-m", "prefect", "server", "start", "--host", HOST, "--port", prefect_port)
    # One process serves many clients. Artifacts go through the server: its clients need no access to its files.
    tracking = ("--workers", "1", "--artifacts-destination", "./mlartifacts")
    return (
        Service("prefect", server, f"http://{HOST}:{prefect_port}/api/health", "PREFECT_SERVER_API_PORT"),
        Service(
            "mlflow",
            ("-m", "mlflow", "server", "--host", HOST, "--port", mlflow_port, *tracking),
            f"http://{HOST}:{mlflow_port}/health",
            "MLFLOW_PORT",
        ),
        *(
            Service(
                pool,
                ("-m", "prefect", "worker", "start", "--pool", pool, "--name", pool, "--type", "process"),
                f"{environment['PREFECT_API_URL']}/work_pools/{pool}",  # the worker makes it
            )
            for pool in POOLS
        ),
    )


def _environment(running: Iterable[psutil.Process]) -> dict[str, str]:
    """Of all services. Ports are those of what runs already, if anything does."""
    inherited = next(filter(None, map(_variables, running)), dict(os.environ))
    ports = {
        "PREFECT_SERVER_API_PORT": inherited.get("PREFECT_SERVER_API_PORT", "4200"),
        "MLFLOW_PORT": inherited.get("MLFLOW_PORT", "5000"),
    }
    home = FOLDER.absolute()
    wanted = {
        "PREFECT_HOME": str(home / "prefect"),
        # In memory, a server that is started again forgets who holds a deployment's only slot, and it stays taken.
        "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
        "PREFECT_WORKER_QUERY_SECONDS": "5",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # eight processes for evaluations of language models
    }
    dropped = {"PREFECT_LOGGING_LEVEL", *_DATABASES}
    settings = {name: value for name, value in os.environ.items() if name not in dropped}
    return wanted | settings | ports | {
        "PREFECT_API_URL": f"http://{HOST}:{ports['PREFECT_SERVER_API_PORT']}/api",
        "MLFLOW_TRACKING_URI": f"http://{HOST}:{ports['MLFLOW_PORT']}",
        "PYTHONUNBUFFERED": "1",
        MARK: str(home),
    }  # fmt: skip


def _ours() -> list[psutil.Process]:
    """Every process that a service of this folder is or has started, except this one."""
    home = str(FOLDER.absolute())
    return [one for one in psutil.process_iter() if _variables(one).get(MARK) == home and one.pid != os.getpid()]


def _variables(process: psutil.Process) -> dict[str, str]:
    """Its environment; nothing of a process that ended, or is somebody else's."""
    try:
        found: dict[str, str] = process.environ()
    except psutil.Error:
        return {}
    return found


def _told(running: list[psutil.Process]) -> str:
    """What runs, and where."""
    if not running:
        return ""
    environment = _environment(running)
    lines = []
    for service in _services(environment):
        process = next((one for one in running if service.is_run_by(one)), None)
        state = f"pid {process.pid}" if process else "not running"
        where = service.health.partition("/api/")[0].removesuffix("/health") if service.port_setting else ""
        lines.append(f"{service.name:8} {state:12} {where}".rstrip())
    lines += [f"export {name}={environment[name]}" for name in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")]
    return "\n".join(lines)


def _check_port(service: Service, environment: Mapping[str, str]) -> None:
    if service.port_setting is None:
        return
    port = int(environment[service.port_setting])
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"{service.name} cannot have port {port}: {error.strerror}. "
                f"End the program that holds it, or set {service.port_setting} to another."
            ) from None


def _start(services: Iterable[Service], environment: Mapping[str, str]) -> None:
    """Start them at once and wait until each is ready."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    started = []
    for service in services:
        with service.log.open("ab") as log:
            command = [sys.executable, *service.command]
            process = subprocess.Popen(
                command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        started.append((service, process))
    for service, process in started:
        _wait_for(service, process)


def _wait_for(service: Service, process: "subprocess.Popen[bytes]") -> None:
    ends_at = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < ends_at:
        if _answers(service.health):
            return
        time.sleep(0.2)
    how = f"did not answer within {START_S} s" if process.poll() is None else f"ended with code {process.returncode}"
    last = "\n".join(service.log.read_text(errors="replace").splitlines()[-15:])
    raise UserError(f"{service.name} {how}; all that was started is stopped again. {service.log} ends with:\n{last}")


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def _end_dead_runs(api: str, pool: str) -> None:
    """Tell Prefect that runs of a worker that died are over; it would take minutes to let others start.

    Called while no worker of the pool runs. A run whose process goes on without its worker is left alone.
    """
    alive = {_variables(process).get("PREFECT__FLOW_RUN_ID") for process in _ours()}
    unfinished = {"state": {"type": {"any_": _UNFINISHED}}}
    of_pool = {"work_pools": {"name": {"any_": [pool]}}}
    for run in _post(f"{api}/flow_runs/filter", {"flow_runs": unfinished, **of_pool}):
        if run["id"] in alive:
            continue
        of_run = {"tags": {"all_": [f"pipeline:{run['id']}"]}}
        for dead in (run, *_post(f"{api}/flow_runs/filter", {"flow_runs": unfinished | of_run})):
            crashed = {"type": "CRASHED", "message": "Its process is gone."}
            _post(f"{api}/flow_runs/{dead['id']}/set_state", {"state": crashed, "force": True})
            print(f"{dead['name']} had crashed; the next run goes on where it was.")


def _post(url: str, body: Mapping[str, Any]) -> Any:
    ends_at = time.monotonic() + START_S
    while True:
        answer = httpx.post(url, json=body, timeout=START_S)
        # What Prefect says when SQLite is busy.
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE or time.monotonic() > ends_at:
            return answer.raise_for_status().json()
        time.sleep(0.5)


def _deploy(environment: Mapping[str, str]) -> None:
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise UserError(f"prefect.yaml was not deployed:\n{done.stdout}{done.stderr}")


def _stop(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, left = psutil.wait_procs(processes, timeout=END_S)
    for process in left:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(left, timeout=END_S)


if __name__ == "__main__":
    if sys.argv[1:] not in (["up"], ["down"], ["status"]):
        sys.exit("usage: python -m flows.services up | down | status")
    try:
        main(sys.argv[1])
    except UserError as error:
        sys.exit(str(error))
