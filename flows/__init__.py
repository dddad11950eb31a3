"""Prefect flows, one file a stage: `python -m flows.ingest`, …, usually through `dvc repro`.

Nothing but orchestration lives here: a flow reads `params.yaml`, maps its items over tasks, journals what they return
and publishes the stage's output. The work itself is plain functions in `tpo`.
"""

import os

# Set before any of the tools is imported. `DO_NOT_TRACK` must be the word true: MLflow takes nothing else for a yes.
for _name, _value in {
    "DO_NOT_TRACK": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GX_ANALYTICS_ENABLED": "false",
    # A temporary server on a loaded machine takes longer than Prefect's 20 s to start.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
    "PREFECT_LOGGING_LEVEL": "WARNING",  # our progress bars tell the rest
    "MLFLOW_TRACKING_URI": "sqlite:///mlflow.db",
    "TOKENIZERS_PARALLELISM": "false",
}.items():
    os.environ.setdefault(_name, _value)
