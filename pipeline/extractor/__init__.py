"""Training and judging extractors: `train-mma`, `evaluate-mma`, renders, pseudo-labels."""
