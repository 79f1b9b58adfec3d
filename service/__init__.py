"""foldserve: convolutional networks served with their BatchNorms folded, proven, shown and watched."""

__version__ = "0.1.0"
