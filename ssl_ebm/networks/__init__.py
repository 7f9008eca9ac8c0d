"""Encoders, predictors and decoders: plain ``nn.Module``s that know no Lightning."""
