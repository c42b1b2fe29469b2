"""MaskMatch: semi-supervised semantic segmentation, with fused operators.

python -m maskmatch.train --fused       train
maskmatch.ops, maskmatch.nn             the operators on their own
maskmatch.method                        the method, for any training loop
"""
