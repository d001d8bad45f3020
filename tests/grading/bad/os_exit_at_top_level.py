# 05-1: crashed, 0 of 2
# Ends its process while its cell runs.
import os

os._exit(0)
