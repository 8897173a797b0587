"""Kernel IR: what compilers lower graphs to, and all that backends see."""
