"""The k greatest magnitudes of each row."""

from .kernel import topk_mask as topk_mask
