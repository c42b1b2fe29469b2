"""What lies in a run's folder: checkpoints, config.yaml, environment.json. Training writes it, inference reads it."""
