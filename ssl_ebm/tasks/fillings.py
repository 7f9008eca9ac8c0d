"""What several hidden tokens of a text are together, which their marginals do not say."""

from __future__ import annotations

import torch
from torch import Tensor

from ssl_ebm.errors import UserError
from ssl_ebm.tasks.masked_text import MaskedText


@torch.no_grad()
def complete(task: MaskedText, tokens: Tensor, beam: int = 10) -> tuple[Tensor, Tensor]:
    """The likeliest fillings of all [MASK] of one text, by beam search.

        log p(y1, .., yM | x) = sum_m log p(y_m | x, y_1 .. y_(m-1))

    Places are filled in the order of the text. The order matters, for no joint distribution need have all
    the conditionals that a network was trained to give: another order can give another probability.

    Args:
        tokens: (T,) int64 with [MASK] at M >= 1 places.
        beam: fillings that are kept at each place; for M = 1 the result is exact.

    Returns:
        Texts (N, T), likeliest first, N <= beam, and log p of their fillings (N,).

    Raises:
        UserError: no [MASK], or a beam below 1.
    """
    places = _masks(task, tokens)
    if beam < 1:
        raise UserError(f"beam is {beam}: use at least 1")
    texts, total = tokens[None], torch.zeros(1, device=tokens.device)
    for place in places:
        log_p = task.log_p(texts, place)  # (N, V)
        joint = total[:, None] + log_p
        kept = min(beam, int(joint.isfinite().sum()))
        total, index = joint.flatten().topk(kept)
        texts = texts[index // log_p.shape[1]].clone()
        texts[:, place] = index % log_p.shape[1]
    return texts, total


@torch.no_grad()
def gibbs(
    task: MaskedText,
    tokens: Tensor,
    samples: int = 16,
    sweeps: int = 20,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Fillings of all [MASK] of one text, drawn by Gibbs sampling: (T,) -> (samples, T).

    Each place in turn is drawn from p(y_m | everything else), `sweeps` times; a first sweep fills the
    places in the order of the text.

    Raises:
        UserError: no [MASK], or a number below 1.

    Source: Wang and Cho, "BERT has a mouth, and it must speak" (2019).
    """
    places = _masks(task, tokens)
    if min(samples, sweeps) < 1:
        raise UserError(f"gibbs: samples {samples} and sweeps {sweeps}: use at least 1")
    texts = tokens.expand(samples, -1).clone()
    for _ in range(sweeps):
        for place in places:
            hidden = texts.clone()
            hidden[:, place] = task.special.mask
            p = task.log_p(hidden, place).exp()
            texts[:, place] = torch.multinomial(p, 1, generator=generator)[:, 0]
    return texts


def _masks(task: MaskedText, tokens: Tensor) -> list[int]:
    places: list[int] = (tokens == task.special.mask).nonzero()[:, 0].tolist()
    if not places:
        raise UserError("the text has no [MASK]: write one where a word is to be filled in")
    return places
