"""What runs after compilation: executables, artifacts, training loops."""
