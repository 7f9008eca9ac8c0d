"""The theory in plain torch: energies, latents, inference, free energy.

Knows no image, no video, no text, no Lightning.
"""
