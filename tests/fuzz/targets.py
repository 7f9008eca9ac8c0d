"""The entry points that meet files of a user, each with damaged ones.

A target raises `UserError`, or returns. Anything else that it raises is a fault; so is a `WrongError`: a
result that a damaged file cannot mean, such as zeros that nobody wrote.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from fuzz import pictures_and_clips, settings_and_models, shards, texts
from fuzz.outcomes import Place

# Each with its share of the cases.
TARGETS: dict[str, tuple[Callable[[Place, random.Random], None], int]] = {
    "config": (settings_and_models.config, 20),
    "checkpoint_bytes": (settings_and_models.checkpoint_bytes, 7),
    "checkpoint_pickle": (settings_and_models.checkpoint_pickle, 7),
    "checkpoint_content": (settings_and_models.checkpoint_content, 7),
    "exported_bytes": (settings_and_models.exported_bytes, 4),
    "exported_content": (settings_and_models.exported_content, 4),
    "picture": (pictures_and_clips.picture, 14),
    "picture_folder": (pictures_and_clips.picture_folder, 4),
    "idx_file": (pictures_and_clips.idx_file, 3),
    "hole": (pictures_and_clips.hole, 2),
    "clip": (pictures_and_clips.clip, 9),
    "clip_folder": (pictures_and_clips.clip_folder, 3),
    "futures": (pictures_and_clips.futures, 1),
    "documents": (texts.documents, 9),
    "corpus": (texts.corpus, 3),
    "tokenizer": (texts.tokenizer, 3),
    "text_argument": (texts.text_argument, 2),
    "shards": (shards.shards, 7),
    "shards_of_a_stranger": (shards.shards_of_a_stranger, 5),
    "packed": (shards.packed, 3),
}
