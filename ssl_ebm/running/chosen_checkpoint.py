"""Which checkpoint a command is asked to take."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn

from ssl_ebm.errors import UserError
from ssl_ebm.tasks.saving import aside_checkpoints, last_checkpoint, newest_whole


def chosen_checkpoint(command: str, asked: str | None, run_dir: Path) -> Path | None:
    """The file that `--ckpt_path` names.

    Args:
        command: fit, validate, test or predict.
        asked: a file; last: that of `run_dir`, or the one before where it is damaged; none, but for fit:
            weights as they begin; None: not given.
        run_dir: of the run.

    Returns:
        None: there is none to take.

    Raises:
        UserError: a command other than fit was given none.
    """
    fits = command == "fit"
    if asked is None and not fits:
        raise UserError(
            f"{command} needs what a training learnt: give --ckpt_path FILE, last for that of {run_dir}, or "
            "none for weights as they begin"
        )
    if asked is None or (asked == "none" and not fits):
        return None
    if asked != "last":
        return Path(asked)
    newest, last = newest_whole(run_dir), last_checkpoint(run_dir)
    if newest is None and fits:
        earlier = aside_checkpoints(run_dir)
        where = f" (of earlier runs: {', '.join(map(str, earlier))})" if earlier else ""
        rank_zero_info(f"no checkpoint in {last.parent} yet: training starts from scratch{where}")
        return None
    if newest is not None and newest.name != "last.ckpt":
        rank_zero_warn(f"{last} is missing or damaged: taking {newest}")
    return newest or last
