"""Next-frame prediction: a latent-variable energy-based model, and least squares with the same network."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from ssl_ebm.errors import UserError
from ssl_ebm.networks import Context, Source
from ssl_ebm.tasks.frame_parts import check_settings, make_energy, make_inference
from ssl_ebm.tasks.inputs import Inputs
from ssl_ebm.tasks.latent_parts import make_prior
from ssl_ebm.tasks.latent_prediction import Batch, LatentPrediction
from ssl_ebm.tasks.optimization import optimizer_with_cosine
from ssl_ebm.tasks.sharing import item_generator


class FramePrediction(LatentPrediction):
    """Predicts the frame y that follows the context x, and rates how well any y follows x.

        E(x, y, z) = |y - Dec(Pred(x), z)|^2 + R(z), summed over pixels
        F_beta(x, y) = -1/beta log mean_z exp(-beta E(x, y, z))

    Objective "latent_ebm", finite latent: the mean over the batch of F_beta, exact over all codes, while beta
    rises from 1 / initial_temperature to its final value. Its gradient is dE/dW averaged over the Gibbs
    posterior of z (hot: every code learns a share of every future, so none dies; cold: only z* = argmin_z E
    learns, the envelope theorem). Continuous latent: E at z* = argmin_z E, through which no gradient flows;
    where an encoder proposes z from y and Pred(x), its proposal teaches Pred a little, too. In both, a prior
    p(z | x) learns to predict the inferred z with weight `prior_weight`. At test time z is drawn from it:
    nothing of y reaches a prediction.

    Objective "least_squares": the same network with a latent of one value, which says nothing. Its best
    prediction is the average over all futures.

    Batches are dictionaries with "video" (B, T, C, H, W) in [0, 1]; x is its first `context_frames`.

    Source: LeCun, NYU Deep Learning 2020, week 7-2; annealed soft assignment: Rose, "Deterministic annealing
    for clustering" (1998).

    Args:
        objective: what is minimised.
        channels: colours of a frame, 1 or 3.
        context_frames: frames in x, at least 2.
        latent: the space of z: "one_hot", "quantised" (learnt vectors), "gaussian" or "ball" (continuous).
        codes: number of values of a finite latent.
        latent_dim: size of z, for all but "one_hot".
        latent_noise: standard deviation of the noise added to a Gaussian z in training; limits what it says.
        inference: how z* is found; null: "enumeration" for a finite latent, else "amortised_refined".
        inference_steps: gradient steps of "gradient" and "amortised_refined".
        inference_lr: their step size on z (Adam).
        beta: final inverse temperature of a finite latent, in 1 / squared intensity summed over a frame.
        initial_temperature: 1 / beta at the start of training, same unit inverted.
        anneal: share of the training steps over which the temperature falls, linearly.
        prior_weight: weight of the prior's cross-entropy in the loss, squared intensity per nat.
        self_fed: every other training step begins from a context whose last frames, 1 to self_fed of them in
            turn, are the model's own predictions: those that come nearest to the true frames. So it learns to
            go on from what it sees in a roll-out. Needs as many more future frames in the training clips.
        sharpness: factor on the logits of masks and displacements in predictions (not in energies). A
            displacement is a distribution; above 1 it is more decided, which blurs less and errs more.
        rollout_sharpness: the same from a roll-out's second frame on: predictions of predictions blur more
            and more unless what moves has one displacement.
        width: channels of the finest features, a multiple of 8.
        levels: halvings of the feature map.
        blocks: residual blocks at each level.
        cell: side of the pixel blocks that one feature stands for.
        radius: largest displacement between two frames, pixels.
        layers: things that may move in an uncertain way at once.
        paints: painted pictures that z may add.
        paint_anchors: start every code with a paint of its own, added or taken away, as well as with a
            displacement of its own: for real clips, where no one displacement explains what is uncertain.
        cover: share of every pixel that the layers hold before training; small where most of a picture rests.
        detail: channels of the network that draws masks pixel by pixel, for things that overlap; 0: none.
        features: size of the representation.
        lr: peak learning rate of AdamW.
        weight_decay: of AdamW, on matrices and convolutions.
        warmup_steps: optimizer steps of linear warm-up; a cosine to zero follows.
    """

    def __init__(
        self,
        objective: Literal["least_squares", "latent_ebm"] = "latent_ebm",
        channels: int = 1,
        context_frames: int = 4,
        latent: Literal["one_hot", "quantised", "gaussian", "ball"] = "one_hot",
        codes: int = 49,
        latent_dim: int = 8,
        latent_noise: float = 0.3,
        inference: Literal["enumeration", "gradient", "amortised", "amortised_refined"] | None = None,
        inference_steps: int = 5,
        inference_lr: float = 0.1,
        beta: float = 50.0,
        initial_temperature: float = 10.0,
        anneal: float = 0.5,
        prior_weight: float = 0.3,
        self_fed: int = 0,
        sharpness: float = 1.0,
        rollout_sharpness: float = 1.0,
        width: int = 48,
        levels: int = 2,
        blocks: int = 1,
        cell: int = 4,
        radius: int = 3,
        layers: int = 1,
        paints: int = 4,
        paint_anchors: bool = False,
        cover: float = 0.5,
        detail: int = 0,
        features: int = 128,
        lr: float = 2e-3,
        weight_decay: float = 1e-4,
        warmup_steps: int = 100,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        check_settings(self.hparams)
        self.objective = objective
        self.context_frames = context_frames

        self.energy = make_energy(self.hparams)
        self.inference = make_inference(self.hparams, self.latent)
        self.prior = make_prior(self.hparams, self.latent)

    # -- prediction: z from x alone ----------------------------------------------------------------------

    def decode(self, x: Tensor, z: Tensor) -> Tensor:
        """Dec(Pred(x), z): z (B, S, D) -> frames (B, S, C, H, W) in [0, 1]."""
        return self.energy.decode(self._foresee(x, self.hparams["sharpness"]), z).clamp(0, 1)

    def _foresee(self, x: Tensor, sharpness: float) -> Context:
        """h = Pred(x), as predictions take it."""
        predictor = self.energy.predictor
        assert predictor is not None
        return predictor(x, sharpness)

    def sample(
        self,
        x: Tensor,
        samples: int,
        horizon: int = 1,
        generator: torch.Generator | None = None,
        source: Source = "learned",
    ) -> Tensor:
        """Futures, each rolled out on its own: (B, T, C, H, W) -> (B, S, horizon, C, H, W) in [0, 1].

        Each predicted frame joins the context of the next. Least squares repeats its one prediction S times.
        """
        self._check_context(x)
        for name, value in (("samples", samples), ("horizon", horizon)):
            if value < 1:
                raise UserError(f"{name} is {value}: use at least 1")
        draws = 1 if self.objective == "least_squares" else samples
        h = self._foresee(x, self.hparams["sharpness"])
        z = self._draw(h.features, draws, generator, source)
        frame = self.energy.decode(h, z).clamp(0, 1)  # (B, S, C, H, W)
        frames = [frame]
        context = x[:, None].expand(-1, draws, -1, -1, -1, -1).flatten(0, 1)  # (B S, T, C, H, W)
        for _ in range(horizon - 1):
            context = torch.cat([context[:, 1:], frame.flatten(0, 1)[:, None]], 1)
            h = self._foresee(context, self.hparams["rollout_sharpness"])
            z = self._draw(h.features, 1, generator, source)
            frame = self.energy.decode(h, z).clamp(0, 1).view_as(frame)
            frames.append(frame)
        return torch.stack(frames, 2).expand(-1, samples, -1, -1, -1, -1)

    def _check_context(self, x: Tensor) -> None:
        wanted = (self.context_frames, self.hparams["channels"])
        if x.ndim != 5 or x.shape[1:3] != wanted:
            raise UserError(
                f"this model sees {wanted[0]} frames of {wanted[1]} channels, got a context of shape "
                f"{tuple(x.shape)} (batch, frames, channels, height, width)"
            )

    # -- training ----------------------------------------------------------------------------------------

    def inputs(self, batch: Batch) -> Tensor:
        """What `representation` takes of a batch: the context's frames, (B, T, C, H, W)."""
        x = batch["video"][:, : self.context_frames]
        self._check_context(x)
        return x

    def takes(self, data: Mapping[str, Any]) -> Inputs:
        """What `representation` takes, after a training on data of this description."""
        size = tuple(data.get("frame_shape", (None, None, None))[1:])
        shape = (self.context_frames, self.hparams["channels"], *size)
        return Inputs("video", ("frames", "channels", "height", "width"), shape, ("height", "width"))

    def split(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """x (B, T, C, H, W) and the next frame y (B, C, H, W)."""
        video = batch["video"]
        if video.shape[1] <= self.context_frames:
            raise UserError(
                f"clips have {video.shape[1]} frames, too few for {self.context_frames} of context and "
                "one to predict: lower context_frames or raise future_frames"
            )
        x = video[:, : self.context_frames]
        self._check_context(x)
        return x, video[:, self.context_frames]

    def _training_pair(self, video: Tensor) -> tuple[Tensor, Tensor]:
        """x and y of this step: clips (B, T, C, H, W), T of at least context_frames + 1 + self_fed."""
        at_most = self.hparams["self_fed"]
        x, y = self.split({"video": video})
        if video.shape[1] <= self.context_frames + at_most:
            raise UserError(
                f"self_fed is {at_most}, but training clips have {video.shape[1]} frames: set "
                f"data.future_frames to {at_most + 1}"
            )
        turn, odd = divmod(self.global_step, 2)
        fed = 1 + turn % at_most if odd and at_most else 0
        for step in range(fed):
            x = self._advance(x, y)
            y = video[:, self.context_frames + step + 1]
        return x, y

    @torch.no_grad()
    def _advance(self, x: Tensor, y: Tensor) -> Tensor:
        """The context one frame later, with the prediction nearest to y in the place of y."""
        h = self.energy.context(x)
        z = self.energy.infer(self.inference, y, h, self.draws).z
        frame = self.energy.decode(h, z[:, None]).clamp(0, 1)  # (B, 1, C, H, W)
        return torch.cat([x[:, 1:], frame], 1)

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        return self.watch(self.losses(*self._training_pair(batch["video"]), self.training_beta))

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, batch_idx, "val")

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._evaluate(batch, batch_idx, "test")

    @torch.inference_mode(False)
    @torch.no_grad()
    def _evaluate(self, batch: Batch, batch_idx: int, split: str) -> None:
        """Logs the loss at the final beta, and squared errors of predictions that do not know y."""
        # Inference by gradient steps takes no tensors that were made under inference_mode.
        x, y = self.split({"video": batch["video"].clone()})
        terms = self.losses(x, y, self.hparams["beta"])
        generator = item_generator(self, batch_idx)  # its own: the training's random state stays as it is
        error = (self.sample(x, 20, 1, generator)[:, :, 0] - y[:, None]).square().mean((2, 3, 4))  # (B, S)
        terms |= {"mse_of_one_sample": error[:, 0].mean(), "mse_best_of_20": error.amin(1).mean()}
        self.log_dict(
            {f"{split}/{name}": value for name, value in terms.items()}, batch_size=len(y), sync_dist=True
        )

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """16 next frames for every clip of the batch: (B, 16, 1, C, H, W)."""
        generator = item_generator(self, batch_idx)
        return self.sample(batch["video"][:, : self.context_frames], 16, 1, generator)

    def configure_optimizers(self) -> Any:
        settings = self.hparams
        return optimizer_with_cosine(self, settings["lr"], settings["weight_decay"], settings["warmup_steps"])
