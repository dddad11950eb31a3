"""What happens beside the steps of a training run."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from accelerate.utils import gather_object
from transformers import TrainerCallback, TrainerControl, TrainerState

from tpo.errors import UserError
from tpo.progress import progress

_MOST_METRICS = 1000  # MLflow refuses larger batches
_log = logging.getLogger(__name__)


class Progress(TrainerCallback):
    """One bar over the steps, in place of transformers' bar with a printed dictionary for each of them."""

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ARG002
        shown = state.is_local_process_zero
        self._bar = progress(state.max_steps, "train", "steps", done=state.global_step, shown=shown)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._bar.update()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._bar.close()


class EvaluateAtEnd(TrainerCallback):
    """The last step is evaluated as well, whatever multiple it is: it may be the best."""

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        control.should_evaluate |= state.global_step >= state.max_steps


class Probing(TrainerCallback):
    """A figure more with every evaluation of held-out pairs."""

    def __init__(self, accuracy: Callable[[], float]) -> None:
        self._accuracy = accuracy

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        found = self._accuracy()
        kwargs["metrics"]["eval_probe_accuracy"] = found
        state.log_history[-1]["eval_probe_accuracy"] = found


class SaveOnSigterm(TrainerCallback):
    """On SIGTERM: finish the step, save, stop. `interrupted` says that this is not the end of training.

    Of several processes all stop after the same step, when one of them was told to.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._told = False
        self._usual: Any = None

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        if threading.current_thread() is threading.main_thread():  # nobody else may take signals
            self._usual = signal.signal(signal.SIGTERM, self._note)

    def on_step_end(self, args: Any, state: TrainerState, control: TrainerControl, **_: Any) -> None:  # noqa: ARG002
        if any(gather_object([self._told])):
            self.interrupted = state.global_step < state.max_steps
            control.should_save = control.should_training_stop = True

    def stop_listening(self) -> None:
        """Leave SIGTERM to whoever took it before, however training ended."""
        if self._usual is not None:
            signal.signal(signal.SIGTERM, self._usual)

    def end_if_told(self) -> None:
        """Do now what SIGTERM would have done then."""
        if self.interrupted:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)  # whoever handles it may need a moment
            raise SystemExit(128 + signal.SIGTERM)

    def _note(self, *_: Any) -> None:
        self._told = True


class StopOnCollapse(TrainerCallback):
    """DPO can win margins by making both answers improbable. Nobody wants to find that out at the end.

    Stops when chosen answers have lost more than so many nats a token since the base, over the last ten log entries.
    """

    def __init__(self, max_drop: float) -> None:
        self._max_drop = max_drop

    def on_log(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ARG002
        last = [entry for entry in state.log_history if "drift/chosen" in entry][-10:]
        if len(last) < 10:
            return
        drop = -sum(entry["drift/chosen"] for entry in last) / sum(entry["tokens/chosen"] for entry in last)
        if drop > self._max_drop:
            raise UserError(
                f"Training stopped at step {state.global_step}: chosen answers have lost {drop:.2f} nats a token since "
                f"the base, more than train.max_chosen_drop = {self._max_drop:g}. Both answers are getting improbable. "
                "Raise train.sft_alpha or train.beta, or lower train.learning_rate."
            )


class Cost(TrainerCallback):
    """Tokens a second and hours of all devices, in every log entry of training; hours before a kill count too."""

    def __init__(self, num_devices: int) -> None:
        self._num_devices = num_devices

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ARG002
        self._hours_before = max((entry.get("device_hours", 0) for entry in state.log_history), default=0)
        self._started_s = self._logged_s = time.perf_counter()

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        logs: dict[str, float] = kwargs["logs"]
        entry, now_s = state.log_history[-1], time.perf_counter()
        if "tokens" in entry:
            entry["tokens_per_second"] = logs["tokens_per_second"] = entry["tokens"] / (now_s - self._logged_s)
            hours = self._hours_before + (now_s - self._started_s) * self._num_devices / 3600
            entry["device_hours"] = logs["device_hours"] = hours
            self._logged_s = now_s


class LiveCurves(TrainerCallback):
    """Every figure that is logged, in an MLflow run while it trains; what a run before a kill logged comes first.

    The server is MLflow's own setting. One that is away for a while gets what it missed later; it never stops training,
    and takes no more than a tenth of its time: MLflow's client tries again for minutes before it gives up.
    """

    def __init__(self, run_id: str) -> None:
        self._run_id = run_id
        self._waiting: list[dict[str, float]] = []
        self._warned = False
        self._quiet_until_s = 0.0

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ARG002
        self._waiting.extend(dict(entry) for entry in state.log_history)
        self._send(state)

    def on_log(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ARG002
        self._waiting.append(dict(state.log_history[-1]))
        self._send(state)

    def on_evaluate(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ARG002
        probed = {name: value for name, value in state.log_history[-1].items() if name == "eval_probe_accuracy"}
        self._waiting.append({"step": state.global_step, **probed})
        self._send(state)

    def on_train_end(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ARG002
        self._quiet_until_s = 0.0
        self._send(state)

    def _send(self, state: TrainerState) -> None:
        started_s = time.perf_counter()
        if not state.is_world_process_zero or started_s < self._quiet_until_s:
            return
        from mlflow import MlflowClient
        from mlflow.entities import Metric
        from mlflow.exceptions import MlflowException

        now_ms = int(time.time() * 1000)
        points = [
            Metric(name, float(value), now_ms, int(entry["step"]))
            for entry in self._waiting
            for name, value in entry.items()
            if name != "step" and isinstance(value, int | float)
        ]
        try:
            for first in range(0, len(points), _MOST_METRICS):
                MlflowClient().log_batch(self._run_id, metrics=points[first : first + _MOST_METRICS])
        except MlflowException as error:
            if not self._warned:
                _log.warning("MLflow takes no curves for now, and gets them later: %s", error)
            self._warned = True
            now_s = time.perf_counter()
            self._quiet_until_s = now_s + 10 * (now_s - started_s)
            return
        self._waiting.clear()
