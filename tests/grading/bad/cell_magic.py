# 05-1: error-in-code, 0 of 2
# No Python, but a shell's script.
%%bash
echo 0.5
