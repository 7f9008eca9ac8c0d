"""The masked autoencoder against Hugging Face's ViTMAE and timm's Vision Transformer, with copied weights."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor
from torch.nn.functional import unfold
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from ssl_ebm.data.masks import RandomPatches
from ssl_ebm.errors import UserError
from ssl_ebm.networks.masked_autoencoder import (
    MaskedAutoencoder,
    hidden_patches,
    patchify,
    sine_positions,
    unpatchify,
)
from ssl_ebm.networks.transformer import attend

SETTINGS: dict[str, Any] = {
    "size": 16, "patch": 4, "channels": 3, "width": 24, "depth": 2, "heads": 3,
    "decoder_width": 16, "decoder_depth": 2, "decoder_heads": 2,
}  # fmt: skip


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def model(**changes: Any) -> MaskedAutoencoder:
    torch.manual_seed(0)
    return MaskedAutoencoder(**{**SETTINGS, **changes}).eval()


def hidden(count: int, size: tuple[int, int] = (16, 16)) -> Tensor:
    return hidden_patches(RandomPatches(0.75, 4).draw(count, size, seeded()), 4)


def with_weights_of(theirs: ViTMAEForPreTraining) -> MaskedAutoencoder:
    ours = model()
    source, target = theirs.state_dict(), {}
    target["encoder.cls_token"] = source["vit.embeddings.cls_token"]
    target["encoder.pos_embed"] = source["vit.embeddings.position_embeddings"]
    for kind in ("weight", "bias"):
        target[f"encoder.patch_embed.proj.{kind}"] = source[
            f"vit.embeddings.patch_embeddings.projection.{kind}"
        ]
        target[f"encoder.norm.{kind}"] = source[f"vit.layernorm.{kind}"]
        target[f"embed.{kind}"] = source[f"decoder.decoder_embed.{kind}"]
        target[f"predict.{kind}"] = source[f"decoder.decoder_pred.{kind}"]
        target[f"decoder.2.{kind}"] = source[f"decoder.decoder_norm.{kind}"]
        for i in range(2):
            layers = {
                f"encoder.blocks.{i}": f"vit.layers.{i}",
                f"decoder.{i}": f"decoder.decoder_layers.{i}",
            }
            for to, of in layers.items():
                parts = [source[f"{of}.attention.{name}_proj.{kind}"] for name in ("q", "k", "v")]
                target[f"{to}.attn.qkv.{kind}"] = torch.cat(parts)
                target[f"{to}.attn.proj.{kind}"] = source[f"{of}.attention.o_proj.{kind}"]
                target[f"{to}.mlp.fc1.{kind}"] = source[f"{of}.mlp.fc1.{kind}"]
                target[f"{to}.mlp.fc2.{kind}"] = source[f"{of}.mlp.fc2.{kind}"]
                target[f"{to}.norm1.{kind}"] = source[f"{of}.layernorm_before.{kind}"]
                target[f"{to}.norm2.{kind}"] = source[f"{of}.layernorm_after.{kind}"]
    target["mask_token"] = source["decoder.mask_token"]
    ours.load_state_dict(target)
    return ours


def test_predictions_are_those_of_hugging_faces_vitmae() -> None:
    config = ViTMAEConfig(
        hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=96, image_size=16,
        patch_size=4, num_channels=3, decoder_hidden_size=16, decoder_num_hidden_layers=2,
        decoder_num_attention_heads=2, decoder_intermediate_size=64, mask_ratio=0.75, layer_norm_eps=1e-6,
    )  # fmt: skip
    torch.manual_seed(1)
    theirs = ViTMAEForPreTraining(config).eval()
    for parameter in theirs.parameters():  # version 5 leaves the places at zero
        parameter._is_hf_initialized = False  # type: ignore[attr-defined]
    theirs.vit.embeddings.patch_embeddings.projection._is_hf_initialized = False
    theirs.vit.embeddings.initialize_weights()
    theirs.decoder.initialize_weights(16)
    assert theirs.decoder.decoder_pos_embed.abs().max() == 1
    ours = with_weights_of(theirs)
    images = torch.randn(5, 3, 16, 16, generator=seeded())
    with torch.no_grad():
        expected = theirs(images, noise=torch.rand(5, 16, generator=seeded()))
        covered = expected.mask.bool()
        for visible in (4, None):
            found = ours(images, covered, visible)
            torch.testing.assert_close(found, expected.logits, atol=1e-5, rtol=1e-5)
        target = patchify(images, 4)
        loss = ((found - target).square().mean(2) * covered).sum() / covered.sum()
        torch.testing.assert_close(loss, expected.loss, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sine_positions((4, 4), 24), theirs.vit.embeddings.position_embeddings[0, 1:])


def test_the_encoder_loads_in_plain_timm_with_the_same_features() -> None:
    ours = model()
    plain = timm.models.vision_transformer.VisionTransformer(
        img_size=16, patch_size=4, in_chans=3, num_classes=0, embed_dim=24, depth=2, num_heads=3
    ).eval()
    plain.load_state_dict(ours.encoder.state_dict())
    images = torch.randn(3, 3, 16, 16, generator=seeded())
    nothing = torch.zeros(3, 16, dtype=torch.bool)
    with torch.no_grad():
        expected = plain.forward_features(images)
        for visible in (16, None):
            tokens, keep = ours.encode(images, nothing, visible)
            torch.testing.assert_close(tokens, expected, atol=1e-5, rtol=1e-5)
            assert torch.equal(keep, torch.arange(16).expand(3, 16))
        torch.testing.assert_close(ours.representation(images), expected[:, 1:].mean(1))


@pytest.mark.parametrize("visible", [4, None])
def test_nothing_of_a_hidden_patch_reaches_a_prediction(visible: int | None) -> None:
    ours, images = model(), torch.randn(4, 3, 16, 16, generator=seeded())
    covered = hidden(4)
    pixels = unpatchify(covered[..., None].expand(-1, -1, 48).float(), 4, (16, 16)).bool()
    other = torch.where(pixels, torch.randn(4, 3, 16, 16, generator=seeded(1)), images)
    with torch.no_grad():
        assert torch.equal(ours(images, covered, visible), ours(other, covered, visible))
        seen = torch.where(pixels, images, images + 0.1)
        assert not torch.allclose(ours(images, covered, visible), ours(seen, covered, visible))


def test_images_may_hide_different_numbers_of_patches() -> None:
    """Each as if it were alone."""
    ours, images = model(), torch.randn(2, 3, 16, 16, generator=seeded())
    covered = torch.zeros(2, 16, dtype=torch.bool)
    covered[0, :3] = covered[1, 5:12] = True
    with torch.no_grad():
        both = ours(images, covered)
        for i, visible in enumerate((13, 9)):
            alone = ours(images[i : i + 1], covered[i : i + 1], visible)
            torch.testing.assert_close(both[i : i + 1], alone, atol=1e-5, rtol=1e-5)


def test_patches_are_those_of_unfold_and_come_back() -> None:
    images = torch.rand(2, 3, 8, 12)
    cut = patchify(images, 4)
    expected = unfold(images, 4, stride=4).reshape(2, 3, 16, 6).permute(0, 3, 2, 1).flatten(2)
    torch.testing.assert_close(cut, expected)
    assert torch.equal(unpatchify(cut, 4, (8, 12)), images)
    mask = torch.zeros(1, 1, 8, 12, dtype=torch.bool)
    mask[0, 0, 7, 4] = True
    assert hidden_patches(mask, 4).nonzero().tolist() == [[0, 4]]


def test_images_need_not_be_square() -> None:
    ours = model(size=(8, 20))
    covered = hidden(2, (8, 20))
    assert ours(torch.rand(2, 3, 8, 20), covered, int((~covered[0]).sum())).shape == (2, 10, 48)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: model(size=18), r"\(18, 18\) pixels are no multiple of the patch, 4"),
        (lambda: model(width=25), "width 25 is no multiple of its 3 heads"),
        (lambda: model(width=18), "18 is no multiple of 4"),
        (lambda: model()(torch.rand(2, 1, 16, 16), hidden(2)), r"images must be \(batch, 3, 16, 16\)"),
        (lambda: model()(torch.rand(2, 3, 16, 16), hidden(3)), r"hidden must be \(2, 16\), got \(3, 16\)"),
    ],
)
def test_mistakes(make: object, words: str) -> None:
    with pytest.raises(UserError, match=words):
        make()  # type: ignore[operator]


def test_attention_spelled_out_is_torchs() -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, 5, 8, dtype=torch.bfloat16) for _ in range(3))
    seen = torch.rand(2, 1, 1, 5) < 0.6
    seen[..., 0] = True
    for mask, m in ((None, 5), (seen, 5), (seen, 3), (None, 0)):
        some = query[:, :, :m]
        wanted = torch.nn.functional.scaled_dot_product_attention(
            some.float(), key.float(), value.float(), attn_mask=mask
        )
        torch.testing.assert_close(attend(some, key, value, mask).float(), wanted, atol=0.03, rtol=0.03)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_query_that_sees_nothing_gets_zeros(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    query, key, value = (torch.randn(3, 2, 5, 8, dtype=dtype, requires_grad=True) for _ in range(3))
    seen = torch.rand(3, 1, 5, 5) < 0.6
    seen[0] = False
    seen[1, :, 2] = False
    seen[2, ..., 0] = True
    nothing = ~seen.any(-1)[:, 0]  # (3, 5)
    made = attend(query, key, value, seen)
    assert bool((made.transpose(1, 2)[nothing] == 0).all())
    slopes = torch.autograd.grad(made.sum(), (query, key, value))
    wide = tuple(one.detach().double().requires_grad_() for one in (query, key, value))
    weights = (wide[0] @ wide[1].mT / 8**0.5).masked_fill(~seen, -1e4).softmax(-1)
    wanted = (weights * ~nothing[:, None, :, None]) @ wide[2]
    near = {"atol": 0.03, "rtol": 0.03} if dtype == torch.bfloat16 else {"atol": 1e-5, "rtol": 1e-5}
    torch.testing.assert_close(made.double(), wanted, **near)
    for slope, truth in zip(slopes, torch.autograd.grad(wanted.sum(), wide), strict=True):
        torch.testing.assert_close(slope.double(), truth, **near)
