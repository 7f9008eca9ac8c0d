"""Features of frozen layers: of several at once, and pooled in every way."""

from typing import Any, Literal

import numpy as np
import pytest
import torch

from ssl_ebm.errors import UserError
from ssl_ebm.evaluation.probing import Frozen
from ssl_ebm.evaluation.probing.features import RawInputs
from ssl_ebm.tasks import FineTuning, FramePrediction, Inpainting, MaskedText

TEXT = {
    "class_path": "ssl_ebm.networks.text.TextEncoder",
    "init_args": {"vocabulary": 120, "width": 16, "depth": 1, "heads": 2, "length": 16},
}
BLOCK = "encoder.blocks.0"


def inpainting(size: int = 16) -> Inpainting:
    torch.manual_seed(0)
    network = {
        "class_path": "ssl_ebm.networks.patch_completion.PatchCompletion",
        "init_args": {
            "size": size, "channels": 1, "width": 24, "depth": 2, "heads": 2, "decoder_width": 16,
            "decoder_depth": 1, "decoder_heads": 2,
        },
    }  # fmt: skip
    mask = {"class_path": "ssl_ebm.data.masks.RandomPatches", "init_args": {"ratio": 0.75, "patch": 4}}
    return Inpainting(objective="least_squares", network=network, mask=mask).eval()


def test_layers_and_pooling() -> None:
    task = inpainting()
    batch = {"image": torch.rand(3, 1, 16, 16)}
    encoder: Any = task.encoder
    with torch.no_grad():
        tokens = encoder.blocks[0](encoder._pos_embed(encoder.patch_embed(batch["image"])))
        torch.testing.assert_close(Frozen(task, BLOCK, "none")(batch), tokens)
        torch.testing.assert_close(Frozen(task, BLOCK, "first")(batch), tokens[:, 0])
        torch.testing.assert_close(Frozen(task, BLOCK)(batch), tokens.mean(1))
        maps = Frozen(task, "patch_embed.proj")(batch)
        torch.testing.assert_close(maps, encoder.patch_embed.proj(batch["image"]).mean((2, 3)))
    assert not encoder.blocks[0]._forward_hooks


def test_several_layers_side_by_side() -> None:
    task, text = inpainting(), MaskedText(TEXT).eval()
    batch = {"image": torch.rand(3, 1, 16, 16)}
    words = {"tokens": torch.tensor([[2, 20, 30, 3, 0, 0]])}
    with torch.no_grad():
        for model, item, one, other in (
            (task, batch, BLOCK, "encoder.blocks.1"),
            (text, words, "network.tokens", "blocks.0"),
        ):
            found = Frozen(model, f"{one}+{other}")(item)
            assert torch.equal(found, torch.cat([Frozen(model, one)(item), Frozen(model, other)(item)], 1))
        with pytest.raises(UserError, match="do not have as many tokens each"):
            Frozen(task, f"{BLOCK}+patch_embed.proj", "none")(batch)
    with pytest.raises(UserError, match=r"there is no layer 'blocks\.7'"):
        Frozen(task, f"{BLOCK}+blocks.7")
    for twice in (f"{BLOCK}+{BLOCK}", f"{BLOCK}+{BLOCK}.norm1+{BLOCK}"):
        with pytest.raises(UserError, match="name one layer twice"):
            Frozen(task, twice)


def test_a_star_stands_for_all_layers_of_a_kind() -> None:
    task, batch = inpainting(), {"image": torch.rand(3, 1, 16, 16)}
    with torch.no_grad():
        for stars, each in (
            ("encoder.blocks.*.mlp.act", ["encoder.blocks.0.mlp.act", "encoder.blocks.1.mlp.act"]),
            ("encoder.blocks.*+encoder.norm", [BLOCK, "encoder.blocks.1", "encoder.norm"]),
        ):
            found = Frozen(task, stars)(batch)
            assert torch.equal(found, torch.cat([Frozen(task, one)(batch) for one in each], 1))
    assert found.shape == (3, 3 * 24)
    with pytest.raises(UserError, match="name one layer twice"):
        Frozen(task, f"encoder.blocks.*+{BLOCK}")
    with pytest.raises(UserError, match=r"there is no layer 'encoder\.\*\.act'"):
        Frozen(task, "encoder.*.act")  # a star is one part of a name


