"""The recognisers that peers.py compares, each in a process of its own: `python -m recognisers.NAME JOB RESULT`."""
