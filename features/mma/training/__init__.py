"""Training of the MMA: batches, targets, losses, the trainer and its checkpoint."""
