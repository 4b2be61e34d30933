"""Post-training methods: what rounding loses, repaired from weights and a few images, before training or without it."""
