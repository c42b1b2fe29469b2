"""What every other folder may use, and what uses none of them: errors, files, signals, the device, the batch."""
