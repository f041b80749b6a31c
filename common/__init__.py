"""What the four packages share: the error tree, whole-file writes, digests."""
