"""Training: labels, gradients, augmentation, process groups; makes checkpoints."""
