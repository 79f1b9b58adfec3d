"""Layers and architectures."""
