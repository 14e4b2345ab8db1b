"""Evaluation of models and images: metrics over photographs, intervals, tables and plots."""
