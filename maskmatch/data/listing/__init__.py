"""Which images and masks a data set has, and which belong together."""
