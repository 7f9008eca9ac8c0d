"""An attentive probe: a query that is learnt decides which tokens a class is read from."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from ssl_ebm.data.loading import check_least
from ssl_ebm.evaluation.isolation import generator_for
from ssl_ebm.evaluation.probing.results import (
    Classified,
    Samples,
    check_classes,
    classified,
    of_one_length,
)


class AttentivePooling(nn.Module):
    """Tokens (B, T, D) to scores of classes (B, C).

        a = softmax_t(q^T K x_t / sqrt(D / heads)) for each head,  scores = A LayerNorm(sum_t a_t V x_t) + b

    t runs over the tokens that are seen.

    Args:
        width: D.
        classes: C.
        heads: of the attention; the largest number up to this that divides D is taken.
        tokens: T, for the order of tokens: a learnt vector is added to each; 0: the order does not matter.

    Source: Chen et al., "Context autoencoder for self-supervised representation learning" (2022); Bardes et
    al., "Revisiting feature prediction for learning visual representations from video" (2024).
    """

    def __init__(self, width: int, classes: int, heads: int = 4, tokens: int = 0) -> None:
        super().__init__()
        self.heads = next(count for count in range(min(heads, width), 0, -1) if width % count == 0)
        self.norm = nn.LayerNorm(width)
        self.places = nn.Parameter(torch.zeros(tokens, width)) if tokens else None
        self.query = nn.Parameter(torch.randn(width) * width**-0.5)
        self.key_value = nn.Linear(width, 2 * width)
        self.scores = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, classes))

    def forward(self, tokens: Tensor, seen: Tensor | None = None) -> Tensor:
        """(B, T, D) -> (B, C).

        Args:
            seen: (B, T) bool, which tokens are looked at; None: all.
        """
        x = self.norm(tokens)
        if self.places is not None:
            x = x + self.places
        key, value = (
            self.key_value(x).unflatten(2, (2, self.heads, -1)).permute(2, 0, 3, 1, 4)
        )  # (B, H, T, d)
        query = self.query.view(1, self.heads, 1, -1).expand(len(x), -1, -1, -1)
        mask = None if seen is None else seen[:, None, None]
        read = nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)  # (B, H, 1, d)
        scores: Tensor = self.scores(read.flatten(1))
        return scores


def attentive_probe(
    train: Samples,
    test: Samples,
    epochs: int = 30,
    batch_size: int = 256,
    lr: float = 1e-3,
    weight_decay: float = 0.05,
    seed: int = 0,
) -> Classified:
    """`AttentivePooling`, trained by AdamW with a cosine on frozen tokens; the last epoch counts.

    Args:
        train, test: tokens (N, T, D) with classes; what is not `seen` does not count.
        epochs, batch_size, lr, weight_decay: of the training; an epoch holds at least ten steps.
        seed: of its weights and of the order of items.

    Raises:
        UserError: features or labels that cannot be probed, a setting out of its range.
    """
    check_least(epochs=(epochs, 1), batch_size=(batch_size, 1))
    if train.seen is not None and test.seen is not None:
        features = of_one_length([train.features, test.features])
        seen = of_one_length([train.seen, test.seen])
        train, test = (
            replace(one, features=x, seen=there)
            for one, x, there in zip((train, test), features, seen, strict=True)
        )
    classes = check_classes(train, test)
    tokens = train.of_seen()
    mean, deviation = tokens.mean(0), tokens.std(0).clamp_min(1e-6)
    generator = generator_for(seed)
    with torch.inference_mode(False), torch.random.fork_rng(), torch.enable_grad():
        torch.manual_seed(seed)
        head = AttentivePooling(train.features.shape[2], classes, tokens=train.features.shape[1])

        def scores(of: Samples, places: Tensor) -> Tensor:
            seen = None if of.seen is None else of.seen[places]
            found: Tensor = head((of.features[places] - mean) / deviation, seen)
            return found

        optimizer = torch.optim.AdamW(head.parameters(), lr=lr, weight_decay=weight_decay)
        batch_size = min(batch_size, max(1, len(train) // 10))
        steps = epochs * (len(train) // batch_size)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(epochs):
            for places in torch.randperm(len(train), generator=generator).split(batch_size):
                if len(places) == batch_size:
                    optimizer.zero_grad()
                    cross_entropy(scores(train, places), train.target[places], label_smoothing=0.1).backward()
                    optimizer.step()
                    schedule.step()
        with torch.no_grad():
            parts = torch.arange(len(test)).split(1024)
            predicted = torch.cat([scores(test, part).argmax(1) for part in parts])
    return classified(predicted, train, test, classes, {"epochs": epochs})
