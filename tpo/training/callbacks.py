"""What happens beside the steps of a training run."""

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


class Progress(TrainerCallback):
    """One bar over the steps, in place of transformers' bar with a printed dictionary for each of them."""

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ARG002
        self._bar = progress(state.max_steps, "train", "steps", done=state.global_step)
        self._bar.disable = bool(self._bar.disable) or not state.is_local_process_zero

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

    def on_train_end(self, *_: Any, **__: Any) -> None:
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
    """Tokens a second and hours of all devices, in every log entry of training."""

    def __init__(self, num_devices: int) -> None:
        self._num_devices = num_devices

    def on_train_begin(self, *_: Any, **__: Any) -> None:
        self._started_s, self._logged_s = time.perf_counter(), time.perf_counter()

    def on_log(self, args: Any, state: TrainerState, control: Any, **kwargs: Any) -> None:  # noqa: ARG002
        logs: dict[str, float] = kwargs["logs"]
        entry, now_s = state.log_history[-1], time.perf_counter()
        if "tokens" in entry:
            entry["tokens_per_second"] = logs["tokens_per_second"] = entry["tokens"] / (now_s - self._logged_s)
            entry["device_hours"] = logs["device_hours"] = (now_s - self._started_s) * self._num_devices / 3600
            self._logged_s = now_s
