"""Distances and figures of images and latents, which training and evaluation share."""
