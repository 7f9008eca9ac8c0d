"""The inverse temperature beta."""

from ssl_ebm.errors import UserError


def check_beta(beta: float) -> None:
    """Raises UserError unless beta is above 0 (inf is allowed)."""
    if not beta > 0:
        raise UserError(f"beta must be above 0 (inf for the exact minimum), got {beta}")
