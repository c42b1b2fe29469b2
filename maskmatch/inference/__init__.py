"""What a run has learned, used: loading it, predicting with it, exporting it. Knows nothing of training."""
