"""What the suite "scale" measures: processes, shards, memory, checkpoints; and what many GPUs would need."""
