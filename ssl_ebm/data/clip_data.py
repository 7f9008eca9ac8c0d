"""What all sets of clips share."""

import math
from abc import abstractmethod
from typing import Any

from ssl_ebm.data.loading import StreamData, check_least, check_memory

FLOAT = 4  # bytes of a float32


class ClipData(StreamData):
    """Loaders over clips in three splits. A batch is a dictionary with at least

        video: (B, T, C, H, W) float32 in [0, 1], T = context_frames + future_frames;
        clip: (B,) int64, the index of the clip within its split (items of one clip are not independent);
        group: (B,) int64, a number that the clips of one recording share, where that is known;
        label: (B,) int64, where there are classes.

    Attributes:
        train_dataset, val_dataset, test_dataset: there after `setup`.

    Args:
        context_frames: frames that are seen.
        future_frames: frames that follow them in a training clip.
        eval_future_frames: the same in a validation or test clip; None: as in training.
        batch_size: clips in a batch, per process.
        workers: worker processes of each loader; the batches do not depend on it.
        seed: names all random numbers of the data.
    """

    def __init__(
        self,
        context_frames: int,
        future_frames: int,
        eval_future_frames: int | None,
        batch_size: int,
        workers: int,
        seed: int,
    ) -> None:
        super().__init__(batch_size, workers, seed)
        if eval_future_frames is None:
            eval_future_frames = future_frames
        check_least(
            context_frames=(context_frames, 1),
            future_frames=(future_frames, 1),
            eval_future_frames=(eval_future_frames, 1),
        )
        self.context_frames = context_frames
        self.future_frames = future_frames
        self.eval_future_frames = eval_future_frames

    def setup(self, stage: str | None = None) -> None:
        frames = self.context_frames + max(self.future_frames, self.eval_future_frames)
        need = FLOAT * self.batch_size * frames * math.prod(self.frame_shape)
        remedy = "lower batch_size, size, context_frames or future_frames"
        check_memory(need, "the clips of a batch", remedy, share=1.0)
        super().setup(stage)

    @property
    @abstractmethod
    def frame_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of every frame."""

    def describe(self) -> dict[str, Any]:
        return {
            **super().describe(),
            "frame_shape": list(self.frame_shape),
            "frame_unit": "intensity in [0, 1]",
            "context_frames": self.context_frames,
            "future_frames": self.future_frames,
            "eval_future_frames": self.eval_future_frames,
        }
