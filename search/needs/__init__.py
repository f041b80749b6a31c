"""What a search will need of this machine: memory, disk, time; known before it begins."""
