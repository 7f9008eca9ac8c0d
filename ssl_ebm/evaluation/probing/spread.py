"""How much of its space a representation uses: figures that need no labels and show collapse."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import normalize


def rank_me(features: Tensor, epsilon: float = 1e-7) -> float:
    """Effective rank: exp of the entropy of the singular values s of the features (N, D).

        exp(-sum_k p_k log p_k),  p_k = s_k / sum_j s_j + epsilon

    From 1 (all features lie on a line) to min(N, D).

    Source: Garrido et al., "RankMe: assessing the downstream performance of pretrained self-supervised
    representations by their rank" (2023), equation 1.
    """
    values = torch.linalg.svdvals(features.double())
    share = values / values.sum().clamp_min(torch.finfo(values.dtype).tiny) + epsilon
    return float((-(share * share.log()).sum()).exp())


def lidar(views: Tensor, delta: float = 1e-4) -> float:
    """Effective rank of what tells pictures apart, against what augmentation changes.

        S_b: covariance of the objects' means; S_w: mean covariance around them, + delta;
        exp of the entropy of the eigenvalues of S_w^(-1/2) S_b S_w^(-1/2)

    Args:
        views: (N, V, D) features of V augmented views of each of N objects, V at least 2.
        delta: added to the diagonal of S_w.

    Source: Thilak et al., "LiDAR: sensing linear probing performance in joint embedding SSL architectures"
    (2024), equations 1 to 4.
    """
    views = views.double()
    means = views.mean(1)  # (N, D)
    between = torch.cov(means.T)
    inside = (views - means[:, None]).flatten(0, 1)
    within = inside.T @ inside / (views.shape[0] * (views.shape[1] - 1))
    within = within + delta * torch.eye(views.shape[2]).to(within)
    values, vectors = torch.linalg.eigh(within)
    root = vectors * values.clamp_min(1e-12).rsqrt() @ vectors.T
    spectrum = torch.linalg.eigvalsh(root @ between @ root).clamp_min(0)
    share = spectrum / spectrum.sum().clamp_min(torch.finfo(spectrum.dtype).tiny) + 1e-7
    return float((-(share * share.log()).sum()).exp())


def deviation(features: Tensor) -> float:
    """Mean standard deviation of the columns of normalised features, times sqrt(D): near 1 where they spread
    over the sphere, 0 where all are the same.

    Source: Chen & He, "Exploring simple Siamese representation learning" (2021), section 4.1.
    """
    return float(normalize(features, dim=1).std(0).mean() * features.shape[1] ** 0.5)


def alignment(views: Tensor) -> float:
    """Mean squared distance of two views of an object on the unit sphere: (N, V, D), the first two count.

    Source: Wang & Isola, "Understanding contrastive representation learning through alignment and uniformity
    on the hypersphere" (2020), section 4.1.
    """
    first, second = normalize(views, dim=2)[:, :2].unbind(1)
    return float((first - second).square().sum(1).mean())


def uniformity(features: Tensor, t: float = 2.0) -> float:
    """log of the mean of exp(-t |u - v|^2) over pairs on the unit sphere, (N, D): the lower, the more even;
    0 where all are the same.

    Source: as `alignment`.
    """
    return float(torch.pdist(normalize(features, dim=1).double()).square().mul(-t).exp().mean().log())
