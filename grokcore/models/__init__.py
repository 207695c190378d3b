"""Models: plain PyTorch, one small file each."""
