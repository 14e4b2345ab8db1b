"""What the command `doctor` looks at: the installation, the bundled weights, and what the device computes."""
