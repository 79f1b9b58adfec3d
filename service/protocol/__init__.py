"""The Open Inference Protocol v2 on the wire: JSON documents with binary tails, and no server."""
