"""One small real registry for all tests here: importing MLflow and creating its database take seconds."""

import os
from pathlib import Path

import pytest

os.environ.update(MLFLOW_DISABLE_TELEMETRY="true", DO_NOT_TRACK="true", HF_HUB_OFFLINE="1")


@pytest.fixture(scope="module")
def tracking_folder(tmp_path_factory: pytest.TempPathFactory):
    """A folder that is the current one, with MLflow's database in it."""
    folder: Path = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        yield folder
