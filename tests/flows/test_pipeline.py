"""What retraining does with DVC, in small real projects: new data, files in its way, stages that fail."""

import contextlib
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import yaml
from prefect import flow
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, temporary_settings

from flows.pipeline import stale_now
from flows.promote import _asked_about
from flows.retrain import get_data, retrain, run_stage
from tpo.errors import UserError
from tpo.status.stale import upstream

ROOT = Path(__file__).resolve().parents[2]
COUNT = {"cmd": "mkdir -p out && cat data/videos/* > out/all", "deps": ["data/videos"], "outs": ["out"]}


def dvc(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], check=True, capture_output=True)


def write_stages(**stages: dict[str, object]) -> None:
    Path("dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video that was added, a stage that has run on it, and a remote. Nobody writes to it."""
    folder = tmp_path_factory.mktemp("finished")
    (folder / "data/videos").mkdir(parents=True)
    (folder / "data/videos/one.mp4").write_text("one\n")
    (folder / ".dvc").mkdir()
    shared = (ROOT / ".dvc/config").read_text().replace("[core]", "[core]\n    remote = box")
    (folder / ".dvc/config").write_text(shared + "['remote \"box\"']\n    url = ../../box\n")
    with contextlib.chdir(folder):
        subprocess.run(["git", "init", "--quiet"], check=True)
        write_stages(count=COUNT)
        dvc("add", "--quiet", "data/videos")
        dvc("repro", "--quiet")
    return folder


@pytest.fixture
def project(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(shutil.copytree(finished, tmp_path / "project"))
    with disable_run_logger():
        yield tmp_path / "project"


def test_names_of_any_kind_are_read_from_dvcs_drawing() -> None:
    names = ['my "best" videos.dvc', "a -> b.dvc", "vidéos; alle.dvc", "demo/dvc.yaml:world", "train@1"]
    dot = "strict digraph {\n" + "".join(f'"{name}";\n' for name in names) + f'"{names[1]}" -> "{names[3]}";\n}}\n'
    assert upstream(dot) == {name: {names[1]} if name == names[3] else set() for name in names}


def test_what_is_stale_is_run_in_order_with_what_depends_on_it_and_never_left_out(project: Path) -> None:
    assert stale_now() == []
    Path("data/videos/two.mp4").write_text("two\n")
    again = {"cmd": "cp out/all again", "deps": ["out"], "outs": ["again"]}
    write_stages(again=again, count=COUNT)
    assert stale_now() == ["data/videos.dvc", "count", "again"]
    Path('"a"').write_text("1\n")
    dvc("add", "--quiet", '"a"')
    Path('"a"').unlink()
    write_stages(count=COUNT | {"deps": ["data/videos", '"a"']})
    with pytest.raises(UserError, match=r'`dvc status` names what `dvc dag` does not draw: "a"\.dvc\.'):
        stale_now()


def test_a_video_that_nobody_added_stops_the_pull_and_is_told_with_what_to_do_and_kept(project: Path) -> None:
    Path("data/videos/two.mp4").write_text("two\n")
    failed = get_data.fn()
    assert failed.message.startswith("`dvc pull` would have to delete what DVC has no copy of: data/videos/two.mp4. ")
    assert "Keep it with `dvc add data/videos`, or move it away." in failed.message
    assert Path("data/videos/two.mp4").read_text() == "two\n"
    dvc("add", "--quiet", "data/videos")
    assert get_data.fn() is None
    assert stale_now() == ["count"]


def test_an_import_whose_source_changed_makes_what_depends_on_it_run(project: Path) -> None:
    source = project.parent / "elsewhere/clips"
    source.mkdir(parents=True)
    (source / "one.mp4").write_text("one\n")
    dvc("import-url", "--quiet", str(source), "data/clips")
    clips = {"cmd": "cat data/clips/* > clips", "deps": ["data/clips"], "outs": ["clips"]}
    write_stages(count=COUNT, clips=clips)
    run_stage.fn("clips")
    (source / "two.mp4").write_text("two\n")
    get_data.fn()
    assert stale_now() == ["clips"]
    assert run_stage.fn("clips").outcome == "ran"
    assert Path("clips").read_text() == "one\ntwo\n"


def test_a_stage_that_fails_leaves_all_of_its_earlier_output(project: Path) -> None:
    command = "cat in > begun && test ! -e fail && cat in > kept && cat in > made"
    outs = [{"kept": {"cache": False, "persist": True}}, "begun", "made"]
    write_stages(count=COUNT, make={"cmd": command, "deps": ["in"], "outs": outs})
    Path("in").write_text("1\n")
    run_stage.fn("make")
    Path("in").write_text("2\n")
    Path("fail").touch()
    failed = run_stage.fn("make")
    assert failed.is_failed()
    assert "failed to run: cat in" in failed.message
    assert [Path(name).read_text() for name in ("begun", "kept", "made")] == ["1\n"] * 3
    Path("fail").unlink()
    assert stale_now() == ["make"]
    assert run_stage.fn("make").outcome == "ran"
    assert [Path(name).read_text() for name in ("begun", "kept", "made")] == ["2\n"] * 3


def test_an_error_that_nobody_foresaw_fails_the_run_and_is_told_in_its_artifact_without_passwords(
    project: Path, environment: dict[str, str]
) -> None:
    broken = """mkdir -p reports && echo '{"summary": ["s3://me:planted@box"]}' > reports/gate.json"""
    write_stages(count=COUNT, register={"cmd": broken, "outs": [{"reports/gate.json": {"cache": False}}]})
    url = environment["PREFECT_API_URL"]
    with temporary_settings({PREFECT_API_URL: url}):
        state = retrain(pull=False, push=False, return_state=True)
    assert state.is_failed()
    of_run = {"flow_run_id": {"any_": [str(state.state_details.flow_run_id)]}, "key": {"any_": ["tpo-retrain-failed"]}}
    (artifact,) = httpx.post(f"{url}/artifacts/filter", json={"artifacts": of_run}, timeout=90).json()
    for told in (artifact["data"], state.message):
        assert "ValidationError: " in told
        assert "s3://***@box" in told
        assert "planted" not in told
    assert "| register | ran | " in artifact["data"]


def test_who_becomes_challenger_while_a_person_is_asked_is_not_who_was_asked_about(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    challengers = iter("23")
    monkeypatch.setattr("flows.promote._challenger", lambda _: next(challengers))

    @flow
    def ask_and_begin_anew() -> list[str]:
        return [_asked_about("demo"), _asked_about("demo")]

    with temporary_settings({PREFECT_API_URL: environment["PREFECT_API_URL"]}):
        assert ask_and_begin_anew() == ["2", "2"]