def test_padding_is_not_pooled() -> None:
    task = MaskedText(TEXT).eval()
    short = torch.tensor([[2, 20, 30, 3]])
    padded = torch.nn.functional.pad(short, (0, 5))
    with torch.no_grad():
        found = [Frozen(task, "blocks.0")({"tokens": one}) for one in (short, padded)]
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("how", ["mean", "first"])
def test_windows_count_by_what_they_hold(how: Literal["mean", "first"]) -> None:
    """Of layers and of the representation: as of each window by itself, without padding or other windows."""
    task = MaskedText(TEXT, pooling=how).eval()
    torch.nn.init.normal_(task.network.blocks[0].mlp.fc1.weight)
    long, short = [[2, 20, 30, 40, 3], [2, 50, 3]], [[2, 60, 70, 3]]
    tokens = torch.zeros(2, 3, 6, dtype=torch.int64)
    for row, document in zip(tokens, (long, short), strict=True):
        for place, window in enumerate(document):
            row[place, : len(window)] = torch.tensor(window)
    fine_tuned = FineTuning(
        backbone={"class_path": "ssl_ebm.tasks.MaskedText", "init_args": {"network": TEXT, "pooling": how}},
        classes=["a", "b"],
    ).eval()
    with torch.no_grad():
        for frozen in (Frozen(task), Frozen(task, "blocks.0", how), Frozen(fine_tuned)):
            found = frozen({"tokens": tokens})
            for row, document in zip(found, (long, short), strict=True):
                alone = torch.cat([frozen({"tokens": torch.tensor([window])}) for window in document])
                size = torch.tensor([len(window) if how == "mean" else 1.0 for window in document])
                torch.testing.assert_close(row, (alone * size[:, None]).sum(0) / size.sum())
            changed = tokens.clone()
            changed[0, 1, 1] = 90  # of the first document alone
            assert torch.equal(frozen({"tokens": changed})[1], found[1])
            assert not torch.allclose(frozen({"tokens": changed})[0], found[0])
        each = Frozen(task, "blocks.0", "none")
        assert each({"tokens": tokens}).shape == (2, 18, 16)
        seen = each.seen({"tokens": tokens}, each({"tokens": tokens}))
        assert seen is not None
        assert torch.equal(seen, tokens.flatten(1) != 0)
        assert fine_tuned(tokens).isfinite().all()


def test_features_of_a_fine_tuned_text_model_are_those_of_its_backbone() -> None:
    task = FineTuning(
        backbone={"class_path": "ssl_ebm.tasks.MaskedText", "init_args": {"network": TEXT}}
    ).eval()
    batch = {"tokens": torch.tensor([[2, 20, 30, 3, 0, 0], [2, 20, 20, 40, 50, 3]])}
    with torch.no_grad():
        for layer in ("blocks.0", "network.tokens"):
            ours, theirs = (Frozen(one, layer)(batch) for one in (task, task.backbone))
            assert torch.equal(ours, theirs)
        assert torch.equal(RawInputs(task)(batch), RawInputs(task.backbone)(batch))


def test_a_grid_keeps_where_things_are() -> None:
    task = FramePrediction(context_frames=3, width=16, codes=8, features=16).eval()
    video = torch.rand(2, 3, 1, 32, 32, generator=torch.Generator().manual_seed(0))
    maps: list[torch.Tensor] = []
    stage: Any = task.energy.predictor.unet.down_stages[0]  # type: ignore[union-attr]
    with torch.no_grad(), stage.register_forward_hook(lambda *seen: maps.append(seen[2])):
        found = Frozen(task, "unet.down_stages.0", "grid")({"video": video})
    [fine] = maps  # (2, 16, 8, 8): blocks of 2 x 2 are averaged
    wanted = np.array(fine).reshape(2, 16, 4, 2, 4, 2).mean((3, 5)).reshape(2, -1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    with pytest.raises(UserError, match="is for the maps of a layer: give one"):
        Frozen(task, None, "grid")
    with pytest.raises(UserError, match="no map: use pooling mean"):
        Frozen(task, "summary.3", "grid")({"video": video})


def test_a_grid_of_patches_leaves_the_class_token_out() -> None:
    task, batch = inpainting(32), {"image": torch.rand(2, 1, 32, 32)}
    with torch.no_grad():
        tokens = Frozen(task, BLOCK, "none")(batch)
        found = Frozen(task, BLOCK, "grid")(batch)
    # 8 x 8 patches: blocks of 2 x 2 are averaged.
    patches = np.array(tokens[:, 1:]).reshape(2, 4, 2, 4, 2, 24)
    wanted = patches.mean((2, 4)).transpose(0, 3, 1, 2).reshape(2, -1)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=str)
def test_inputs_are_brought_to_the_weights(dtype: torch.dtype) -> None:
    """Which `task.dtype` does not know of bfloat16."""
    batch = {"image": torch.rand(3, 1, 16, 16)}
    expected = Frozen(inpainting())(batch)
    found = Frozen(inpainting().to(dtype))(batch)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, expected, rtol=0.05, atol=0.05)
