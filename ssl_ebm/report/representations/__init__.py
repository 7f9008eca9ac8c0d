"""``ssl-ebm representations``: what pre-training is worth, beside raw inputs, random weights and scratch."""
