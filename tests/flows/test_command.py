"""Commands of a flow as real processes: what they say, how it is told, and that nothing of them is left."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from markdown_it import MarkdownIt
from processes import processes_of_group

from flows.command import CommandError, run_command
from flows.decision import as_markdown
from flows.promote import Approval, decided
from flows.retrain import failure_told
from flows.services import FOLDER, Service, _environment, _stop
from tpo.records import GateDecision, GateRule

# A stage with a child, both of which note where they are.
STAGE = "echo begun; sleep 300 & echo $$ > group; wait"


def wait_for_group(folder: Path) -> int:
    ends_at = time.monotonic() + 60
    while not (folder / "group").is_file() or not (folder / "group").read_text():
        assert time.monotonic() < ends_at
        time.sleep(0.02)
    return int((folder / "group").read_text())


def test_every_line_is_told_without_passwords_and_the_last_ones_explain_a_failure() -> None:
    told: list[str] = []
    script = "echo begun; echo pushing to s3://me:secret@host/box >&2; exit 3"
    with pytest.raises(CommandError, match=r"failed with exit code 3:\nbegun\npushing to s3://\*\*\*@host/box"):
        run_command(["sh", "-c", script], told.append, os.environ)
    assert told == ["begun", "pushing to s3://***@host/box"]


def test_what_a_command_leaves_behind_is_ended_with_it(tmp_path: Path) -> None:
    run_command(
        ["sh", "-c", f"cd {tmp_path}; sleep 300 >/dev/null 2>&1 & echo $$ > {tmp_path}/group"], print, os.environ
    )
    assert processes_of_group(wait_for_group(tmp_path)) == []


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_no_process_of_a_command_outlives_the_one_that_runs_it(tmp_path: Path, how: signal.Signals) -> None:
    program = f"""
import os, signal, sys
from flows.command import run_command
signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
run_command(["sh", "-c", {STAGE!r}], print, os.environ)
"""
    with subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, start_new_session=True) as process:
        group = wait_for_group(tmp_path)
        assert processes_of_group(group)
        process.send_signal(how)
    ends_at = time.monotonic() + 30
    while processes_of_group(group):
        assert time.monotonic() < ends_at
        time.sleep(0.05)


def test_what_a_program_said_last_ends_no_block_of_code_and_is_no_markup() -> None:
    error = CommandError(["python", "-m", "flows.ask"], 1, ["```", "<img src=x onerror=y> | **bold**"])
    shown = MarkdownIt().render(failure_told([], error))
    assert "&lt;img src=x onerror=y&gt; | **bold**\n</code></pre>" in shown
    assert shown.count("<pre>") == 1


def test_what_people_and_settings_say_to_the_gate_is_no_markup_in_its_table() -> None:
    evil = "bob: <b>Latin</b> | [x](javascript:y)"
    rule = GateRule(name="not_rolled_back", passed=False, value=evil, threshold=evil, reason=evil)
    told = as_markdown(GateDecision(promote=False, rules=(rule,), summary=evil))
    shown = MarkdownIt().enable("table").render(told)
    assert shown.count("<td>bob: &lt;b&gt;Latin&lt;/b&gt; | [x](javascript:y)</td>") == 3
    assert "<b>" not in shown


def test_figures_of_the_gate_are_shown_as_people_write_them() -> None:
    rules = [
        GateRule(name="a", passed=True, value=90.0, threshold=0.30185185185, reason="r"),
        GateRule(name="b", passed=True, value=None, threshold="0f" * 32, reason="r"),
    ]
    told = MarkdownIt().enable("table").render(as_markdown(GateDecision(promote=True, rules=tuple(rules), summary="s")))
    assert "<td>90</td>\n<td>0.3019</td>" in told
    assert "<td></td>\n<td>0f0f0f0f0f0f0f0f</td>" in told


def test_a_persons_no_is_told_and_asks_the_registry_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    said = Approval(version="1", who="alice", reason="too short")
    assert decided("tpo-demo", said) == "alice left the champion as it was: too short"


def test_a_process_that_ends_while_services_are_looked_at_is_passed_over() -> None:
    with subprocess.Popen(["sleep", "300"]) as process:
        seen = psutil.Process(process.pid)
        process.kill()
    assert not Service("prefect", ("-m", "prefect"), "http://127.0.0.1").is_run_by(seen)
    assert _environment([seen])["TPO_SERVICES"] == str(FOLDER.absolute())
    _stop([seen])
