"""What is said of errors that Lightning and PyTorch raise."""

from pathlib import Path
from typing import Any

import pytest
from small_backbones import batch_for, text_network
from torch.utils.data import DataLoader
from two_futures import trainer

from ssl_ebm.running.failures import remedy_for
from ssl_ebm.tasks import MaskedText


@pytest.mark.parametrize(("before", "after"), [("adamw", "muon"), ("muon", "adamw")])
def test_a_checkpoint_of_another_optimizer(before: Any, after: Any, tmp_path: Path) -> None:
    batches = DataLoader([batch_for("text")], batch_size=None)
    path = tmp_path / "a.ckpt"
    fitter = trainer(1)
    fitter.fit(MaskedText(text_network(), optimizer=before), batches)
    fitter.save_checkpoint(path)
    with pytest.raises(ValueError, match="parameter groups") as error:
        trainer(2).fit(
            MaskedText(text_network(), optimizer=after), batches, ckpt_path=path, weights_only=True
        )
    remedy = remedy_for(error.value, str(path))
    assert remedy is not None
    assert f"{path} was written with another optimizer: use that" in remedy
    assert f"--start_from {path}" in remedy
