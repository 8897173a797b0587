"""brickc: an ahead-of-time compiler for neural-network training steps."""
