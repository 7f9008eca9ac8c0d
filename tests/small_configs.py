"""Models of configs that train in seconds, to be followed by more settings of theirs and by the rest."""

IMAGE_ENERGY = """\
model:
  class_path: ssl_ebm.tasks.DensityEstimation
  init_args:
    input: image
    energy: {class_path: ssl_ebm.networks.ImageEnergy, init_args: {size: [12, 12], width: 4, levels: 2}}
    objective: {class_path: ssl_ebm.energy.objectives.Margin, init_args: {noise: 0.3}}
    sampler:
      class_path: ssl_ebm.energy.sampling.Langevin
      init_args: {step_size: 0.01, noise: 0.1, low: 0.0, high: 1.0}
    start:
      class_path: ssl_ebm.energy.noise.UniformNoise
      init_args: {shape: [1, 12, 12], low: 0.0, high: 1.0}
"""
MASKED_LETTERS = """\
model:
  class_path: ssl_ebm.tasks.MaskedText
  init_args:
    network:
      class_path: ssl_ebm.networks.text.TextEncoder
      init_args: {vocabulary: 45, width: 16, depth: 1, heads: 2, length: 32}
"""
