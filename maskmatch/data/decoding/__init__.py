"""From files to arrays: images, masks, and what the values in masks mean."""
