"""Whether torchrun or srun has started this process as one of several; and commands that are one process."""

from __future__ import annotations

import os

from ssl_ebm.errors import UserError

# By which torchrun, and srun, tell a process which of several it is.
_OF_A_LAUNCHER = (
    *("RANK", "LOCAL_RANK", "GROUP_RANK", "ROLE_RANK", "ROLE_NAME", "MASTER_ADDR", "MASTER_PORT"),
    *("WORLD_SIZE", "LOCAL_WORLD_SIZE", "GROUP_WORLD_SIZE", "ROLE_WORLD_SIZE"),
    *("SLURM_NTASKS", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID", "SLURM_LOCALID"),
)
_SHELLS = ("bash", "interactive")  # names of jobs, as `SLURMEnvironment.detect` of Lightning knows them
_ELASTIC = "TORCHELASTIC_"  # begins torchrun's others
_INSTEAD = {
    "compare": "it starts its trainings itself, one on each GPU or core",
    "finetune": "fit with --model ssl_ebm.tasks.FineTuning trains on several",
}


def processes_launched() -> int:
    """How many processes torchrun or srun has started for this command; 1 without them.

    (A batch script of SLURM knows the number of tasks of its job, too, but is one process: srun counts those
    of a step. A shell that srun has started is one as well, though its step may have several.)
    """
    counts = []
    if os.environ.get("SLURM_JOB_NAME") not in _SHELLS:
        counts.append(os.environ.get("SLURM_STEP_NUM_TASKS", ""))
    if "RANK" in os.environ:
        counts.append(os.environ.get("WORLD_SIZE", ""))
    return max([1, *(int(count) for count in counts if count.isdigit())])


def refuse_several_processes(command: str) -> None:
    """For a command that does its work in one process: several would write to the same files.

    Raises:
        UserError: this is one of several.
    """
    if (count := processes_launched()) > 1:
        more = f" ({_INSTEAD[command]})" if command in _INSTEAD else ""
        raise UserError(
            f"{command} is for one process, and torchrun or srun has started {count}: start it without them"
            f"{more}"
        )


def environment_of_one() -> dict[str, str]:
    """This process's environment for a process that it starts, which is none of a launcher's."""
    return {
        name: value
        for name, value in os.environ.items()
        if name not in _OF_A_LAUNCHER and not name.startswith(_ELASTIC)
    }
