"""Repairs compressed networks: distillation, quantisation-aware training, reconstruction layer by layer."""
