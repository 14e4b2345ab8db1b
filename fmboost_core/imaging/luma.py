"""The weights of luma. Without Pillow, which an import of the core does not load."""

LUMA = (0.299, 0.587, 0.114)  # Rec. 601, as in Pillow's conversion to grey
