"""LightningModules: one per pretext task."""
