"""The soak: minutes of mixed good and bad requests, every one of them accounted for (`make soak`)."""
