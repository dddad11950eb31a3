"""What happens beside the steps of a training run."""

from typing import Any

from transformers import TrainerCallback, TrainerState

from tpo.progress import progress


class Progress(TrainerCallback):
    """One bar over the steps, in place of transformers' bar with a printed dictionary for each of them."""

    def on_train_begin(self, args: Any, state: TrainerState, *_: Any, **__: Any) -> None:  # noqa: ARG002
        self._bar = progress(state.max_steps, "train", "steps", done=state.global_step)

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self._bar.update()

    def on_train_end(self, *_: Any, **__: Any) -> None:
        self._bar.close()
