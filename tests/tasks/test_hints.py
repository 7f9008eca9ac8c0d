"""What a message about a setting that is not there says of those that are."""

import argparse

import pytest

from ssl_ebm.errors import UserError
from ssl_ebm.networks.patch_completion import PatchCompletion
from ssl_ebm.running.runs import Run
from ssl_ebm.tasks.building import build
from ssl_ebm.tasks.hints import PARTS, with_hint

TASK = ["--model", "ssl_ebm.tasks.Inpainting", "--data", "ssl_ebm.data.FontDigits"]


@pytest.mark.parametrize(
    ("word", "hint"),
    [
        ("--trainer.max_step=3", r"did you mean --trainer\.max_steps\?"),
        ("--checkpoint_evry=3", r"did you mean --checkpoint_every\?"),
        ("--model.warmup_step=3", r"did you mean warmup_steps\?"),
        ("--model.learning_rate=3", r"it takes objective, network, .*, lr, "),
        ("--data.batchsize=3", r"did you mean batch_size\?"),  # which its parent has
        ("--lr=3", PARTS),
    ],
)
def test_a_mistyped_setting(word: str, hint: str) -> None:
    with pytest.raises(argparse.ArgumentError, match=hint):
        Run("fit", [*TASK, word])


def test_a_mistyped_setting_of_a_part() -> None:
    described = {
        "class_path": "ssl_ebm.networks.patch_completion.PatchCompletion",
        "init_args": {"widht": 64},
    }
    with pytest.raises(UserError, match=r"did you mean width\?"):
        build(described, PatchCompletion, "network")


def test_what_is_unknown_is_left_as_it_is() -> None:
    for message in ("something else", "class_path 'no.Such': Option 'a' is not accepted"):
        assert with_hint(message) == message
    far = "unrecognized arguments: --a.b.c 3"
    assert with_hint(far, ["--trainer.max_steps"]) == far
