"""Networks, and the one seam into them (`control.py`)."""
