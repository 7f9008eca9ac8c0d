"""What a user can do about an error of torch, where one line can say it."""

from __future__ import annotations

import re

OUT_OF_MEMORY = (
    "out of memory: lower data.batch_size (with configs/strategies/accumulate.yaml a step stays as it was), "
    "or add configs/strategies/bf16.yaml or checkpointing.yaml; then go on with --ckpt_path last"
)
DEAD_WORKER = (
    "a worker that loads data was ended from outside, most often for want of memory: lower data.workers or "
    "data.batch_size, and go on with --ckpt_path last"
)


def remedy_for(error: BaseException | None, ckpt_path: str | None) -> str | None:
    """One line for an error, or for one that it comes from; None where there is nothing to say.

    Args:
        error: what a Trainer raised.
        ckpt_path: the checkpoint that was to be loaded.
    """
    while error is not None:
        text = str(error)
        if type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
            return OUT_OF_MEMORY
        # The news of a worker's death comes by a signal, which can interrupt anything, or by its pipe.
        if re.search(r"DataLoader worker \(pid", text) or isinstance(error, ConnectionResetError | EOFError):
            return DEAD_WORKER
        if "loading state_dict" in text:
            return f"{ckpt_path} was written with other settings of the model: use those"
        error = error.__cause__ or error.__context__
    return None
